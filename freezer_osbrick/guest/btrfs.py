# SPDX-License-Identifier: Apache-2.0
"""btrfs on one device, as its documented on-disk format describes it.

Subvolumes and snapshots appear as folders where they stand in the tree, as they do when all of the
file system is mounted.
"""

from __future__ import annotations

import functools
import stat
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import zstandard

from freezer_osbrick.guest import lzo
from freezer_osbrick.guest.filesystem import (
    NANO,
    PIECE,
    BrokenFileSystem,
    FileSystem,
    Node,
    Read,
    field,
)

_SUPERBLOCK = 65536
_MAGIC = b"_BHRfS_M"
_SYSTEM_CHUNKS = 811

_INODE, _XATTR, _DIR_INDEX, _EXTENT, _ROOT, _CHUNK = 1, 24, 96, 108, 132, 228
_FS_TREE, _FIRST_FILE = 5, 256
_MOST = (1 << 64) - 1
# The profiles that lie on one device as if there were none: single, DUP, and RAID0 of one stripe.
_SPREAD = 0x10 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400

_KEY = struct.Struct("<QBQ")
_ITEM = struct.Struct("<QBQII")
_POINTER = struct.Struct("<QBQQQ")
_HEADER = 101
_INLINE, _PREALLOCATED = 0, 2
_INLINE_AT = 21
_NONE, _ZLIB, _LZO, _ZSTD = 0, 1, 2, 3
_MOST_COMPRESSED = 128 << 10
_MOST_DEPTH = 8

# All features that a kernel knows today but the second version of the extent tree, the stripe tree
# and encryption.
_KNOWN = 0xFFF | 0x1000 | 0x10000


class Key(NamedTuple):
    """What an item in a tree is sorted and found by."""

    object: int
    type: int
    offset: int


class Chunk(NamedTuple):
    """A range of logical addresses and where it lies on the device, in bytes."""

    logical: int
    length: int
    place: int


