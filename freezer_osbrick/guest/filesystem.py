# SPDX-License-Identifier: Apache-2.0
"""What all readers of guests' file systems have in common."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import stat
import struct
from collections.abc import Callable, Iterator
from typing import Any

from freezer_osbrick import errors

Read = Callable[[int, int], bytes]
"""Bytes of the file system by offset and length; fewer where it ends."""

NANO = 10**9

# Content is given in pieces of at most this many bytes.
PIECE = 1 << 20

# No folder's chain of names, and no tree, is that long in a file system that is not broken.
MOST_STEPS = 1 << 22

_LONGEST_TARGET = 4096

# No value of an extended attribute may be longer.
MOST_XATTR = 65536

POSIX_ACL = {
    "access": b"system.posix_acl_access",
    "default": b"system.posix_acl_default",
}
_NO_ID = 0xFFFFFFFF
_ACL_USER, _ACL_GROUP = 0x02, 0x08


class BrokenFileSystem(errors.OsbrickError):
    """The file system in the backup contradicts itself, or has what its reader does not know."""


@dataclasses.dataclass(frozen=True, slots=True)
class Node:
    """An inode of a file system.

    :param inode: its number; unique within the file system.
    :param mode: kind and permissions, as in ``st_mode``.
    :param size: in bytes.
    :param mtime, ctime, atime: nanoseconds since the epoch.
    :param device: of a device file: major and minor number.
    :param handle: what the reader itself knows it by.
    """

    inode: tuple[int, ...]
    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    links: int = 1
    mtime: int = 0
    ctime: int = 0
    atime: int = 0
    device: tuple[int, int] = (0, 0)
    handle: Any = dataclasses.field(default=None, compare=False, repr=False)

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_symlink(self) -> bool:
        return stat.S_ISLNK(self.mode)


@contextlib.contextmanager
def broken_is_told() -> Iterator[None]:
    """What trips over bytes that make no sense is told as :class:`BrokenFileSystem`."""
    try:
        yield
    except (struct.error, IndexError, OverflowError, RecursionError, ValueError) as error:
        raise BrokenFileSystem(f"a structure makes no sense ({error})") from error


class FileSystem(abc.ABC):
    """One file system of a guest, for one thread.

    All methods raise :class:`BrokenFileSystem` where the file system makes no sense, and
    :class:`errors.DamagedRanges` or :class:`errors.StoreError` where the backup cannot be read.

    :ivar kind: as :mod:`freezer_osbrick.filesystem.superblocks` calls it.
    :ivar notes: a sentence on each thing that a user should know of it.
    """

    kind: str

    def __init__(self, read: Read) -> None:
        self._read = read
        self.notes: list[str] = []

    def root(self) -> Node:
        """The folder that holds all others."""
        with broken_is_told():
            return self._root()

    def entries(self, folder: Node) -> Iterator[tuple[bytes, Node | BrokenFileSystem]]:
        """What is in a folder: names and inodes, ``.`` and ``..`` left out. An inode that cannot be
        read is told of in its place."""
        with broken_is_told():
            for count, (name, number) in enumerate(self._names(folder)):
                if count > MOST_STEPS:
                    raise BrokenFileSystem("a folder has no end")
                if name not in (b".", b".."):
                    yield name, self._try_node(number)

    def content(self, file: Node) -> Iterator[tuple[int, bytes]]:
        """The content of a file: offsets in the file and bytes, in order. What is left out reads as
        zeros."""
        end = 0
        with broken_is_told():
            for start, data in self._content(file):
                if start < end:
                    raise BrokenFileSystem("pieces of a file overlap")
                if start >= file.size:
                    return
                end = start + len(data)
                yield start, data[: file.size - start]

    def target(self, symlink: Node) -> bytes:
        """Where a symbolic link points."""
        if symlink.size > _LONGEST_TARGET:
            raise BrokenFileSystem("a symbolic link is too long")
        with broken_is_told():
            return self._target(symlink)

    def xattrs(self, node: Node) -> list[tuple[bytes, bytes]]:
        """Extended attributes in the kernel's own form; ACLs and capabilities are among them."""
        with broken_is_told():
            return list(self._xattrs(node))

    def bytes_at(self, offset: int, length: int) -> bytes:
        """:raises BrokenFileSystem: it leads beyond the end of the volume."""
        data = self._read(offset, length) if offset >= 0 else b""
        if len(data) != length:
            raise BrokenFileSystem("it leads beyond the end of the volume")
        return data

    def _try_node(self, number: Any) -> Node | BrokenFileSystem:
        try:
            with broken_is_told():
                return self._node(number)
        except BrokenFileSystem as error:
            return error

    @abc.abstractmethod
    def _root(self) -> Node: ...

    @abc.abstractmethod
    def _names(self, folder: Node) -> Iterator[tuple[bytes, Any]]:
        """The names in a folder, and what :meth:`_node` knows each inode by."""

    @abc.abstractmethod
    def _node(self, number: Any) -> Node: ...

    @abc.abstractmethod
    def _content(self, file: Node) -> Iterator[tuple[int, bytes]]:
        """As :meth:`content`; may give more than the file's size."""

    @abc.abstractmethod
    def _target(self, symlink: Node) -> bytes: ...

    def _xattrs(self, node: Node) -> Iterator[tuple[bytes, bytes]]:
        return iter(())


def field(layout: str, data: bytes, offset: int) -> int:
    """One number out of bytes.

    :raises BrokenFileSystem: the bytes end before it.
    """
    try:
        return struct.unpack_from(layout, data, offset)[0]
    except struct.error:
        raise BrokenFileSystem("a structure is too short") from None


def posix_acl(entries: list[tuple[int, int, int]]) -> bytes:
    """An ACL as the kernel gives it to programs.

    :param entries: tag, permissions and id; the id counts only for named users and groups.
    """
    parts = [struct.pack("<I", 2)]
    for tag, permissions, identifier in entries:
        named = tag in (_ACL_USER, _ACL_GROUP)
        parts.append(struct.pack("<HHI", tag, permissions, identifier if named else _NO_ID))
    return b"".join(parts)


def name_is_sound(name: bytes) -> bool:
    """Whether a file may be called so. What leads elsewhere is no name."""
    return name not in (b"", b".", b"..") and b"/" not in name and b"\0" not in name
