# SPDX-License-Identifier: Apache-2.0
"""Manifests: one object a backup, which says all about it.

Head (what a listing needs), index (packs in use, with their live bytes), and segments of the list
of chunks. The manifest is put last: what it names is durable by then, and without it there is no
backup.
"""

from __future__ import annotations

import dataclasses
import json
import os
import struct
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import IO

from freezer_osbrick import errors
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository.manifest_start import (
    FIRST_SEGMENT,
    HEAD,
    INDEX,
    LENGTHS,
    Head,
    once_more,
    open_manifest_box,
    read_start_once,
)
from freezer_osbrick.repository.repository import Repository
from freezer_osbrick.store.base import Buffer

SEGMENT_CHUNKS = 4096

ENTRY = struct.Struct("<32sIIII")  # chunk id, number of the map's pack, offset, length, reserved
_PACK = struct.Struct("<16sBQQ")  # pack id, kind, live bytes, size

_MOST_INDEX = 1 << 30
_FETCHED_AT_ONCE = 8 << 20


@dataclasses.dataclass(frozen=True)
class Entry:
    """One chunk of a backup.

    :param chunk_id: :data:`format.ZEROS` for a chunk of zeros, which has no map.
    :param pack: id of the pack that holds its map; offset and length of the map's box there, in
        bytes.
    """

    chunk_id: bytes
    pack: bytes
    offset: int
    length: int

    @property
    def zeros(self) -> bool:
        return self.chunk_id == form.ZEROS


ZERO_ENTRY = Entry(form.ZEROS, bytes(form.OBJECT_ID_SIZE), 0, 0)


@dataclasses.dataclass
class PackUse:
    """What a backup needs of a pack.

    :param kind: :data:`format.KIND_BLOCKS` or :data:`format.KIND_MAPS`.
    :param live: bytes of its boxes that the backup refers to.
    :param size: bytes of the whole pack.
    """

    kind: int
    live: int
    size: int