class Btrfs(FileSystem):
    """A btrfs file system without its log."""

    kind = "btrfs"

    def __init__(self, read: Read) -> None:
        super().__init__(read)
        self._tree_node = functools.lru_cache(maxsize=512)(self._load_tree_node)
        block = self.bytes_at(_SUPERBLOCK, 4096)
        if block[64:72] != _MAGIC:
            raise BrokenFileSystem("it is no btrfs file system")
        root, chunk_root, log_root = struct.unpack_from("<QQQ", block, 80)
        self._node_size = field("<I", block, 148)
        incompat = field("<Q", block, 188)
        if unknown := incompat & ~_KNOWN:
            raise BrokenFileSystem(f"it has features that this reader does not know ({unknown:#x})")
        if field("<Q", block, 136) != 1:
            raise BrokenFileSystem("it spans several volumes")
        if not 4096 <= self._node_size <= 65536:
            raise BrokenFileSystem("its superblock makes no sense")
        if log_root:
            self.notes.append(
                "The file system was in use: files that were synced in the last seconds before the"
                " backup may be in its log only, which is not read."
            )
        self._device = field("<Q", block, 201)
        self._chunks = self._system_chunks(block)
        self._chunks = self._all_chunks(chunk_root)
        self._root_tree = root
        self._trees: dict[int, int] = {}

    def _root(self) -> Node:
        return self._node((_FS_TREE, _FIRST_FILE))

    def _names(self, folder: Node) -> Iterator[tuple[bytes, tuple[int, int]]]:
        tree, number = folder.handle
        for _, data in self._items(tree, number, _DIR_INDEX):
            for target, name, _ in _named(data):
                if target.type == _ROOT:
                    yield name, (target.object, _FIRST_FILE)
                else:
                    yield name, (tree, target.object)

    def _content(self, file: Node) -> Iterator[tuple[int, bytes]]:
        tree, number = file.handle
        for key, data in self._items(tree, number, _EXTENT):
            yield from self._extent(key.offset, data)

    def _target(self, symlink: Node) -> bytes:
        return b"".join(piece for _, piece in self.content(symlink))

    def _xattrs(self, node: Node) -> Iterator[tuple[bytes, bytes]]:
        tree, number = node.handle
        for _, data in self._items(tree, number, _XATTR):
            for _, name, value in _named(data):
                yield name, value

    # -- addresses -------------------------------------------------------------------------------

    def _system_chunks(self, block: bytes) -> list[Chunk]:
        """Where the tree of chunks lies, as the superblock says."""
        found = []
        place, end = _SYSTEM_CHUNKS, _SYSTEM_CHUNKS + min(field("<I", block, 160), 2048)
        while place + _KEY.size + 80 <= end:
            key = Key(*_KEY.unpack_from(block, place))
            place += _KEY.size
            found.append(self._chunk(key.offset, block[place:end]))
            place += 48 + 32 * field("<H", block, place + 44)
        return found

    def _all_chunks(self, root: int) -> list[Chunk]:
        first, last = Key(0, _CHUNK, 0), Key(_MOST, _CHUNK, _MOST)
        return [
            self._chunk(key.offset, data)
            for key, data in self._search(root, first, last)
            if key.type == _CHUNK
        ]

    def _chunk(self, logical: int, item: bytes) -> Chunk:
        length, profile, count = field("<Q", item, 0), field("<Q", item, 24), field("<H", item, 44)
        if profile & _SPREAD or (profile & 0x8 and count != 1):
            raise BrokenFileSystem("it is spread over several devices")
        for index in range(count):
            device, place = struct.unpack_from("<QQ", item, 48 + 32 * index)
            if device == self._device:
                return Chunk(logical, length, place)
        raise BrokenFileSystem("a part of it lies on another device")

    def _at(self, logical: int, length: int) -> bytes:
        for chunk in self._chunks:
            inside = logical - chunk.logical
            if 0 <= inside and inside + length <= chunk.length:
                return self.bytes_at(chunk.place + inside, length)
        raise BrokenFileSystem("it leads to an address that it does not have")

    # -- trees -----------------------------------------------------------------------------------

    def _load_tree_node(self, logical: int) -> bytes:
        data = self._at(logical, self._node_size)
        if field("<Q", data, 48) != logical:
            raise BrokenFileSystem("a node of a tree is not where it should be")
        return data

    def _search(
        self, root: int, first: Key, last: Key, depth: int = _MOST_DEPTH
    ) -> Iterator[tuple[Key, bytes]]:
        """The items of a tree from one key to another."""
        node = self._tree_node(root)
        count, level = struct.unpack_from("<IB", node, 96)
        if depth < 0 or level > depth:
            raise BrokenFileSystem("a tree has no end")
        if not level:
            yield from _leaf_items(node, count, first, last)
            return
        if _HEADER + count * _POINTER.size > len(node):
            raise BrokenFileSystem("a node of a tree is broken")
        pointers = [
            _POINTER.unpack_from(node, _HEADER + index * _POINTER.size) for index in range(count)
        ]
        for index, pointer in enumerate(pointers):
            if Key(*pointer[:3]) > last:
                return
            if index + 1 == count or Key(*pointers[index + 1][:3]) >= first:
                yield from self._search(pointer[3], first, last, level - 1)

    def _tree(self, number: int) -> int:
        """The address of a subvolume's root node."""
        if number not in self._trees:
            first, last = Key(number, _ROOT, 0), Key(number, _ROOT, _MOST)
            found = [data for _, data in self._search(self._root_tree, first, last)]
            if not found:
                raise BrokenFileSystem(f"there is no subvolume {number}")
            self._trees[number] = field("<Q", found[-1], 176)
        return self._trees[number]

    def _items(self, tree: int, number: int, kind: int) -> Iterator[tuple[Key, bytes]]:
        first, last = Key(number, kind, 0), Key(number, kind, _MOST)
        return self._search(self._tree(tree), first, last)

    # -- inodes ----------------------------------------------------------------------------------

    def _node(self, place: tuple[int, int]) -> Node:
        """:param place: subvolume and number."""
        tree, number = place
        _, data = next(self._items(tree, number, _INODE), (None, b""))
        if not data:
            raise BrokenFileSystem(f"there is no inode {number}")
        if len(data) < 160:
            raise BrokenFileSystem("an inode is too short")
        links, uid, gid, mode = struct.unpack_from("<IIII", data, 40)
        device = field("<Q", data, 56)
        if not stat.S_IFMT(mode):
            raise BrokenFileSystem(f"inode {number} is not in use")
        return Node(
            inode=(tree, number),
            mode=mode,
            uid=uid,
            gid=gid,
            size=field("<Q", data, 16),
            links=links,
            mtime=_time(data, 136),
            ctime=_time(data, 124),
            atime=_time(data, 112),
            device=(device >> 20 & 0xFFF, device & 0xFFFFF),
            handle=(tree, number),
        )

    # -- content ---------------------------------------------------------------------------------

    def _extent(self, start: int, data: bytes) -> Iterator[tuple[int, bytes]]:
        size, compression, encryption, other, kind = struct.unpack_from("<QBBHB", data, 8)
        if encryption or other:
            raise BrokenFileSystem("it is encoded in an unknown way")
        if kind == _INLINE:
            yield start, _unpacked(data[_INLINE_AT:], compression, size)
            return
        place, stored, skipped, length = struct.unpack_from("<QQQQ", data, _INLINE_AT)
        if kind == _PREALLOCATED or not place:
            return
        if compression == _NONE:
            for done in range(0, length, PIECE):
                count = min(PIECE, length - done)
                yield start + done, self._at(place + skipped + done, count)
            return
        if size > _MOST_COMPRESSED or stored > _MOST_COMPRESSED:
            raise BrokenFileSystem("a compressed extent is too long")
        content = _unpacked(self._at(place, stored), compression, size)
        yield start, content[skipped : skipped + length]


