# SPDX-License-Identifier: Apache-2.0
"""A folder laid out as if it were a mounted file system, and brought back, without a repository."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from freezer_osbrick.filesystem.disk import Disk, Place
from freezer_osbrick.filesystem.restoring import Restoring
from freezer_osbrick.filesystem.source import FileSource, Laid, UnreadFiles
from freezer_osbrick.filesystem.stored import StoredFiles
from freezer_osbrick.filesystem.superblocks import FileSystem
from tests.unit.fakes import MemoryDevice

BLOCK = 64 << 10
FROZEN = 4_000_000_000  # long after any file of a test was written to


class Backup(StoredFiles):
    """A backup, in memory.

    :ivar read_bytes: that the backup had to read of the address space.
    """

    def __init__(self, head: dict[str, Any], image: bytes, read_bytes: int) -> None:
        self.image = image
        self.read_bytes = read_bytes
        super().__init__(json.loads(json.dumps(head)), self._part)

    def _part(self, offset: int, length: int) -> bytes:
        return self.image[offset : offset + length]

    def paths(self) -> list[bytes]:
        return [path for path, _ in self.reader(self.trees[0]).walk()]


@contextlib.contextmanager
def laid_out(
    folder: pathlib.Path,
    parent: Backup | None = None,
    *,
    patterns: Sequence[str] = (),
    unread: UnreadFiles | None = None,
) -> Iterator[Laid]:
    place = Place(0, 0, 1 << 30, FileSystem("ext4", "", "some uuid"))
    root = os.open(folder, os.O_RDONLY)
    try:
        source = FileSource(MemoryDevice(bytes(1 << 20)), Disk(None, (place,)), [(place, root)])
        with source.lay_out(parent, patterns, unread or UnreadFiles()) as laid:
            yield laid
    finally:
        os.close(root)


def back_up(
    folder: pathlib.Path,
    parent: Backup | None = None,
    *,
    patterns: Sequence[str] = (),
    time: int = FROZEN,
) -> Backup:
    """What a repository would have, read as hints allow."""
    unread = UnreadFiles()
    with laid_out(folder, parent, patterns=patterns, unread=unread) as laid:
        image = bytearray(laid.volume.size)
        read = 0
        for offset in range(0, len(image), BLOCK):
            if laid.hints.unchanged.cover(offset, BLOCK):
                assert parent
                image[offset : offset + BLOCK] = parent.image[offset : offset + BLOCK]
            else:
                laid.volume.readinto(offset, memoryview(image)[offset : offset + BLOCK])
                read += BLOCK
        files = {**laid.facts, "unread": [vars(one) for one in unread]}
        return Backup({"size": len(image), "time": time, "files": files}, bytes(image), read)


def restore(backup: Backup, folder: pathlib.Path, **how: Any) -> tuple[Restoring, list[str]]:
    """Into a folder; also what could not be restored."""
    folder.mkdir(exist_ok=True)
    root = os.open(folder, os.O_RDONLY)
    problems: list[str] = []
    try:
        restoring = Restoring(
            backup.reader(backup.trees[0]).walk(),
            backup.read,
            root,
            report=lambda path, reason: problems.append(f"{os.fsdecode(path)}: {reason}"),
            **how,
        )
        restoring.run()
    finally:
        os.close(root)
    return restoring, problems


def content(folder: pathlib.Path) -> dict[str, tuple[Any, ...]]:
    """All that is below a folder, in a form that can be compared."""
    found: dict[str, tuple[Any, ...]] = {}
    inodes: dict[int, str] = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        status = path.lstat()
        name = str(path.relative_to(folder))
        data: Any = None
        if path.is_symlink():
            data = os.readlink(path)
        elif path.is_file():
            data = path.read_bytes()
        first = inodes.setdefault(status.st_ino, name)
        found[name] = (
            *(status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, data, first),
            {key: os.getxattr(path, key, follow_symlinks=False) for key in _xattrs(path)},
        )
    return found


def _xattrs(path: pathlib.Path) -> list[str]:
    return os.listxattr(path, follow_symlinks=False)
