# SPDX-License-Identifier: Apache-2.0
"""Repairing backups: what is lost in one place is looked for in all others.

Everything proves itself: a chunk map by the chunk's id, a block by its own. What cannot be proved
is not used, and what cannot be found stays lost and is named. Blocks and maps are only added, and a
backup's manifest is replaced in one step, so that nothing that could be restored before cannot be
afterwards.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

import zstandard

from freezer_osbrick import errors
from freezer_osbrick.pipeline.examination import Examiner, WrongChunk
from freezer_osbrick.pipeline.progress import Progress
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository import packs, ranges, replacing, search
from freezer_osbrick.repository.catalogue import Backup
from freezer_osbrick.repository.chunkmap import ChunkMap
from freezer_osbrick.repository.leases import Lease
from freezer_osbrick.repository.manifest import Entry, Manifest, ManifestWriter
from freezer_osbrick.repository.maps import read_maps
from freezer_osbrick.repository.ranges import Wanted
from freezer_osbrick.repository.repository import Repository
from freezer_osbrick.repository.salvage import SalvagedManifest
from freezer_osbrick.repository.sealing import TAG_SIZE
from freezer_osbrick.repository.search import Place


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
        self.repository = repository
        self.lease = lease
        self.broken = frozenset(broken)
        self.avoid = self.broken | lease.doomed
        self.sizes = dict(sizes)
        self.dry_run = dry_run
        self.examiner = Examiner(repository, self.broken, threads=threads, progress=progress)
        # Where boxes of broken packs were moved to, for the next backups that share them.
        self.moved: dict[tuple[bytes, int], Place] = {}

    @property
    def spares(self) -> int:
        """How much was found in broken packs: with more, a backup may be repaired further."""
        return len(self.examiner.spare_blocks) + len(self.examiner.spare_maps)

    def run(self, backup: Backup) -> Repair:
        """Repair what can be repaired of a backup.

        :raises errors.BackupMissing: it was removed meanwhile.
        :raises errors.Damaged: its manifest is beyond repair, and was left as it is.
        """
        return _BackupRepair(self, backup).run()


class _BackupRepair:
    def __init__(self, repairer: BackupRepairer, backup: Backup) -> None:
        self._repairer = repairer
        self._repository = repairer.repository
        self._examiner = repairer.examiner
        self._result = Repair(backup)
        self._source = self._open(backup)
        self._chunks, self._needs = self._examiner.examine(self._source)

    def run(self) -> Repair:
        result = self._result
        self._find_maps([chunk for chunk in self._chunks if chunk.map is None])
        found = self._find_blocks()
        with _Writers(self._repository, self._repairer.dry_run) as writers:
            for chunk in self._chunks:
                self._mend(chunk, found, writers)
                self._needs.add(chunk.entry, chunk.map)
            writers.finish()
            result.ranges = ranges.merge(result.ranges)
            result.index |= not self._index_is_right()
            result.rewritten = bool(result.maps or result.blocks or result.moved or result.index)
            if result.rewritten and not self._repairer.dry_run:
                self._rewrite(writers)
        return result

    def _open(self, backup: Backup) -> Manifest | SalvagedManifest:
        backup_id = bytes.fromhex(backup.id)
        try:
            return Manifest(self._repository, backup_id)
        except errors.Damaged:
            self._result.index = True
            return SalvagedManifest(self._repository, backup_id, self._repairer.avoid)

    # -- what is found elsewhere -----------------------------------------------------------------

    def _find_maps(self, chunks: list[WrongChunk]) -> None:
        """Look for lost chunk maps, first as they are, then by what they must have said."""
        avoid = self._repairer.avoid
        by_id: dict[bytes, list[WrongChunk]] = {}
        for chunk in chunks:
            by_id.setdefault(chunk.entry.chunk_id, []).append(chunk)
        places = search.find(self._repository, form.KIND_MAPS, by_id.keys(), avoid)
        for chunk_id in list(by_id):
            entries = [Entry(chunk_id, *dataclasses.astuple(p)) for p in places.get(chunk_id, [])]
            if chunk_id in self._examiner.spare_maps:
                entries.append(self._examiner.spare_maps[chunk_id])
            for entry in entries:
                found = self._read_map(entry, by_id[chunk_id][0].length)
                if found:
                    for chunk in by_id.pop(chunk_id):
                        chunk.entry, chunk.map = entry, _copy(found)
                        self._result.maps += 1
                    break
        lost = {
            chunk_id: -(-several[0].length // self._repository.block_size)
            for chunk_id, several in by_id.items()
        }
        for chunk_id, made in search.rebuild_maps(self._repository, lost, avoid).items():
            for chunk in by_id[chunk_id]:
                chunk.map, chunk.changed = _copy(made), True
                self._result.maps += 1
        self._examiner.examine_blocks(chunks, zstandard.ZstdDecompressor())

    def _read_map(self, entry: Entry, length: int) -> ChunkMap | None:
        [(_, found)] = read_maps(self._repository, [(0, entry, length)])
        return found if isinstance(found, ChunkMap) else None

    def _find_blocks(self) -> dict[bytes, Place]:
        """Look for all blocks that cannot be read."""
        wanted: dict[bytes, int] = {}
        for chunk in self._chunks:
            for index in chunk.bad:
                wanted[chunk.known.block_id(index)] = self._examiner.block_size(chunk, index)
        places = search.find(
            self._repository, form.KIND_BLOCKS, wanted.keys(), self._repairer.avoid
        )
        found: dict[bytes, Place] = {}
        decompressor = zstandard.ZstdDecompressor()
        for block_id, size in wanted.items():
            several = list(places.get(block_id, []))
            if block_id in self._examiner.spare_blocks:
                several.append(self._examiner.spare_blocks[block_id])
            for place in several:
                box = self._fetch(place)
                if not self._examiner.fault(box, place, block_id, size, decompressor):
                    found[block_id] = place
                    break
        return found

    def _fetch(self, place: Place) -> memoryview | errors.Damaged:
        piece = Wanted(place.pack, place.offset, place.length, 0)
        run = ranges.Run(place.pack, place.offset, place.length, [piece])
        [(_, box)] = packs.fetch(self._repository, run)
        return box

    # -- what is done about it -------------------------------------------------------------------

    def _mend(self, chunk: WrongChunk, found: dict[bytes, Place], writers: _Writers) -> None:
        """Put what was found into the chunk's map, and the map where it is safe."""
        broken = self._repairer.broken
        offset = chunk.index * self._repository.chunk_size
        if chunk.map is None:
            self._result.lose(offset, chunk.length, chunk.reason)
            return
        for index, reason in chunk.bad.items():
            block_id = chunk.map.block_id(index)
            place = found.get(block_id)
            if place is None:
                start = index * self._repository.block_size
                size = self._examiner.block_size(chunk, index)
                self._result.lose(offset + start, size, reason)
                continue
            if place.pack in broken:
                place = self._move(place, block_id, writers)
            chunk.point(index, place)
            self._result.blocks += 1
        for index in chunk.unsafe:
            block_id = chunk.map.block_id(index)
            chunk.point(index, self._move(chunk.place(index), block_id, writers))
            self._result.moved += 1
        if chunk.entry.pack in broken and not chunk.changed:
            chunk.changed = True
            self._result.moved += 1
        if chunk.changed:
            chunk.entry = writers.add_map(chunk.entry.chunk_id, chunk.map)

    def _move(self, place: Place, block_id: bytes, writers: _Writers) -> Place:
        """Store a block of a broken pack once more."""
        moved = self._repairer.moved
        key = (place.pack, place.offset)
        if key not in moved:
            box = self._fetch(place)
            if isinstance(box, errors.Damaged):
                raise box  # it could be read a moment ago
            data = packs.open_box(
                self._repository, form.KIND_BLOCKS, place.pack, place.offset, box, block_id
            )
            moved[key] = writers.add_block(block_id, bytes(data))
        return moved[key]

    def _index_is_right(self) -> bool:
        """Whether the index of the manifest says what is needed, and how large the packs are."""
        uses, needs = self._source.packs, self._needs
        if any(chunk.map is None for chunk in self._chunks):
            # Nobody knows what a lost map said: its blocks stay needed, lest they be collected.
            for pack, use in uses.items():
                needs.live[pack] = max(needs.live[pack], use.live)
                needs.kinds.setdefault(pack, use.kind)
            return True
        if self._result.maps or self._result.blocks or self._result.moved:
            return True  # it was, before
        sizes = self._repairer.sizes
        return {pack: use.live for pack, use in uses.items()} == needs.live and all(
            sizes.get(pack, use.size) == use.size for pack, use in uses.items()
        )

    def _rewrite(self, writers: _Writers) -> None:
        """Put the manifest anew."""
        source, changed = self._source, {chunk.index: chunk.entry for chunk in self._chunks}
        writer = ManifestWriter(self._repository, source.backup_id, source.size)
        try:
            for index in range(source.chunk_count):
                writer.set(index, changed.get(index) or source.entry(index))
            for pack, live in self._needs.live.items():
                writer.count(pack, self._needs.kinds[pack], live)
            self._repairer.sizes.update(writers.sizes)
            old = {pack: use.size for pack, use in source.packs.items()}
            self._repairer.lease.confirm()
            sizes = {**old, **self._repairer.sizes}
            replacing.replace(self._repository, source, writer, sizes, self._repairer.lease)
        finally:
            writer.close()


class _Writers:
    """New packs for one backup; none in a dry run."""

    def __init__(self, repository: Repository, dry_run: bool) -> None:
        self._dry_run = dry_run
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
