# SPDX-License-Identifier: Apache-2.0
"""ext2, ext3 and ext4, as the kernel's documentation of their layout describes them."""

from __future__ import annotations

import functools
import stat
import struct
from collections.abc import Iterator

from freezer_osbrick.guest import jbd2
from freezer_osbrick.guest.filesystem import (
    MOST_XATTR,
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

ROOT = 2

_SUPERBLOCK = 1024
_MAGIC = 0xEF53

_RECOVER = 0x0004
_META_BG = 0x0010
_BITS_64 = 0x0080
_EA_INODE = 0x0400
# What a reader must know: filetype, recover, meta_bg, extent, 64bit, mmp, flex_bg, ea_inode,
# csum_seed, largedir, inline_data, encrypt, casefold.
_KNOWN = 0x0002 | 0x0004 | 0x0010 | 0x0040 | 0x0080 | 0x0100 | 0x0200 | 0x0400
_KNOWN |= 0x2000 | 0x4000 | 0x8000 | 0x10000 | 0x20000
_SPARSE_SUPER = 0x0001
_SPARSE_SUPER2 = 0x0200

_ENCRYPTED = 0x800
_EXTENTS = 0x80000
_INLINE = 0x10000000

_EXTENT_MAGIC = 0xF30A
_UNWRITTEN = 32768
_DIRECT = 12
_BLOCKS = 40  # where an inode keeps its blocks, 60 bytes
_BLOCKS_SIZE = 60

_XATTR_MAGIC = 0xEA020000
_PREFIXES = {
    1: b"user.",
    2: POSIX_ACL["access"],
    3: POSIX_ACL["default"],
    4: b"trusted.",
    6: b"security.",
    7: b"system.",
    8: b"system.richacl",
}
_INLINE_DATA = b"system.data"

_MOST_JOURNAL = 1 << 21  # blocks

Run = tuple[int, int, int]  # first block in the file, first block on the volume, number of blocks


class Ext(FileSystem):
    """An ext2, ext3 or ext4 file system, its journal taken into account."""

    def __init__(self, read: Read, kind: str = "ext4") -> None:
        super().__init__(read)
        self.kind = kind
        self._changed: jbd2.Changes = {}
        self._descriptor = functools.lru_cache(maxsize=256)(self._load_descriptors)
        self._raw = functools.lru_cache(maxsize=4096)(self._load_inode)
        self._read_superblock()
        self._replay()

    def _root(self) -> Node:
        return self._node(ROOT)

    def _names(self, folder: Node) -> Iterator[tuple[bytes, int]]:
        self._refuse_encrypted(folder.handle)
        for block in self._folder_blocks(folder):
            place = 0
            while place + 8 <= len(block):
                number, length, name_length = struct.unpack_from("<IHB", block, place)
                if length in (0, 65535) and len(block) == 65536:
                    length = 65536
                if length < 8 or place + length > len(block) or name_length > length - 8:
                    raise BrokenFileSystem("a folder has an entry with an impossible length")
                if number:
                    yield block[place + 8 : place + 8 + name_length], number
                place += length

    def _content(self, file: Node) -> Iterator[tuple[int, bytes]]:
        raw = file.handle
        self._refuse_encrypted(raw)
        if _flags(raw) & _INLINE:
            yield 0, self._inline(raw)
            return
        step = max(PIECE // self._block_size, 1)
        for logical, physical, count in self._runs(raw):
            for done in range(0, count, step):
                start = (logical + done) * self._block_size
                yield start, self._blocks(physical + done, min(step, count - done))

    def _target(self, symlink: Node) -> bytes:
        raw = symlink.handle
        self._refuse_encrypted(raw)
        if symlink.size < _BLOCKS_SIZE and not _flags(raw) & (_EXTENTS | _INLINE):
            return raw[_BLOCKS : _BLOCKS + symlink.size]
        return b"".join(data for _, data in self.content(symlink))

    def _xattrs(self, node: Node) -> Iterator[tuple[bytes, bytes]]:
        for name, value in self._stored_xattrs(node.handle):
            if name in POSIX_ACL.values():
                value = _acl(value)
            if name != _INLINE_DATA:
                yield name, value

    # -- the file system as a whole --------------------------------------------------------------

    def _read_superblock(self) -> None:
        block = self._patched_superblock()
        if field("<H", block, 56) != _MAGIC:
            raise BrokenFileSystem("it is no ext file system")
        self._incompat = field("<I", block, 96)
        self._compat = field("<I", block, 92)
        self._ro_compat = field("<I", block, 100)
        if unknown := self._incompat & ~_KNOWN:
            raise BrokenFileSystem(f"it has features that this reader does not know ({unknown:#x})")
        log_size = field("<I", block, 24)
        if log_size > 6:
            raise BrokenFileSystem("its blocks have an impossible size")
        self._block_size = 1024 << log_size
        self._first_block = field("<I", block, 20)
        self._block_count = field("<I", block, 4)
        if self._incompat & _BITS_64:
            self._block_count |= field("<I", block, 336) << 32
        self._inode_count = field("<I", block, 0)
        self._group_blocks = field("<I", block, 32)
        self._group_inodes = field("<I", block, 40)
        self._inode_size = field("<H", block, 88) if field("<I", block, 76) else 128
        self._descriptor_size = field("<H", block, 254) if self._incompat & _BITS_64 else 32
        self._first_meta_bg = field("<I", block, 260)
        self._backup_groups = struct.unpack_from("<II", block, 588)
        self._journal = field("<I", block, 224)
        if (
            not self._group_blocks
            or not self._group_inodes
            or not 128 <= self._inode_size <= self._block_size
            or not 32 <= self._descriptor_size <= 1024
        ):
            raise BrokenFileSystem("its superblock makes no sense")

    def _patched_superblock(self) -> bytes:
        if self._changed:
            number, offset = divmod(_SUPERBLOCK, self._block_size)
            return self._blocks(number, 1)[offset : offset + 1024]
        return self.bytes_at(_SUPERBLOCK, 1024)

    def _replay(self) -> None:
        """Take what the journal holds for what will be there once it is replayed."""
        if not self._incompat & _RECOVER or not self._journal:
            return
        places: list[int] = []
        for _, physical, count in self._runs(self._raw(self._journal)):
            if len(places) + count > _MOST_JOURNAL:
                raise BrokenFileSystem("its journal is too long")
            places += range(physical, physical + count)
        journal = jbd2.Journal(lambda index: self._stored(places[index], 1), len(places))
        self._changed = journal.changes()
        if journal.fast_commits:
            self.notes.append(
                "The journal has fast commits, which are not read: changes of the last seconds"
                " before the backup may be missing."
            )
        self._raw.cache_clear()
        self._descriptor.cache_clear()
        self._read_superblock()

    def _blocks(self, number: int, count: int) -> bytes:
        """Blocks as they are once the journal is replayed."""
        data = self._stored(number, count)
        changed = [index for index in range(count) if number + index in self._changed]
        if not changed:
            return data
        size, patched = self._block_size, bytearray(data)
        for index in changed:
            patched[index * size : (index + 1) * size] = self._changed[number + index]()
        return bytes(patched)

    def _stored(self, number: int, count: int) -> bytes:
        if number + count > self._block_count:
            raise BrokenFileSystem("it leads beyond its own end")
        return self.bytes_at(number * self._block_size, count * self._block_size)

    # -- inodes ----------------------------------------------------------------------------------

    def _load_descriptors(self, index: int) -> bytes:
        """A block of group descriptors."""
        number = self._first_block + 1 + index
        if self._incompat & _META_BG and index >= self._first_meta_bg:
            group = index * (self._block_size // self._descriptor_size)
            number = self._first_block + group * self._group_blocks + self._has_superblock(group)
        return self._blocks(number, 1)

    def _has_superblock(self, group: int) -> bool:
        if self._compat & _SPARSE_SUPER2:
            return group == 0 or group in self._backup_groups
        if group <= 1 or not self._ro_compat & _SPARSE_SUPER:
            return True
        for base in (3, 5, 7):
            power = base
            while power < group:
                power *= base
            if power == group:
                return True
        return False

    def _load_inode(self, number: int) -> bytes:
        """An inode's bytes."""
        if not 0 < number <= self._inode_count:
            raise BrokenFileSystem(f"there is no inode {number}")
        group, index = divmod(number - 1, self._group_inodes)
        each = self._block_size // self._descriptor_size
        descriptors = self._descriptor(group // each)
        place = group % each * self._descriptor_size
        table = field("<I", descriptors, place + 8)
        if self._descriptor_size >= 64:
            table |= field("<I", descriptors, place + 40) << 32
        block, offset = divmod(index * self._inode_size, self._block_size)
        return self._blocks(table + block, 1)[offset : offset + self._inode_size]

    def _node(self, number: int) -> Node:
        raw = self._raw(number)
        mode, uid, size = struct.unpack_from("<HHI", raw)
        gid, links = struct.unpack_from("<HH", raw, 24)
        kind = stat.S_IFMT(mode)
        if not kind:
            raise BrokenFileSystem(f"inode {number} is not in use")
        device = (0, 0)
        if kind in (stat.S_IFCHR, stat.S_IFBLK):
            device = _device(*struct.unpack_from("<II", raw, _BLOCKS))
        return Node(
            inode=(number,),
            mode=mode,
            uid=uid | field("<H", raw, 120) << 16,
            gid=gid | field("<H", raw, 122) << 16,
            size=size | field("<I", raw, 108) << 32,
            links=links,
            mtime=_time(raw, 16, 136),
            ctime=_time(raw, 12, 132),
            atime=_time(raw, 8, 140),
            device=device,
            handle=raw,
        )

    def _refuse_encrypted(self, raw: bytes) -> None:
        if _flags(raw) & _ENCRYPTED:
            raise BrokenFileSystem("it is encrypted within the file system")

    # -- where a file's blocks lie ---------------------------------------------------------------

    def _runs(self, raw: bytes) -> Iterator[Run]:
        """The written runs of blocks, in the file's order."""
        if _flags(raw) & _EXTENTS:
            yield from self._extents(raw[_BLOCKS : _BLOCKS + _BLOCKS_SIZE], 6)
        else:
            yield from _joined(self._mapped(raw))

    def _extents(self, node: bytes, most_depth: int) -> Iterator[Run]:
        magic, count, _, depth = struct.unpack_from("<HHHH", node)
        if magic != _EXTENT_MAGIC or depth > most_depth or 12 * (count + 1) > len(node):
            raise BrokenFileSystem("a tree of extents is broken")
        for index in range(1, count + 1):
            if depth:
                _, low, high = struct.unpack_from("<IIH", node, 12 * index)
                yield from self._extents(self._blocks(low | high << 32, 1), depth - 1)
                continue
            logical, length, high, low = struct.unpack_from("<IHHI", node, 12 * index)
            if length <= _UNWRITTEN:
                yield logical, low | high << 32, length

    def _mapped(self, raw: bytes) -> Iterator[Run]:
        """The blocks of a file without extents, one by one."""
        pointers = struct.unpack_from("<15I", raw, _BLOCKS)
        each = self._block_size // 4
        logical = 0
        for pointer in pointers[:_DIRECT]:
            if pointer:
                yield logical, pointer, 1
            logical += 1
        for level, pointer in enumerate(pointers[_DIRECT:], 1):
            yield from self._indirect(pointer, level, logical)
            logical += each**level

    def _indirect(self, pointer: int, level: int, logical: int) -> Iterator[Run]:
        if not pointer:
            return
        if not level:
            yield logical, pointer, 1
            return
        each = self._block_size // 4
        span = each ** (level - 1)
        pointers = struct.unpack(f"<{each}I", self._blocks(pointer, 1))
        for index, inner in enumerate(pointers):
            yield from self._indirect(inner, level - 1, logical + index * span)

    def _folder_blocks(self, folder: Node) -> Iterator[bytes]:
        if not _flags(folder.handle) & _INLINE:
            size = self._block_size
            for _, physical, count in self._runs(folder.handle):
                for index in range(count):
                    yield self._blocks(physical + index, 1)[:size]
            return
        data = self._inline(folder.handle)
        yield data[4:_BLOCKS_SIZE]  # after the number of the parent
        yield data[_BLOCKS_SIZE:]

    # -- what lies in the inode ------------------------------------------------------------------

    def _inline(self, raw: bytes) -> bytes:
        rest = dict(self._stored_xattrs(raw)).get(_INLINE_DATA, b"")
        return raw[_BLOCKS : _BLOCKS + _BLOCKS_SIZE] + rest

    def _stored_xattrs(self, raw: bytes) -> Iterator[tuple[bytes, bytes]]:
        if self._inode_size > 128:
            start = 128 + field("<H", raw, 128)
            if start + 4 <= len(raw) and field("<I", raw, start) == _XATTR_MAGIC:
                yield from self._xattr_entries(raw[start + 4 :], 0)
        block = field("<I", raw, 104)
        if self._incompat & _BITS_64:
            block |= field("<H", raw, 118) << 32
        if block:
            data = self._blocks(block, 1)
            if field("<I", data, 0) != _XATTR_MAGIC:
                raise BrokenFileSystem("a block of extended attributes is broken")
            yield from self._xattr_entries(data, 32)

    def _xattr_entries(self, data: bytes, place: int) -> Iterator[tuple[bytes, bytes]]:
        while place + 16 <= len(data) and data[place : place + 4] != bytes(4):
            name_length, prefix, offset, inode, size, _ = struct.unpack_from("<BBHIII", data, place)
            name = data[place + 16 : place + 16 + name_length]
            if size > MOST_XATTR:
                raise BrokenFileSystem("an extended attribute is too long")
            if inode and self._incompat & _EA_INODE:
                value = b"".join(piece for _, piece in self.content(self._node(inode)))
            else:
                value = data[offset : offset + size]
            if len(name) != name_length or len(value) != size:
                raise BrokenFileSystem("an extended attribute is broken")
            yield _PREFIXES.get(prefix, b"") + name, value
            place += -(-(16 + name_length) // 4) * 4


def _flags(raw: bytes) -> int:
    return field("<I", raw, 32)


def _time(raw: bytes, seconds_at: int, extra_at: int) -> int:
    seconds = field("<i", raw, seconds_at)
    extra = 0
    if len(raw) > 128 and extra_at + 4 <= 128 + field("<H", raw, 128):
        extra = field("<I", raw, extra_at)
    return (seconds + ((extra & 3) << 32)) * NANO + (extra >> 2)


def _device(old: int, new: int) -> tuple[int, int]:
    if old:
        return old >> 8 & 0xFF, old & 0xFF
    return new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xFFF00


def _acl(stored: bytes) -> bytes:
    if len(stored) < 4 or field("<I", stored, 0) != 1:
        raise BrokenFileSystem("an ACL is broken")
    entries = []
    place = 4
    while place + 4 <= len(stored):
        tag, permissions = struct.unpack_from("<HH", stored, place)
        place += 4
        identifier = 0
        if tag in (0x02, 0x08):
            identifier = field("<I", stored, place)
            place += 4
        entries.append((tag, permissions, identifier))
    return posix_acl(entries)


def _joined(runs: Iterator[Run]) -> Iterator[Run]:
    """Neighbouring blocks as one run."""
    current: Run | None = None
    for logical, physical, count in runs:
        if current and current[0] + current[2] == logical and current[1] + current[2] == physical:
            current = (current[0], current[1], current[2] + count)
            continue
        if current:
            yield current
        current = (logical, physical, count)
    if current:
        yield current
