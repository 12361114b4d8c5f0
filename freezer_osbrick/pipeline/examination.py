# SPDX-License-Identifier: Apache-2.0
"""Examining a backup for its repair: every chunk map and every block, and what exactly is wrong."""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter
from collections.abc import Collection, Iterable

import zstandard

from freezer_osbrick import errors
from freezer_osbrick.pipeline import workers
from freezer_osbrick.pipeline.progress import Progress
from freezer_osbrick.repository import blocks, packs, ranges
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository.chunkmap import ChunkMap
from freezer_osbrick.repository.manifest import Entry, Manifest
from freezer_osbrick.repository.maps import read_maps
from freezer_osbrick.repository.ranges import Wanted
from freezer_osbrick.repository.repository import Repository
from freezer_osbrick.repository.salvage import SalvagedManifest
from freezer_osbrick.repository.sealing import TAG_SIZE
from freezer_osbrick.repository.search import Place

# Chunks that a worker looks at together.
_WINDOW = 64


@dataclasses.dataclass
class WrongChunk:
    """A chunk that is not as it should be.

    :param length: bytes of the volume.
    :param reason: why its map cannot be read.
    :param changed: whether its map is another one than is stored.
    :param bad: blocks that cannot be read, and why.
    :param unsafe: blocks that can be read, but in packs that are not as they should be.
    """

    index: int
    entry: Entry
    length: int
    map: ChunkMap | None = None
    reason: str = ""
    changed: bool = False
    bad: dict[int, str] = dataclasses.field(default_factory=dict)
    unsafe: set[int] = dataclasses.field(default_factory=set)

    @property
    def known(self) -> ChunkMap:
        """The map, where there is one."""
        if self.map is None:
            raise AssertionError("nobody knows the blocks of a chunk without a map")
        return self.map

    def place(self, index: int) -> Place:
        """Where a block that is not of zeros lies."""
        pack = self.known.packs[index]
        if pack is None:
            raise AssertionError("a block of zeros lies in no pack")
        return Place(pack, self.known.offsets[index], self.known.lengths[index])

    def point(self, index: int, place: Place) -> None:
        """Say that a block lies elsewhere."""
        self.known.packs[index] = place.pack
        self.known.offsets[index] = place.offset
        self.known.lengths[index] = place.length
        self.changed = True


@dataclasses.dataclass
class Needs:
    """What a backup needs: bytes by pack, and the packs' kinds."""

    live: Counter[bytes] = dataclasses.field(default_factory=Counter)
    kinds: dict[bytes, int] = dataclasses.field(default_factory=dict)

    def add(self, entry: Entry, chunk_map: ChunkMap | None) -> None:
        """Count a chunk; without a map, only the box where it should be."""
        self.live[entry.pack] += entry.length
        self.kinds[entry.pack] = form.KIND_MAPS
        if chunk_map:
            for pack, stored in chunk_map.stored().items():
                self.live[pack] += stored
                self.kinds[pack] = form.KIND_BLOCKS


