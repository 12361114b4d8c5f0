# SPDX-License-Identifier: Apache-2.0
"""Reading any bytes of a backup."""

import os
import random
import threading

import pytest

from freezer_osbrick import errors
from freezer_osbrick.pipeline.reading import WINDOW_BLOCKS, BackupReader
from freezer_osbrick.repository import format as form
from tests.unit.fakes import MemoryDevice
from tests.unit.pipeline.flow import BLOCK, CHUNK, backup, mixed, new_repository

WINDOW = WINDOW_BLOCKS * BLOCK


@pytest.fixture(params=[None, b"secret"], ids=["open", "sealed"])
def repo(request):
    return new_repository(secret=request.param)


@pytest.mark.parametrize("size", [0, 1, BLOCK + 1, WINDOW, CHUNK * 3 + BLOCK + 77, CHUNK * 40])
@pytest.mark.parametrize("on_disk", [False, True])
def test_any_range_is_what_was_backed_up(repo, size, on_disk, tmp_path):
    content = mixed(size)
    manifest, _ = backup(repo, MemoryDevice(content))
    chance = random.Random(5)
    folder = str(tmp_path) if on_disk else None
    with BackupReader(repo, manifest, cache_size=4 * WINDOW, cache_folder=folder) as reader:
        assert reader.size == size
        for _ in range(300):
            offset, length = chance.randrange(size + 2), chance.randrange(3 * WINDOW)
            assert reader.read(offset, length) == content[offset : offset + length]
        assert reader.read(0, size + 10) == content
        assert reader.read(size, 1) == b"" == reader.read(size + 5, 7)
        assert list(tmp_path.iterdir()) == []


def test_reading_in_order_fetches_each_byte_once(repo):
    content = mixed(CHUNK * 64)
    manifest, _ = backup(repo, MemoryDevice(content))
    with BackupReader(repo, manifest, cache_size=len(content) // 2) as reader:
        calls = repo.store.calls
        del calls[:]
        parts = [reader.read(offset, BLOCK) for offset in range(0, len(content), BLOCK)]
    assert b"".join(parts) == content
    # The maps by one request, each window by one or, where it lies in two packs, two.
    assert len(calls) <= 2 + 2 * (len(content) // WINDOW)


def test_a_jump_fetches_only_its_window(repo):
    content = os.urandom(CHUNK * 64)
    manifest, _ = backup(repo, MemoryDevice(content))
    with BackupReader(repo, manifest) as reader:
        reader.read(0, 1)
        calls = repo.store.calls
        del calls[:]
        for number in (20, 3, 11, 20, 3, 11):
            reader.read(number * WINDOW + 5, 10)
    assert len(calls) <= 2 * 3  # a window has two chunks here, which may lie apart in the pack


def test_several_threads(repo):
    content = mixed(CHUNK * 30)
    manifest, _ = backup(repo, MemoryDevice(content))
    wrong = []

    def read(seed):
        chance = random.Random(seed)
        for _ in range(200):
            offset, length = chance.randrange(len(content)), chance.randrange(2 * WINDOW)
            if reader.read(offset, length) != content[offset : offset + length]:
                wrong.append((offset, length))

    with BackupReader(repo, manifest, cache_size=3 * WINDOW) as reader:
        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_a_damaged_block_is_lost_alone(repo):
    content = os.urandom(CHUNK * 4)
    manifest, _ = backup(repo, MemoryDevice(content))
    (pack,) = (
        form.pack_name(pack) for pack, use in manifest.packs.items() if use.kind == form.KIND_BLOCKS
    )
    data = bytearray(repo.store.objects[pack])
    data[len(data) // 2] ^= 1
    repo.store.objects[pack] = bytes(data)
    lost = []
    with BackupReader(repo, manifest) as reader:
        for offset in range(0, len(content), BLOCK):
            try:
                assert reader.read(offset, BLOCK) == content[offset : offset + BLOCK]
            except errors.DamagedRanges as error:
                assert "is damaged" in str(error)
                lost += error.ranges
        assert [length for _, length in lost] == [BLOCK]
        before, _ = divmod(lost[0][0], WINDOW)
        with pytest.raises(errors.DamagedRanges) as caught:
            reader.read(before * WINDOW, WINDOW)
        assert caught.value.ranges == lost


def test_a_missing_pack_and_a_damaged_map(repo):
    manifest, _ = backup(repo, MemoryDevice(os.urandom(CHUNK * 4)))
    names = {use.kind: form.pack_name(pack) for pack, use in manifest.packs.items()}
    objects = repo.store.objects
    del objects[names[form.KIND_BLOCKS]]
    with BackupReader(repo, manifest) as reader:
        with pytest.raises(errors.DamagedRanges, match="is missing"):
            reader.read(0, CHUNK * 4)
    objects[names[form.KIND_MAPS]] = bytes(len(objects[names[form.KIND_MAPS]]))
    with BackupReader(repo, manifest) as reader:
        with pytest.raises(errors.DamagedRanges) as caught:
            reader.read(1, CHUNK * 4)
    assert caught.value.ranges == [(0, CHUNK * 4)]


def test_a_store_that_fails_is_asked_again(repo):
    content = os.urandom(CHUNK)
    manifest, _ = backup(repo, MemoryDevice(content))

    def fail(verb, name):
        raise errors.StoreUnavailable("The store is away.")

    with BackupReader(repo, manifest) as reader:
        repo.store.fault = fail
        with pytest.raises(errors.StoreUnavailable):
            reader.read(0, 10)
        repo.store.fault = lambda verb, name: None
        assert reader.read(0, 10) == content[:10]


def test_a_full_disk_keeps_nothing_and_reads_on(repo, monkeypatch, tmp_path):
    content = mixed(CHUNK * 8)
    manifest, _ = backup(repo, MemoryDevice(content))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with BackupReader(repo, manifest, cache_folder=str(tmp_path)) as reader:
        assert reader.read(0, len(content)) == content
        assert reader.read(7, 100) == content[7:107]


def test_no_folder_for_the_cache(repo):
    manifest, _ = backup(repo, MemoryDevice(b"x"))
    with pytest.raises(errors.BadRequest, match="/nowhere"):
        BackupReader(repo, manifest, cache_folder="/nowhere")
