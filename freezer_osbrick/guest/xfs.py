# SPDX-License-Identifier: Apache-2.0
"""XFS, versions 4 and 5, as its published algorithms and data structures describe it."""

from __future__ import annotations

import functools
import stat
import struct
from collections.abc import Iterator
from typing import NamedTuple

from freezer_osbrick.guest import xfs_attributes, xfs_log
from freezer_osbrick.guest.filesystem import (
    NANO,
    PIECE,
    POSIX_ACL,
    BrokenFileSystem,
    FileSystem,
    Node,
    Read,
    field,
    posix_acl,
)

_FTYPE_4 = 0x200  # in features2 of version 4
_FTYPE_5 = 0x1  # in the incompatible features of version 5
# What a reader must know of version 5: ftype, spinodes, meta_uuid, bigtime, needsrepair, nrext64,
# exchange range, parent pointers.
_KNOWN = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x20 | 0x40 | 0x80
_BIG_TIME = 1 << 3
_MANY_EXTENTS = 1 << 4
_BIG_TIME_EPOCH = 1 << 31  # seconds before 1970

_LOCAL, _EXTENTS, _BTREE = 1, 2, 3
_LEAVES = 1 << 35  # from here on a folder holds its index, not its names
_UNUSED = 0xFFFF
_BLOCK_FOLDERS = (b"XD2B", b"XDB3")
_DATA_FOLDERS = (b"XD2D", b"XDD3")
_SYMLINK_HEADER = 56
_MOST_DEPTH = 9

_ROOT_NAMES = {b"SGI_ACL_FILE": "access", b"SGI_ACL_DEFAULT": "default"}


class Extent(NamedTuple):
    """A written piece of a file.

    :param start: its first block in the file.
    :param block: its first block of the file system, which counts by allocation group.
    :param length: in blocks.
    """

    start: int
    block: int
    length: int


