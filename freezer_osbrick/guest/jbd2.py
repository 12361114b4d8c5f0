# SPDX-License-Identifier: Apache-2.0
"""The journal of ext3 and ext4: which blocks its committed transactions would write.

A snapshot of a file system in use is what a crash would have left. Its newest changes are in the
journal alone, and what lies elsewhere may be half of a change.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterator

from freezer_osbrick.guest.filesystem import BrokenFileSystem, field

_MAGIC = 0xC03B3998
_DESCRIPTOR, _COMMIT, _REVOKE = 1, 2, 5

_BITS_64 = 0x02
_CHECKSUM_2 = 0x08
_CHECKSUM_3 = 0x10
_FAST_COMMIT = 0x20

_ESCAPED = 1
_SAME_UUID = 2
_LAST_TAG = 8

_FAST_COMMIT_BLOCKS = 256  # unless the journal says otherwise

Changes = dict[int, Callable[[], bytes]]
"""By number of a block, what gives its new content."""


class Journal:
    """A journal.

    :ivar fast_commits: there is an area of fast commits, which is not read.
    """

    def __init__(self, block: Callable[[int], bytes], count: int) -> None:
        """:param block: the journal's blocks by number.
        :param count: of these blocks."""
        self._block = block
        start = block(0)
        magic, kind, _ = struct.unpack_from(">III", start)
        if magic != _MAGIC or kind not in (3, 4):
            raise BrokenFileSystem("its journal is broken")
        self._first, self._sequence, self._start = struct.unpack_from(">III", start, 20)
        self._features = field(">I", start, 40) if kind == 4 else 0
        self._end = min(field(">I", start, 16), count)
        self.fast_commits = bool(self._features & _FAST_COMMIT)
        if self.fast_commits:
            self._end -= field(">I", start, 84) or _FAST_COMMIT_BLOCKS
        if not 0 < self._first < self._end:
            raise BrokenFileSystem("its journal is broken")

    def changes(self) -> Changes:
        """The blocks of the file system that a replay would write."""
        found: dict[int, tuple[int, int, bool]] = {}  # transaction, place in the journal, escaped
        revoked: dict[int, int] = {}
        for sequence, tags, revocations in self._transactions():
            for number, place, escaped in tags:
                found[number] = (sequence, place, escaped)
            for number in revocations:
                revoked[number] = sequence
        return {
            number: functools.partial(self._content, place, escaped)
            for number, (sequence, place, escaped) in found.items()
            if sequence > revoked.get(number, -1)
        }

    def _content(self, place: int, escaped: bool) -> bytes:
        data = self._block(place)
        # A block that looks like one of the journal's own is stored without its first bytes.
        return struct.pack(">I", _MAGIC) + data[4:] if escaped else data

    def _transactions(self) -> Iterator[tuple[int, list[tuple[int, int, bool]], list[int]]]:
        """The committed ones: number, blocks that they write, blocks that they revoke."""
        place, sequence = self._start, self._sequence
        if not place:
            return
        tags: list[tuple[int, int, bool]] = []
        revoked: list[int] = []
        for _ in range(self._end):
            block = self._block(place)
            magic, kind, own = struct.unpack_from(">III", block)
            if magic != _MAGIC or own != sequence:
                return  # the end; what comes after it is from an earlier round
            place = self._after(place)
            if kind == _DESCRIPTOR:
                for number, flags in self._tags(block):
                    tags.append((number, place, bool(flags & _ESCAPED)))
                    place = self._after(place)
            elif kind == _REVOKE:
                revoked += self._revoked(block)
            elif kind == _COMMIT:
                yield sequence, tags, revoked
                tags, revoked = [], []
                sequence = (sequence + 1) & 0xFFFFFFFF
            else:
                return

    def _after(self, place: int) -> int:
        return self._first if place + 1 >= self._end else place + 1

    def _tags(self, block: bytes) -> Iterator[tuple[int, int]]:
        """Of the blocks that follow a descriptor: where they belong, and flags."""
        size = 16 if self._features & _CHECKSUM_3 else 8
        if not self._features & _CHECKSUM_3:
            size += 2 if self._features & _CHECKSUM_2 else 0
            size += 4 if self._features & _BITS_64 else 0
        place, flags = 12, 0
        while not flags & _LAST_TAG and place + size <= len(block):
            if self._features & _CHECKSUM_3:
                number, flags, high = struct.unpack_from(">III", block, place)
            else:
                number, _, flags = struct.unpack_from(">IHH", block, place)
                high = field(">I", block, place + 8) if self._features & _BITS_64 else 0
            if self._features & _BITS_64:
                number |= high << 32
            place += size if flags & _SAME_UUID else size + 16
            yield number, flags

    def _revoked(self, block: bytes) -> Iterator[int]:
        width = 8 if self._features & _BITS_64 else 4
        end = min(field(">I", block, 12), len(block))
        for place in range(16, end - width + 1, width):
            yield field(">Q" if width == 8 else ">I", block, place)
