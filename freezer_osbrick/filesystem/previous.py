# SPDX-License-Identifier: Apache-2.0
"""What the parent of a backup knows of a file system: its records.

A walk meets what has not changed in the order in which the parent has it. So a record is looked for
behind the one that was taken last, and only what is not there needs an index of all inodes.
"""

from __future__ import annotations

import itertools
import mmap
import os
import struct
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import IO

from freezer_osbrick.filesystem.tree import FIXED, KINDS, NOT_A_LINK, Kind, TreeReader, extents

# Of a record, as tree.FIXED has it: length, link, inode, subvolume.
_HEAD = struct.Struct("<I16xIQQ")
# And: length, kind, parent, link, inode, subvolume, size, mtime, ctime, atime, bytes of the name.
_FACTS = struct.Struct("<IB3xI8xIQQQqqqH")
_PARENT, _PARENT_AT = struct.Struct("<I"), 8
_ATIME, _ATIME_AT = struct.Struct("<q"), 64
_LENGTH = struct.Struct("<I")

_COMPARED = 1 << 20
_FORMAT = 0o170000  # the bits of a mode that tell the kind
_KINDS = {mode: int(kind) for mode, kind in KINDS.items()}
_FOLDER, _FILE = int(Kind.FOLDER), int(Kind.FILE)

Named = tuple[bytes, os.stat_result | None, object]
"""A name in a folder, its status where there is one, and what else the walk knows of it."""


def key_of(subvolume: int, inode: int) -> int:
    """What an inode is found by."""
    return subvolume << 64 | inode