class Manifest:
    """A stored manifest, opened for reading. Safe for several threads.

    :ivar object_id: 16 bytes, another one whenever the manifest is written anew.
    """

    def __init__(self, repository: Repository, backup_id: bytes) -> None:
        """:raises errors.BackupMissing: there is no such backup.
        :raises errors.Damaged: it cannot be read."""
        self._repository = repository
        self.backup_id = backup_id
        self._name = form.manifest_name(backup_id)
        once_more(self._read)
        self._segments: OrderedDict[int, bytes] = OrderedDict()
        self._boxes: IO[bytes] | None = None
        self._lock = threading.Lock()

    def _read(self) -> None:
        """Read the head and the index."""
        start = read_start_once(self._repository, self.backup_id)
        self.head, self.object_id, head_length, index_length = start
        self.size: int = self.head["size"]
        self.chunk_count = self._repository.chunk_count(self.size)
        begin = form.HEADER.size + LENGTHS.size + head_length
        index = self._open(INDEX, self._get(begin, index_length))
        self._read_index(form.decompress(index, _MOST_INDEX), begin + index_length)

    def entry(self, index: int) -> Entry:
        """Chunk ``index`` of the volume."""
        segment = self._segment(index // SEGMENT_CHUNKS)
        return self._entry(segment, index % SEGMENT_CHUNKS)

    def run(self, first: int, last: int) -> list[Entry]:
        """Chunks ``first`` up to, and without, ``last``; faster than one by one."""
        found: list[Entry] = []
        while first < last:
            number, slot = divmod(first, SEGMENT_CHUNKS)
            count = min(last - first, SEGMENT_CHUNKS - slot)
            segment = self._segment(number)
            found += [self._entry(segment, one) for one in range(slot, slot + count)]
            first += count
        return found

    def entries(self) -> Iterator[Entry]:
        """All chunks in their order."""
        for index in range(self.chunk_count):
            yield self.entry(index)

    def _entry(self, segment: bytes, slot: int) -> Entry:
        chunk_id, number, offset, length, _ = ENTRY.unpack_from(segment, slot * ENTRY.size)
        if chunk_id == form.ZEROS:
            return ZERO_ENTRY
        if number >= len(self._pack_ids):
            raise errors.Damaged(f"Object {self._name} names a pack that it does not list.")
        return Entry(chunk_id, self._pack_ids[number], offset, length)

    def _read_index(self, index: bytes, position: int) -> None:
        damaged = errors.Damaged(f"The index in object {self._name} has an impossible length.")
        if len(index) < 8:
            raise damaged
        pack_count, segment_count = struct.unpack_from("<II", index)
        packs_end = 8 + pack_count * _PACK.size
        if len(index) != packs_end + segment_count * 4 or segment_count != -(
            -self.chunk_count // SEGMENT_CHUNKS
        ):
            raise damaged
        self.packs: dict[bytes, PackUse] = {
            pack: PackUse(kind, live, size)
            for pack, kind, live, size in _PACK.iter_unpack(index[8:packs_end])
        }
        self._pack_ids = list(self.packs)
        if len(self._pack_ids) != pack_count:
            raise errors.Damaged(f"The index in object {self._name} lists a pack twice.")
        self._places: list[tuple[int, int]] = []
        for length in struct.unpack_from(f"<{segment_count}I", index, packs_end):
            self._places.append((position, length))
            position += length

    def _segment(self, number: int) -> bytes:
        with self._lock:
            if number not in self._segments:
                box = self._box(number)
                chunks = min(SEGMENT_CHUNKS, self.chunk_count - number * SEGMENT_CHUNKS)
                size = chunks * ENTRY.size
                segment = form.decompress(self._open(FIRST_SEGMENT + number, box), size)
                if len(segment) != size:
                    raise errors.Damaged(f"A segment of object {self._name} is too short.")
                self._segments[number] = segment
                if len(self._segments) > 4:
                    self._segments.popitem(last=False)
            return self._segments[number]

    def _box(self, number: int) -> bytes:
        """The box of a segment. All of them are fetched with the first one: the manifest may be
        removed, or written anew, while somebody works through it."""
        first = self._places[0][0]
        if self._boxes is None:
            self._boxes = self._fetch_boxes(first)
        offset, length = self._places[number]
        self._boxes.seek(offset - first)
        return self._boxes.read(length)

    def _fetch_boxes(self, offset: int) -> IO[bytes]:
        boxes = new_spool()
        end = sum(self._places[-1])
        try:
            while offset < end:
                part = self._get(offset, min(end - offset, _FETCHED_AT_ONCE))
                boxes.write(part)
                offset += len(part)
        except errors.Damaged:  # too short; or another one is there
            self._prove_same()
            raise
        self._prove_same()
        return boxes

    def _prove_same(self) -> None:
        """:raises errors.BackupMissing: another manifest is there than the one that was opened."""
        if not self._get(0, form.HEADER.size).endswith(self.object_id):
            raise errors.BackupMissing(
                f"Backup {self.backup_id.hex()} was stored anew just now: try again."
            )

    def _get(self, offset: int, length: int) -> bytes:
        try:
            return self._repository.store.get(self._name, offset, length)
        except errors.ObjectMissing:  # removed since it was opened
            raise errors.BackupMissing(f"There is no backup {self.backup_id.hex()}.") from None

    def _open(self, position: int, box: bytes) -> Buffer:
        return open_manifest_box(self._repository, self._name, self.object_id, position, box)


def new_spool() -> IO[bytes]:
    """A file for boxes: on disk once they are many, so that memory does not grow with the
    volume."""
    return tempfile.SpooledTemporaryFile(max_size=32 << 20, prefix="freezer-osbrick-")


class ManifestWriter:
    """Collects what workers find, in any order, and stores the manifest. Safe for several
    threads."""

    def __init__(self, repository: Repository, backup_id: bytes, size: int) -> None:
        """:param size: bytes of the volume."""
        self._repository = repository
        self._backup_id = backup_id
        # Not the backup's id: should a manifest ever be written again, with other content, its
        # boxes must not be sealed with the keys of the first.
        self._object_id = os.urandom(form.OBJECT_ID_SIZE)
        self._chunk_count = repository.chunk_count(size)
        self._open_segments: dict[int, bytearray] = {}
        self._missing: dict[int, int] = {}
        self._packs: dict[bytes, PackUse] = {}
        self._numbers: dict[bytes, int] = {}
        self._spool = new_spool()  # of the boxes of finished segments
        self._places: dict[int, tuple[int, int]] = {}
        self._lock = threading.Lock()

    def inherit(self, packs: dict[bytes, PackUse]) -> None:
        """Begin with what the parent uses; :meth:`count` takes off what is not used any more."""
        with self._lock:
            for pack, use in packs.items():
                self._packs[pack] = dataclasses.replace(use)

    def count(self, pack: bytes, kind: int, live: int) -> None:
        """Say that so many bytes of a pack more (or, negative, less) are in use."""
        with self._lock:
            self._packs.setdefault(pack, PackUse(kind, 0, 0)).live += live

    def set(self, index: int, entry: Entry) -> None:
        """Say what chunk ``index`` is. Each is set once."""
        self.set_run(index, [entry])

    def set_run(self, first: int, entries: list[Entry]) -> None:
        """Say what several chunks are that follow each other."""
        with self._lock:
            for index, entry in enumerate(entries, first):
                self._set(index, entry)

    def _set(self, index: int, entry: Entry) -> None:
        number, slot = divmod(index, SEGMENT_CHUNKS)
        if number not in self._open_segments:
            chunks = min(SEGMENT_CHUNKS, self._chunk_count - number * SEGMENT_CHUNKS)
            self._open_segments[number] = bytearray(chunks * ENTRY.size)
            self._missing[number] = chunks
        if entry is not ZERO_ENTRY and not entry.zeros:
            pack = self._numbers.setdefault(entry.pack, len(self._numbers))
            ENTRY.pack_into(
                self._open_segments[number],
                slot * ENTRY.size,
                entry.chunk_id,
                pack,
                entry.offset,
                entry.length,
                0,
            )
        self._missing[number] -= 1
        if not self._missing[number]:
            self._close_segment(number)

    def store(self, head: Head, sizes: dict[bytes, int], *, replace: bool = False) -> int:
        """Put the manifest; the backup exists from then on.

        :param head: what a listing shows; ``packs`` and ``size`` are for the caller to have right.
        :param sizes: bytes of the packs that this backup wrote, by id.
        :param replace: put it in the place of the backup's present manifest.
        :returns: bytes of the manifest.
        """
        if self._open_segments or len(self._places) != -(-self._chunk_count // SEGMENT_CHUNKS):
            raise AssertionError("a manifest is stored before each of its chunks is known")
        sealer = self._repository.sealer
        index = form.compress(self._index(sizes))
        index_box = self._seal(INDEX, index)
        head_box = self._seal(HEAD, form.compress(json.dumps(head).encode()))
        start = [
            form.header(form.KIND_MANIFEST, sealer.code, self._repository.id, self._object_id),
            LENGTHS.pack(sum(map(len, head_box)), sum(map(len, index_box))),
        ]

        parts = _Parts([*start, *head_box, *index_box], self._spool, self._places)
        name = form.manifest_name(self._backup_id)
        return self._repository.store.put(name, parts, replace=replace)

    def close(self) -> None:
        self._spool.close()

    def _index(self, sizes: dict[bytes, int]) -> bytes:
        for pack, size in sizes.items():
            if pack in self._packs:
                self._packs[pack].size = size
        used = [pack for pack, use in self._packs.items() if use.live > 0]
        # Entries refer to map packs by number, in the order in which they were met: those come
        # first.
        rest = [pack for pack in used if pack not in self._numbers]
        order = list(self._numbers) + rest
        lengths = [self._places[number][1] for number in range(len(self._places))]
        return b"".join(
            (
                struct.pack("<II", len(order), len(lengths)),
                *(_pack_row(pack, self._packs[pack]) for pack in order),
                struct.pack(f"<{len(lengths)}I", *lengths),
            )
        )

    def _close_segment(self, number: int) -> None:
        data = form.compress(bytes(self._open_segments.pop(number)))
        del self._missing[number]
        box = b"".join(self._seal(FIRST_SEGMENT + number, data))
        offset = self._spool.seek(0, 2)
        self._spool.write(box)
        self._places[number] = (offset, len(box))

    def _seal(self, position: int, data: bytes) -> list[Buffer]:
        sealer = self._repository.sealer
        return sealer.seal(form.KIND_MANIFEST, self._object_id, position, data)


class _Parts:
    """A manifest's bytes, one segment in memory at a time. A store may go through them again."""

    def __init__(
        self, start: list[Buffer], spool: IO[bytes], places: dict[int, tuple[int, int]]
    ) -> None:
        self._start = start
        self._spool = spool
        self._places = places

    def __iter__(self) -> Iterator[Buffer]:
        yield from self._start
        for number in range(len(self._places)):
            offset, length = self._places[number]
            self._spool.seek(offset)
            yield self._spool.read(length)


def _pack_row(pack: bytes, use: PackUse) -> bytes:
    return _PACK.pack(pack, use.kind, use.live, use.size)
