# SPDX-License-Identifier: Apache-2.0
"""Salvage: the chunks of a backup whose manifest has lost its index.

The index says how long the other boxes of the manifest are and which packs hold the chunk maps. A
box proves its own length by its tag, and a chunk map proves by the chunk's id where it is.
"""

from __future__ import annotations

from collections.abc import Collection

from freezer_osbrick import errors
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository import manifest as manifests
from freezer_osbrick.repository import search
from freezer_osbrick.repository.manifest import (
    ENTRY,
    ZERO_ENTRY,
    Entry,
    PackUse,
)
from freezer_osbrick.repository.manifest_start import (
    FIRST_SEGMENT,
    LENGTHS,
    Head,
    open_manifest_box,
    read_start,
)
from freezer_osbrick.repository.repository import Repository
from freezer_osbrick.repository.sealing import TAG_SIZE

# In place of the pack of a chunk map that is nowhere.
NOWHERE = bytes(form.OBJECT_ID_SIZE)


class SalvagedManifest:
    """What can be known of a backup without its index; to be used as a
    :class:`manifest.Manifest`.
    """

    def __init__(self, repository: Repository, backup_id: bytes, avoid: Collection[bytes]) -> None:
        """:param avoid: packs that are of no use.
        :raises errors.BackupMissing: there is no such backup.
        :raises errors.Damaged: the head or a segment cannot be read either.
        """
        self.backup_id = backup_id
        head, self.object_id, head_length, index_length = read_start(repository, backup_id)
        self.head: Head = head
        self.size: int = head["size"]
        self.chunk_count = repository.chunk_count(self.size)
        self.packs: dict[bytes, PackUse] = {}
        name = form.manifest_name(backup_id)
        data = repository.store.get(name)
        start = form.HEADER.size + LENGTHS.size + head_length + index_length
        rows: list[tuple[bytes, int, int]] = []
        most = manifests.SEGMENT_CHUNKS
        for number in range(-(-self.chunk_count // most)):
            chunks = min(most, self.chunk_count - number * most)
            segment, length = _segment(
                repository, name, self.object_id, number, data[start:], chunks
            )
            rows += [(row[0], row[2], row[3]) for row in ENTRY.iter_unpack(segment)]
            start += length
        self._entries = _placed(repository, rows, avoid)

    def entry(self, index: int) -> Entry:
        return self._entries[index]


def _segment(
    repository: Repository,
    name: str,
    object_id: bytes,
    number: int,
    data: bytes,
    chunks: int,
) -> tuple[bytes, int]:
    """A segment at the beginning of the data, and the length of its box, which its tag proves."""
    size = chunks * ENTRY.size
    # Compression adds little where it gains nothing; the last segment's box is all that is left.
    longest = min(len(data), size + size // 128 + 64 + TAG_SIZE)
    for length in (longest, *range(TAG_SIZE + 1, longest)):
        try:
            box = open_manifest_box(
                repository, name, object_id, FIRST_SEGMENT + number, data[:length]
            )
        except errors.Damaged:
            continue
        segment = form.decompress(box, size)
        if len(segment) == size:
            return segment, length
    raise errors.Damaged(f"Segment {number} of object {name} cannot be read.")


def _placed(
    repository: Repository, rows: list[tuple[bytes, int, int]], avoid: Collection[bytes]
) -> list[Entry]:
    """The chunks with the packs that hold their maps."""
    wanted = {chunk_id for chunk_id, _, _ in rows if chunk_id != form.ZEROS}
    places = search.find(repository, form.KIND_MAPS, wanted, avoid)
    entries = []
    for chunk_id, offset, length in rows:
        if chunk_id == form.ZEROS:
            entries.append(ZERO_ENTRY)
            continue
        found = places.get(chunk_id, [])
        # The very map that the manifest meant, else another one of the same chunk.
        found.sort(key=lambda place: (place.offset, place.length) != (offset, length))
        if found:
            entries.append(Entry(chunk_id, found[0].pack, found[0].offset, found[0].length))
        else:
            entries.append(Entry(chunk_id, NOWHERE, offset, length))
    return entries
