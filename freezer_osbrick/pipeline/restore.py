# SPDX-License-Identifier: Apache-2.0
"""From packs to a device: fetch, open, check, write; and name what could not be restored."""

from __future__ import annotations

import dataclasses
import mmap
import threading
from collections.abc import Iterable, Sequence

import zstandard

from freezer_osbrick import errors
from freezer_osbrick.device.hints import Extents
from freezer_osbrick.device.volume_device import Device
from freezer_osbrick.pipeline import workers
from freezer_osbrick.pipeline.progress import Progress
from freezer_osbrick.pipeline.scan import ChunkBuffer
from freezer_osbrick.repository import blocks, packs, ranges
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository.chunkmap import ChunkMap
from freezer_osbrick.repository.manifest import Manifest
from freezer_osbrick.repository.maps import MapReader
from freezer_osbrick.repository.repository import Repository
from freezer_osbrick.repository.sealing import TAG_SIZE

# Bytes of the volume that a worker restores together, so that what lies together in a pack is
# fetched together, and written in few large pieces.
WINDOW = 16 << 20


@dataclasses.dataclass
class Amounts:
    """Bytes of the volume by what became of them.

    :param fetched: bytes read from the store for blocks.
    :param written: blocks written.
    :param zeroed: ranges that were made zeros.
    :param kept: found right on the device already.
    """

    fetched: int = 0
    written: int = 0
    zeroed: int = 0
    kept: int = 0

    def add(self, others: Amounts) -> None:
        for field in dataclasses.fields(self):
            total = getattr(self, field.name) + getattr(others, field.name)
            setattr(self, field.name, total)


@dataclasses.dataclass(frozen=True)
class _Block:
    """A block that the device lacks."""

    id: bytes
    offset: int
    size: int