class Xfs(FileSystem):
    """An XFS file system without its log."""

    kind = "xfs"

    def __init__(self, read: Read) -> None:
        super().__init__(read)
        self._raw = functools.lru_cache(maxsize=4096)(self._load_inode)
        block = self.bytes_at(0, 512)
        if not block.startswith(b"XFSB"):
            raise BrokenFileSystem("it is no XFS file system")
        self.block_size = field(">I", block, 4)
        self._root_inode = field(">Q", block, 56)
        self._group_blocks, self._group_count = struct.unpack_from(">II", block, 84)
        version = field(">H", block, 100)
        self._inode_size = field(">H", block, 104)
        self._per_block_log = block[123]
        self._group_log = block[124]
        self._folder_block = self.block_size << block[192]
        self.has_checksums = version & 0xF == 5
        self._inode_header = 176 if self.has_checksums else 100
        if self.has_checksums:
            incompat = field(">I", block, 216)
            if unknown := incompat & ~_KNOWN:
                raise BrokenFileSystem(
                    f"it has features that this reader does not know ({unknown:#x})"
                )
            self._has_types = bool(incompat & _FTYPE_5)
        else:
            self._has_types = bool(field(">I", block, 200) & _FTYPE_4)
        if (
            not 512 <= self.block_size <= 65536
            or not 256 <= self._inode_size <= 2048
            or self._group_log > 31
            or self._per_block_log > 8
            or self._folder_block > 65536
        ):
            raise BrokenFileSystem("its superblock makes no sense")
        start, length = field(">Q", block, 48), field(">I", block, 96)
        if start and not xfs_log.is_clean(
            self.bytes_at, self._place(start), length * self.block_size
        ):
            self.notes.append(
                "The file system was in use: what had been written in the last seconds before the"
                " backup may be in its journal only, which is not read."
            )

    def _root(self) -> Node:
        return self._node(self._root_inode)

    def _names(self, folder: Node) -> Iterator[tuple[bytes, int]]:
        raw = folder.handle
        return self._short_names(raw) if raw[5] == _LOCAL else self._long_names(raw)

    def _content(self, file: Node) -> Iterator[tuple[int, bytes]]:
        step = max(PIECE // self.block_size, 1)
        for extent in self._extents(file.handle):
            for done in range(0, extent.length, step):
                start = (extent.start + done) * self.block_size
                length = min(step, extent.length - done) * self.block_size
                yield start, self.bytes_at(self._place(extent.block, done), length)

    def _target(self, symlink: Node) -> bytes:
        raw = symlink.handle
        if raw[5] == _LOCAL:
            return self._data_fork(raw)[: symlink.size]
        parts: list[bytes] = []
        for extent in self._extents(raw):
            for index in range(min(extent.length, 16)):
                block = self.bytes_at(self._place(extent.block, index), self.block_size)
                if self.has_checksums:
                    if not block.startswith(b"XSLM"):
                        break
                    block = block[_SYMLINK_HEADER : _SYMLINK_HEADER + field(">I", block, 8)]
                parts.append(block)
        target = b"".join(parts)[: symlink.size]
        if len(target) != symlink.size:
            raise BrokenFileSystem("a symbolic link is broken")
        return target

    def _xattrs(self, node: Node) -> Iterator[tuple[bytes, bytes]]:
        raw = node.handle
        if not raw[82]:
            return
        fork = raw[self._inode_header + raw[82] * 8 :]
        if raw[83] == _LOCAL:
            stored = xfs_attributes.short_form(fork)
        else:
            extents = list(self._mapped(raw[83], fork, self._attribute_extents(raw)))
            stored = xfs_attributes.leaves(self, extents) if extents else iter(())
        for name, value in stored:
            acl = _ROOT_NAMES.get(name.removeprefix(b"trusted."))
            if acl and name.startswith(b"trusted."):
                yield POSIX_ACL[acl], _acl(value)
            else:
                yield name, value

    def block_of(self, extents: list[Extent], index: int) -> bytes:
        """Block ``index`` of what the extents hold."""
        for extent in extents:
            if extent.start <= index < extent.start + extent.length:
                return self.bytes_at(
                    self._place(extent.block, index - extent.start), self.block_size
                )
        raise BrokenFileSystem("a structure has a hole")

    # -- inodes ----------------------------------------------------------------------------------

    def _place(self, block: int, more: int = 0) -> int:
        """Where a block lies, in bytes."""
        group, index = block >> self._group_log, block & ((1 << self._group_log) - 1)
        if group >= self._group_count or index >= self._group_blocks:
            raise BrokenFileSystem("it leads beyond its own end")
        return (group * self._group_blocks + index + more) * self.block_size

    def _load_inode(self, number: int) -> bytes:
        """An inode's bytes."""
        slot = number & ((1 << self._per_block_log) - 1)
        place = self._place(number >> self._per_block_log) + slot * self._inode_size
        raw = self.bytes_at(place, self._inode_size)
        if not raw.startswith(b"IN"):
            raise BrokenFileSystem(f"there is no inode {number}")
        return raw

    def _node(self, number: int) -> Node:
        raw = self._raw(number)
        mode = field(">H", raw, 2)
        if not mode:
            raise BrokenFileSystem(f"inode {number} is not in use")
        uid, gid, links = struct.unpack_from(">III", raw, 8)
        big = raw[4] >= 3 and bool(field(">Q", raw, 120) & _BIG_TIME)
        device = (0, 0)
        if stat.S_IFMT(mode) in (stat.S_IFCHR, stat.S_IFBLK):
            stored = field(">I", raw, self._inode_header)
            device = stored >> 18 & 0x3FFF, stored & 0x3FFFF
        return Node(
            inode=(number,),
            mode=mode,
            uid=uid,
            gid=gid,
            size=field(">Q", raw, 56),
            links=links if raw[4] > 1 else field(">H", raw, 6),
            mtime=_time(raw, 40, big),
            ctime=_time(raw, 48, big),
            atime=_time(raw, 32, big),
            device=device,
            handle=raw,
        )

    def _data_fork(self, raw: bytes) -> bytes:
        end = self._inode_header + raw[82] * 8 if raw[82] else len(raw)
        return raw[self._inode_header : end]

    def _many(self, raw: bytes) -> bool:
        return raw[4] >= 3 and bool(field(">Q", raw, 120) & _MANY_EXTENTS)

    def _attribute_extents(self, raw: bytes) -> int:
        return field(">I", raw, 76) if self._many(raw) else field(">H", raw, 80)

    # -- where blocks lie ------------------------------------------------------------------------

    def _extents(self, raw: bytes) -> Iterator[Extent]:
        """The written extents of an inode's content."""
        count = field(">Q", raw, 24) if self._many(raw) else field(">I", raw, 76)
        return self._mapped(raw[5], self._data_fork(raw), count)

    def _mapped(self, layout: int, fork: bytes, count: int) -> Iterator[Extent]:
        if layout == _EXTENTS:
            yield from _records(fork, 0, count)
        elif layout == _BTREE:
            level, pointers = field(">H", fork, 0), (len(fork) - 4) // 16
            yield from self._below(fork, 4, pointers, level)
        else:
            raise BrokenFileSystem("an inode keeps its content in an unknown way")

    def _below(self, node: bytes, keys_at: int, most: int, level: int) -> Iterator[Extent]:
        """What the blocks below a node of the tree of extents hold."""
        count = field(">H", node, 2 if keys_at == 4 else 6)
        if not 0 < level <= _MOST_DEPTH or count > most:
            raise BrokenFileSystem("a tree of extents is broken")
        header = 72 if self.has_checksums else 24
        for index in range(count):
            pointer = field(">Q", node, keys_at + (most + index) * 8)
            block = self.bytes_at(self._place(pointer), self.block_size)
            if block[:4] not in (b"BMAP", b"BMA3") or field(">H", block, 4) != level - 1:
                raise BrokenFileSystem("a tree of extents is broken")
            if level == 1:
                yield from _records(block, header, field(">H", block, 6))
            else:
                most_below = (self.block_size - header) // 16
                yield from self._below(block, header, most_below, level - 1)

    # -- folders ---------------------------------------------------------------------------------

    def _short_names(self, raw: bytes) -> Iterator[tuple[bytes, int]]:
        fork = self._data_fork(raw)
        count, wide = struct.unpack_from("BB", fork)
        layout, width = (">Q", 8) if wide else (">I", 4)
        place = 2 + width
        for _ in range(wide or count):
            length = field("B", fork, place)
            end = place + 3 + length
            yield fork[place + 3 : end], field(layout, fork, end + self._has_types)
            place = end + self._has_types + width

    def _long_names(self, raw: bytes) -> Iterator[tuple[bytes, int]]:
        extents = list(self._extents(raw))
        each = self._folder_block // self.block_size
        limit = _LEAVES // self.block_size
        following = 0
        for extent in extents:
            for block in range(extent.start, min(extent.start + extent.length, limit)):
                if block >= following:  # a block of the folder may lie in several extents
                    start = block // each * each
                    following = start + each
                    parts = [self.block_of(extents, start + index) for index in range(each)]
                    yield from self._block_names(b"".join(parts))

    def _block_names(self, block: bytes) -> Iterator[tuple[bytes, int]]:
        place = 64 if self.has_checksums else 16
        end = len(block)
        if block[:4] in _BLOCK_FOLDERS:
            end -= 8 + 8 * field(">I", block, len(block) - 8)
        elif block[:4] not in _DATA_FOLDERS:
            raise BrokenFileSystem("a block of a folder is broken")
        while place + 8 <= end:
            if field(">H", block, place) == _UNUSED:
                step = field(">H", block, place + 2)
                if step < 8:
                    raise BrokenFileSystem("a block of a folder is broken")
                place += step
                continue
            number, length = struct.unpack_from(">QB", block, place)
            yield block[place + 9 : place + 9 + length], number
            place += -(-(9 + length + self._has_types + 2) // 8) * 8


def _records(data: bytes, place: int, count: int) -> Iterator[Extent]:
    if place + count * 16 > len(data):
        raise BrokenFileSystem("a list of extents is too long")
    for first, second in struct.iter_unpack(">QQ", data[place : place + count * 16]):
        if not first >> 63:  # reserved, never written
            start = first >> 9 & ((1 << 54) - 1)
            block = (first & 0x1FF) << 43 | second >> 21
            yield Extent(start, block, second & ((1 << 21) - 1))


def _time(raw: bytes, place: int, big: bool) -> int:
    if big:
        return field(">Q", raw, place) - _BIG_TIME_EPOCH * NANO
    seconds, nano = struct.unpack_from(">ii", raw, place)
    return seconds * NANO + nano


def _acl(stored: bytes) -> bytes:
    count = field(">I", stored, 0)
    if len(stored) < 4 + count * 12:
        raise BrokenFileSystem("an ACL is broken")
    entries = []
    for index in range(count):
        tag, identifier, permissions = struct.unpack_from(">IIH", stored, 4 + index * 12)
        entries.append((tag, permissions, identifier))
    return posix_acl(entries)
