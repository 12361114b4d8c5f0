# SPDX-License-Identifier: Apache-2.0
"""From packs to a verdict: every stored block of some backups fetched, opened and checked.

Backups that share blocks share them at the same place of the volume: a backup reuses what its
parent holds there. So all backups are walked together, a window of chunks at a time, and a block
that several of them share is read once, without a list of all blocks in memory.
"""

from __future__ import annotations

import dataclasses
import math
import random
import threading
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence

import zstandard

from freezer_osbrick import errors
from freezer_osbrick.pipeline import workers
from freezer_osbrick.pipeline.progress import Progress
from freezer_osbrick.repository import blocks, packs, ranges
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository.catalogue import Backup
from freezer_osbrick.repository.chunkmap import ChunkMap
from freezer_osbrick.repository.manifest import Entry, Manifest
from freezer_osbrick.repository.maps import open_map
from freezer_osbrick.repository.repository import Repository
from freezer_osbrick.repository.sealing import TAG_SIZE

# Chunks that a worker looks at together, in one backup; fewer where many backups are read.
WINDOW = 64

# A sample has no fewer blocks than this.
LEAST_SAMPLE = 64

# Bytes of memory that opened manifests may take: all that are read together have to fit.
_MOST_OPENED = 128 << 20

# Of an opened manifest: its segments that are kept, and its list of packs.
_BYTES_A_MANIFEST = 900_000
_BYTES_A_PACK = 70


@dataclasses.dataclass
class Finding:
    """What the reading of one backup has shown.

    :param share: of its stored blocks that were asked for; 1.0 for all.
    :param blocks: stored blocks that were read, also for other backups.
    :param stored: bytes of them in the store.
    :param ranges: ``(offset, length)`` in bytes of the volume that cannot be restored, in order.
    :param reasons: what is wrong, each once; the first of them where they are many.
    """

    backup: Backup
    share: float = 1.0
    blocks: int = 0
    stored: int = 0
    ranges: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    reasons: list[str] = dataclasses.field(default_factory=list)
    _most: int = 65536

    @property
    def damaged(self) -> bool:
        return bool(self.ranges or self.reasons)

    @property
    def lost(self) -> int:
        """Bytes of the volume that cannot be restored."""
        return sum(length for _, length in self.ranges)

    def lose(self, offset: int, length: int, reason: str) -> None:
        self.ranges.append((offset, length))
        if len(self.ranges) > self._most:  # memory: where much is lost, it is lost in a row
            self.ranges = merge(self.ranges)
            self._most = max(self._most, 2 * len(self.ranges))
        if reason not in self.reasons and len(self.reasons) < 16:
            self.reasons.append(reason)


@dataclasses.dataclass(frozen=True)
class _User:
    """A backup that has a chunk, and where: bytes of the volume."""

    reader: _Reader
    offset: int


class _Reader:
    """One of the backups that are read together."""

    def __init__(self, repository: Repository, backup: Backup, share: float) -> None:
        self.finding = Finding(backup, share)
        self.opened = Manifest(repository, bytes.fromhex(backup.id))
        # Only the chunks are asked for: the index of packs would be most of the memory.
        self.opened.packs.clear()
        self.gone = False
        self.chosen: Collection[int] | None = None
        if share < 1:
            self._sample(repository.chunk_blocks)

    def _sample(self, chunk_blocks: int) -> None:
        """Choose the chunks in which blocks are read; all blocks of a backup that has few."""
        finding = self.finding
        stored = [
            index for index in range(self.opened.chunk_count) if not _is_zeros(self.opened, index)
        ]
        if len(stored) <= LEAST_SAMPLE:
            finding.share = 1.0
            return
        wanted = math.ceil(len(stored) * finding.share * chunk_blocks)
        count = max(LEAST_SAMPLE, wanted)
        if count < len(stored):
            self.chosen = frozenset(random.sample(stored, count))

    def entry(self, index: int) -> Entry | None:
        """The chunk, if it is to be read.

        :raises errors.Damaged: the manifest does not say what it is.
        """
        if self.gone or index >= self.opened.chunk_count:
            return None
        try:
            entry = self.opened.entry(index)
        except errors.BackupMissing:
            self.gone = True
            return None
        if entry.zeros or (self.chosen is not None and index not in self.chosen):
            return None
        return entry


