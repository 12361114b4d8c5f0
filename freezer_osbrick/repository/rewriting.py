# SPDX-License-Identifier: Apache-2.0
"""Rewriting packs of which little is needed any more.

What is needed of them is copied into new packs, the chunk maps and manifests that refer to it are
written anew, and the old packs are left to garbage collection, which keeps them for its grace
period: whoever works with an old manifest finds everything where it says. Interrupted at any
point, old and new packs are both there and every manifest refers to whole ones.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict

from freezer_osbrick import errors
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository import packs, ranges, replacing
from freezer_osbrick.repository.chunkmap import ChunkMap
from freezer_osbrick.repository.leases import Lease
from freezer_osbrick.repository.manifest import Entry, Manifest, ManifestWriter
from freezer_osbrick.repository.maps import MapReader
from freezer_osbrick.repository.packs import PackWriter, Uploads
from freezer_osbrick.repository.repository import Repository

# A place in the store: pack, offset and length of a box.
Place = tuple[bytes, int, int]


@dataclasses.dataclass
class Rewritten:
    """What was done, or with a dry run would be.

    :param packs: that little is needed of, and their bytes.
    :param kept_bytes: of them, that are needed and were copied.
    :param backups: whose manifests were written anew.
    """

    packs: int = 0
    bytes: int = 0
    kept_bytes: int = 0
    backups: int = 0


def rewrite(
    repository: Repository,
    manifests: list[Manifest],
    sizes: dict[bytes, int],
    *,
    below: float,
    dry_run: bool = False,
) -> Rewritten:
    """Rewrite the packs of which a smaller share than ``below`` is needed.

    :param manifests: of all backups in the repository.
    :param sizes: bytes of each pack.
    :param below: a share, 0 to 1.
    :raises errors.Damaged: something that is needed cannot be read: verify tells more.
    """
    sparse = _sparse(repository, manifests, sizes, below)
    result = Rewritten(
        packs=len(sparse),
        bytes=sum(sizes[pack] for pack in sparse),
        kept_bytes=sum(place[2] for places in sparse.values() for place in places),
        backups=sum(1 for manifest in manifests if manifest.packs.keys() & sparse.keys()),
    )
    if sparse and not dry_run:
        with Lease(repository, "rewriting") as lease:
            _Rewriting(repository, sparse, lease).run(manifests)
    return result


def _sparse(
    repository: Repository,
    manifests: list[Manifest],
    sizes: dict[bytes, int],
    below: float,
) -> dict[bytes, dict[Place, bytes]]:
    """The packs in question, each with what is needed of it: places and the ids of what is
    there."""
    # No backup needs more of a pack than all of them: the indexes rule most packs out.
    most: dict[bytes, int] = defaultdict(int)
    for manifest in manifests:
        for pack, use in manifest.packs.items():
            most[pack] = max(most[pack], use.live)
    candidates = {pack for pack, live in most.items() if live < below * sizes.get(pack, 0)}
    needed: dict[bytes, dict[Place, bytes]] = {pack: {} for pack in candidates}
    for manifest in manifests:
        if not manifest.packs.keys() & candidates:
            continue
        reader = MapReader(repository, manifest)
        for index, entry in enumerate(manifest.entries()):
            if entry.zeros:
                continue
            if entry.pack in candidates:
                needed[entry.pack][entry.pack, entry.offset, entry.length] = entry.chunk_id
            for place, block_id in _places(reader.load(index)):
                if place[0] in candidates:
                    needed[place[0]][place] = block_id
    return {
        pack: places
        for pack, places in needed.items()
        if sum(place[2] for place in places) < below * sizes[pack]
    }


def _places(chunk_map: ChunkMap) -> list[tuple[Place, bytes]]:
    return [
        ((pack, chunk_map.offsets[index], chunk_map.lengths[index]), chunk_map.block_id(index))
        for index, pack in enumerate(chunk_map.packs)
        if pack is not None
    ]


class _Rewriting:
    def __init__(
        self, repository: Repository, sparse: dict[bytes, dict[Place, bytes]], lease: Lease
    ) -> None:
        self._repository = repository
        self._sparse = sparse
        self._lease = lease
        self._uploads = Uploads()
        self._writers = {
            kind: PackWriter(repository, kind, self._uploads)
            for kind in (form.KIND_BLOCKS, form.KIND_MAPS)
        }
        self._moved: dict[Place, Place] = {}
        # Maps that had to change, by the place of the old one: several backups may share a map.
        self._maps: dict[Place, Place] = {}

    def run(self, manifests: list[Manifest]) -> None:
        concerned = [m for m in manifests if m.packs.keys() & self._sparse.keys()]
        kinds = {pack: use.kind for m in concerned for pack, use in m.packs.items()}
        written: list[tuple[Manifest, ManifestWriter]] = []
        try:
            for pack, places in self._sparse.items():
                self._copy(pack, kinds[pack], places)
            for manifest in concerned:
                written.append((manifest, self._write(manifest)))
            for writer in self._writers.values():
                writer.finish()
            self._uploads.drain()
            self._lease.confirm()
            sizes = {
                pack: size
                for writer in self._writers.values()
                for pack, size in writer.sizes.items()
            }
            for manifest, manifest_writer in written:
                self._replace(manifest, manifest_writer, sizes)
        finally:
            self._uploads.close()
            for _, manifest_writer in written:
                manifest_writer.close()

    def _copy(self, pack: bytes, kind: int, places: dict[Place, bytes]) -> None:
        """Bring what is needed of a pack into new ones, as it is: compressed, and sealed for its
        new place."""
        order = sorted(places)
        wanted = [ranges.Wanted(*place, target=number) for number, place in enumerate(order)]
        for run in ranges.runs(wanted):
            for piece, box in packs.fetch(self._repository, run):
                if isinstance(box, errors.Damaged):
                    raise box
                place = order[piece.target]
                data_id = places[place]
                data = packs.open_box(self._repository, kind, pack, place[1], box, data_id)
                new_pack, [(offset, length)] = self._writers[kind].append([(data_id, bytes(data))])
                self._moved[place] = (new_pack, offset, length)

    def _write(self, manifest: Manifest) -> ManifestWriter:
        writer = ManifestWriter(self._repository, manifest.backup_id, manifest.size)
        writer.inherit(manifest.packs)
        reader = MapReader(self._repository, manifest)
        for index, entry in enumerate(manifest.entries()):
            writer.set(index, entry if entry.zeros else self._chunk(index, entry, reader, writer))
        return writer

    def _chunk(self, index: int, entry: Entry, reader: MapReader, writer: ManifestWriter) -> Entry:
        chunk_map = reader.load(index)
        changed = False
        for number, (pack, offset, length) in enumerate(
            zip(chunk_map.packs, chunk_map.offsets, chunk_map.lengths, strict=True)
        ):
            moved = self._moved.get((pack, offset, length)) if pack else None
            if moved and pack:
                writer.count(pack, form.KIND_BLOCKS, -length)
                writer.count(moved[0], form.KIND_BLOCKS, moved[2])
                chunk_map.packs[number], chunk_map.offsets[number] = moved[0], moved[1]
                chunk_map.lengths[number] = moved[2]
                changed = True
        old = (entry.pack, entry.offset, entry.length)
        new = (
            self._new_map(old, entry.chunk_id, chunk_map) if changed else self._moved.get(old, old)
        )
        if new == old:
            return entry
        writer.count(entry.pack, form.KIND_MAPS, -entry.length)
        writer.count(new[0], form.KIND_MAPS, new[2])
        return Entry(entry.chunk_id, *new)

    def _new_map(self, old: Place, chunk_id: bytes, chunk_map: ChunkMap) -> Place:
        if old not in self._maps:
            data = form.compress(chunk_map.encode(), level=1)
            pack, [(offset, length)] = self._writers[form.KIND_MAPS].append([(chunk_id, data)])
            self._maps[old] = (pack, offset, length)
        return self._maps[old]

    def _replace(self, manifest: Manifest, writer: ManifestWriter, sizes: dict[bytes, int]) -> None:
        try:
            replacing.replace(self._repository, manifest, writer, sizes, self._lease)
        except errors.BackupMissing:
            return  # removed or written anew meanwhile, and not to come back
