# SPDX-License-Identifier: Apache-2.0
"""The tree of a file system as it is stored: one record for each name.

The names of a folder stand together, in the order of their bytes; a folder stands before what is in
it.
"""

from __future__ import annotations

import dataclasses
import enum
import stat
import struct
from collections.abc import Callable, Iterator, Sequence

from freezer_osbrick import errors

# length, kind, flags, mode, parent, uid, gid, link, inode, subvolume, size, mtime, ctime, atime,
# bytes of the name, number of xattrs, number of extents
FIXED = struct.Struct("<IBBHIIIIQQQqqqHHI")
XATTR = struct.Struct("<HI")
EXTENT = struct.Struct("<QQQ")

_COUNT = struct.Struct("<I")
_COUNT_AT = FIXED.size - _COUNT.size
_MOST_RECORD = 64 << 20
_READ_AT_ONCE = 1 << 20


class Kind(enum.IntEnum):
    """What a name stands for."""

    FOLDER = 1
    FILE = 2
    SYMLINK = 3
    CHARACTER_DEVICE = 4
    BLOCK_DEVICE = 5
    FIFO = 6
    SOCKET = 7


KINDS = {
    stat.S_IFDIR: Kind.FOLDER,
    stat.S_IFREG: Kind.FILE,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFCHR: Kind.CHARACTER_DEVICE,
    stat.S_IFBLK: Kind.BLOCK_DEVICE,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFSOCK: Kind.SOCKET,
}

SPARSE = 1  # a file with holes
LINKED = 2  # the first of several names of one inode
SUBVOLUME = 4  # a folder that is the root of a btrfs subvolume
READ_ONLY = 8  # such a subvolume that can only be read
NOT_A_LINK = 0xFFFFFFFF


