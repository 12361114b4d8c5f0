# SPDX-License-Identifier: Apache-2.0
"""Where the content of files lies: the data between a file's holes, and its places in the address
space."""

from __future__ import annotations

import array
import dataclasses
import errno
import os

from freezer_osbrick.filesystem import space as spaces
from freezer_osbrick.filesystem.space import Space
from freezer_osbrick.filesystem.tree import Extent

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclasses.dataclass
class Content:
    """Where the content of the files lies: piece by piece, in four columns.

    :ivar places, starts, lengths: as of :class:`tree.Extent`.
    :ivar owners: numbers of entries.
    """

    places: array.array[int] = dataclasses.field(default_factory=lambda: array.array("Q"))
    starts: array.array[int] = dataclasses.field(default_factory=lambda: array.array("Q"))
    lengths: array.array[int] = dataclasses.field(default_factory=lambda: array.array("Q"))
    owners: array.array[int] = dataclasses.field(default_factory=lambda: array.array("L"))

    def add(self, number: int, start: int, place: int, length: int) -> None:
        self.places.append(place)
        self.starts.append(start)
        self.lengths.append(length)
        self.owners.append(number)


def data_ranges(where: bytes, size: int) -> list[tuple[int, int]]:
    """``(start, end)`` of what is not hole in a file, rounded to blocks."""
    found: list[tuple[int, int]] = []
    descriptor = os.open(where, _FILE)
    try:
        end = 0
        while end < size:
            try:
                start = os.lseek(descriptor, end, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but a hole follows
                    break
                if error.errno == errno.EINVAL:  # it cannot tell
                    return [(0, size)]
                raise
            end = os.lseek(descriptor, start, os.SEEK_HOLE)
            first = start // spaces.BLOCK * spaces.BLOCK
            last = min(-(-end // spaces.BLOCK) * spaces.BLOCK, size)
            if found and first <= found[-1][1]:
                first = found.pop()[0]
            found.append((first, last))
    finally:
        os.close(descriptor)
    return found


def placed(
    ranges: list[tuple[int, int]], before: tuple[Extent, ...], size: int, space: Space
) -> tuple[Extent, ...]:
    """The content of a file: where the parent has it, where it has, and the rest in new places."""
    if size < spaces.BLOCK and (len(before) > 1 or before and size > _room(before[0])):
        before = ()  # a small file that has outgrown its place moves as a whole
    kept: list[Extent] = []
    for index, extent in enumerate(before):
        end = extent.start + _room(extent)
        following = before[index + 1].start if index + 1 < len(before) else size
        end = min(end, max(following, extent.start + extent.length), size)
        wanted = any(start < end and extent.start < stop for start, stop in ranges)
        if extent.start < end and wanted:
            kept.append(Extent(extent.start, extent.place, end - extent.start))
    new: list[Extent] = []
    covered = [*kept, Extent(size, 0, 0)]
    for start, stop in ranges:
        position = start
        for extent in covered:
            if position < min(extent.start, stop):
                new += _new(position, min(extent.start, stop), space)
            position = max(position, extent.start + extent.length)
    return tuple(sorted([*kept, *new], key=lambda one: one.start))


def _new(start: int, end: int, space: Space) -> list[Extent]:
    found = []
    for place, length in space.place(end - start):
        found.append(Extent(start, place, length))
        start += length
    return found


def _room(extent: Extent) -> int:
    return spaces.room(extent.place, extent.length)
