# SPDX-License-Identifier: Apache-2.0
"""What the parent of a backup knows of a file system: its records, found by inode."""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO

from freezer_osbrick.filesystem.tree import FIXED, KINDS, NOT_A_LINK, Kind, extents

# Of a record, as tree.FIXED has it: length, kind, link, inode, subvolume.
_HEAD = struct.Struct("<IB15xIQQ")
# And: length, kind, parent, size, mtime, ctime, atime, bytes of the name.
_FACTS = struct.Struct("<IB3xI28xQqqqH")
_PARENT, _PARENT_AT = struct.Struct("<I"), 8
_ATIME, _ATIME_AT = struct.Struct("<q"), 64
_LENGTH = struct.Struct("<I")

_COMPARED = 1 << 20
_FORMAT = 0o170000  # the bits of a mode that tell the kind


def key_of(subvolume: int, inode: int) -> int:
    """What an inode is found by."""
    return subvolume << 64 | inode


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
                self._index[key_of(subvolume, inode)] = position
                if number in distrusted:
                    self._distrusted.add(position)
            position += length
        self._file.flush()
        self._data: mmap.mmap | bytes = b""
        if position:
            self._data = mmap.mmap(self._file.fileno(), position, access=mmap.ACCESS_READ)
        self.length = position

    def take_same(self, key: int, name: bytes, parent: int, status: os.stat_result) -> bytes | None:
        """The record of an inode, once, that is as it was; what may differ is brought up to date.
        None if more differs, or it was not fully read.

        This is done for every file of an incremental backup, and what it takes is all that a file
        takes which has not changed.

        :param key: of ``key_of``.
        :param parent: number of its folder now.
        """
        position = self._index.get(key)
        if position is None:
            return None
        length, kind, folder, size, mtime, ctime, atime, name_length = _FACTS.unpack_from(
            self._data, position
        )
        name_at = position + FIXED.size
        if (
            ctime != status.st_ctime_ns
            or mtime != status.st_mtime_ns
            or kind != KINDS.get(status.st_mode & _FORMAT)
            or (kind == Kind.FILE and (size != status.st_size or ctime == self.newest))
            or self._data[name_at : name_at + name_length] != name
            or position in self._distrusted
        ):
            return None
        del self._index[key]
        record = self._data[position : position + length]
        if folder == parent and atime == status.st_atime_ns:
            return record
        changed = bytearray(record)
        _PARENT.pack_into(changed, _PARENT_AT, parent)
        _ATIME.pack_into(changed, _ATIME_AT, status.st_atime_ns)
        return bytes(changed)

    def take(self, key: int) -> bytes | None:
        """The record of an inode, once."""
        position = self._index.pop(key, None)
        return None if position is None else self._record(position)

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
