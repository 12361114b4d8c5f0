# SPDX-License-Identifier: Apache-2.0
"""Any bytes of a backup, fetched when they are asked for, each block checked by its id."""

from __future__ import annotations

import dataclasses
import threading
from collections import OrderedDict
from concurrent import futures
from types import TracebackType

import zstandard

from freezer_osbrick import errors
from freezer_osbrick.pipeline.window_cache import WindowCache
from freezer_osbrick.repository import blocks, packs, ranges
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository.manifest import Manifest
from freezer_osbrick.repository.maps import MapReader
from freezer_osbrick.repository.repository import Repository
from freezer_osbrick.repository.sealing import TAG_SIZE

# Blocks that are fetched and kept together: 1 MiB at the usual size.
WINDOW_BLOCKS = 16

CACHE_SIZE = 64 << 20

# Windows that are fetched ahead of who reads in order, at most; and such readers that are
# remembered.
_MOST_AHEAD = 16
_STREAMS = 32

# Who looks for files jumps about on the volume: chunk maps of 16 GiB, about 11 MiB of memory.
_MAP_WINDOWS = 16


@dataclasses.dataclass(frozen=True)
class Lost:
    """A range of the volume that cannot be read, in bytes, and why."""

    offset: int
    length: int
    reason: str


@dataclasses.dataclass(frozen=True)
class _Window:
    """Some neighbouring blocks; zeros where they are lost.

    :param content: empty where all of it is zeros.
    """

    content: bytes
    lost: tuple[Lost, ...] = ()


