# SPDX-License-Identifier: Apache-2.0
"""Repairing backups: what is lost in one place is looked for in all others.

Everything proves itself: a chunk map by the chunk's id, a block by its own. What cannot be proved
is not used, and what cannot be found stays lost and is named. Blocks and maps are only added, and a
backup's manifest is replaced in one step, so that nothing that could be restored before cannot be
afterwards.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

import zstandard

from freezer_osbrick import errors
from freezer_osbrick.pipeline import workers
from freezer_osbrick.pipeline.progress import Progress
from freezer_osbrick.repository import blocks, packs, ranges, search
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository.catalogue import Backup
from freezer_osbrick.repository.chunkmap import ChunkMap
from freezer_osbrick.repository.leases import Lease
from freezer_osbrick.repository.manifest import Entry, Manifest, ManifestWriter, read_start
from freezer_osbrick.repository.maps import read_maps
from freezer_osbrick.repository.ranges import Wanted
from freezer_osbrick.repository.repository import Repository
from freezer_osbrick.repository.salvage import SalvagedManifest
from freezer_osbrick.repository.sealing import TAG_SIZE
from freezer_osbrick.repository.search import Place

# Chunks that a worker looks at together.
_WINDOW = 64


@dataclasses.dataclass
class Repair:
    """What became of one backup.

    :param maps: chunk maps that were found elsewhere or made anew.
    :param blocks: blocks that were found elsewhere.
    :param moved: blocks and maps that were moved out of packs that are not as they should be.
    :param index: whether the index of its manifest was wrong or lost and is made anew.
    :param rewritten: whether its manifest was, or in a dry run would be, written anew.
    :param ranges: ``(offset, length)`` in bytes of the volume that cannot be restored.
    :param reasons: why, each once; the first of them where they are many.
    """

    backup: Backup
    maps: int = 0
    blocks: int = 0
    moved: int = 0
    index: bool = False
    rewritten: bool = False
    ranges: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    reasons: list[str] = dataclasses.field(default_factory=list)

    @property
    def lost(self) -> int:
        """Bytes of the volume that cannot be restored."""
        return sum(length for _, length in self.ranges)

    def lose(self, offset: int, length: int, reason: str) -> None:
        self.ranges.append((offset, length))
        if reason not in self.reasons and len(self.reasons) < 16:
            self.reasons.append(reason)


@dataclasses.dataclass
class _Chunk:
    """A chunk that is not as it should be.

    :param length: bytes of the volume.
    :param reason: why its map cannot be read.
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


class BackupRepairer:
    """Repairs backups of one repository, one after the other."""

    def __init__(
        self,
        repository: Repository,
        lease: Lease,
        *,
        broken: Collection[bytes],
        sizes: Mapping[bytes, int],
        threads: int = 4,
        progress: Progress,
        dry_run: bool = False,
    ) -> None:
        """
        :param lease: held; nothing is built on packs that it names as doomed.
        :param broken: packs that are not as they should be.
        :param sizes: bytes of the packs that are there.
        """
        self._repository = repository
        self._lease = lease
        self._broken = frozenset(broken)
        self._avoid = self._broken | lease.doomed
        self._sizes = dict(sizes)
        self._threads = threads
        self._progress = progress
        self._dry_run = dry_run
        self._lock = threading.Lock()
        # Where boxes of broken packs were moved to, for the next backups that share them.
        self._moved: dict[tuple[bytes, int], Place] = {}
        # What can be read in broken packs though their trailers may not say so, by its id.
        self.spare_blocks: dict[bytes, Place] = {}
        self.spare_maps: dict[bytes, Entry] = {}

    @property
    def spares(self) -> int:
        """How much was found in broken packs: with more, a backup may be repaired further."""
        return len(self.spare_blocks) + len(self.spare_maps)

    def run(self, backup: Backup) -> Repair:
        """Repair what can be repaired of a backup.

        :raises errors.BackupMissing: it was removed meanwhile.
        :raises errors.Damaged: its manifest is beyond repair, and was left as it is.
        """
        return _BackupRepair(self, backup).run()