class RestoreReader:
    """Brings one device to the state of one backup."""

    def __init__(
        self,
        repository: Repository,
        manifest: Manifest,
        device: Device,
        *,
        compare: bool,
        only: Iterable[tuple[int, int]] | None = None,
        threads: int | workers.Budget = 4,
        progress: Progress,
    ) -> None:
        """:param compare: read the device first and write only blocks that differ: for a device
            that holds an older or newer state of the same volume. Otherwise only zeros are looked
            for.
        :param only: ``(offset, length)`` ranges in bytes: what lies elsewhere is right already.
        """
        self._repository = repository
        self._manifest = manifest
        self._maps = MapReader(repository, manifest)
        self._device = device
        self._compare = compare
        self._threads = threads
        self._progress = progress
        self._window_chunks = max(1, WINDOW // repository.chunk_size)
        self._only = only
        self._holes = Extents()
        self.amounts = Amounts()
        self._damaged: list[tuple[int, int]] = []
        self._reasons: list[str] = []
        self._lock = threading.Lock()

    def run(self) -> Amounts:
        """Write the device and flush it. What was done is in ``amounts``, also after an error.

        :raises errors.DamagedRanges: some of the backup cannot be read; the rest was restored.
        :raises errors.BadRequest: the device is too small; nothing was written.
        """
        if self._device.size < self._manifest.size:
            raise errors.BadRequest(
                f"The backup has {self._manifest.size} bytes, the volume only {self._device.size}."
            )
        self._holes = self._device.holes()
        windows = self._windows()
        width = self._window_chunks * self._repository.chunk_size
        self._progress.enter("write", min(len(windows) * width, self._device.size))
        workers.run(len(windows), self._threads, lambda: self._make_step(windows))
        self._device.flush()
        if self._damaged:
            raise lost(self._manifest.backup_id.hex(), self._damaged, self._reasons[0])
        return self.amounts

    def _windows(self) -> Sequence[int]:
        """The numbers of the windows to be restored."""
        width = self._window_chunks * self._repository.chunk_size
        if self._only is None:
            return range(-(-self._device.size // width))
        wanted: set[int] = set()
        for offset, length in self._only:
            wanted.update(range(offset // width, -(-(offset + length) // width)))
        return sorted(wanted)

    def _make_step(self, windows: Sequence[int]) -> workers.Step:
        buffer = ChunkBuffer(self._repository)
        # Where a window's blocks are put together: aligned, as direct I/O wants it.
        memory = memoryview(mmap.mmap(-1, self._window_chunks * self._repository.chunk_size))
        decompressor = zstandard.ZstdDecompressor()

        def step(number: int) -> None:
            self._window(windows[number], buffer, memory, decompressor)

        return step

    def _window(
        self,
        window: int,
        buffer: ChunkBuffer,
        memory: memoryview,
        decompressor: zstandard.ZstdDecompressor,
    ) -> None:
        amounts = Amounts()
        lacking: list[ranges.Wanted] = []
        wanted: list[_Block] = []
        chunk_size, size = self._repository.chunk_size, self._device.size
        first = window * self._window_chunks
        last = min(first + self._window_chunks, self._repository.chunk_count(size))
        begin = first * chunk_size
        for index in range(first, last):
            self._chunk(index, buffer, lacking, wanted, amounts)
        ready: list[tuple[int, int]] = []
        for run in ranges.runs(lacking):
            ready += self._read_run(run, wanted, memory, begin, decompressor, amounts)
        for offset, length in ranges.merge(ready):
            self._device.write(offset, memory[offset - begin : offset - begin + length])
            amounts.written += length
        with self._lock:
            self.amounts.add(amounts)
        self._progress.advance(min(last * chunk_size, size) - begin)

    def _chunk(
        self,
        index: int,
        buffer: ChunkBuffer,
        lacking: list[ranges.Wanted],
        wanted: list[_Block],
        amounts: Amounts,
    ) -> None:
        """Put the zeros of a chunk in place and list the blocks that the device lacks."""
        offset = index * self._repository.chunk_size
        end = min(offset + self._repository.chunk_size, self._manifest.size)
        room = min(offset + self._repository.chunk_size, self._device.size) - offset
        if offset >= self._manifest.size:
            self._beyond(offset, room, buffer, amounts)
            return
        length = end - offset
        if length < room:
            self._beyond(end, room - length, buffer, amounts)
        try:
            entry = self._manifest.entry(index)
        except errors.Damaged as error:
            self._lose(offset, length, str(error))
            return
        if entry.zeros:
            self._make_zeros(offset, length, buffer, amounts)
            return
        present = b""
        if self._compare:
            buffer.read(self._device, offset, length)
            present = buffer.block_ids()
            if self._repository.ids.chunk(present) == entry.chunk_id:
                amounts.kept += length
                return
        try:
            chunk_map = self._maps.load(index)
        except errors.Damaged as error:
            self._lose(offset, length, str(error))
            return
        self._blocks(chunk_map, offset, length, present, buffer, lacking, wanted, amounts)

    def _blocks(
        self,
        chunk_map: ChunkMap,
        chunk_offset: int,
        chunk_length: int,
        present: bytes,
        buffer: ChunkBuffer,
        lacking: list[ranges.Wanted],
        wanted: list[_Block],
        amounts: Amounts,
    ) -> None:
        block_size = self._repository.block_size
        if len(chunk_map) != -(-chunk_length // block_size):
            self._lose(chunk_offset, chunk_length, "A chunk map has a wrong number of blocks.")
            return
        zeros: list[tuple[int, int]] = []
        for index in range(len(chunk_map)):
            start = index * block_size
            size = min(block_size, chunk_length - start)
            block_id = chunk_map.block_id(index)
            if present[index * form.ID_SIZE : (index + 1) * form.ID_SIZE] == block_id:
                amounts.kept += size
                continue
            pack = chunk_map.packs[index]
            if block_id == form.ZEROS:
                zeros.append((chunk_offset + start, size))
            elif pack is None or chunk_map.lengths[index] > size + TAG_SIZE:
                self._lose(chunk_offset + start, size, "A chunk map contradicts itself.")
            else:
                place = chunk_map.offsets[index], chunk_map.lengths[index]
                lacking.append(ranges.Wanted(pack, *place, len(wanted)))
                wanted.append(_Block(block_id, chunk_offset + start, size))
        for start, length in ranges.merge(zeros):
            self._make_zeros(start, length, buffer, amounts)

    def _read_run(
        self,
        run: ranges.Run,
        wanted: list[_Block],
        memory: memoryview,
        begin: int,
        decompressor: zstandard.ZstdDecompressor,
        amounts: Amounts,
    ) -> list[tuple[int, int]]:
        """Fetch a run of boxes and put their blocks into ``memory``, which stands for the device
        from offset ``begin`` on.

        :returns: where on the device these blocks belong: ``(offset, length)``.
        """
        ready = []
        for piece, box in packs.fetch(self._repository, run):
            block = wanted[piece.target]
            try:
                if isinstance(box, errors.Damaged):
                    raise box
                amounts.fetched += len(box)
                content = blocks.open_block(
                    self._repository,
                    piece.pack,
                    piece.offset,
                    box,
                    block.id,
                    block.size,
                    decompressor,
                )
            except errors.Damaged as error:
                self._lose(block.offset, block.size, str(error))
                continue
            place = block.offset - begin
            memory[place : place + block.size] = content
            ready.append((block.offset, block.size))
        return ready

    def _make_zeros(self, offset: int, length: int, buffer: ChunkBuffer, amounts: Amounts) -> None:
        """Prove that the range reads as zeros, or make it so. A new volume is not assumed to be
        empty."""
        if self._holes.cover(offset, length):
            amounts.kept += length
            return
        buffer.read(self._device, offset, length)
        if buffer.all_zeros():
            amounts.kept += length
        else:
            self._device.zero(offset, length)
            amounts.zeroed += length

    def _beyond(self, offset: int, length: int, buffer: ChunkBuffer, amounts: Amounts) -> None:
        """What lies beyond the backup's end: nothing of a new volume's earlier life may remain
        there; a volume that has grown since keeps what it has."""
        if not self._compare:
            self._make_zeros(offset, length, buffer, amounts)

    def _lose(self, offset: int, length: int, reason: str) -> None:
        with self._lock:
            self._damaged.append((offset, length))
            self._reasons.append(reason)


def lost(backup_id: str, where: Iterable[tuple[int, int]], reason: str) -> errors.DamagedRanges:
    """The error that names the ranges of a backup that cannot be restored."""
    damaged = ranges.merge(list(where))
    count = sum(length for _, length in damaged)
    named = ", ".join(f"{start}+{length}" for start, length in damaged[:8])
    more = ", …" if len(damaged) > 8 else ""
    return errors.DamagedRanges(
        f"{count} bytes of backup {backup_id} cannot be restored (ranges {named}{more}): {reason}",
        damaged,
    )