class Examiner:
    """Examines backups of one repository.

    :ivar spare_blocks: what can be read in broken packs, whatever their trailers say, by its id.
    :ivar spare_maps: likewise of chunk maps.
    """

    def __init__(
        self,
        repository: Repository,
        broken: Collection[bytes],
        *,
        threads: int,
        progress: Progress,
    ) -> None:
        """:param broken: packs that are not as they should be."""
        self._repository = repository
        self._broken = broken
        self._threads = threads
        self._progress = progress
        self._lock = threading.Lock()
        self.spare_blocks: dict[bytes, Place] = {}
        self.spare_maps: dict[bytes, Entry] = {}

    def examine(self, source: Manifest | SalvagedManifest) -> tuple[list[WrongChunk], Needs]:
        """Read all of a backup: the chunks that are wrong, in order; and what the others need.

        :raises errors.Damaged: the manifest does not say what the chunks are.
        """
        wrong: list[WrongChunk] = []
        needs = Needs()
        count = source.chunk_count
        self._progress.enter("examine", source.size)

        def make_step() -> workers.Step:
            decompressor = zstandard.ZstdDecompressor()

            def step(number: int) -> None:
                first, last = number * _WINDOW, min((number + 1) * _WINDOW, count)
                chunks = self._window(source, range(first, last), decompressor)
                with self._lock:
                    for chunk in chunks:
                        if self._is_wrong(chunk):
                            wrong.append(chunk)
                        else:
                            needs.add(chunk.entry, chunk.map)
                size = self._repository.chunk_size
                self._progress.advance(min(last * size, source.size) - first * size)

            return step

        workers.run(-(-count // _WINDOW), self._threads, make_step)
        return sorted(wrong, key=lambda chunk: chunk.index), needs

    def examine_blocks(
        self, chunks: Iterable[WrongChunk], decompressor: zstandard.ZstdDecompressor
    ) -> None:
        """Read the blocks of chunks whose maps are known, and note which are bad."""
        wanted: list[Wanted] = []
        targets: list[tuple[WrongChunk, int]] = []
        for chunk in chunks:
            if chunk.map is None:
                continue
            for index, pack in enumerate(chunk.map.packs):
                if chunk.map.block_id(index) == form.ZEROS:
                    continue
                length = chunk.map.lengths[index]
                if pack is None or length > self.block_size(chunk, index) + TAG_SIZE:
                    chunk.bad[index] = "A chunk map contradicts itself."
                    continue
                wanted.append(Wanted(pack, chunk.map.offsets[index], length, len(targets)))
                targets.append((chunk, index))
        for run in ranges.runs(wanted):
            for piece, box in packs.fetch(self._repository, run):
                chunk, index = targets[piece.target]
                block_id, size = chunk.known.block_id(index), self.block_size(chunk, index)
                reason = self.fault(box, chunk.place(index), block_id, size, decompressor)
                if reason:
                    chunk.bad[index] = reason
                elif piece.pack in self._broken:
                    chunk.unsafe.add(index)
                    self.spare_blocks[block_id] = chunk.place(index)

    def fault(
        self,
        box: memoryview | errors.Damaged,
        place: Place,
        block_id: bytes,
        size: int,
        decompressor: zstandard.ZstdDecompressor,
    ) -> str | None:
        """Why a box does not hold a block."""
        try:
            if isinstance(box, errors.Damaged):
                raise box
            blocks.open_block(
                self._repository, place.pack, place.offset, box, block_id, size, decompressor
            )
        except errors.Damaged as error:
            return str(error)
        return None

    def block_size(self, chunk: WrongChunk, index: int) -> int:
        """Bytes of a block; the volume's last may be short."""
        start = index * self._repository.block_size
        return min(self._repository.block_size, chunk.length - start)

    def _window(
        self,
        source: Manifest | SalvagedManifest,
        indexes: range,
        decompressor: zstandard.ZstdDecompressor,
    ) -> Iterable[WrongChunk]:
        """Look at some chunks; all that have a map, right or wrong."""
        chunk_size = self._repository.chunk_size
        chunks: dict[int, WrongChunk] = {}
        for index in indexes:
            entry = source.entry(index)
            if not entry.zeros:
                length = min(chunk_size, source.size - index * chunk_size)
                chunks[index] = WrongChunk(index, entry, length)
        wanted = ((chunk.index, chunk.entry, chunk.length) for chunk in chunks.values())
        for index, found in read_maps(self._repository, wanted):
            if isinstance(found, errors.Damaged):
                chunks[index].reason = str(found)
                continue
            chunks[index].map = found
            entry = chunks[index].entry
            if entry.pack in self._broken:
                self.spare_maps[entry.chunk_id] = entry
        self.examine_blocks(chunks.values(), decompressor)
        return chunks.values()

    def _is_wrong(self, chunk: WrongChunk) -> bool:
        broken = chunk.entry.pack in self._broken
        return chunk.map is None or bool(chunk.bad or chunk.unsafe) or broken
