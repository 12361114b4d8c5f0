# SPDX-License-Identifier: Apache-2.0
"""What is known of a volume without reading it."""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Iterable, Iterator


class Extents:
    """Ranges of a volume, in bytes."""

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        """:param ranges: ``(offset, length)`` each, in any order; they may overlap."""
        self._starts: list[int] = []
        self._ends: list[int] = []
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
