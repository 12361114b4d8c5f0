# SPDX-License-Identifier: Apache-2.0
"""From a device to packs: read, tell what is new, compress, hand over."""

from __future__ import annotations

import array
import dataclasses
import threading
import time
from collections.abc import Callable

import zstandard

from freezer_osbrick.device.hints import NO_HINTS, Hints
from freezer_osbrick.device.volume_device import Device
from freezer_osbrick.pipeline import workers
from freezer_osbrick.pipeline.progress import Progress
from freezer_osbrick.pipeline.scan import ChunkBuffer
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository.chunkmap import ChunkMap
from freezer_osbrick.repository.manifest import (
    ZERO_ENTRY,
    Entry,
    Head,
    Manifest,
    ManifestWriter,
)
from freezer_osbrick.repository.maps import MapReader
from freezer_osbrick.repository.packs import PackWriter, Uploads
from freezer_osbrick.repository.repository import Repository
from freezer_osbrick.store.base import Buffer

# Chunks in one step, at most: so that progress is seen, and segments of the manifest are finished
# in their order.
_SPAN = 512


@dataclasses.dataclass
class Amounts:
    """Bytes of the volume by what became of them, and bytes of the store.

    :param read: read from the device; what hints tell of is not.
    :param zeros: found to be zeros.
    :param reused: the same as in the parent.
    :param new: stored now, before compression.
    :param stored: put into the store: packs and manifest.
    """

    read: int = 0
    zeros: int = 0
    reused: int = 0
    new: int = 0
    stored: int = 0


