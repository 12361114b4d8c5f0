# SPDX-License-Identifier: Apache-2.0
"""Packs: many small pieces in one object.

A pack is a header, boxes one after the other, a box that lists them (the trailer), and a footer
that says where the trailer is. It is written once and never changed.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures

from freezer_osbrick import errors
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository.ranges import Run, Wanted
from freezer_osbrick.repository.repository import Repository
from freezer_osbrick.repository.sealing import TAG_SIZE
from freezer_osbrick.store.base import Buffer

TARGET_SIZE = 32 * 1024 * 1024

_FOOTER = struct.Struct("<II8s")  # trailer's box length, number of items, END_MAGIC
_LOCATION = struct.Struct("<II")  # offset, stored length


class Uploads:
    """Puts in flight: a few at once, so that memory stays bounded and a slow store slows its
    feeders down."""

    def __init__(self, most: int = 2) -> None:
        self._room = threading.BoundedSemaphore(most)
        self._executor = futures.ThreadPoolExecutor(most, thread_name_prefix="put")
        self._running: set[futures.Future] = set()
        self._lock = threading.Lock()
        self._failure: BaseException | None = None

    def submit(self, task: Callable[[], object]) -> None:
        """Run the task soon; wait for room first.

        :raises errors.StoreError: an earlier task failed.
        """
        self._room.acquire()
        with self._lock:
            if self._failure:
                self._room.release()
                raise self._failure
            future = self._executor.submit(self._run, task)
            self._running.add(future)
        future.add_done_callback(self._done)

    def drain(self) -> None:
        """Wait until everything submitted so far is stored.

        :raises errors.StoreError: something could not be.
        """
        with self._lock:
            running = list(self._running)
        futures.wait(running)
        if self._failure:
            raise self._failure

    def close(self) -> None:
        """Wait for what runs; start nothing more."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _run(self, task: Callable[[], object]) -> None:
        try:
            if not self._failure:
                task()
        except BaseException as error:
            self._failure = self._failure or error

    def _done(self, future: futures.Future) -> None:
        with self._lock:
            self._running.discard(future)
        self._room.release()


class PackWriter:
    """Fills packs of one kind and hands each full one over to be stored. Safe for several
    threads."""

    def __init__(
        self,
        repository: Repository,
        kind: int,
        uploads: Uploads,
        *,
        target_size: int = TARGET_SIZE,
    ) -> None:
        self._repository = repository
        self._kind = kind
        self._uploads = uploads
        self._target_size = target_size
        self._lock = threading.Lock()
        # Held while a full pack waits for room. No other one is begun meanwhile: else each of many
        # workers could hold one in memory.
        self._waiting = threading.Lock()
        self._pack: _OpenPack | None = None
        self.sizes: dict[bytes, int] = {}
        """Bytes of each pack that was handed over, by its id."""

    def append(self, pieces: Sequence[tuple[bytes, Buffer]]) -> tuple[bytes, list[tuple[int, int]]]:
        """Add pieces that belong together: ``(id, data)`` each.

        :returns: the id of the pack that holds them, and for each its offset and stored length.
        """
        full = None
        with self._lock:
            if self._pack is None:
                with self._waiting:
                    self._pack = _OpenPack(self._repository, self._kind)
            pack = self._pack
            places = [pack.add(piece_id, data) for piece_id, data in pieces]
            if pack.size >= self._target_size:
                full, self._pack = pack, None
                self._waiting.acquire()
        if full:
            try:
                self._hand_over(full)
            finally:
                self._waiting.release()
        return pack.id, places

    def finish(self) -> None:
        """Hand over the pack that is not full."""
        with self._lock:
            rest, self._pack = self._pack, None
        if rest:
            self._hand_over(rest)

    @property
    def stored(self) -> int:
        """Bytes of all packs handed over."""
        return sum(list(self.sizes.values()))

    def _hand_over(self, pack: _OpenPack) -> None:
        parts = pack.finish()
        self.sizes[pack.id] = pack.size
        store = self._repository.store
        self._uploads.submit(lambda: store.put(form.pack_name(pack.id), parts))