class BackupVerifier:
    """Reads the stored blocks of backups and says which cannot be restored."""

    def __init__(
        self,
        repository: Repository,
        backups: Sequence[Backup],
        *,
        share: float = 1.0,
        threads: int = 4,
        progress: Progress,
    ) -> None:
        """:param share: of the stored blocks of each backup that are read, chosen at random; at
        least
            :data:`LEAST_SAMPLE` blocks, and all of a backup with no more chunks than that.
        """
        self._repository = repository
        self._backups = backups
        self._share = share
        self._threads = threads
        self._progress = progress
        self._lock = threading.Lock()
        self._seed = random.getrandbits(64)
        self.fetched = 0
        """Bytes that were read from the store for blocks."""

    def run(self) -> Iterator[Finding]:
        """Read, and tell of each backup as soon as it is known.

        A backup that was removed meanwhile is passed over.

        :raises errors.StoreError: the store failed; that says nothing about the backups.
        """
        for group in _groups(self._backups):
            readers: list[_Reader] = []
            for backup in group:
                try:
                    readers.append(_Reader(self._repository, backup, self._share))
                except errors.BackupMissing:
                    continue
                except (errors.Damaged, errors.UnknownFormat) as error:
                    finding = Finding(backup)
                    finding.lose(0, backup.size, str(error))
                    yield finding
            self._read(readers)
            for reader in readers:
                reader.finding.ranges = merge(reader.finding.ranges)
                if reader.finding.damaged and self._has_changed(reader):
                    # Removed, or written anew by a repair: what was read is not what it is now.
                    yield from self._again(reader)
                elif not reader.gone:
                    yield reader.finding

    def _has_changed(self, reader: _Reader) -> bool:
        try:
            present = Manifest(self._repository, reader.opened.backup_id)
        except errors.BackupMissing:
            return True
        except errors.Damaged:
            return False
        return present.object_id != reader.opened.object_id

    def _again(self, reader: _Reader) -> Iterator[Finding]:
        verifier = BackupVerifier(
            self._repository,
            [reader.finding.backup],
            share=self._share,
            threads=self._threads,
            progress=self._progress,
        )
        yield from verifier.run()
        self.fetched += verifier.fetched

    def _read(self, readers: list[_Reader]) -> None:
        if not readers:
            return
        size = max(reader.opened.size for reader in readers)
        count = self._repository.chunk_count(size)
        width = max(1, WINDOW // len(readers))
        self._progress.enter("verify", size)

        def make_step() -> workers.Step:
            decompressor = zstandard.ZstdDecompressor()

            def step(number: int) -> None:
                first, last = number * width, min((number + 1) * width, count)
                self._window(readers, range(first, last), decompressor)
                chunk_size = self._repository.chunk_size
                self._progress.advance(min(last * chunk_size, size) - first * chunk_size)

            return step

        workers.run(-(-count // width), self._threads, make_step)

    def _window(
        self,
        readers: list[_Reader],
        indexes: range,
        decompressor: zstandard.ZstdDecompressor,
    ) -> None:
        """Look at some chunks in all backups."""
        users: dict[tuple[Entry, int], list[_User]] = defaultdict(list)
        chunk_size = self._repository.chunk_size
        for reader in readers:
            for index in indexes:
                offset = index * chunk_size
                length = min(chunk_size, reader.opened.size - offset)
                try:
                    entry = reader.entry(index)
                except errors.Damaged as error:
                    self._lose([_User(reader, offset)], 0, length, str(error))
                    continue
                if entry:
                    users[entry, length].append(_User(reader, offset))
        self._check_blocks(self._maps(users), users, decompressor)

    def _maps(
        self, users: dict[tuple[Entry, int], list[_User]]
    ) -> dict[tuple[Entry, int], ChunkMap]:
        """The maps of chunks, each fetched once. What cannot be read is lost to its users."""
        keys = list(users)
        wanted = [
            ranges.Wanted(entry.pack, entry.offset, entry.length, number)
            for number, (entry, _) in enumerate(keys)
        ]
        found: dict[tuple[Entry, int], ChunkMap] = {}
        for run in ranges.runs(wanted):
            for piece, box in packs.fetch(self._repository, run):
                entry, length = key = keys[piece.target]
                try:
                    chunk_map = open_map(self._repository, entry, box)
                    if len(chunk_map) != -(-length // self._repository.block_size):
                        raise errors.Damaged("A chunk map has a wrong number of blocks.")
                    found[key] = chunk_map
                except errors.Damaged as error:
                    self._lose(users[key], 0, length, str(error))
        return found

    def _check_blocks(
        self,
        maps: dict[tuple[Entry, int], ChunkMap],
        users: dict[tuple[Entry, int], list[_User]],
        decompressor: zstandard.ZstdDecompressor,
    ) -> None:
        # By pack, offset, length, id and size: where in which backups that block lies.
        places: dict[tuple[bytes, int, int, bytes, int], list[tuple[_User, int]]]
        places = defaultdict(list)
        block_size = self._repository.block_size
        for (entry, length), chunk_map in maps.items():
            for index in self._choose(entry, chunk_map, users[entry, length]):
                start = index * block_size
                size = min(block_size, length - start)
                pack, stored = chunk_map.packs[index], chunk_map.lengths[index]
                if pack is None or stored > size + TAG_SIZE:
                    told = "A chunk map contradicts itself."
                    self._lose(users[entry, length], start, size, told)
                    continue
                key = (pack, chunk_map.offsets[index], stored, chunk_map.block_id(index), size)
                places[key] += [(user, start) for user in users[entry, length]]
        keys = list(places)
        wanted = (ranges.Wanted(*key[:3], number) for number, key in enumerate(keys))
        for run in ranges.runs(wanted):
            for piece, box in packs.fetch(self._repository, run):
                _, _, stored, block_id, size = key = keys[piece.target]
                try:
                    if isinstance(box, errors.Damaged):
                        raise box
                    blocks.open_block(
                        self._repository,
                        piece.pack,
                        piece.offset,
                        box,
                        block_id,
                        size,
                        decompressor,
                    )
                except errors.Damaged as error:
                    for user, start in places[key]:
                        self._lose([user], start, size, str(error))
                self._count(stored, [user for user, _ in places[key]])

    def _choose(self, entry: Entry, chunk_map: ChunkMap, users: Iterable[_User]) -> list[int]:
        """The blocks of a chunk that are read: all that are stored, or a sample."""
        stored = [
            index for index in range(len(chunk_map)) if chunk_map.block_id(index) != form.ZEROS
        ]
        share = max(user.reader.finding.share for user in users)
        count = max(1, math.ceil(share * len(stored)))
        if count >= len(stored):
            return stored
        # Not at random once more for another backup: what they share is to be read once.
        randomness = random.Random(f"{self._seed} {entry.pack.hex()} {entry.offset}")
        return sorted(randomness.sample(stored, count))

    def _count(self, stored: int, users: list[_User]) -> None:
        with self._lock:
            self.fetched += stored
            for user in users:
                user.reader.finding.blocks += 1
                user.reader.finding.stored += stored

    def _lose(self, users: Iterable[_User], start: int, length: int, reason: str) -> None:
        with self._lock:
            for user in users:
                user.reader.finding.lose(user.offset + start, length, reason)


def merge(parts: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges ``(offset, length)`` in order, neighbours joined."""
    merged: list[tuple[int, int]] = []
    for offset, length in sorted(parts):
        if merged and offset <= sum(merged[-1]):
            start = merged[-1][0]
            merged[-1] = (start, max(sum(merged[-1]), offset + length) - start)
        else:
            merged.append((offset, length))
    return merged


def _is_zeros(manifest: Manifest, index: int) -> bool:
    try:
        return manifest.entry(index).zeros
    except errors.Damaged:
        return False  # to be looked at, and told


def _groups(backups: Sequence[Backup]) -> list[list[Backup]]:
    """Backups that are read together: relatives side by side, as many as memory has room for."""
    groups: list[list[Backup]] = []
    room = 0
    for backup in _by_family(backups):
        needs = _BYTES_A_MANIFEST + backup.size // packs.TARGET_SIZE * _BYTES_A_PACK
        if not groups or needs > room:
            groups.append([])
            room = _MOST_OPENED
        groups[-1].append(backup)
        room -= needs
    return groups


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