class BackupWriter:
    """Writes one backup of one device."""

    def __init__(
        self,
        repository: Repository,
        backup_id: bytes,
        device: Device,
        *,
        parent: Manifest | None = None,
        hints: Hints = NO_HINTS,
        threads: int | workers.Budget = 4,
        compression_level: int = 1,
        read: int = 0,
        progress: Progress,
    ) -> None:
        """:param parent: a complete backup in the same repository; what it holds at the same place
            is not stored again.
        :param hints: what need not be read.
        :param compression_level: of zstd; 0 stores blocks as they are.
        :param read: bytes that were read already, to prove the hints.
        """
        self._repository = repository
        self._device = device
        self._parent = parent
        self._parent_maps = MapReader(repository, parent) if parent else None
        self._hints = hints
        self._threads = threads
        self._level = compression_level
        self._progress = progress
        self._uploads = Uploads()
        self._blocks = PackWriter(repository, form.KIND_BLOCKS, self._uploads)
        self._maps = PackWriter(repository, form.KIND_MAPS, self._uploads)
        self._manifest = ManifestWriter(repository, backup_id, device.size)
        self._amounts = Amounts(read=read)
        self._lock = threading.Lock()

    def run(self, head: Head, before_commit: Callable[[], None] = lambda: None) -> Amounts:
        """Read the whole device once and commit the backup.

        :param head: the manifest's head; what was counted on the way is added to it under
            ``bytes``.
        :param before_commit: called when all but the manifest is stored; what it raises keeps the
            backup from being committed.
        :raises errors.OsbrickError: nothing was committed.
        """
        try:
            if self._parent:
                self._manifest.inherit(self._parent.packs)
                self._forget_tail(self._parent)
            self._progress.enter("read", self._device.size)
            spans = self._spans()
            workers.run(len(spans) - 1, self._threads, lambda: self._make_step(spans))
            self._blocks.finish()
            self._maps.finish()
            self._progress.enter("commit")
            self._uploads.drain()
            self._amounts.stored = self._blocks.stored + self._maps.stored
            head["size"] = self._device.size
            head["bytes"] = dataclasses.asdict(self._amounts)
            head["finished"] = round(time.time(), 3)
            sizes = self._blocks.sizes | self._maps.sizes
            before_commit()
            self._amounts.stored += self._manifest.store(head, sizes)
            return self._amounts
        finally:
            self._uploads.close()
            self._manifest.close()

    def _spans(self) -> array.array[int]:
        """Where each step begins, and where the last one ends: chunks that hints tell all about
        are taken many at a time, the others one by one."""
        count = self._repository.chunk_count(self._device.size)
        told = bytearray(count)
        for extents in (self._hints.zeros, self._hints.unchanged):
            for offset, length in extents:
                first = -(-offset // self._repository.chunk_size)
                last = (offset + length) // self._repository.chunk_size
                told[first:last] = b"\1" * max(0, last - first)
        spans = array.array("Q", [0])
        for index in range(1, count):
            if not told[index] or not told[index - 1] or index % _SPAN == 0:
                spans.append(index)
        if count:
            spans.append(count)
        return spans

    def _make_step(self, spans: array.array[int]) -> workers.Step:
        buffer = ChunkBuffer(self._repository)
        compressor = zstandard.ZstdCompressor(level=self._level) if self._level else None
        size = self._device.size
        chunk_size = self._repository.chunk_size

        def step(number: int) -> None:
            amounts = Amounts()
            first, last = spans[number], spans[number + 1]
            whole = self._inherited(first, last, amounts)
            for index in range(first + whole, last):
                offset = index * chunk_size
                length = min(chunk_size, size - offset)
                self._chunk(index, offset, length, buffer, compressor, amounts)
            self._count(amounts)
            self._progress.advance(min(last * chunk_size, size) - first * chunk_size)

        return step

    def _inherited(self, first: int, last: int, amounts: Amounts) -> int:
        """Take chunks over from the parent, all at once, where hints say that they all are the
        parent's; how many were taken."""
        offset = first * self._repository.chunk_size
        length = (last - first) * self._repository.chunk_size
        parent = self._parent
        if parent is None or self._hints.zeros or offset + length > self._device.size:
            return 0
        if not self._unchanged(offset, length, length):
            return 0
        entries = parent.run(first, last)
        self._manifest.set_run(first, entries)
        zeros = sum(entry.zeros for entry in entries) * self._repository.chunk_size
        amounts.zeros += zeros
        amounts.reused += length - zeros
        return last - first

    def _chunk(
        self,
        index: int,
        offset: int,
        length: int,
        buffer: ChunkBuffer,
        compressor: zstandard.ZstdCompressor | None,
        amounts: Amounts,
    ) -> None:
        """Find out what a chunk is, and store what is new of it."""
        before = self._parent_entry(index)
        entry = self._hinted(offset, length, before)
        if entry is None:
            block_ids = self._read(index, offset, length, before, buffer, amounts)
            entry = self._entry_of(index, block_ids, before, buffer, compressor, amounts)
        if entry.zeros:
            amounts.zeros += length
            self._forget(index, before)
        elif entry is before:
            amounts.reused += length
        self._manifest.set(index, entry)

    def _hinted(self, offset: int, length: int, before: Entry) -> Entry | None:
        """The chunk where hints say all about it."""
        if self._hints.zeros.cover(offset, length):
            return ZERO_ENTRY
        return before if self._unchanged(offset, length, self._repository.chunk_size) else None

    def _unchanged(self, offset: int, length: int, unit: int) -> bool:
        """Whether hints say that a chunk or block, of ``unit`` bytes unless it is a volume's last,
        is the parent's."""
        if self._parent is None or not self._hints.unchanged.cover(offset, length):
            return False
        # The last one is cut short where the volume ends, in the parent perhaps elsewhere.
        return min(unit, self._parent.size - offset) == length

    def _read(
        self,
        index: int,
        offset: int,
        length: int,
        before: Entry,
        buffer: ChunkBuffer,
        amounts: Amounts,
    ) -> bytes:
        """The ids of a chunk's blocks. What the buffer holds of blocks that hints tell of means
        nothing."""
        hints = self._hints
        if hints.zeros.touch(offset, length) or hints.unchanged.touch(offset, length):
            known = self._known_ids(index, offset, length, before)
            amounts.read += buffer.read_unknown(self._device, offset, length, known)
            return buffer.block_ids_but(known)
        buffer.read(self._device, offset, length)
        amounts.read += length
        if buffer.all_zeros():
            return bytes(buffer.block_count * form.ID_SIZE)
        return buffer.block_ids()

    def _known_ids(self, index: int, offset: int, length: int, before: Entry) -> list[bytes | None]:
        """For each block of a chunk the id that hints tell, or None."""
        size = self._repository.block_size
        parent_map: ChunkMap | None = None
        known: list[bytes | None] = []
        for number, start in enumerate(range(0, length, size)):
            block = offset + start, min(size, length - start)
            if self._hints.zeros.cover(*block):
                known.append(form.ZEROS)
            elif not self._unchanged(*block, size):
                known.append(None)
            elif before.zeros or self._parent_maps is None:
                known.append(form.ZEROS)
            else:
                parent_map = parent_map or self._parent_maps.load(index)
                known.append(parent_map.block_id(number))
        return known

    def _entry_of(
        self,
        index: int,
        block_ids: bytes,
        before: Entry,
        buffer: ChunkBuffer,
        compressor: zstandard.ZstdCompressor | None,
        amounts: Amounts,
    ) -> Entry:
        if not any(block_ids):
            return ZERO_ENTRY
        chunk_id = self._repository.ids.chunk(block_ids)
        if chunk_id == before.chunk_id:
            return before
        known = self._forget(index, before)
        return self._store(chunk_id, block_ids, buffer, known, compressor, amounts)

    def _store(
        self,
        chunk_id: bytes,
        block_ids: bytes,
        buffer: ChunkBuffer,
        known: ChunkMap | None,
        compressor: zstandard.ZstdCompressor | None,
        amounts: Amounts,
    ) -> Entry:
        """Store the blocks that are not ``known`` at their place, and the chunk's new map."""
        count = buffer.block_count
        chunk_map = ChunkMap(block_ids, [None] * count, [0] * count, [0] * count)
        new: list[int] = []
        pieces: list[tuple[bytes, Buffer]] = []
        for index in range(count):
            block_id = chunk_map.block_id(index)
            content = buffer.block(index)
            if block_id == form.ZEROS:
                amounts.zeros += len(content)
            elif known and index < len(known) and known.block_id(index) == block_id:
                chunk_map.packs[index] = known.packs[index]
                chunk_map.offsets[index] = known.offsets[index]
                chunk_map.lengths[index] = known.lengths[index]
                amounts.reused += len(content)
            else:
                new.append(index)
                pieces.append((block_id, _squeeze(content, compressor)))
                amounts.new += len(content)
        if pieces:
            pack, places = self._blocks.append(pieces)
            for index, (offset, length) in zip(new, places, strict=True):
                chunk_map.packs[index] = pack
                chunk_map.offsets[index] = offset
                chunk_map.lengths[index] = length
        for pack, stored in chunk_map.stored().items():
            self._manifest.count(pack, form.KIND_BLOCKS, stored)
        data = form.compress(chunk_map.encode(), level=1)
        map_pack, [(offset, length)] = self._maps.append([(chunk_id, data)])
        self._manifest.count(map_pack, form.KIND_MAPS, length)
        return Entry(chunk_id, map_pack, offset, length)

    def _parent_entry(self, index: int) -> Entry:
        if self._parent and index < self._parent.chunk_count:
            return self._parent.entry(index)
        return ZERO_ENTRY

    def _forget(self, index: int, entry: Entry) -> ChunkMap | None:
        """Take a chunk of the parent off what is in use; its map, whose blocks may be used
        again."""
        if entry.zeros or self._parent_maps is None:
            return None
        chunk_map = self._parent_maps.load(index)
        for pack, stored in chunk_map.stored().items():
            self._manifest.count(pack, form.KIND_BLOCKS, -stored)
        self._manifest.count(entry.pack, form.KIND_MAPS, -entry.length)
        return chunk_map

    def _forget_tail(self, parent: Manifest) -> None:
        """The parent may have been larger: what lies beyond our end is not in use."""
        for index in range(self._repository.chunk_count(self._device.size), parent.chunk_count):
            self._forget(index, parent.entry(index))

    def _count(self, amounts: Amounts) -> None:
        with self._lock:
            total = self._amounts
            total.read += amounts.read
            total.zeros += amounts.zeros
            total.reused += amounts.reused
            total.new += amounts.new


def _squeeze(content: memoryview, compressor: zstandard.ZstdCompressor | None) -> Buffer:
    """The content compressed, or a copy of it where that is not shorter."""
    if compressor:
        squeezed = compressor.compress(content)
        if len(squeezed) < len(content):
            return squeezed
    return bytes(content)
