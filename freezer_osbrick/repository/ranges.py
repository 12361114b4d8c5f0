# SPDX-License-Identifier: Apache-2.0
"""Reading many small things with few requests."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

# Reading a gap of this many bytes costs less than another request.
GAP = 128 * 1024

# A request for more would only hold more memory.
MOST = 8 * 1024 * 1024


@dataclasses.dataclass(frozen=True)
class Wanted:
    """A stored piece that somebody needs.

    :param pack: id of its pack.
    :param offset: where it begins in the pack, in bytes.
    :param length: its stored length in bytes.
    :param target: whatever the asker knows it by.
    """

    pack: bytes
    offset: int
    length: int
    target: int


@dataclasses.dataclass(frozen=True)
class Run:
    """Pieces that are read by one request: ``length`` bytes of a pack from ``offset`` on."""

    pack: bytes
    offset: int
    length: int
    pieces: list[Wanted]


def runs(wanted: Iterable[Wanted], *, gap: int = GAP, most: int = MOST) -> Iterator[Run]:
    """Group pieces by pack and neighbourhood."""
    by_pack: dict[bytes, list[Wanted]] = defaultdict(list)
    for piece in wanted:
        by_pack[piece.pack].append(piece)
    for pack, pieces in by_pack.items():
        pieces.sort(key=lambda piece: piece.offset)
        first = 0
        end = pieces[0].offset + pieces[0].length
        for index in range(1, len(pieces) + 1):
            if index < len(pieces):
                piece = pieces[index]
                new_end = max(end, piece.offset + piece.length)
                if piece.offset - end <= gap and new_end - pieces[first].offset <= most:
                    end = new_end
                    continue
            start = pieces[first].offset
            yield Run(pack, start, end - start, pieces[first:index])
            if index < len(pieces):
                first = index
                end = pieces[index].offset + pieces[index].length


def merge(parts: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges ``(offset, length)`` in order, neighbours joined."""
    merged: list[tuple[int, int]] = []
    for offset, length in sorted(parts):
        if merged and offset <= sum(merged[-1]):
            start = merged[-1][0]
            merged[-1] = (start, max(sum(merged[-1]), offset + length) - start)
        else:
            merged.append((offset, length))
    return merged


def common(
    some: Sequence[tuple[int, int]], others: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """What lies in ranges of both; each in order and without overlaps, as from :func:`merge`."""
    found = []
    mine = yours = 0
    while mine < len(some) and yours < len(others):
        begin = max(some[mine][0], others[yours][0])
        end = min(sum(some[mine]), sum(others[yours]))
        if begin < end:
            found.append((begin, end - begin))
        if sum(some[mine]) < sum(others[yours]):
            mine += 1
        else:
            yours += 1
    return found
