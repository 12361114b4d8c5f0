# SPDX-License-Identifier: Apache-2.0
"""Backup and restore through the whole data path, on a volume and a store in memory."""

import os
import random
import signal

import pytest

from freezer_osbrick import errors
from freezer_osbrick.repository import catalogue, packs
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository.manifest import Manifest
from freezer_osbrick.repository.maps import MapReader
from tests.unit.fakes import MemoryDevice
from tests.unit.pipeline.flow import BLOCK, CHUNK, backup, mixed, new_repository, restore


@pytest.fixture
def repo():
    return new_repository()


@pytest.mark.parametrize(
    "size",
    [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, CHUNK, CHUNK * 3 + BLOCK * 2 + 77, CHUNK * 40],
)
@pytest.mark.parametrize("level", [0, 1])
def test_full(repo, size, level):
    source = MemoryDevice(mixed(size))
    manifest, amounts = backup(repo, source, compression_level=level)
    assert amounts.read == size == amounts.zeros + amounts.new
    target = MemoryDevice(os.urandom(size))
    restore(repo, manifest, target)
    assert target.content == source.content
    assert target.flushed == 1


def test_each_byte_is_read_once(repo):
    source = MemoryDevice(mixed(CHUNK * 10))
    backup(repo, source)
    assert sorted(source.reads) == [(index * CHUNK, CHUNK) for index in range(10)]


def test_incremental_stores_only_changed_blocks(repo):
    source = MemoryDevice(mixed(CHUNK * 50))
    first, full = backup(repo, source)
    for index in (0, 17, 18, 399):
        source.content[index * BLOCK : index * BLOCK + 10] = b"0123456789"
    source.content[100 * BLOCK : 120 * BLOCK] = bytes(20 * BLOCK)
    second, amounts = backup(repo, source, parent=first)
    assert amounts.new == 4 * BLOCK
    assert amounts.read == source.size
    assert amounts.stored < full.stored / 4
    target = MemoryDevice(bytes(source.size))
    restore(repo, second, target)
    assert target.content == source.content


def test_unchanged_incremental_stores_nothing_but_a_manifest(repo):
    source = MemoryDevice(mixed(CHUNK * 50))
    first, _ = backup(repo, source)
    before = set(repo.store.objects)
    second, amounts = backup(repo, source, parent=first)
    assert set(repo.store.objects) - before == {form.manifest_name(second.backup_id)}
    assert amounts.new == 0 and amounts.reused + amounts.zeros == source.size
    assert second.packs == first.packs


def test_live_bytes_are_those_that_the_maps_refer_to(repo):
    """Garbage collection believes the index, so it must agree with the maps, in any history."""
    source = MemoryDevice(mixed(CHUNK * 30, seed=3))
    randomness = random.Random(4)
    manifest, _ = backup(repo, source)
    for _ in range(6):
        for _ in range(randomness.randrange(40)):
            start = randomness.randrange(0, source.size - 100)
            source.content[start : start + 100] = randomness.choice([bytes(100), b"x" * 100])
        for _ in range(randomness.randrange(3)):
            start = randomness.randrange(0, 28) * CHUNK
            source.content[start : start + CHUNK] = bytes(CHUNK)
        manifest, _ = backup(repo, source, parent=manifest)
        assert {pack: use.live for pack, use in manifest.packs.items()} == _counted(repo, manifest)
        for pack, use in manifest.packs.items():
            assert use.size == len(repo.store.objects[form.pack_name(pack)])


def _counted(repo, manifest):
    reader = MapReader(repo, manifest)
    live = {}
    for index, entry in enumerate(manifest.entries()):
        if not entry.zeros:
            live[entry.pack] = live.get(entry.pack, 0) + entry.length
            for pack, length in reader.load(index).stored().items():
                live[pack] = live.get(pack, 0) + length
    return live


def test_grown_and_shrunk_parents(repo):
    source = MemoryDevice(mixed(CHUNK * 20))
    first, _ = backup(repo, source)
    grown = MemoryDevice(bytes(source.content) + mixed(CHUNK * 5 + 99, seed=9))
    second, amounts = backup(repo, grown, parent=first)
    assert amounts.new <= CHUNK * 5 + 99
    shrunk = MemoryDevice(source.content[: CHUNK * 7 + 5])
    third, _ = backup(repo, shrunk, parent=second)
    assert {pack: use.live for pack, use in third.packs.items()} == _counted(repo, third)
    for manifest, original in ((first, source), (second, grown), (third, shrunk)):
        target = MemoryDevice(os.urandom(original.size))
        restore(repo, manifest, target)
        assert target.content == original.content


def test_compare_writes_only_what_differs(repo):
    source = MemoryDevice(mixed(CHUNK * 40))
    manifest, _ = backup(repo, source)
    target = MemoryDevice(source.content)
    target.content[5 * BLOCK : 6 * BLOCK] = os.urandom(BLOCK)
    target.content[200 * BLOCK + 7] ^= 1
    amounts = restore(repo, manifest, target, compare=True)
    assert target.content == source.content
    assert amounts.written + amounts.zeroed <= 2 * BLOCK
    assert amounts.kept >= source.size - 2 * BLOCK