class Previous:
    """The records of one tree. They lie in a temporary file, so that memory grows slowly."""

    def __init__(
        self,
        pieces: Iterable[bytes] = (),
        *,
        newest: int | None = None,
        distrusted: Iterable[int] = (),
    ) -> None:
        """:param pieces: the tree, one after the other.
        :param newest: no file with this ctime counts as unchanged: it may have been written to
            once more in the same tick of the guest's clock, after the snapshot.
        :param distrusted: numbers of records whose content was not fully read.
        :raises errors.Damaged: the tree is not one. The other methods may find that too.
        """
        self.newest = newest
        self._file = tempfile.TemporaryFile(prefix="freezer-osbrick-")  # noqa: SIM115
        self.length = 0
        for piece in pieces:
            self.length += self._file.write(piece)
        self._file.flush()
        self._data: mmap.mmap | bytes = b""
        if self.length:
            self._data = mmap.mmap(self._file.fileno(), self.length, access=mmap.ACCESS_READ)
        self._next = 0  # until there is an index: all before this position was taken
        self._index: dict[int, int] | None = None
        self._distrusted = self._positions(frozenset(distrusted))

    def take_folder(
        self, found: Sequence[Named], number: int, subvolume: int, device: int
    ) -> bytes | None:
        """The records of all that is in a folder, once, if every file is as it was; what may differ
        is brought up to date. None if more differs, or cannot be told in this simple way.

        This is done for every file of an incremental backup, and what it takes is nearly all that
        a file takes which has not changed.

        :param found: in the order in which they are to stand in the tree.
        :param number: of the folder now.
        :param subvolume, device: that the folder belongs to.
        """
        first = found[0][1] if found else None
        start = self._position(key_of(subvolume, first.st_ino)) if first else None
        if start is None:
            return None
        position, data, newest, distrusted = start, self._data, self.newest, self._distrusted
        head, last = FIXED.size, self.length - FIXED.size
        outdated: list[tuple[int, int]] = []
        for name, status, _ in found:
            if status is None or position > last:
                return None
            length, kind, folder, link, inode, volume, size, mtime, ctime, atime, name_length = (
                _FACTS.unpack_from(data, position)
            )
            if (
                inode != status.st_ino
                or link != NOT_A_LINK
                or ctime != status.st_ctime_ns
                or mtime != status.st_mtime_ns
                or volume != subvolume
                or device != status.st_dev
                or kind != _KINDS.get(status.st_mode & _FORMAT)
                or (kind == _FILE and (size != status.st_size or ctime == newest))
                or (kind != _FOLDER and status.st_nlink > 1)
                or data[position + head : position + head + name_length] != name
                or position in distrusted
            ):
                return None
            if folder != number or atime != status.st_atime_ns:
                outdated.append((position - start, status.st_atime_ns))
            position += length
        if position > self.length:
            return None
        if self._index is None:
            self._next = position
        else:
            for _, status, _ in found:
                if status:
                    self._index.pop(key_of(subvolume, status.st_ino), None)
        if not outdated:
            return self._data[start:position]
        changed = bytearray(self._data[start:position])
        for place, atime in outdated:
            _bring_up_to_date(changed, place, number, atime)
        return bytes(changed)

    def take_same(self, key: int, name: bytes, parent: int, status: os.stat_result) -> bytes | None:
        """The record of an inode, once, that is as it was; what may differ is brought up to date.
        None if more differs, or it was not fully read.

        :param key: of ``key_of``.
        :param parent: number of its folder now.
        """
        position = self._position(key)
        if position is None:
            return None
        _, kind, folder, _, _, _, size, mtime, ctime, atime, name_length = _FACTS.unpack_from(
            self._data, position
        )
        name_at = position + FIXED.size
        if (
            ctime != status.st_ctime_ns
            or mtime != status.st_mtime_ns
            or kind != _KINDS.get(status.st_mode & _FORMAT)
            or (kind == _FILE and (size != status.st_size or ctime == self.newest))
            or self._data[name_at : name_at + name_length] != name
            or position in self._distrusted
        ):
            return None
        record = self.take(key)
        if record is None or folder == parent and atime == status.st_atime_ns:
            return record
        changed = bytearray(record)
        _bring_up_to_date(changed, 0, parent, status.st_atime_ns)
        return bytes(changed)

    def take(self, key: int) -> bytes | None:
        """The record of an inode, once."""
        position = self._position(key)
        if position is None:
            return None
        record = self._record(position)
        if self._index is None:
            self._next = position + len(record)
        else:
            del self._index[key]
        return record

    def _position(self, key: int) -> int | None:
        """Where the record of an inode begins that was not taken yet."""
        while self._index is None:
            if self._next + FIXED.size > self.length:
                self._index = self._indexed()
                break
            length, link, inode, subvolume = _HEAD.unpack_from(self._data, self._next)
            if link == NOT_A_LINK:
                if key_of(subvolume, inode) == key and self._next + length <= self.length:
                    return self._next
                self._index = self._indexed()
                break
            self._next += max(length, 1)  # nobody asks for further names
        return self._index.get(key)

    def _indexed(self) -> dict[int, int]:
        """Positions of the records that were not taken so far, by inode."""
        index = {}
        position = 0
        for record in self._records():
            length, link, inode, subvolume = _HEAD.unpack_from(record)
            if link == NOT_A_LINK and position >= self._next:
                index[key_of(subvolume, inode)] = position
            position += length
        return index

    def _positions(self, numbers: frozenset[int]) -> frozenset[int]:
        if not numbers:
            return frozenset()
        lengths = [0, *map(len, self._records())]
        starts = enumerate(itertools.accumulate(lengths))
        return frozenset(start for number, start in starts if number in numbers)

    def _records(self) -> Iterator[bytes]:
        return TreeReader(self._part, 0, self.length).records()

    def _part(self, start: int, length: int) -> bytes:
        return self._data[start : start + length]

    def left(self) -> Iterator[tuple[int, int]]:
        """``(place, length)`` of the content of everything that was not taken."""
        if self._index is None:
            self._index = self._indexed() if self._next < self.length else {}
        for position in self._index.values():
            yield from _places(self._record(position))

    def all_extents(self) -> Iterator[tuple[int, int]]:
        """``(place, length)`` of all content."""
        for record in self._records():
            yield from _places(record)

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


def _bring_up_to_date(records: bytearray, place: int, parent: int, atime: int) -> None:
    _PARENT.pack_into(records, place + _PARENT_AT, parent)
    _ATIME.pack_into(records, place + _ATIME_AT, atime)


def _places(record: bytes) -> Iterator[tuple[int, int]]:
    for _, place, length in extents(record):
        yield place, length