class BackupReader:
    """Reads one backup. Safe for several threads; a context manager.

    Blocks are fetched in windows of neighbours, and what was read last is kept. Who reads in order
    finds the next windows there already.

    :ivar size: bytes of the volume.
    """

    def __init__(
        self,
        repository: Repository,
        manifest: Manifest,
        *,
        threads: int = 4,
        cache_size: int = CACHE_SIZE,
        cache_folder: str | None = None,
    ) -> None:
        """:param threads: fetch at once.
        :param cache_size: bytes of what was read last that are kept.
        :param cache_folder: keep them in a nameless file in this folder, not in memory.
        :raises errors.BadRequest: no file can be made in that folder.
        """
        self.size = manifest.size
        self._repository = repository
        self._manifest = manifest
        self._maps = MapReader(repository, manifest, kept=_MAP_WINDOWS)
        self._window_size = WINDOW_BLOCKS * repository.block_size
        self._window_count = -(-self.size // self._window_size)
        self._cache = WindowCache(cache_size, self._window_size, cache_folder)
        self._executor = futures.ThreadPoolExecutor(threads, thread_name_prefix="read")
        self._loading: dict[int, futures.Future[_Window]] = {}
        # By the window that a reader in order will ask for next: how many it was ahead.
        self._streams: OrderedDict[int, int] = OrderedDict()
        self._lock = threading.Lock()
        self._own = threading.local()

    def __enter__(self) -> BackupReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Forget everything; nothing is fetched any more."""
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._cache.close()

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes of the volume from ``offset`` on; fewer only at its end.

        :raises errors.DamagedRanges: some of these bytes cannot be read.
        :raises errors.StoreError: the store failed; trying again may help.
        """
        end = min(offset + length, self.size)
        if offset < 0 or offset >= end:
            return b""
        size = self._window_size
        numbers = range(offset // size, -(-end // size))
        pieces: list[bytes] = []
        lost: list[Lost] = []
        self._read_ahead(numbers)
        for number in numbers:
            window = self._window(number)
            lost += window.lost
            first = max(offset - number * size, 0)
            last = min(end - number * size, size)
            piece = window.content[first:last] if window.content else bytes(last - first)
            pieces.append(piece)
        lost = [one for one in lost if one.offset < end and offset < one.offset + one.length]
        if lost:
            raise _damaged(self._manifest, lost)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _window(self, number: int) -> _Window:
        with self._lock:
            content = self._cache.get(number)
            if content is not None:
                return _Window(content)
            loading = self._start(number)
        return loading.result()

    def _start(self, number: int) -> futures.Future[_Window]:
        """Have a window fetched, unless it is on its way. With the lock held."""
        if number not in self._loading:
            self._loading[number] = self._executor.submit(self._load, number)
        return self._loading[number]

    def _read_ahead(self, numbers: range) -> None:
        """Fetch what is wanted at once, and what comes after it where somebody reads in order."""
        with self._lock:
            ahead = 0
            if (known := self._streams.pop(numbers.start, None)) is not None:
                ahead = min(2 * known, _MOST_AHEAD) if known else 1
            elif numbers.stop in self._streams:
                ahead = self._streams.pop(numbers.stop)  # once more in the same window
            self._streams[numbers.stop] = ahead
            if len(self._streams) > _STREAMS:
                self._streams.popitem(last=False)
            if len(numbers) + ahead > 1:
                for number in range(numbers.start, min(numbers.stop + ahead, self._window_count)):
                    if number not in self._cache:
                        self._start(number)

    def _load(self, number: int) -> _Window:
        try:
            window = self._fetch(number)
        except BaseException:
            with self._lock:
                del self._loading[number]  # the next one who asks tries again
            raise
        with self._lock:
            if not window.lost:
                self._cache.put(number, window.content)
            del self._loading[number]
        return window

    def _fetch(self, number: int) -> _Window:
        begin = number * self._window_size
        end = min(begin + self._window_size, self.size)
        chunk_size = self._repository.chunk_size
        wanted: list[ranges.Wanted] = []
        places: list[tuple[bytes, int, int]] = []
        lost: list[Lost] = []
        for index in range(begin // chunk_size, -(-end // chunk_size)):
            first = max(begin, index * chunk_size)
            last = min(end, (index + 1) * chunk_size)
            try:
                self._look_up(index, first, last, wanted, places)
            except errors.Damaged as error:
                lost.append(Lost(first, last - first, str(error)))
        content = bytearray(end - begin) if wanted else bytearray()
        for run in ranges.runs(wanted):
            for piece, box in packs.fetch(self._repository, run):
                block_id, offset, size = places[piece.target]
                try:
                    block = self._open(piece, box, block_id, size)
                except errors.Damaged as error:
                    lost.append(Lost(offset, size, str(error)))
                    continue
                content[offset - begin : offset - begin + size] = block
        return _Window(bytes(content), tuple(lost))

    def _look_up(
        self,
        index: int,
        first: int,
        last: int,
        wanted: list[ranges.Wanted],
        places: list[tuple[bytes, int, int]],
    ) -> None:
        """List the stored blocks of a chunk that lie between two offsets on the volume.

        :param places: of each its id, its offset on the volume and its size.
        :raises errors.Damaged: what the chunk holds is not known.
        """
        if self._manifest.entry(index).zeros:
            return
        chunk_map = self._maps.load(index)
        block_size = self._repository.block_size
        begin = index * self._repository.chunk_size
        length = min(self._repository.chunk_size, self.size - begin)
        if len(chunk_map) != -(-length // block_size):
            raise errors.Damaged("A chunk map has a wrong number of blocks.")
        found = []
        for number in range((first - begin) // block_size, -(-(last - begin) // block_size)):
            block_id = chunk_map.block_id(number)
            if block_id == form.ZEROS:
                continue
            size = min(block_size, length - number * block_size)
            pack, stored = chunk_map.packs[number], chunk_map.lengths[number]
            if pack is None or stored > size + TAG_SIZE:
                raise errors.Damaged("A chunk map contradicts itself.")
            found.append((pack, chunk_map.offsets[number], stored, block_id, number, size))
        for pack, offset, stored, block_id, number, size in found:
            wanted.append(ranges.Wanted(pack, offset, stored, len(places)))
            places.append((block_id, begin + number * block_size, size))

    def _open(
        self, piece: ranges.Wanted, box: memoryview | errors.Damaged, block_id: bytes, size: int
    ) -> bytes | memoryview:
        if isinstance(box, errors.Damaged):
            raise box
        decompressor = getattr(self._own, "decompressor", None)
        if decompressor is None:
            decompressor = self._own.decompressor = zstandard.ZstdDecompressor()
        return blocks.open_block(
            self._repository, piece.pack, piece.offset, box, block_id, size, decompressor
        )


def _damaged(manifest: Manifest, lost: list[Lost]) -> errors.DamagedRanges:
    where = ranges.merge((one.offset, one.length) for one in lost)
    told = ", ".join(f"{offset}+{length}" for offset, length in where)
    return errors.DamagedRanges(
        f"Backup {manifest.backup_id.hex()} cannot be read there (ranges {told}): {lost[0].reason}",
        where,
    )