def test_nothing_is_written_where_all_is_right(repo):
    source = MemoryDevice(mixed(CHUNK * 10))
    manifest, _ = backup(repo, source)
    target = MemoryDevice(source.content)
    amounts = restore(repo, manifest, target, compare=True)
    assert amounts.kept == source.size and not target.writes and not target.zeroed


def test_a_new_volume_is_not_assumed_to_be_empty(repo):
    source = MemoryDevice(bytes(CHUNK * 3) + os.urandom(BLOCK) + bytes(CHUNK))
    manifest, _ = backup(repo, source)
    target = MemoryDevice(b"\xff" * (source.size + CHUNK))
    restore(repo, manifest, target)
    assert target.content == source.content + bytes(CHUNK)


def test_a_volume_that_has_grown_since_keeps_its_tail(repo):
    source = MemoryDevice(mixed(CHUNK * 2 + 10))
    manifest, _ = backup(repo, source)
    tail = os.urandom(CHUNK * 2)
    target = MemoryDevice(bytes(source.size) + tail)
    restore(repo, manifest, target, compare=True)
    assert target.content == source.content + tail


def test_too_small_a_volume_is_refused_before_anything_is_written(repo):
    manifest, _ = backup(repo, MemoryDevice(mixed(CHUNK)))
    target = MemoryDevice(bytes(CHUNK - 1))
    with pytest.raises(errors.BadRequest):
        restore(repo, manifest, target)
    assert not target.writes and not target.zeroed


def test_a_read_error_commits_nothing(repo):
    source = MemoryDevice(mixed(CHUNK * 30))
    source.fail_read = lambda offset, length: offset == 20 * CHUNK
    with pytest.raises(errors.DeviceError):
        backup(repo, source)
    assert catalogue.backups(repo) == []


@pytest.mark.parametrize("prefix", [form.PACKS, form.MANIFESTS])
def test_a_store_error_commits_nothing(repo, prefix):
    def fault(verb, name):
        if verb == "put" and name.startswith(prefix):
            raise errors.StoreFull("No room is left.")

    repo.store.fault = fault
    with pytest.raises(errors.StoreFull):
        backup(repo, MemoryDevice(mixed(CHUNK * 30)))
    assert catalogue.backups(repo) == []


@pytest.fixture
def interruptible():
    """SIGINT interrupts, even in the background of a shell, where it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupted_backup_commits_nothing(repo, interruptible):
    source = MemoryDevice(mixed(CHUNK * 30))

    def fail_read(offset, length):
        # What a signal does: an exception in the main thread, wherever it is.
        signal.raise_signal(signal.SIGINT)
        return False

    source.fail_read = fail_read
    with pytest.raises(KeyboardInterrupt):
        backup(repo, source)
    assert catalogue.backups(repo) == []


def test_a_missing_pack_is_told_by_its_ranges(repo):
    first_half, second_half = os.urandom(CHUNK * 4), os.urandom(CHUNK * 4)
    source = MemoryDevice(first_half + bytes(CHUNK * 4))
    first, _ = backup(repo, source)
    source.content[CHUNK * 4 :] = second_half
    second, _ = backup(repo, source, parent=first)
    [lost] = [p for p, u in first.packs.items() if u.kind == form.KIND_BLOCKS]
    repo.store.delete(form.pack_name(lost))
    target = MemoryDevice(bytes(source.size))
    with pytest.raises(errors.DamagedRanges) as caught:
        restore(repo, second, target)
    assert caught.value.ranges == [(0, CHUNK * 4)]
    assert target.content[CHUNK * 4 :] == second_half


def test_trailers_list_what_the_pack_holds(repo):
    source = MemoryDevice(mixed(CHUNK * 20))
    manifest, _ = backup(repo, source)
    for pack, use in manifest.packs.items():
        listed = packs.read_trailer(repo, use.kind, pack)
        assert sum(length for _, _, length in listed) == use.live
        data = memoryview(repo.store.objects[form.pack_name(pack)])
        for piece_id, offset, length in listed:
            packs.open_box(repo, use.kind, pack, offset, data[offset : offset + length], piece_id)


def test_random_histories(repo):
    """Every backup of a chain restores by itself, whatever other backups were removed."""
    randomness = random.Random(7)
    source = MemoryDevice(mixed(CHUNK * 12 + 50, seed=8))
    kept = []
    parent = None
    for _ in range(8):
        parent, _ = backup(repo, source, parent=parent)
        kept.append((parent, bytes(source.content)))
        for _ in range(randomness.randrange(10)):
            start = randomness.randrange(source.size)
            piece = randomness.choice([b"a" * 5000, bytes(5000), randomness.randbytes(300)])
            piece = piece[: source.size - start]
            source.content[start : start + len(piece)] = piece
    for manifest, _ in kept[:-1:2]:
        catalogue.remove(repo, catalogue.find(repo, manifest.backup_id.hex()))
    for manifest, content in kept[1::2]:
        target = MemoryDevice(os.urandom(len(content)))
        restore(repo, Manifest(repo, manifest.backup_id), target, compare=randomness.random() < 0.5)
        assert target.content == content
