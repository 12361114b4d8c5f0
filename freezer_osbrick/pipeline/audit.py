# SPDX-License-Identifier: Apache-2.0
"""Proving hints by a sample: blocks that need not be read are read after all, and compared."""

from __future__ import annotations

import array
import bisect
import dataclasses
import itertools
import math
import random
import threading
from collections.abc import Callable, Iterable, Iterator

from freezer_osbrick.device.hints import Hints
from freezer_osbrick.device.volume_device import Device
from freezer_osbrick.pipeline import workers
from freezer_osbrick.pipeline.scan import ChunkBuffer
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository.manifest import SEGMENT_CHUNKS, Manifest
from freezer_osbrick.repository.maps import MapReader
from freezer_osbrick.repository.repository import Repository

LEAST = 64  # blocks

_MOST_LIES = 256  # that are kept


@dataclasses.dataclass(frozen=True)
class Audit:
    """What a sample has shown.

    :param blocks: that were read.
    :param of: blocks that need not be read, as the hints say.
    :param read: bytes.
    :param lies: ``(offset, length)`` in bytes of blocks that hold something else than the hints
        say, in their order; the first of them where they are many.
    """

    blocks: int = 0
    of: int = 0
    read: int = 0
    lies: tuple[tuple[int, int], ...] = ()


def sample_size(share: float, full: int, empty: int) -> tuple[int, int]:
    """How many blocks are looked at, of those that hold something and of those that are said to be
    empty.

    Of the empty ones far fewer, the share once more: a reader goes by the same map that told of
    them, and hardly sees anything else; a volume may be empty but for a corner; and each costs a
    request all the same.
    """
    of_full = min(full, max(LEAST, math.ceil(share * full)))
    of_empty = min(empty, max(LEAST, math.ceil(share * min(empty, of_full))))
    return of_full, of_empty


def audit(
    repository: Repository,
    device: Device,
    parent: Manifest | None,
    hints: Hints,
    share: float,
    *,
    chance: random.Random | None = None,
    threads: int | workers.Budget = 4,
) -> Audit:
    """Read a random sample of what hints say need not be read, and compare.

    :param parent: what ``hints.unchanged`` is about.
    :param share: of the blocks, above 0 and up to 1; at least LEAST blocks of each sort are read.
    :param chance: where the sample comes from; the system's own by default, which no one who
        writes a volume can foresee.
    :raises errors.DeviceError: the device cannot be read.
    :raises errors.Damaged: the parent cannot be read.
    """
    population = _Population(repository, device, parent, hints)
    chance = chance or random.SystemRandom()
    chosen = population.choose(share, chance)
    auditor = _Auditor(repository, device, parent, hints)
    groups = _by_chunk(chosen, repository.chunk_blocks)
    workers.run(len(groups) - 1, threads, lambda: auditor.make_step(chosen, groups))
    return Audit(
        len(chosen), population.total, auditor.read, tuple(sorted(auditor.lies)[:_MOST_LIES])
    )


class _Blocks:
    """Runs of blocks, by number; each block has a rank among them."""

    def __init__(self) -> None:
        self._firsts = array.array("Q")
        self._ranks = array.array("Q", [0])  # of each run's first block; the last is the total

    @property
    def total(self) -> int:
        return self._ranks[-1]

    def add(self, first: int, count: int) -> None:
        if count <= 0:
            return
        if self._firsts and self._firsts[-1] + self._ranks[-1] - self._ranks[-2] == first:
            self._ranks[-1] += count
            return
        self._firsts.append(first)
        self._ranks.append(self._ranks[-1] + count)

    def at(self, rank: int) -> int:
        run = bisect.bisect_right(self._ranks, rank) - 1
        return self._firsts[run] + rank - self._ranks[run]

    def sample(self, count: int, chance: random.Random) -> Iterator[int]:
        """So many different ones, each as likely as any other."""
        return map(self.at, chance.sample(range(self.total), count))


