# SPDX-License-Identifier: Apache-2.0
"""What the parent of a backup knows of a file system: its records, found by inode."""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO

from freezer_osbrick.filesystem.tree import NOT_A_LINK, extents

# Of a record: length, kind, (flags, mode, parent, uid, gid), link, inode, subvolume.
_HEAD = struct.Struct("<IB15xIQQ")
_LENGTH = struct.Struct("<I")

_COMPARED = 1 << 20


class Previous:
    """The records of one tree. They lie in a temporary file, so that memory grows slowly."""

    def __init__(
        self,
        records: Iterable[bytes] = (),
        *,
        newest: int | None = None,
        distrusted: Iterable[int] = (),
    ) -> None:
        """:param newest: no file with this ctime counts as unchanged: it may have been written to
            once more in the same tick of the guest's clock, after the snapshot.
        :param distrusted: numbers of records whose content was not fully read.
        """
        self.newest = newest
        self._file = tempfile.TemporaryFile(prefix="freezer-osbrick-")  # noqa: SIM115
        self._index: dict[int, int] = {}
        self._distrusted: set[int] = set()
        distrusted = set(distrusted)
        position = 0
        for number, record in enumerate(records):
            self._file.write(record)
            length, _, link, inode, subvolume = _HEAD.unpack_from(record)
            if link == NOT_A_LINK:
                self._index[subvolume << 64 | inode] = position
                if number in distrusted:
                    self._distrusted.add(position)
            position += length
        self._file.flush()
        self._data: mmap.mmap | bytes = b""
        if position:
            self._data = mmap.mmap(self._file.fileno(), position, access=mmap.ACCESS_READ)
        self.length = position

    def take(self, subvolume: int, inode: int) -> tuple[bytes, bool] | None:
        """The record of an inode, once, and whether its content was fully read."""
        position = self._index.pop(subvolume << 64 | inode, None)
        if position is None:
            return None
        return self._record(position), position not in self._distrusted

    def left(self) -> Iterator[tuple[int, int]]:
        """``(place, length)`` of the content of everything that was not taken."""
        for position in self._index.values():
            yield from _places(self._record(position))

    def all_extents(self) -> Iterator[tuple[int, int]]:
        """``(place, length)`` of all content."""
        position = 0
        while position < self.length:
            record = self._record(position)
            yield from _places(record)
            position += len(record)

    def equals(self, file: IO[bytes], length: int) -> bool:
        """Whether a file holds these very records."""
        return length == self.length and all(
            self._data[start : start + _COMPARED] == os.pread(file.fileno(), _COMPARED, start)
            for start in range(0, length, _COMPARED)
        )

    def close(self) -> None:
        if isinstance(self._data, mmap.mmap):
            self._data.close()
        self._file.close()

    def _record(self, position: int) -> bytes:
        (length,) = _LENGTH.unpack_from(self._data, position)
        return self._data[position : position + length]


def _places(record: bytes) -> Iterator[tuple[int, int]]:
    for _, place, length in extents(record):
        yield place, length
