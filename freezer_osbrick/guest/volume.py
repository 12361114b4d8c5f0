# SPDX-License-Identifier: Apache-2.0
"""The files on a volume: its partitions, and in them the file systems that can be read here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from freezer_osbrick import errors
from freezer_osbrick.filesystem import logical_volumes, partitions, superblocks
from freezer_osbrick.filesystem.logical_volumes import NotReadable
from freezer_osbrick.filesystem.partitions import part_of
from freezer_osbrick.filesystem.stored import Head, StoredFiles
from freezer_osbrick.guest.btrfs import Btrfs
from freezer_osbrick.guest.ext import Ext
from freezer_osbrick.guest.fat import Fat
from freezer_osbrick.guest.filesystem import (
    BrokenFileSystem,
    FileSystem,
    Node,
    Read,
    broken_is_told,
    name_is_sound,
)
from freezer_osbrick.guest.stored_tree import StoredTreeFiles
from freezer_osbrick.guest.xfs import Xfs

_READERS: dict[str, Callable[[Read], FileSystem]] = {
    "ext2": lambda read: Ext(read, "ext2"),
    "ext3": lambda read: Ext(read, "ext3"),
    "ext4": lambda read: Ext(read, "ext4"),
    "xfs": Xfs,
    "btrfs": Btrfs,
    "vfat": Fat,
}
_NOT_FILES = {
    "lvm": "a physical volume of LVM",
    "luks": "encrypted (LUKS)",
    "swap": "swap space",
}

_MOST_DEPTH = 4096  # of folders in folders


class Source:
    """The bytes of a volume.

    :ivar lost: None: what cannot be read is an error. A list: it reads as zeros, and what is wrong
        is added there.
    """

    def __init__(self, read: Read, size: int) -> None:
        self.size = size
        self.lost: list[str] | None = None
        self._read = read

    def read(self, offset: int, length: int) -> bytes:
        """:raises errors.DamagedRanges: some of it cannot be read.
        :raises errors.StoreError: the store failed."""
        try:
            return self._read(offset, length)
        except errors.DamagedRanges as error:
            if self.lost is None:
                raise
            if str(error) not in self.lost:
                self.lost.append(str(error))
            return self._read_around(offset, length, error.ranges)

    def _read_around(self, offset: int, length: int, lost: list[tuple[int, int]]) -> bytes:
        content = bytearray(min(length, self.size - offset))
        place, end = offset, offset + len(content)
        for begin, extent in [*sorted(lost), (end, 0)]:
            stop = min(begin, end)
            if place < stop:
                content[place - offset : stop - offset] = self._read(place, stop - place)
            place = max(place, begin + extent)
        return bytes(content)


@dataclasses.dataclass(frozen=True)
class Part:
    """A partition, a logical volume, or a volume without them.

    :param name: the folder under which its files are found: ``partition-1``, ``volume-guest-root``;
        empty for a volume without parts.
    :param called: what it is called in a sentence.
    :param files: None where there are none to be read.
    :param reason: why not.
    """

    name: bytes
    kind: str
    label: str
    size: int
    files: FileSystem | None
    reason: str = ""
    called: str = "the volume"


Found = tuple[bytes, FileSystem, Node]
"""A path from the top of the volume, the file system that it lies in, and what is there."""


class GuestVolume:
    """A volume with files in it.

    :ivar source: where its bytes come from.
    :ivar parts: what it consists of.
    """

    def __init__(self, source: Source, parts: list[Part]) -> None:
        self.source = source
        self.parts = parts

    @classmethod
    def of_files(cls, head: Head, read: Read, size: int) -> GuestVolume:
        """The volume of a backup in file mode.

        :param head: of its manifest.
        :raises errors.Damaged: what it says of its files cannot be read.
        """
        source = Source(read, size)
        stored = StoredFiles(head, source.read)
        parts = []
        for tree in stored.trees:
            name, found = tree.where.folder.encode(), tree.where.file_system
            files = StoredTreeFiles(stored, tree, source.read)
            called = tree.where.where or "the volume"
            parts.append(Part(name, found.kind, found.label, tree.where.size, files, called=called))
        return cls(source, parts)

    @classmethod
    def of_blocks(cls, read: Read, size: int) -> GuestVolume:
        """
        :raises errors.NoFileSystem: there is nothing on it whose files can be read here.
        :raises errors.DamagedRanges: its beginning cannot be read.
        """
        source = Source(read, size)
        table = partitions.read_table(source.read, source.size)
        if table is None:
            parts = list(_look(source, 0, 0, source.size))
        else:
            parts = [
                part
                for one in table.partitions
                for part in _look(source, one.number, one.start, one.size)
            ]
        if not any(part.files for part in parts):
            told = "; ".join(f"{part.called} is {part.reason}" for part in parts)
            raise errors.NoFileSystem(
                f"The backup holds no file system whose files can be read here: {told}."
                " 'freezer-osbrick mount' gives the volume as a file for other programs."
            )
        return cls(source, parts)

    @property
    def notes(self) -> list[str]:
        """What a user should know of the file systems."""
        return [
            f"{_capitalized(part.called)}: {note}"
            for part in self.parts
            if part.files
            for note in part.files.notes
        ]

    def find(self, path: bytes) -> Found:
        """What lies at a path. Symbolic links are not followed.

        :raises errors.BadRequest: nothing is there.
        :raises BrokenFileSystem: a folder on the way cannot be read.
        """
        names = _names(path)
        part = self._part(names)
        assert part.files is not None
        node, done = part.files.root(), part.name
        for name in names[1:] if part.name else names:
            node, done = self._enter(part.files, node, name, done), _below(done, name)
        return done, part.files, node

    def walk(self, found: Found) -> Iterator[tuple[bytes, Node | BrokenFileSystem]]:
        """All that lies below a folder, each folder before what is in it; what cannot be read is
        told of in its place."""
        path, files, top = found
        waiting = [(path, top, frozenset((top.inode,)))]
        while waiting:
            folder_path, folder, above = waiting.pop()
            listing = files.entries(folder)
            while True:
                try:
                    name, node = next(listing)
                except StopIteration:
                    break
                except (BrokenFileSystem, errors.Damaged) as error:
                    yield folder_path, BrokenFileSystem(f"the folder cannot be read whole: {error}")
                    break
                own = _below(folder_path, name)
                if not name_is_sound(name):
                    yield (
                        folder_path,
                        BrokenFileSystem(f"it has an impossible name in it: {name!r}"),
                    )
                elif isinstance(node, Node) and node.is_folder and node.inode in above:
                    yield own, BrokenFileSystem("the folder lies in itself")
                elif len(above) > _MOST_DEPTH:
                    yield own, BrokenFileSystem("it lies too deep")
                else:
                    yield own, node
                    if isinstance(node, Node) and node.is_folder:
                        waiting.append((own, node, above | {node.inode}))

    def _part(self, names: list[bytes]) -> Part:
        if not self.parts[0].name:
            return self.parts[0]
        wanted = names[0] if names else b""
        for part in self.parts:
            if part.name == wanted:
                if part.files is None:
                    raise errors.BadRequest(f"{_capitalized(part.called)} is {part.reason}.")
                return part
        known = ", ".join(os_text(part.name) for part in self.parts if part.files)
        raise errors.BadRequest(
            f"The volume has several parts, so that a path begins with one of: {known}."
        )

    def _enter(self, files: FileSystem, folder: Node, name: bytes, path: bytes) -> Node:
        if folder.is_symlink:
            target = os_text(files.target(folder))
            raise errors.BadRequest(
                f"/{os_text(path)} is a symbolic link to {target}, which is not followed: name the"
                " path that it leads to."
            )
        if not folder.is_folder:
            raise errors.BadRequest(f"/{os_text(path)} is no folder.")
        for own, node in files.entries(folder):
            if own == name:
                if isinstance(node, Node):
                    return node
                raise node
        raise errors.BadRequest(f"There is no /{os_text(_below(path, name))} in the backup.")


def _look(source: Source, number: int, start: int, size: int) -> Iterator[Part]:
    """A partition, or with number 0 all of the volume; or the logical volumes in it."""
    name = b"partition-%d" % number if number else b""
    called = f"partition {number}" if number else "the volume"
    part = _look_at(source, name, called, [(start, size)])
    if part.kind != "lvm":
        yield part
        return
    try:
        group = logical_volumes.read_group(source.read, start, size)
    except NotReadable as error:
        yield dataclasses.replace(part, reason=f"{part.reason}, and {error}")
        return
    for volume in group.volumes:
        called = f"logical volume {volume.name}"
        yield _look_at(source, volume.folder.encode(), called, volume.pieces)


def _look_at(source: Source, name: bytes, called: str, pieces: Sequence[tuple[int, int]]) -> Part:
    read = part_of(source.read, *pieces)
    size = sum(length for _, length in pieces)

    def part(kind: str, label: str, files: FileSystem | None, reason: str = "") -> Part:
        return Part(name, kind, label, size, files, reason, called)

    try:
        with broken_is_told():
            found = superblocks.identify(read)
    except (BrokenFileSystem, errors.Damaged) as error:
        return part("damaged", "", None, str(error).rstrip("."))
    if found is None:
        return part("unknown", "", None, "nothing that is known here")
    if found.kind not in _READERS:
        return part(found.kind, found.label, None, _NOT_FILES.get(found.kind, found.kind))
    try:
        with broken_is_told():
            files = _READERS[found.kind](read)
    except (BrokenFileSystem, errors.Damaged) as error:
        reason = f"{found.kind} that cannot be read: {str(error).rstrip('.')}"
        return part(found.kind, found.label, None, reason)
    return part(found.kind, found.label, files)


def os_text(name: bytes) -> str:
    """A name as text that every terminal can show: what is no plain character is escaped."""
    text = name.decode("utf-8", "backslashreplace")
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


def _names(path: bytes) -> list[bytes]:
    names = [name for name in path.split(b"/") if name not in (b"", b".")]
    if b".." in names:
        raise errors.BadRequest("A path of the backup has no '..' in it.")
    return names


def _below(path: bytes, name: bytes) -> bytes:
    return path + b"/" + name if path else name


def _capitalized(text: str) -> str:
    return text[0].upper() + text[1:]
