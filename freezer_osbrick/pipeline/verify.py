# SPDX-License-Identifier: Apache-2.0
"""From packs to a verdict: every stored block of some backups fetched, opened and checked."""

from __future__ import annotations

import dataclasses
import math
import random
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import zstandard

from freezer_osbrick import errors
from freezer_osbrick.pipeline import walk
from freezer_osbrick.pipeline.progress import Progress
from freezer_osbrick.pipeline.walk import Chunk, Use
from freezer_osbrick.repository import blocks, packs, ranges
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository.catalogue import Backup
from freezer_osbrick.repository.chunkmap import ChunkMap
from freezer_osbrick.repository.manifest import Entry
from freezer_osbrick.repository.maps import read_maps
from freezer_osbrick.repository.repository import Repository
from freezer_osbrick.repository.sealing import TAG_SIZE

# A sample has no fewer blocks than this.
LEAST_SAMPLE = 64

# Of memory, for each pack of an opened backup: its id.
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
            self.ranges = ranges.merge(self.ranges)
            self._most = max(self._most, 2 * len(self.ranges))
        if reason not in self.reasons and len(self.reasons) < 16:
            self.reasons.append(reason)


class _Reader(walk.OpenedBackup):
    """One of the backups that are read together."""

    def __init__(self, repository: Repository, backup: Backup, share: float) -> None:
        super().__init__(repository, backup)
        self.finding = Finding(backup, share)
        # Only the chunks are asked for: the index of packs would be most of the memory.
        self.manifest.packs.clear()
        self._chosen: Collection[int] | None = None
        if share < 1:
            self._sample(repository.chunk_blocks)

    def entry(self, index: int) -> Entry | None:
        if self._chosen is not None and index not in self._chosen:
            return None
        return super().entry(index)

    def _sample(self, chunk_blocks: int) -> None:
        """Choose the chunks in which blocks are read; all blocks of a backup that has few."""
        stored = [index for index in range(self.manifest.chunk_count) if self._is_stored(index)]
        if len(stored) <= LEAST_SAMPLE:
            self.finding.share = 1.0
            return
        wanted = math.ceil(len(stored) * self.finding.share * chunk_blocks)
        count = max(LEAST_SAMPLE, wanted)
        if count < len(stored):
            self._chosen = frozenset(random.sample(stored, count))

    def _is_stored(self, index: int) -> bool:
        try:
            return self.entry(index) is not None
        except errors.Damaged:
            return True  # to be looked at, and told


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
        for group in walk.groups(self._backups, _BYTES_A_PACK):
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
                reader.finding.ranges = ranges.merge(reader.finding.ranges)
                if reader.finding.damaged and reader.has_changed(self._repository):
                    # Removed, or written anew by a repair: what was read is not what it is now.
                    yield from self._again(reader)
                elif not reader.gone:
                    yield reader.finding

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
        if readers:
            self._progress.enter("verify", max(reader.manifest.size for reader in readers))

        def make_visit() -> Callable[[range], None]:
            decompressor = zstandard.ZstdDecompressor()
            return lambda indexes: self._window(readers, indexes, decompressor)

        walk.run(self._repository, readers, self._threads, self._progress, make_visit)

    def _window(
        self,
        readers: list[_Reader],
        indexes: range,
        decompressor: zstandard.ZstdDecompressor,
    ) -> None:
        """Look at some chunks in all backups."""
        uses, unreadable = walk.chunks(self._repository, readers, indexes)
        for one in unreadable:
            self._lose([one.use], 0, one.length, str(one.error))
        maps: dict[Chunk, ChunkMap] = {}
        wanted = ((chunk, chunk.entry, chunk.length) for chunk in uses)
        for chunk, found in read_maps(self._repository, wanted):
            if isinstance(found, errors.Damaged):
                self._lose(uses[chunk], 0, chunk.length, str(found))
            else:
                maps[chunk] = found
        self._check_blocks(maps, uses, decompressor)

    def _check_blocks(
        self,
        maps: dict[Chunk, ChunkMap],
        uses: dict[Chunk, list[Use[_Reader]]],
        decompressor: zstandard.ZstdDecompressor,
    ) -> None:
        # By pack, offset, length, id and size: where in which backups that block lies.
        places: dict[tuple[bytes, int, int, bytes, int], list[tuple[Use[_Reader], int]]]
        places = defaultdict(list)
        block_size = self._repository.block_size
        for chunk, chunk_map in maps.items():
            for index in self._choose(chunk, chunk_map, uses[chunk]):
                start = index * block_size
                size = min(block_size, chunk.length - start)
                pack, stored = chunk_map.packs[index], chunk_map.lengths[index]
                if pack is None or stored > size + TAG_SIZE:
                    self._lose(uses[chunk], start, size, "A chunk map contradicts itself.")
                    continue
                key = (pack, chunk_map.offsets[index], stored, chunk_map.block_id(index), size)
                places[key] += [(use, start) for use in uses[chunk]]
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
                    for use, start in places[key]:
                        self._lose([use], start, size, str(error))
                self._count(stored, [use for use, _ in places[key]])

    def _choose(self, chunk: Chunk, chunk_map: ChunkMap, uses: Iterable[Use[_Reader]]) -> list[int]:
        """The blocks of a chunk that are read: all that are stored, or a sample."""
        stored = [
            index for index in range(len(chunk_map)) if chunk_map.block_id(index) != form.ZEROS
        ]
        share = max(use.backup.finding.share for use in uses)
        count = max(1, math.ceil(share * len(stored)))
        if count >= len(stored):
            return stored
        # Not at random once more for another backup: what they share is to be read once.
        entry = chunk.entry
        randomness = random.Random(f"{self._seed} {entry.pack.hex()} {entry.offset}")
        return sorted(randomness.sample(stored, count))

    def _count(self, stored: int, uses: list[Use[_Reader]]) -> None:
        with self._lock:
            self.fetched += stored
            for use in uses:
                use.backup.finding.blocks += 1
                use.backup.finding.stored += stored

    def _lose(self, uses: Iterable[Use[_Reader]], start: int, length: int, reason: str) -> None:
        with self._lock:
            for use in uses:
                use.backup.finding.lose(use.offset + start, length, reason)
