# SPDX-License-Identifier: Apache-2.0
"""Writing large files past the page cache.

What is stored is not soon read again. Taken through the page cache it would drive out what others
keep there, and cost more processor time than hashing it: a page is allocated for every 4 KiB,
filled, and written out later while everybody waits for the disk.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Iterable

from freezer_osbrick.store.base import Buffer

# Bytes written at once: enough for disks, few for memory.
_PIECE = 1 << 20


def write_all(descriptor: int, parts: Iterable[Buffer]) -> int:
    """Write the parts one after the other to a new file; their number of bytes.

    Whole pieces go past the page cache where the file system does that; the rest at the end, and
    small files, go through it. Nothing is synced.
    """
    # Memory of the kernel's own is aligned, as direct writing wants it.
    piece = memoryview(mmap.mmap(-1, _PIECE))
    size = filled = 0
    direct = False
    for part in parts:
        rest = memoryview(part).cast("B")
        while len(rest):
            count = min(len(rest), _PIECE - filled)
            piece[filled : filled + count] = rest[:count]
            rest = rest[count:]
            filled += count
            if filled == _PIECE:
                direct = (direct or not size) and _set_direct(descriptor, True)
                direct = _write(descriptor, piece, direct)
                size += filled
                filled = 0
    if direct:
        _set_direct(descriptor, False)
    _write(descriptor, piece[:filled], False)
    return size + filled


def _write(descriptor: int, data: memoryview, direct: bool) -> bool:
    """Write all of the data; whether it could be done directly."""
    done = 0
    while done < len(data):
        try:
            done += os.write(descriptor, data[done:])
        except OSError as error:
            if error.errno != errno.EINVAL or not direct:
                raise
            # Another alignment is wanted than ours, or a short write has spoilt it.
            direct = _set_direct(descriptor, False)
    return direct


def _set_direct(descriptor: int, direct: bool) -> bool:
    """Have the file written directly or not; whether it is from now on."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL) & ~os.O_DIRECT
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT if direct else flags)
    except OSError:  # the file system cannot
        return False
    return direct