@dataclasses.dataclass(frozen=True, slots=True)
class Extent:
    """A piece of a file's content.

    :param start: its first byte in the file.
    :param place: where that lies in the backup's address space.
    :param length: in bytes.
    """

    start: int
    place: int
    length: int


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One name.

    :param number: of the record in the tree; the root is 0.
    :param parent: number of its folder; the root is its own.
    :param name: as the file system has it, any bytes; empty for the root.
    :param mode: the twelve bits of permission.
    :param link: number of the entry whose inode this is a further name of, or NOT_A_LINK. Such an
        entry has no content of its own.
    :param subvolume: the btrfs subvolume that the inode belongs to, else 0.
    :param size: of a file in bytes; of a device its major number << 32 | minor number.
    :param mtime, ctime, atime: nanoseconds since the epoch.
    :param target: of a symbolic link.
    :param xattrs: extended attributes in the kernel's own form; ACLs and capabilities are among
        them.
    :param extents: of a file; what none of them covers reads as zeros.
    """

    number: int
    parent: int
    name: bytes
    kind: Kind
    mode: int
    uid: int = 0
    gid: int = 0
    inode: int = 0
    subvolume: int = 0
    size: int = 0
    mtime: int = 0
    ctime: int = 0
    atime: int = 0
    flags: int = 0
    link: int = NOT_A_LINK
    target: bytes = b""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    extents: tuple[Extent, ...] = ()

    @property
    def is_link(self) -> bool:
        return self.link != NOT_A_LINK

    @property
    def content_size(self) -> int:
        """Bytes of content that are stored."""
        return sum(extent.length for extent in self.extents)

    def encode(self) -> bytes:
        """The record."""
        parts = [self.name, self.target]
        for name, value in self.xattrs:
            parts += XATTR.pack(len(name), len(value)), name, value
        parts += [EXTENT.pack(one.start, one.place, one.length) for one in self.extents]
        tail = b"".join(parts)
        size = len(self.target) if self.kind is Kind.SYMLINK else self.size
        return (
            FIXED.pack(
                FIXED.size + len(tail),
                self.kind,
                self.flags,
                self.mode,
                self.parent,
                self.uid,
                self.gid,
                self.link,
                self.inode,
                self.subvolume,
                size,
                self.mtime,
                self.ctime,
                self.atime,
                len(self.name),
                len(self.xattrs),
                len(self.extents),
            )
            + tail
        )


def extents(record: bytes) -> Iterator[tuple[int, int, int]]:
    """The extents of a record: start, place and length."""
    (count,) = _COUNT.unpack_from(record, _COUNT_AT)
    if count:
        yield from EXTENT.iter_unpack(record[len(record) - count * EXTENT.size :])


class TreeReader:
    """Reads a tree from its first record to its last."""

    def __init__(self, read: Callable[[int, int], bytes], offset: int, length: int) -> None:
        """:param read: bytes of the backup's address space by offset and length.
        :param offset, length: of the tree there."""
        self._read = read
        self._offset = offset
        self._length = length

    def pieces(self) -> Iterator[bytes]:
        """The whole tree as it is stored, in pieces of any length."""
        for start in range(0, self._length, _READ_AT_ONCE):
            yield self._read(self._offset + start, min(_READ_AT_ONCE, self._length - start))

    def records(self) -> Iterator[bytes]:
        """All records, as bytes.

        :raises errors.Damaged: the tree is not one.
        """
        position, data, place = 0, b"", 0
        while position < self._length:
            if len(data) - place < 4:
                data, place = self._more(data[place:], position), 0
            if len(data) - place < 4:
                raise _damaged("it ends within a record")
            (length,) = struct.unpack_from("<I", data, place)
            if not FIXED.size <= length <= min(_MOST_RECORD, self._length - position):
                raise _damaged("a record has an impossible length")
            while len(data) - place < length:
                data, place = self._more(data[place:], position), 0
            yield data[place : place + length]
            place += length
            position += length

    def entries(self) -> Iterator[Entry]:
        """All entries.

        :raises errors.Damaged: the tree is not one.
        """
        for number, record in enumerate(self.records()):
            yield decode(record, number)

    def walk(self) -> Iterator[tuple[bytes, Entry]]:
        """All entries with their paths from the root, which is ``b""``; no path begins with a
        slash.

        :raises errors.Damaged: the tree is not one, or a name leads out of its folder.
        """
        folders: dict[int, bytes] = {}  # whose names are still to come
        current, path = -1, b""
        for entry in self.entries():
            if not entry.number:
                if entry.kind is not Kind.FOLDER or entry.name:
                    raise _damaged("it does not begin with a root")
                folders[0] = b""
                yield b"", entry
                continue
            if entry.parent != current:
                if entry.parent not in folders:
                    raise _damaged("an entry has no folder")
                current, path = entry.parent, folders.pop(entry.parent)
            if entry.name in (b"", b".", b"..") or b"/" in entry.name or b"\0" in entry.name:
                raise _damaged("an entry has an impossible name")
            own = path + b"/" + entry.name if path else entry.name
            if entry.kind is Kind.FOLDER:
                folders[entry.number] = own
            yield own, entry

    def _more(self, rest: bytes, position: int) -> bytes:
        """``rest``, which begins at ``position``, and what follows it."""
        begin = position + len(rest)
        length = min(_READ_AT_ONCE, self._length - begin)
        if length <= 0:
            raise _damaged("it ends within a record")
        return rest + self._read(self._offset + begin, length)


def decode(record: bytes, number: int) -> Entry:
    """The entry of a record.

    :raises errors.Damaged: it is none.
    """
    (
        length,
        kind,
        flags,
        mode,
        parent,
        uid,
        gid,
        link,
        inode,
        subvolume,
        size,
        mtime,
        ctime,
        atime,
        name_length,
        xattr_count,
        extent_count,
    ) = FIXED.unpack_from(record)
    try:
        place = FIXED.size + name_length
        name, target = record[FIXED.size : place], b""
        if kind == Kind.SYMLINK:
            target = record[place : place + size]
            place += size
        xattrs = []
        for _ in range(xattr_count):
            key_length, value_length = XATTR.unpack_from(record, place)
            place += XATTR.size
            key = record[place : place + key_length]
            place += key_length
            xattrs.append((key, record[place : place + value_length]))
            place += value_length
        end = place + extent_count * EXTENT.size
        if end != length:
            raise _damaged("a record contradicts itself")
        extents = [Extent(*fields) for fields in EXTENT.iter_unpack(record[place:end])]
        return Entry(
            number=number,
            parent=parent,
            name=name,
            kind=Kind(kind),
            mode=mode & 0o7777,
            uid=uid,
            gid=gid,
            inode=inode,
            subvolume=subvolume,
            size=size,
            mtime=mtime,
            ctime=ctime,
            atime=atime,
            flags=flags,
            link=link,
            target=target,
            xattrs=tuple(xattrs),
            extents=_checked(extents, size),
        )
    except (struct.error, ValueError) as error:
        raise _damaged(str(error)) from None


def _checked(extents: Sequence[Extent], size: int) -> tuple[Extent, ...]:
    end = 0
    for extent in extents:
        if extent.start < end or extent.length <= 0 or extent.start + extent.length > size:
            raise _damaged("the content of a file contradicts its size")
        end = extent.start + extent.length
    return tuple(extents)


def _damaged(reason: str) -> errors.Damaged:
    return errors.Damaged(f"The tree of files in the backup cannot be read: {reason}.")
