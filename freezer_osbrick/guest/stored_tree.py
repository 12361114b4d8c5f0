# SPDX-License-Identifier: Apache-2.0
"""The files of a backup in file mode, as if they lay in a file system."""

from __future__ import annotations

from collections.abc import Iterator

from freezer_osbrick.filesystem import tree as trees
from freezer_osbrick.filesystem.stored import StoredFiles, StoredTree
from freezer_osbrick.filesystem.tree import FIXED, KINDS, Kind
from freezer_osbrick.guest.filesystem import PIECE, BrokenFileSystem, FileSystem, Node, Read

_MODES = {kind: mode for mode, kind in KINDS.items()}
_PARENT = 4  # of the fields of a record
_MOST_NOTES = 20
_LINKED = 2  # links of what has more names than one; how many is not recorded


class StoredTreeFiles(FileSystem):
    """One tree of a backup. Its records are kept as they are stored: some 200 bytes a file."""

    def __init__(self, stored: StoredFiles, tree: StoredTree, read: Read) -> None:
        """:param read: bytes of the backup's address space.
        :raises errors.Damaged: the tree cannot be read."""
        super().__init__(read)
        self.kind = tree.where.file_system.kind
        unread = [one for one in stored.unread if one["partition"] == tree.where.number]
        self.notes = [
            f"{one['path']!r} was not fully read when it was backed up: {one['reason']}"
            for one in unread[:_MOST_NOTES]
        ]
        if len(unread) > _MOST_NOTES:
            self.notes.append(f"Nor were {len(unread) - _MOST_NOTES} more.")
        self._records: list[bytes] = []
        # The names of a folder stand together: numbers of the first, and of what follows the last.
        self._folders: dict[int, tuple[int, int]] = {}
        for number, record in enumerate(stored.reader(tree).records()):
            self._records.append(record)
            if number:
                parent = FIXED.unpack_from(record)[_PARENT]
                first, end = self._folders.setdefault(parent, (number, number))
                if end != number or parent >= number:
                    raise BrokenFileSystem("the names of a folder do not stand together")
                self._folders[parent] = (first, number + 1)

    def _root(self) -> Node:
        return self._node(0)

    def _names(self, folder: Node) -> Iterator[tuple[bytes, int]]:
        for number in range(*self._folders.get(folder.handle.number, (0, 0))):
            yield self._entry(number).name, number

    def _node(self, number: int) -> Node:
        entry = self._entry(number)
        links = _LINKED if entry.is_link or entry.flags & trees.LINKED else 1
        if entry.is_link:
            entry = self._entry(entry.link)
        device = (0, 0)
        if entry.kind in (Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE):
            device = entry.size >> 32, entry.size & 0xFFFFFFFF
        return Node(
            inode=(entry.number,),
            mode=_MODES[entry.kind] | entry.mode,
            uid=entry.uid,
            gid=entry.gid,
            size=len(entry.target) if entry.kind is Kind.SYMLINK else entry.size,
            links=links,
            mtime=entry.mtime,
            ctime=entry.ctime,
            atime=entry.atime,
            device=device,
            handle=entry,
        )

    def _content(self, file: Node) -> Iterator[tuple[int, bytes]]:
        for extent in file.handle.extents:
            for done in range(0, extent.length, PIECE):
                length = min(PIECE, extent.length - done)
                yield extent.start + done, self.bytes_at(extent.place + done, length)

    def _target(self, symlink: Node) -> bytes:
        return bytes(symlink.handle.target)

    def _xattrs(self, node: Node) -> Iterator[tuple[bytes, bytes]]:
        yield from node.handle.xattrs

    def _entry(self, number: int) -> trees.Entry:
        return trees.decode(self._records[number], number)
