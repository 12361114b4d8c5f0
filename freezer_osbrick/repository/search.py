# SPDX-License-Identifier: Apache-2.0
"""Search: pieces that are stored somewhere, found by their ids in the trailers of all packs."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping

from freezer_osbrick import errors
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository import packs
from freezer_osbrick.repository.chunkmap import ChunkMap
from freezer_osbrick.repository.repository import Repository

# Places that are remembered of a piece. One of them will do.
_MOST_PLACES = 4

_KIND_AT = 5  # in a pack's header


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a box lies: the id of its pack, and its offset and length there, in bytes."""

    pack: bytes
    offset: int
    length: int


def find(
    repository: Repository, kind: int, wanted: Collection[bytes], avoid: Collection[bytes]
) -> dict[bytes, list[Place]]:
    """Where pieces of these ids are said to lie; their boxes have to prove it.

    :param kind: :data:`format.KIND_BLOCKS` or :data:`format.KIND_MAPS`.
    :param avoid: packs that are of no use.
    """
    found: dict[bytes, list[Place]] = defaultdict(list)
    if wanted:
        for pack, listed in _trailers(repository, kind, avoid):
            for piece_id, offset, length in listed:
                if piece_id in wanted and len(found[piece_id]) < _MOST_PLACES:
                    found[piece_id].append(Place(pack, offset, length))
    return found


def rebuild_maps(
    repository: Repository, lost: Mapping[bytes, int], avoid: Collection[bytes]
) -> dict[bytes, ChunkMap]:
    """Maps of chunks, made of what the trailers of packs of blocks list, where ids prove them.

    The blocks that were new in a chunk lie next to each other in a pack. Where that were all of its
    blocks, but for zeros at its beginning or at its end, the id of the chunk is the hash of their
    ids, and of nothing else.

    :param lost: ids of chunks, and how many blocks each has.
    """
    found: dict[bytes, ChunkMap] = {}
    if not lost:
        return found
    for pack, listed in _trailers(repository, form.KIND_BLOCKS, avoid):
        ids = b"".join(piece_id for piece_id, _, _ in listed)
        for start in range(len(listed)):
            for chunk_id, before, count, after in _matches(repository, ids, start, lost):
                places = [place[1:] for place in listed[start : start + count]]
                found[chunk_id] = ChunkMap(
                    ids=form.ZEROS * before
                    + ids[start * form.ID_SIZE : (start + count) * form.ID_SIZE]
                    + form.ZEROS * after,
                    packs=[None] * before + [pack] * count + [None] * after,
                    offsets=[0] * before + [offset for offset, _ in places] + [0] * after,
                    lengths=[0] * before + [length for _, length in places] + [0] * after,
                )
        if len(found) == len(lost):
            break
    return found


def _matches(
    repository: Repository, ids: bytes, start: int, lost: Mapping[bytes, int]
) -> Iterator[tuple[bytes, int, int, int]]:
    """Chunks whose blocks begin at an entry of a trailer: the chunk's id, its zeros before, how
    many entries, its zeros after."""
    listed = len(ids) // form.ID_SIZE
    for blocks in set(lost.values()):
        for count in range(1, min(blocks, listed - start) + 1):
            some = ids[start * form.ID_SIZE : (start + count) * form.ID_SIZE]
            zeros = blocks - count
            for before in {0, zeros}:
                whole = form.ZEROS * before + some + form.ZEROS * (zeros - before)
                chunk_id = repository.ids.chunk(whole)
                if lost.get(chunk_id) == blocks:
                    yield chunk_id, before, count, zeros - before


def _trailers(
    repository: Repository, kind: int, avoid: Collection[bytes]
) -> Iterator[tuple[bytes, list[tuple[bytes, int, int]]]]:
    """The packs of a kind that can be read, and what each lists."""
    for info in list(repository.store.list(form.PACKS)):
        try:
            pack = bytes.fromhex(info.name.rsplit("/", 1)[1])
        except ValueError:
            continue
        if pack in avoid or form.pack_name(pack) != info.name:
            continue
        try:
            header = repository.store.get(info.name, 0, form.HEADER.size)
            if header[_KIND_AT] == kind:
                yield pack, packs.read_trailer(repository, kind, pack)
        except (errors.Damaged, errors.UnknownFormat, errors.ObjectMissing):
            continue
