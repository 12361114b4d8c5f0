# SPDX-License-Identifier: Apache-2.0
"""From a restored device back to the ids of the backup: the proof that the volume holds it."""

from __future__ import annotations

import threading

from freezer_osbrick import errors
from freezer_osbrick.device.volume_device import Device
from freezer_osbrick.pipeline import workers
from freezer_osbrick.pipeline.progress import Progress
from freezer_osbrick.pipeline.scan import ChunkBuffer
from freezer_osbrick.repository import ranges
from freezer_osbrick.repository.manifest import Manifest
from freezer_osbrick.repository.repository import Repository


class ReadBack:
    """Reads a device and compares all of it with one backup."""

    def __init__(
        self,
        repository: Repository,
        manifest: Manifest,
        device: Device,
        *,
        zeros_beyond: bool,
        threads: int | workers.Budget = 4,
        progress: Progress,
    ) -> None:
        """:param zeros_beyond: what lies beyond the backup's end must be zeros."""
        self._repository = repository
        self._manifest = manifest
        self._device = device
        self._zeros_beyond = zeros_beyond
        self._threads = threads
        self._progress = progress
        self._wrong: list[tuple[int, int]] = []
        self._lock = threading.Lock()

    def run(self) -> None:
        """:raises errors.ReadBackFailed: the device holds something else; the message says where.
        :raises errors.Damaged: the backup's manifest cannot be read any more.
        """
        size = self._device.size if self._zeros_beyond else self._manifest.size
        self._progress.enter("verify", size)
        workers.run(self._repository.chunk_count(size), self._threads, self._make_step)
        if self._wrong:
            wrong = ranges.merge(self._wrong)
            where = ", ".join(f"{start}+{length}" for start, length in wrong[:8])
            more = ", …" if len(wrong) > 8 else ""
            raise errors.ReadBackFailed(
                f"What was read back from the restored volume is not what backup"
                f" {self._manifest.backup_id.hex()} holds (ranges {where}{more})."
            )

    def _make_step(self) -> workers.Step:
        buffer = ChunkBuffer(self._repository)

        def step(index: int) -> None:
            self._chunk(index, buffer)

        return step

    def _chunk(self, index: int, buffer: ChunkBuffer) -> None:
        chunk_size, end = self._repository.chunk_size, self._manifest.size
        offset = index * chunk_size
        length = max(0, min(chunk_size, end - offset))
        beyond = 0
        if self._zeros_beyond:
            beyond = min(chunk_size, self._device.size - offset) - length
        if length:
            buffer.read(self._device, offset, length)
            if not self._is_right(index, buffer):
                self._note(offset, length)
        if beyond:
            buffer.read(self._device, offset + length, beyond)
            if not buffer.all_zeros():
                self._note(offset + length, beyond)
        self._progress.advance(length + beyond)

    def _is_right(self, index: int, buffer: ChunkBuffer) -> bool:
        entry = self._manifest.entry(index)
        if entry.zeros:
            return buffer.all_zeros()
        return self._repository.ids.chunk(buffer.block_ids()) == entry.chunk_id

    def _note(self, offset: int, length: int) -> None:
        with self._lock:
            self._wrong.append((offset, length))
