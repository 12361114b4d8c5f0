# SPDX-License-Identifier: Apache-2.0
"""Whether a folder holds what the tree of a backup says."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator

from freezer_osbrick.filesystem.syscalls import open_beneath
from freezer_osbrick.filesystem.tree import KINDS, Entry, Kind

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PIECE = 1 << 20


def compare(
    entries: Iterable[tuple[bytes, Entry]],
    read: Callable[[int, int], bytes],
    root: int,
    step: Callable[[int], object] = lambda _: None,
) -> Iterator[tuple[bytes, str]]:
    """Paths of what differs, and in what.

    :param entries, read, root, step: as of :class:`restoring.Restoring`.
    """
    for path, entry in entries:
        if not entry.number:
            continue
        try:
            differs = _differs(path, entry, read, root)
        except OSError as error:
            differs = str(error.strerror)
        if differs:
            yield path, differs
        step(entry.content_size)


def _differs(path: bytes, entry: Entry, read: Callable[[int, int], bytes], root: int) -> str:
    descriptor = open_beneath(root, path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if KINDS.get(stat.S_IFMT(status.st_mode)) is not entry.kind:
            return "it is of another kind"
        if (status.st_uid, status.st_gid) != (entry.uid, entry.gid):
            return "it has another owner"
        if entry.kind is not Kind.SYMLINK and stat.S_IMODE(status.st_mode) != entry.mode:
            return "it has another mode"
        if status.st_mtime_ns != entry.mtime:
            return "it has another time"
        if entry.kind is Kind.SYMLINK and os.readlink(b"", dir_fd=descriptor) != entry.target:
            return "it leads elsewhere"
    finally:
        os.close(descriptor)
    if entry.kind is Kind.FILE and not entry.is_link:
        return _content_differs(path, entry, read, root)
    return ""


def _content_differs(
    path: bytes, entry: Entry, read: Callable[[int, int], bytes], root: int
) -> str:
    descriptor = open_beneath(root, path, _FILE)
    try:
        if os.fstat(descriptor).st_size != entry.size:
            return "it has another size"
        found = {os.fsencode(name) for name in os.listxattr(descriptor)}
        for name, value in entry.xattrs:
            if name not in found or os.getxattr(descriptor, name) != value:
                return f"its attribute {os.fsdecode(name)} differs"
        end = 0
        for extent in (*entry.extents, None):
            start = extent.start if extent else entry.size
            for offset in range(end, start, _PIECE):
                if os.pread(descriptor, min(_PIECE, start - offset), offset).strip(b"\0"):
                    return "it has other content"
            if extent is None:
                break
            for offset in range(0, extent.length, _PIECE):
                length = min(_PIECE, extent.length - offset)
                there = os.pread(descriptor, length, extent.start + offset)
                if there != read(extent.place + offset, length):
                    return "it has other content"
            end = extent.start + extent.length
        return ""
    finally:
        os.close(descriptor)
