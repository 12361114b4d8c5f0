# SPDX-License-Identifier: Apache-2.0
"""Packs: what lies in them, and how they get into the store."""

import os
import random
import struct
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from freezer_osbrick import errors
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository import packs
from freezer_osbrick.repository.packs import PackWriter, Uploads, read_trailer
from tests.unit.pipeline.flow import new_repository


@pytest.fixture
def repo():
    return new_repository()


def write(repo, pieces, **options):
    """A pack of the pieces; its id and their places."""
    uploads = Uploads()
    writer = PackWriter(repo, form.KIND_BLOCKS, uploads, **options)
    pack, places = writer.append(pieces)
    writer.finish()
    uploads.drain()
    uploads.close()
    return pack, places


def pieces_of(*contents):
    return [(bytes([number]) * 32, content) for number, content in enumerate(contents)]


def test_what_a_pack_holds(repo):
    pieces = pieces_of(b"one", bytearray(b"two" * 100), memoryview(b"three"), b"")
    pack, places = write(repo, pieces)
    listed = read_trailer(repo, form.KIND_BLOCKS, pack)
    assert listed == [(pieces[n][0], *places[n]) for n in range(4)]
    data = memoryview(repo.store.objects[form.pack_name(pack)])
    for (piece_id, content), (offset, length) in zip(pieces, places, strict=True):
        box = data[offset : offset + length]
        assert packs.open_box(repo, form.KIND_BLOCKS, pack, offset, box, piece_id) == content


def test_the_wrong_kind_of_pack(repo):
    pack, _ = write(repo, pieces_of(b"x"))
    with pytest.raises(errors.Damaged):
        read_trailer(repo, form.KIND_MAPS, pack)


def test_a_pack_of_nothing_is_not_stored(repo):
    uploads = Uploads()
    writer = PackWriter(repo, form.KIND_BLOCKS, uploads)
    writer.finish()
    uploads.drain()
    uploads.close()
    assert writer.sizes == {} and writer.stored == 0
    assert list(repo.store.list(form.PACKS)) == []


def test_full_packs_are_handed_over(repo):
    uploads = Uploads()
    writer = PackWriter(repo, form.KIND_BLOCKS, uploads, target_size=1000)
    used = [writer.append(pieces_of(b"x" * 300))[0] for _ in range(10)]
    writer.finish()
    uploads.drain()
    uploads.close()
    assert len(set(used)) == 3 == len(writer.sizes)
    for pack, size in writer.sizes.items():
        assert len(repo.store.objects[form.pack_name(pack)]) == size
    assert writer.stored == sum(writer.sizes.values())


def test_many_threads_fill_packs(repo):
    uploads = Uploads(3)
    writer = PackWriter(repo, form.KIND_BLOCKS, uploads, target_size=20_000)
    found, failures = [], []

    def work(seed):
        randomness = random.Random(seed)
        try:
            for _ in range(50):
                pieces = [
                    (randomness.randbytes(32), randomness.randbytes(randomness.randrange(800)))
                    for _ in range(randomness.randrange(1, 8))
                ]
                pack, places = writer.append(pieces)
                found.extend((pack, *both) for both in zip(pieces, places, strict=True))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.finish()
    uploads.drain()
    uploads.close()
    assert not failures
    assert len(writer.sizes) > 10
    listed = {}
    for pack in writer.sizes:
        for piece_id, offset, length in read_trailer(repo, form.KIND_BLOCKS, pack):
            listed[piece_id] = (pack, offset, length)
    assert len(listed) == len(found)
    for pack, (piece_id, content), place in found:
        assert listed[piece_id] == (pack, *place)
        box = memoryview(repo.store.objects[form.pack_name(pack)])[place[0] : sum(place)]
        assert packs.open_box(repo, form.KIND_BLOCKS, pack, place[0], box, piece_id) == content