class _OpenPack:
    def __init__(self, repository: Repository, kind: int) -> None:
        self.id = os.urandom(form.OBJECT_ID_SIZE)
        self._kind = kind
        self._sealer = repository.sealer
        self._parts: list[Buffer] = [form.header(kind, self._sealer.code, repository.id, self.id)]
        self._ids: list[bytes] = []
        self._places: list[tuple[int, int]] = []
        self.size = form.HEADER.size

    def add(self, piece_id: bytes, data: Buffer) -> tuple[int, int]:
        place = (self.size, self._add_box(data, piece_id))
        self._ids.append(piece_id)
        self._places.append(place)
        return place

    def finish(self) -> list[Buffer]:
        """Close the pack; all its bytes."""
        trailer = b"".join(self._ids) + b"".join(_LOCATION.pack(*place) for place in self._places)
        length = self._add_box(form.compress(trailer), b"")
        self._parts.append(_FOOTER.pack(length, len(self._ids), form.END_MAGIC))
        self.size += _FOOTER.size
        return self._parts

    def _add_box(self, data: Buffer, piece_id: bytes) -> int:
        box = self._sealer.seal(self._kind, self.id, self.size, data, piece_id)
        self._parts += box
        length = sum(map(len, box))
        self.size += length
        return length


def fetch(repository: Repository, run: Run) -> Iterator[tuple[Wanted, memoryview | errors.Damaged]]:
    """The pieces of a run, each with its bytes or with what is wrong.

    Where the run cannot be read as a whole, because its pack is shorter than it should be, each
    piece is tried by itself, so that only what is lost counts as lost.
    """
    store, name = repository.store, form.pack_name(run.pack)
    try:
        data = memoryview(store.get(name, run.offset, run.length))
    except errors.ObjectMissing:
        missing = errors.Damaged(f"Object {name} is missing.")
        for piece in run.pieces:
            yield piece, missing
        return
    except errors.Damaged as error:
        if len(run.pieces) == 1:
            yield run.pieces[0], error
            return
        for piece in run.pieces:
            yield from fetch(repository, Run(run.pack, piece.offset, piece.length, [piece]))
        return
    for piece in run.pieces:
        start = piece.offset - run.offset
        yield piece, data[start : start + piece.length]


def open_box(
    repository: Repository, kind: int, pack_id: bytes, offset: int, box: memoryview, data_id: bytes
) -> Buffer:
    """The data of one box of a pack.

    :raises errors.Damaged: naming pack and offset.
    """
    try:
        return repository.sealer.open(kind, pack_id, offset, box, data_id)
    except errors.Damaged:
        raise errors.Damaged(
            f"Object {form.pack_name(pack_id)} is damaged at byte {offset}."
        ) from None


def read_trailer(repository: Repository, kind: int, pack_id: bytes) -> list[tuple[bytes, int, int]]:
    """What a pack holds: ``(id, offset, stored length)`` of each piece, in the order of the pack.

    :raises errors.Damaged: the pack does not say.
    """
    store = repository.store
    name = form.pack_name(pack_id)
    size = store.stat(name).size
    least = form.HEADER.size + TAG_SIZE + _FOOTER.size
    if size < least:
        raise errors.Damaged(f"Object {name} is too short to be a pack.")
    header = store.get(name, 0, form.HEADER.size)
    form.check_header(header, kind, repository.sealer.code, repository.id, pack_id, name)
    length, count, magic = _FOOTER.unpack(store.get(name, size - _FOOTER.size, _FOOTER.size))
    if (
        magic != form.END_MAGIC
        or not TAG_SIZE <= length <= size - least + TAG_SIZE
        or count * TAG_SIZE > size  # each box has a tag
    ):
        raise errors.Damaged(f"Object {name} does not end as a pack does.")
    offset = size - _FOOTER.size - length
    box = memoryview(store.get(name, offset, length))
    data = open_box(repository, kind, pack_id, offset, box, b"")
    each = form.ID_SIZE + _LOCATION.size
    trailer = form.decompress(data, count * each)
    if len(trailer) != count * each:
        raise errors.Damaged(f"The trailer of object {name} lists something else than it counts.")
    places = _LOCATION.iter_unpack(trailer[count * form.ID_SIZE :])
    return [
        (trailer[index * form.ID_SIZE : (index + 1) * form.ID_SIZE], *place)
        for index, place in enumerate(places)
    ]