class _Population:
    """The blocks that hints tell of: those that the parent holds, and those that are empty."""

    def __init__(
        self, repository: Repository, device: Device, parent: Manifest | None, hints: Hints
    ) -> None:
        self._block_size = repository.block_size
        self._chunk_blocks = repository.chunk_blocks
        self._size = device.size
        self._full = _Blocks()
        self._empty = _Blocks()
        for first, last in self._whole(hints.zeros):
            self._empty.add(first, last - first)
        if parent is not None:
            for first, last in self._whole(hints.unchanged, parent.size):
                self._add_unchanged(first, last, parent)

    @property
    def total(self) -> int:
        return self._full.total + self._empty.total

    def choose(self, share: float, chance: random.Random) -> list[int]:
        """Numbers of blocks, in their order."""
        of_full, of_empty = sample_size(share, self._full.total, self._empty.total)
        chosen = {*self._full.sample(of_full, chance), *self._empty.sample(of_empty, chance)}
        return sorted(chosen)

    def _whole(
        self,
        extents: Iterable[tuple[int, int]],
        size: int | None = None,
    ) -> Iterator[tuple[int, int]]:
        """First and last number of the blocks that lie in each range as a whole. The volume's last
        one may be short: in a parent of another size it is another block."""
        for offset, length in extents:
            end = offset + length
            first = -(-offset // self._block_size)
            last = end // self._block_size
            if end == self._size and size in (None, self._size):
                last = -(-end // self._block_size)
            if size is not None:
                last = min(last, size // self._block_size + (size == self._size))
            if last > first:
                yield first, last

    def _add_unchanged(self, first: int, last: int, parent: Manifest) -> None:
        per_chunk = self._chunk_blocks
        begin, end = first // per_chunk, -(-last // per_chunk)
        for start in range(begin, end, SEGMENT_CHUNKS):
            entries = parent.run(start, min(end, start + SEGMENT_CHUNKS))
            for chunk, entry in enumerate(entries, start):
                low, high = max(first, chunk * per_chunk), min(last, (chunk + 1) * per_chunk)
                (self._empty if entry.zeros else self._full).add(low, high - low)


class _Auditor:
    """Reads blocks and compares them. Its steps may run side by side."""

    def __init__(
        self, repository: Repository, device: Device, parent: Manifest | None, hints: Hints
    ) -> None:
        self.read = 0
        self.lies: list[tuple[int, int]] = []
        self._repository = repository
        self._device = device
        self._parent = parent
        self._maps = MapReader(repository, parent) if parent else None
        self._hints = hints
        self._lock = threading.Lock()

    def make_step(self, chosen: list[int], groups: list[int]) -> workers.Step:
        buffer = ChunkBuffer(self._repository)

        def step(number: int) -> None:
            blocks = chosen[groups[number] : groups[number + 1]]
            told = self._told(blocks[0] // self._repository.chunk_blocks)
            read = 0
            for block in blocks:
                offset = block * self._repository.block_size
                length = min(self._repository.block_size, self._device.size - offset)
                buffer.read(self._device, offset, length)
                read += length
                if buffer.block_ids() != told(block, offset, length):
                    self._tell(offset, length)
            with self._lock:
                self.read += read

        return step

    def _told(self, chunk: int) -> Callable[[int, int, int], bytes]:
        """What the blocks of a chunk are, as the hints say."""
        entry = self._parent.entry(chunk) if self._has(chunk) and self._parent else None
        chunk_map = self._maps.load(chunk) if entry and not entry.zeros and self._maps else None

        def told(block: int, offset: int, length: int) -> bytes:
            if chunk_map is None or self._hints.zeros.cover(offset, length):
                return form.ZEROS
            return chunk_map.block_id(block % self._repository.chunk_blocks)

        return told

    def _has(self, chunk: int) -> bool:
        return self._parent is not None and chunk < self._parent.chunk_count

    def _tell(self, offset: int, length: int) -> None:
        with self._lock:
            self.lies.append((offset, length))


def _by_chunk(blocks: list[int], per_chunk: int) -> list[int]:
    """Where the blocks of each chunk begin in the list, and where the last ones end."""
    numbers = [block // per_chunk for block in blocks]
    changes = [
        index for index, (one, other) in enumerate(itertools.pairwise(numbers), 1) if one != other
    ]
    return [0, *changes, len(blocks)] if blocks else [0]
