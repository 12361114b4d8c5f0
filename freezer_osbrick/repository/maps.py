# SPDX-License-Identifier: Apache-2.0
"""Fetching chunk maps: those of neighbouring chunks together, never one request a chunk."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import TypeVar

from freezer_osbrick import errors
from freezer_osbrick.repository import chunkmap, packs, ranges
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository.chunkmap import ChunkMap
from freezer_osbrick.repository.manifest import Entry, Manifest
from freezer_osbrick.repository.repository import Repository

# Chunks whose maps are fetched together: about 700 KiB of maps for 1 GiB of the volume.
WINDOW = 256

T = TypeVar("T")

# Windows kept. Workers walk a volume side by side, so they are seldom in more than two.
_KEPT = 4


class MapReader:
    """The chunk maps of one backup. Safe for several threads."""

    def __init__(self, repository: Repository, manifest: Manifest, *, kept: int = _KEPT) -> None:
        """:param kept: windows of maps that stay in memory; each takes about 700 KiB."""
        self._repository = repository
        self._kept = kept
        self._manifest = manifest
        self._windows: OrderedDict[int, dict[int, memoryview | errors.Damaged]] = OrderedDict()
        self._lock = threading.Lock()

    def load(self, index: int) -> ChunkMap:
        """The map of chunk ``index``, checked against the chunk's id.

        :raises errors.Damaged: it cannot be read; also when its pack is missing.
        """
        entry = self._manifest.entry(index)
        with self._lock:
            box = self._window(index // WINDOW)[index]
        return open_map(self._repository, entry, box)

    def _window(self, number: int) -> dict[int, memoryview | errors.Damaged]:
        if number in self._windows:
            self._windows.move_to_end(number)
            return self._windows[number]
        first = number * WINDOW
        last = min(first + WINDOW, self._manifest.chunk_count)
        boxes = self._fetch({index: self._manifest.entry(index) for index in range(first, last)})
        self._windows[number] = boxes
        if len(self._windows) > self._kept:
            self._windows.popitem(last=False)
        return boxes

    def _fetch(self, entries: dict[int, Entry]) -> dict[int, memoryview | errors.Damaged]:
        wanted = [
            ranges.Wanted(entry.pack, entry.offset, entry.length, index)
            for index, entry in entries.items()
            if not entry.zeros
        ]
        boxes: dict[int, memoryview | errors.Damaged] = {}
        for run in ranges.runs(wanted):
            for piece, box in packs.fetch(self._repository, run):
                boxes[piece.target] = box
        return boxes


def read_maps(
    repository: Repository, wanted: Iterable[tuple[T, Entry, int]]
) -> Iterator[tuple[T, ChunkMap | errors.Damaged]]:
    """The maps of chunks, or why each cannot be read.

    :param wanted: what the asker knows the chunk by, the chunk, and its bytes of the volume.
    """
    chunks = list(wanted)
    pieces = (
        ranges.Wanted(entry.pack, entry.offset, entry.length, number)
        for number, (_, entry, _) in enumerate(chunks)
    )
    for run in ranges.runs(pieces):
        for piece, box in packs.fetch(repository, run):
            name, entry, length = chunks[piece.target]
            try:
                found = open_map(repository, entry, box)
                if len(found) != -(-length // repository.block_size):
                    raise errors.Damaged("A chunk map has a wrong number of blocks.")
                yield name, found
            except errors.Damaged as error:
                yield name, error


def open_map(repository: Repository, entry: Entry, box: memoryview | errors.Damaged) -> ChunkMap:
    """The map of a chunk, proved by the chunk's id.

    :param box: as :func:`packs.fetch` gave it.
    :raises errors.Damaged: it cannot be read.
    """
    if isinstance(box, errors.Damaged):
        raise errors.Damaged(f"A chunk map cannot be read: {box}")
    data = packs.open_box(repository, form.KIND_MAPS, entry.pack, entry.offset, box, entry.chunk_id)
    most = chunkmap.largest(repository.chunk_blocks)
    loaded = chunkmap.decode(form.decompress(data, most), repository.chunk_blocks)
    if repository.ids.chunk(loaded.ids) != entry.chunk_id:
        raise errors.Damaged(
            f"The chunk map in object {form.pack_name(entry.pack)} at byte {entry.offset} belongs"
            " to another chunk."
        )
    return loaded