class _BackupRepair:
    def __init__(self, repairer: BackupRepairer, backup: Backup) -> None:
        self._r = repairer
        self._repository = repairer._repository
        self._result = Repair(backup)
        self._source = self._open(backup)
        self._chunks: list[_Chunk] = []
        self._live: Counter[bytes] = Counter()
        self._kinds: dict[bytes, int] = {}

    def run(self) -> Repair:
        result, chunks = self._result, self._chunks
        self._examine()
        chunks.sort(key=lambda chunk: chunk.index)
        self._find_maps([chunk for chunk in chunks if chunk.map is None])
        found = self._find_blocks()
        with _Writers(self._repository, self._r) as writers:
            for chunk in chunks:
                self._mend(chunk, found, writers)
            writers.finish()
            for chunk in chunks:
                self._account(chunk)
            result.ranges = ranges.merge(result.ranges)
            self._compare_index()
            result.rewritten = bool(result.maps or result.blocks or result.moved or result.index)
            if result.rewritten and not self._r._dry_run:
                self._rewrite(writers)
        return result

    def _open(self, backup: Backup) -> Manifest | SalvagedManifest:
        backup_id = bytes.fromhex(backup.id)
        try:
            return Manifest(self._repository, backup_id)
        except errors.Damaged:
            self._result.index = True
            return SalvagedManifest(self._repository, backup_id, self._r._avoid)

    # -- what is wrong ---------------------------------------------------------------------------

    def _examine(self) -> None:
        count = self._source.chunk_count
        self._r._progress.enter("examine", self._source.size)

        def make_step() -> workers.Step:
            decompressor = zstandard.ZstdDecompressor()

            def step(number: int) -> None:
                first, last = number * _WINDOW, min((number + 1) * _WINDOW, count)
                self._examine_window(range(first, last), decompressor)
                size = self._repository.chunk_size
                self._r._progress.advance(min(last * size, self._source.size) - first * size)

            return step

        workers.run(-(-count // _WINDOW), self._r._threads, make_step)

    def _examine_window(self, indexes: range, decompressor: zstandard.ZstdDecompressor) -> None:
        chunk_size = self._repository.chunk_size
        chunks: dict[int, _Chunk] = {}
        for index in indexes:
            entry = self._source.entry(index)
            if not entry.zeros:
                length = min(chunk_size, self._source.size - index * chunk_size)
                chunks[index] = _Chunk(index, entry, length)
        wanted = ((chunk.index, chunk.entry, chunk.length) for chunk in chunks.values())
        for index, found in read_maps(self._repository, wanted):
            if isinstance(found, errors.Damaged):
                chunks[index].reason = str(found)
            else:
                chunks[index].map = found
                if chunks[index].entry.pack in self._r._broken:
                    entry = chunks[index].entry
                    self._r.spare_maps[entry.chunk_id] = entry
        self._examine_blocks(chunks.values(), decompressor)
        with self._r._lock:
            for chunk in chunks.values():
                if (
                    chunk.map is None
                    or chunk.bad
                    or chunk.unsafe
                    or chunk.entry.pack in self._r._broken
                ):
                    self._chunks.append(chunk)
                else:
                    self._use(chunk.entry, chunk.map)

    def _examine_blocks(
        self, chunks: Iterable[_Chunk], decompressor: zstandard.ZstdDecompressor
    ) -> None:
        """Read the blocks of chunks whose maps are known, and say which are bad."""
        wanted: list[Wanted] = []
        targets: list[tuple[_Chunk, int, int]] = []
        for chunk in chunks:
            if chunk.map is None:
                continue
            for index, pack in enumerate(chunk.map.packs):
                if chunk.map.block_id(index) == form.ZEROS:
                    continue
                size = self._block_size(chunk, index)
                if pack is None or chunk.map.lengths[index] > size + TAG_SIZE:
                    chunk.bad[index] = "A chunk map contradicts itself."
                    continue
                offset, length = chunk.map.offsets[index], chunk.map.lengths[index]
                wanted.append(Wanted(pack, offset, length, len(targets)))
                targets.append((chunk, index, size))
        for run in ranges.runs(wanted):
            for piece, box in packs.fetch(self._repository, run):
                chunk, index, size = targets[piece.target]
                place = Place(piece.pack, piece.offset, piece.length)
                reason = self._wrong(box, place, _map(chunk).block_id(index), size, decompressor)
                if reason:
                    chunk.bad[index] = reason
                elif piece.pack in self._r._broken:
                    chunk.unsafe.add(index)
                    self._r.spare_blocks[_map(chunk).block_id(index)] = place

    def _wrong(
        self,
        box: memoryview | errors.Damaged,
        place: Place,
        block_id: bytes,
        size: int,
        decompressor: zstandard.ZstdDecompressor,
    ) -> str | None:
        """Why a box does not hold the block."""
        try:
            if isinstance(box, errors.Damaged):
                raise box
            blocks.open_block(
                self._repository, place.pack, place.offset, box, block_id, size, decompressor
            )
        except errors.Damaged as error:
            return str(error)
        return None

    def _block_size(self, chunk: _Chunk, index: int) -> int:
        start = index * self._repository.block_size
        return min(self._repository.block_size, chunk.length - start)

    # -- what is found elsewhere -----------------------------------------------------------------

    def _find_maps(self, chunks: list[_Chunk]) -> None:
        """Look for lost chunk maps, first as they are, then by what they must have said."""
        repository = self._repository
        by_id: dict[bytes, list[_Chunk]] = {}
        for chunk in chunks:
            by_id.setdefault(chunk.entry.chunk_id, []).append(chunk)
        places = search.find(repository, form.KIND_MAPS, by_id.keys(), self._r._avoid)
        for chunk_id in list(by_id):
            entries = [Entry(chunk_id, *dataclasses.astuple(p)) for p in places.get(chunk_id, [])]
            if chunk_id in self._r.spare_maps:
                entries.append(self._r.spare_maps[chunk_id])
            for entry in entries:
                found = self._read_map(entry, by_id[chunk_id][0].length)
                if found:
                    for chunk in by_id.pop(chunk_id):
                        chunk.entry, chunk.map = entry, _copy(found)
                        self._result.maps += 1
                    break
        lost = {
            chunk_id: -(-several[0].length // repository.block_size)
            for chunk_id, several in by_id.items()
        }
        for chunk_id, made in search.rebuild_maps(repository, lost, self._r._avoid).items():
            for chunk in by_id[chunk_id]:
                chunk.map, chunk.changed = _copy(made), True
                self._result.maps += 1
        self._examine_blocks(chunks, zstandard.ZstdDecompressor())

    def _read_map(self, entry: Entry, length: int) -> ChunkMap | None:
        [(_, found)] = read_maps(self._repository, [(0, entry, length)])
        return found if isinstance(found, ChunkMap) else None

    def _find_blocks(self) -> dict[bytes, Place]:
        """Look for all blocks that cannot be read."""
        wanted: dict[bytes, int] = {}
        for chunk in self._chunks:
            for index in chunk.bad:
                wanted[_map(chunk).block_id(index)] = self._block_size(chunk, index)
        found: dict[bytes, Place] = {}
        decompressor = zstandard.ZstdDecompressor()
        places = search.find(self._repository, form.KIND_BLOCKS, wanted.keys(), self._r._avoid)
        for block_id in wanted:
            several = list(places.get(block_id, []))
            if block_id in self._r.spare_blocks:
                several.append(self._r.spare_blocks[block_id])
            for place in several:
                box = self._fetch(place)
                if not self._wrong(box, place, block_id, wanted[block_id], decompressor):
                    found[block_id] = place
                    break
        return found

    def _fetch(self, place: Place) -> memoryview | errors.Damaged:
        piece = Wanted(place.pack, place.offset, place.length, 0)
        run = ranges.Run(place.pack, place.offset, place.length, [piece])
        [(_, box)] = packs.fetch(self._repository, run)
        return box

    # -- what is done about it -------------------------------------------------------------------

    def _mend(self, chunk: _Chunk, found: dict[bytes, Place], writers: _Writers) -> None:
        """Put what was found into the chunk's map, and the map where it is safe."""
        offset = chunk.index * self._repository.chunk_size
        if chunk.map is None:
            self._result.lose(offset, chunk.length, chunk.reason)
            return
        for index, reason in chunk.bad.items():
            place = found.get(chunk.map.block_id(index))
            if place:
                if place.pack in self._r._broken:
                    place = self._move(place, chunk.map.block_id(index), writers)
                self._point(chunk, index, place)
                self._result.blocks += 1
            else:
                start = index * self._repository.block_size
                self._result.lose(offset + start, self._block_size(chunk, index), reason)
        for index in chunk.unsafe:
            pack = chunk.map.packs[index]
            if pack is None:
                raise AssertionError("a block of zeros lies in no pack")
            place = Place(pack, chunk.map.offsets[index], chunk.map.lengths[index])
            place = self._move(place, chunk.map.block_id(index), writers)
            self._point(chunk, index, place)
            self._result.moved += 1
        if chunk.entry.pack in self._r._broken and not chunk.changed:
            chunk.changed = True
            self._result.moved += 1
        if chunk.changed:
            chunk.entry = writers.add_map(chunk.entry.chunk_id, chunk.map)

    def _point(self, chunk: _Chunk, index: int, place: Place) -> None:
        chunk_map = _map(chunk)
        chunk_map.packs[index] = place.pack
        chunk_map.offsets[index] = place.offset
        chunk_map.lengths[index] = place.length
        chunk.changed = True

    def _move(self, place: Place, block_id: bytes, writers: _Writers) -> Place:
        """Store a block of a broken pack once more."""
        key = (place.pack, place.offset)
        if key not in self._r._moved:
            box = self._fetch(place)
            if isinstance(box, errors.Damaged):
                raise box  # it could be read a moment ago
            data = packs.open_box(
                self._repository, form.KIND_BLOCKS, place.pack, place.offset, box, block_id
            )
            self._r._moved[key] = writers.add_block(block_id, bytes(data))
        return self._r._moved[key]

    def _account(self, chunk: _Chunk) -> None:
        """Count what a mended chunk needs."""
        if chunk.map is None:
            self._live[chunk.entry.pack] += chunk.entry.length
            self._kinds[chunk.entry.pack] = form.KIND_MAPS
        else:
            self._use(chunk.entry, chunk.map)

    def _use(self, entry: Entry, chunk_map: ChunkMap) -> None:
        self._live[entry.pack] += entry.length
        self._kinds[entry.pack] = form.KIND_MAPS
        for pack, stored in chunk_map.stored().items():
            self._live[pack] += stored
            self._kinds[pack] = form.KIND_BLOCKS

    def _compare_index(self) -> None:
        """Whether the index says what is needed, and how large the packs are."""
        uses = self._source.packs
        if any(chunk.map is None for chunk in self._chunks):
            # Nobody knows what a lost map said: its blocks stay needed, lest they be collected.
            for pack, use in uses.items():
                self._live[pack] = max(self._live[pack], use.live)
                self._kinds.setdefault(pack, use.kind)
            return
        same = {pack: use.live for pack, use in uses.items()} == self._live
        sizes = all(self._r._sizes.get(pack, use.size) == use.size for pack, use in uses.items())
        if not (self._result.maps or self._result.blocks or self._result.moved):
            self._result.index |= not (same and sizes)

    def _rewrite(self, writers: _Writers) -> None:
        """Put the manifest anew."""
        source, changed = self._source, {chunk.index: chunk.entry for chunk in self._chunks}
        writer = ManifestWriter(self._repository, source.backup_id, source.size)
        try:
            for index in range(source.chunk_count):
                writer.set(index, changed.get(index) or source.entry(index))
            for pack, live in self._live.items():
                writer.count(pack, self._kinds[pack], live)
            old = {pack: use.size for pack, use in source.packs.items()}
            sizes = {**old, **self._r._sizes, **writers.sizes}
            self._r._sizes.update(writers.sizes)
            self._r._lease.confirm()
            if read_start(self._repository, source.backup_id)[1] != source.object_id:
                raise errors.BackupMissing("Somebody else has repaired it meanwhile.")
            writer.store(source.head, sizes, replace=True)
        finally:
            writer.close()


class _Writers:
    """New packs for one backup; none in a dry run."""

    def __init__(self, repository: Repository, repairer: BackupRepairer) -> None:
        self._dry_run = repairer._dry_run
        self._uploads = packs.Uploads()
        self._blocks = packs.PackWriter(repository, form.KIND_BLOCKS, self._uploads)
        self._maps = packs.PackWriter(repository, form.KIND_MAPS, self._uploads)

    def __enter__(self) -> _Writers:
        return self

    def __exit__(self, *exc: object) -> None:
        self._uploads.close()

    @property
    def sizes(self) -> dict[bytes, int]:
        return self._blocks.sizes | self._maps.sizes

    def add_block(self, block_id: bytes, data: bytes) -> Place:
        """Store a block; the data as it is in its box."""
        if self._dry_run:
            return Place(bytes(form.OBJECT_ID_SIZE), 0, len(data) + TAG_SIZE)
        pack, [place] = self._blocks.append([(block_id, data)])
        return Place(pack, *place)

    def add_map(self, chunk_id: bytes, chunk_map: ChunkMap) -> Entry:
        data = form.compress(chunk_map.encode(), level=1)
        if self._dry_run:
            return Entry(chunk_id, bytes(form.OBJECT_ID_SIZE), 0, len(data) + TAG_SIZE)
        pack, [place] = self._maps.append([(chunk_id, data)])
        return Entry(chunk_id, pack, *place)

    def finish(self) -> None:
        """Wait until everything is durable."""
        if not self._dry_run:
            self._blocks.finish()
            self._maps.finish()
            self._uploads.drain()


def _copy(chunk_map: ChunkMap) -> ChunkMap:
    """One that can be changed by itself."""
    return ChunkMap(
        chunk_map.ids, list(chunk_map.packs), list(chunk_map.offsets), list(chunk_map.lengths)
    )


def _map(chunk: _Chunk) -> ChunkMap:
    if chunk.map is None:
        raise AssertionError("nobody knows the blocks of a chunk without a map")
    return chunk.map
