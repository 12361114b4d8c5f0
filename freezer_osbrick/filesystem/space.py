# SPDX-License-Identifier: Apache-2.0
"""The address space of a backup of files: where the content of each file lies.

A large file begins on a border of the repository's blocks, so that what is written to it changes no
other's blocks; small ones share blocks. What the parent has stays where it was.
"""

from __future__ import annotations

from collections.abc import Iterable

BLOCK = 64 << 10
_SLOT = 512
_REGION = 4 << 20  # of small files: what lies together in a folder is read and stored together


class Space:
    """Places for content that has none yet."""

    def __init__(self, used: Iterable[tuple[int, int]] = (), *, end: int | None = None) -> None:
        """:param used: ``(place, length)`` of what has a place, in any order; only looked at when
            a place is wanted, or the end and no ``end`` is given.
        :param end: where what is used ends, or later.
        """
        self._used = used
        self._is_laid = False
        self._gaps: list[tuple[int, int]] = []  # the first one last
        self._end = end or 0
        self._region = 0, 0
        if end is None:
            self._lay()

    @property
    def end(self) -> int:
        """Bytes of the address space: a multiple of the block."""
        return self._end

    def _lay(self) -> None:
        """Find the gaps."""
        if self._is_laid:
            return
        self._is_laid = True
        self._end = 0
        gaps = []
        for place, length in sorted(self._used):
            start = place // BLOCK * BLOCK
            if start > self._end:
                gaps.append((self._end, start))
            self._end = max(self._end, _up(place + length, BLOCK))
        self._gaps = gaps[::-1]

    def place(self, length: int) -> list[tuple[int, int]]:
        """Room for so many bytes: ``(place, length)`` of one or several pieces."""
        self._lay()
        if length < BLOCK:
            return [(self._small(_up(length, _SLOT)), length)]
        pieces = []
        while length:
            start, end = self._gaps.pop() if self._gaps else (self._end, self._end)
            if start == self._end:
                end = self._end = start + _up(length, BLOCK)
            taken = min(end - start, length)
            pieces.append((start, taken))
            length -= taken
            if start + _up(taken, BLOCK) < end:
                self._gaps.append((start + _up(taken, BLOCK), end))
        return pieces

    def whole(self, length: int) -> int:
        """The place of one piece at the end of the space."""
        self._lay()
        place = self._end
        self._end += _up(length, BLOCK)
        return place

    def _small(self, length: int) -> int:
        start, end = self._region
        if end - start < length:
            [(start, end)] = [self._gaps.pop()] if self._gaps else [(self._end, self._end)]
            if start == self._end:
                end = self._end = start + _REGION
            elif end - start > _REGION:
                self._gaps.append((start + _REGION, end))
                end = start + _REGION
        self._region = start + length, end
        return start


def room(place: int, length: int) -> int:
    """How long what lies at a place may become without meeting another."""
    return _up(length, BLOCK if length >= BLOCK and place % BLOCK == 0 else _SLOT)


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit
