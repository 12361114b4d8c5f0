# SPDX-License-Identifier: Apache-2.0
"""Walking the chunks of several backups together, so that what they share is looked at once.

Backups that share blocks share them at the same place of the volume: a backup reuses what its
parent holds there. So a window of chunks of all of them says all about these blocks, and no list of
all blocks is ever in memory.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

from freezer_osbrick import errors
from freezer_osbrick.pipeline import workers
from freezer_osbrick.pipeline.progress import Progress
from freezer_osbrick.repository import packs
from freezer_osbrick.repository.catalogue import Backup
from freezer_osbrick.repository.manifest import Entry, Manifest
from freezer_osbrick.repository.repository import Repository

# Chunks that a worker looks at together, in one backup; fewer where many backups are read.
WINDOW = 64

# Bytes of memory that opened manifests may take: all that are read together have to fit.
_MOST_OPENED = 128 << 20

# Of an opened manifest: the segments that it keeps.
_BYTES_A_MANIFEST = 900_000


class OpenedBackup:
    """One of the backups that are walked together.

    :ivar gone: it was removed since it was opened.
    """

    def __init__(self, repository: Repository, backup: Backup) -> None:
        """:raises errors.BackupMissing: it was removed.
        :raises errors.Damaged: it cannot be read."""
        self.backup = backup
        self.manifest = Manifest(repository, bytes.fromhex(backup.id))
        self.gone = False

    def entry(self, index: int) -> Entry | None:
        """Chunk ``index``, if something is stored for it.

        :raises errors.Damaged: the manifest does not say what it is.
        """
        if self.gone or index >= self.manifest.chunk_count:
            return None
        try:
            entry = self.manifest.entry(index)
        except errors.BackupMissing:
            self.gone = True
            return None
        return None if entry.zeros else entry

    def has_changed(self, repository: Repository) -> bool:
        """Whether it was removed, or written anew by a repair, since it was opened."""
        try:
            present = Manifest(repository, self.manifest.backup_id)
        except errors.BackupMissing:
            return True
        except errors.Damaged:
            return False
        return present.object_id != self.manifest.object_id


T = TypeVar("T", bound=OpenedBackup)


@dataclasses.dataclass(frozen=True)
class Chunk:
    """A chunk that has a map, the same one in all backups that share it.

    :param length: bytes of the volume.
    """

    entry: Entry
    length: int


@dataclasses.dataclass(frozen=True)
class Use(Generic[T]):
    """That a backup has a chunk, at ``offset`` in bytes of the volume."""

    backup: T
    offset: int


@dataclasses.dataclass(frozen=True)
class Unreadable(Generic[T]):
    """That a backup does not say what it has there."""

    use: Use[T]
    length: int
    error: errors.Damaged


def chunks(
    repository: Repository, backups: Iterable[T], indexes: range
) -> tuple[dict[Chunk, list[Use[T]]], list[Unreadable[T]]]:
    """What the backups have in some chunks, and who has it."""
    found: dict[Chunk, list[Use[T]]] = defaultdict(list)
    unreadable: list[Unreadable[T]] = []
    chunk_size = repository.chunk_size
    for backup in backups:
        for index in indexes:
            offset = index * chunk_size
            length = min(chunk_size, backup.manifest.size - offset)
            try:
                entry = backup.entry(index)
            except errors.Damaged as error:
                unreadable.append(Unreadable(Use(backup, offset), length, error))
                continue
            if entry:
                found[Chunk(entry, length)].append(Use(backup, offset))
    return found, unreadable


def run(
    repository: Repository,
    backups: Sequence[T],
    threads: int,
    progress: Progress,
    make_visit: Callable[[], Callable[[range], None]],
) -> None:
    """Visit all chunks of the backups, a window at a time, on several threads.

    :param make_visit: called once by each thread; what it returns is called with windows.
    """
    if not backups:
        return
    size = max(backup.manifest.size for backup in backups)
    chunk_size, count = repository.chunk_size, repository.chunk_count(size)
    width = max(1, WINDOW // len(backups))

    def make_step() -> workers.Step:
        visit = make_visit()

        def step(number: int) -> None:
            first, last = number * width, min((number + 1) * width, count)
            visit(range(first, last))
            progress.advance(min(last * chunk_size, size) - first * chunk_size)

        return step

    workers.run(-(-count // width), threads, make_step)


def groups(backups: Sequence[Backup], bytes_a_pack: int) -> list[list[Backup]]:
    """Backups that are walked together: relatives side by side, as many as memory has room for.

    :param bytes_a_pack: of memory, for each pack that a backup uses.
    """
    found: list[list[Backup]] = []
    room = 0
    for backup in _by_family(backups):
        needs = _BYTES_A_MANIFEST + backup.size // packs.TARGET_SIZE * bytes_a_pack
        if not found or needs > room:
            found.append([])
            room = _MOST_OPENED
        found[-1].append(backup)
        room -= needs
    return found


def _by_family(backups: Sequence[Backup]) -> list[Backup]:
    """Backups of one volume, and of volumes that build on each other, next to each other."""
    founders: dict[str, str] = {}

    def founder(name: str) -> str:
        while founders.setdefault(name, name) != name:
            name = founders[name]
        return name

    for backup in backups:
        founders[founder(backup.id)] = founder(backup.volume_id)
        parent = backup.head.get("parent")
        if isinstance(parent, str):
            founders[founder(parent)] = founder(backup.volume_id)
    return sorted(backups, key=lambda backup: (founder(backup.id), backup.time, backup.id))
