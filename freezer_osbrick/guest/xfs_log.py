# SPDX-License-Identifier: Apache-2.0
"""The log of XFS: whether anything in it waits to be written to its place.

It is not replayed here: that takes most of the kernel's XFS.
"""

from __future__ import annotations

from collections.abc import Callable

from freezer_osbrick.guest.filesystem import field

_BLOCK = 512
_RECORD = 0xFEEDBABE
_UNMOUNT = 0x20

# A record is rounded up to the stripe unit of the log: 256 KiB at most.
_LONGEST = 512


def is_clean(read: Callable[[int, int], bytes], start: int, length: int) -> bool:
    """Whether the file system was unmounted in order.

    :param start, length: of the log, in bytes of the file system.
    """
    blocks = length // _BLOCK

    def cycle(index: int) -> int:
        # The number of the round in which the log was written to there.
        data = read(start + index * _BLOCK, 8)
        first = field(">I", data, 0)
        return field(">I", data, 4) if first == _RECORD else first

    head = _head(cycle, blocks)
    for back in range(1, min(_LONGEST, blocks) + 1):
        index = (head - back) % blocks
        header = read(start + index * _BLOCK, _BLOCK)
        if field(">I", header, 0) != _RECORD:
            continue
        operations = field(">I", header, 40)
        if operations != 1:
            return False
        body = read(start + (index + 1) % blocks * _BLOCK, 16)
        return bool(body[9] & _UNMOUNT)
    return False


def _head(cycle: Callable[[int], int], blocks: int) -> int:
    """The block that is written next: where the number of the round falls."""
    newest = cycle(0)
    low, high = 0, blocks  # cycle(low) is the newest round, cycle(high) an older one
    while high - low > 1:
        middle = (low + high) // 2
        if cycle(middle) == newest:
            low = middle
        else:
            high = middle
    return high % blocks