@given(st.data())
@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_changed_and_cut_packs(repo, data):
    pack, places = write(repo, pieces_of(b"one", b"two" * 9))
    name = form.pack_name(pack)
    good = repo.store.objects[name]
    expected = read_trailer(repo, form.KIND_BLOCKS, pack)
    bad = bytearray(good)
    position = data.draw(st.integers(0, len(bad) - 1))
    bad[position : position + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    repo.store.objects[name] = bytes(bad[: data.draw(st.none() | st.integers(0, len(bad)))])
    try:
        assert read_trailer(repo, form.KIND_BLOCKS, pack) == expected
    except (errors.Damaged, errors.UnknownFormat):
        pass


@pytest.mark.parametrize("count", [0, 1, 3, 1000, 2**32 - 1])
def test_a_footer_that_counts_wrongly(repo, count):
    pack, _ = write(repo, pieces_of(b"one", b"two"))
    name = form.pack_name(pack)
    data = repo.store.objects[name]
    length, _, magic = struct.unpack("<II8s", data[-16:])
    repo.store.objects[name] = data[:-16] + struct.pack("<II8s", length, count, magic)
    with pytest.raises(errors.Damaged):
        read_trailer(repo, form.KIND_BLOCKS, pack)


# -- uploads ---------------------------------------------------------------------------------------


def test_uploads_in_flight_are_few():
    uploads = Uploads(3)
    gate = threading.Semaphore(0)
    lock = threading.Lock()
    running = most = 0
    submitted = []

    def task():
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        gate.acquire()
        with lock:
            running -= 1

    def feed():
        for number in range(12):
            uploads.submit(task)
            submitted.append(number)

    feeder = threading.Thread(target=feed)
    feeder.start()
    for finished in range(12):
        # The feeder never gets further ahead than the three that may be in flight.
        while len(submitted) < min(12, finished + 3):
            time.sleep(0.001)
        assert len(submitted) <= finished + 3
        gate.release()
    feeder.join()
    uploads.drain()
    uploads.close()
    assert most == 3 and running == 0


def test_a_failure_is_raised_to_every_feeder_and_at_the_end():
    uploads = Uploads(2)
    error = errors.StoreFull("No room is left.")
    done = []

    def failing():
        raise error

    def feed():
        with pytest.raises(errors.StoreFull) as caught:
            while True:
                uploads.submit(lambda: done.append(1))
        assert caught.value is error
        finished.append(1)

    finished = []
    uploads.submit(failing)
    threads = [threading.Thread(target=feed) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(finished) == 4
    for _ in range(2):
        with pytest.raises(errors.StoreFull):
            uploads.drain()
    uploads.close()


def test_after_a_failure_nothing_more_is_stored():
    uploads = Uploads(1)
    entered, gate = threading.Event(), threading.Event()
    done = []

    def failing():
        entered.set()
        gate.wait()
        raise errors.StoreUnavailable("The store cannot be reached.")

    uploads.submit(failing)
    entered.wait()
    waiting = threading.Thread(target=lambda: _submit_quietly(uploads, done))
    waiting.start()
    gate.set()
    waiting.join()
    uploads.close()
    assert done == []


def _submit_quietly(uploads, done):
    try:
        uploads.submit(lambda: done.append(1))
    except errors.StoreUnavailable:
        pass


def test_closing_waits_for_what_runs_and_may_be_repeated():
    uploads = Uploads(2)
    gate = threading.Event()
    done = []
    uploads.submit(lambda: (gate.wait(), done.append(1)))
    closing = threading.Thread(target=uploads.close)
    closing.start()
    assert not done
    gate.set()
    closing.join()
    assert done == [1]
    uploads.close()


def test_drain_of_nothing():
    uploads = Uploads()
    uploads.drain()
    uploads.close()


def test_many_feeders_hold_few_packs_while_the_store_is_slow(repo, monkeypatch):
    """However many workers: one pack is filled, one waits, two are being put."""
    gate = threading.Event()
    put = repo.store.put
    monkeypatch.setattr(repo.store, "put", lambda *args, **kw: (gate.wait(), put(*args, **kw)))
    begun = []
    real = packs._OpenPack
    monkeypatch.setattr(packs, "_OpenPack", lambda *args: begun.append(1) or real(*args))
    uploads = Uploads(2)
    writer = PackWriter(repo, form.KIND_BLOCKS, uploads, target_size=20_000)
    feeders = [
        threading.Thread(
            target=lambda: [writer.append([(os.urandom(32), bytes(5000))]) for _ in range(20)]
        )
        for _ in range(16)
    ]
    for feeder in feeders:
        feeder.start()
    for feeder in feeders:
        feeder.join(timeout=0.1)  # they are stuck, and stay so until the gate opens
    assert len(begun) <= 4
    gate.set()
    for feeder in feeders:
        feeder.join()
    writer.finish()
    uploads.drain()
    uploads.close()
    assert len(begun) == len(writer.sizes) == 16 * 20 // 4
