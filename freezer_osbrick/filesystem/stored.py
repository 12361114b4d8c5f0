# SPDX-License-Identifier: Apache-2.0
"""A backup of files, as it lies in the repository."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from freezer_osbrick import errors
from freezer_osbrick.filesystem.disk import Disk, Place
from freezer_osbrick.filesystem.superblocks import FileSystem
from freezer_osbrick.filesystem.tree import TreeReader

Head = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class StoredTree:
    """The tree of one file system.

    :param where: the file system's place on the volume.
    :param place, length: of the tree in the address space, in bytes.
    :param room: how long it may become there.
    :param newest: the latest ctime in it, in nanoseconds.
    """

    where: Place
    place: int
    length: int
    room: int
    entries: int
    newest: int

    def to_dict(self) -> dict[str, Any]:
        """As it stands in a manifest."""
        return {
            **self.where.to_dict(),
            "tree": [self.place, self.length, self.room],
            "entries": self.entries,
            "newest": self.newest,
        }


class StoredFiles:
    """What a manifest says of the files of a volume.

    :ivar size: bytes of the address space.
    :ivar time: when the volume was frozen, in seconds since the epoch.
    :ivar raw: ``(place, offset on the volume, length)`` of what is kept as it is.
    """

    def __init__(self, head: Head, read: Callable[[int, int], bytes]) -> None:
        """:param read: bytes of the address space, by offset and length.
        :raises errors.Damaged: the head contradicts itself."""
        try:
            files = head["files"]
            self.disk = Disk.from_dict(files)
            self.size: int = head["size"]
            self.time: int = head["time"]
            self.raw: list[tuple[int, int, int]] = [
                (place, offset, length) for place, offset, length in files["raw"]
            ]
            self.excluded: list[str] = list(files["excluded"])
            self.unread: list[dict[str, Any]] = list(files["unread"])
            self.trees = [
                _tree(place, one)
                for place, one in zip(self.disk.places, files["file_systems"], strict=True)
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise errors.Damaged(
                f"What the backup says of its files cannot be read: {error!r}."
            ) from None
        self._read = read

    def tree(self, where: Place) -> StoredTree | None:
        """The tree of the same file system; None where there is none."""
        for tree in self.trees:
            if _same_place(tree.where, where) and _same(tree.where.file_system, where.file_system):
                return tree
        return None

    def reader(self, tree: StoredTree) -> TreeReader:
        return TreeReader(self._read, tree.place, tree.length)

    def read(self, place: int, length: int) -> bytes:
        """Bytes of the address space."""
        return self._read(place, length)

    def unread_entries(self, tree: StoredTree) -> Iterable[int]:
        """Numbers of the entries whose content was not fully read."""
        return [
            one["entry"]
            for one in self.unread
            if one["partition"] == tree.where.number and one["entry"] is not None
        ]


def _tree(where: Place, facts: dict[str, Any]) -> StoredTree:
    place, length, room = facts["tree"]
    return StoredTree(where, place, length, room, facts["entries"], facts["newest"])


def _same_place(one: Place, other: Place) -> bool:
    # The numbers of logical volumes change when one is added.
    return one.name == other.name and (bool(one.name) or one.number == other.number)


def _same(one: FileSystem, other: FileSystem) -> bool:
    # Inodes of vfat are numbers of the moment.
    return one.kind == other.kind != "vfat" and one.uuid == other.uuid