def _leaf_items(node: bytes, count: int, first: Key, last: Key) -> Iterator[tuple[Key, bytes]]:
    if _HEADER + count * _ITEM.size > len(node):
        raise BrokenFileSystem("a node of a tree is broken")
    for index in range(count):
        *key, offset, size = _ITEM.unpack_from(node, _HEADER + index * _ITEM.size)
        found = Key(*key)
        if found > last:
            return
        if found >= first:
            data = node[_HEADER + offset : _HEADER + offset + size]
            if len(data) != size:
                raise BrokenFileSystem("an item of a tree is broken")
            yield found, data


def _named(data: bytes) -> Iterator[tuple[Key, bytes, bytes]]:
    """The entries of a folder's item, or the attributes of one: target, name, value."""
    place = 0
    while place + 30 <= len(data):
        target = Key(*_KEY.unpack_from(data, place))
        value_length, name_length = struct.unpack_from("<HH", data, place + 25)
        place += 30
        end = place + name_length
        yield target, data[place:end], data[end : end + value_length]
        place = end + value_length


def _time(data: bytes, place: int) -> int:
    seconds, nano = struct.unpack_from("<qI", data, place)
    return seconds * NANO + nano


def _unpacked(data: bytes, compression: int, size: int) -> bytes:
    if size > _MOST_COMPRESSED:
        raise BrokenFileSystem("a compressed extent is too long")
    try:
        if compression == _NONE:
            return data
        if compression == _ZLIB:
            content = zlib.decompressobj().decompress(data, size)
        elif compression == _ZSTD:
            # What follows the frame is what is left of the last sector.
            content = zstandard.ZstdDecompressor().decompressobj().decompress(data)
        elif compression == _LZO:
            content = lzo.decompress_btrfs(data, size)
        else:
            raise BrokenFileSystem(f"its compression {compression} is unknown")
    except (zlib.error, zstandard.ZstdError, lzo.BrokenData) as error:
        raise BrokenFileSystem(f"it cannot be decompressed: {error}") from None
    return content[:size] + bytes(max(size - len(content), 0))
