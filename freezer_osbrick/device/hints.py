# SPDX-License-Identifier: Apache-2.0
"""What is known of a volume without reading it."""

from __future__ import annotations

import array
import bisect
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

# What a storage must be told to say, later, what has changed since: ``kind`` of storage, and what
# that kind needs. Goes into JSON.
Mark = Mapping[str, Any]


class Extents:
    """Ranges of a volume, in bytes."""

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        """:param ranges: ``(offset, length)`` each, in any order; they may overlap."""
        self._starts = array.array("Q")
        self._ends = array.array("Q")
        for offset, length in sorted(ranges):
            if length <= 0:
                continue
            if self._ends and offset <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], offset + length)
            else:
                self._starts.append(offset)
                self._ends.append(offset + length)

    def cover(self, offset: int, length: int) -> bool:
        """Whether the whole of a range lies in one of them."""
        index = bisect.bisect_right(self._starts, offset) - 1
        return index >= 0 and offset + length <= self._ends[index]

    def touch(self, offset: int, length: int) -> bool:
        """Whether any byte of a range lies in one of them."""
        index = bisect.bisect_left(self._starts, offset + length) - 1
        return index >= 0 and self._ends[index] > offset

    def complement(self, size: int) -> Extents:
        """What of the first ``size`` bytes lies in none of them."""
        starts = [0, *self._ends]
        ends = [*self._starts, size]
        return Extents(
            (start, min(end, size) - start) for start, end in zip(starts, ends, strict=True)
        )

    @property
    def total(self) -> int:
        """Bytes in all of them."""
        return sum(self._ends) - sum(self._starts)

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((start, end - start) for start, end in zip(self._starts, self._ends, strict=True))


class Gathering:
    """Ranges as they are told one by one, in bounded memory: where they become too many, those that
    lie close together grow into one. So it may hold more than was told, and never less.

    :param grain: bytes; ranges less than that apart are one.
    :param most: ranges that are kept apart.
    """

    def __init__(self, grain: int = 1 << 16, most: int = 1 << 17) -> None:
        self._grain = grain
        self._most = most
        self._starts = array.array("Q")
        self._ends = array.array("Q")

    def add(self, offset: int, length: int) -> None:
        """One more range, in bytes. In the order of the volume they stay the fewest."""
        if length <= 0:
            return
        if self._ends and self._starts[-1] <= offset < self._ends[-1] + self._grain:
            self._ends[-1] = max(self._ends[-1], offset + length)
            return
        self._starts.append(offset)
        self._ends.append(offset + length)
        while len(self._starts) > self._most:
            self._grain *= 2
            self._merge()

    def extents(self) -> Extents:
        """What was told so far, and perhaps what lies between."""
        pairs = zip(self._starts, self._ends, strict=True)
        return Extents((start, end - start) for start, end in pairs)

    def _merge(self) -> None:
        starts, ends = self._starts, self._ends
        self._starts, self._ends = array.array("Q"), array.array("Q")
        for start, end in sorted(zip(starts, ends, strict=True)):
            if self._ends and start < self._ends[-1] + self._grain:
                self._ends[-1] = max(self._ends[-1], end)
            else:
                self._starts.append(start)
                self._ends.append(end)


@dataclasses.dataclass(frozen=True)
class FrozenState:
    """A volume at one instant, by Cinder's ids: what a device shows that was made of a snapshot.

    :param volume_id: of the volume that was frozen.
    """

    volume_id: str
    snapshot_id: str


@dataclasses.dataclass(frozen=True)
class Hints:
    """What a backup need not read.

    :param zeros: reads as zeros.
    :param unchanged: holds what the parent of the backup holds at the same place. Of no use without
        a parent.
    """

    zeros: Extents = dataclasses.field(default_factory=Extents)
    unchanged: Extents = dataclasses.field(default_factory=Extents)


NO_HINTS = Hints()
