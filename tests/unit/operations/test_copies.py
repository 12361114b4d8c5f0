# SPDX-License-Identifier: Apache-2.0
"""One backup in several repositories: what one copy lacks is taken from the next."""

from __future__ import annotations

import os
from typing import Any

import pytest

from freezer_osbrick import errors
from freezer_osbrick.operations import copies
from freezer_osbrick.operations.copies import Copies
from freezer_osbrick.operations.mirror import Side
from freezer_osbrick.pipeline.progress import Progress
from freezer_osbrick.pipeline.readback import ReadBack
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository import repository as repositories
from freezer_osbrick.repository.manifest import Manifest
from freezer_osbrick.repository.maps import MapReader
from freezer_osbrick.repository.repository import Repository
from tests.unit.fakes import MemoryDevice, MemoryStore
from tests.unit.pipeline import flow

SIZE = 600 * flow.BLOCK
CONTENT = os.urandom(SIZE)


def anything(backup: Any) -> bool:
    return True


class Mirror:
    """Repositories of different block sizes, one of them sealed, with one backup in each."""

    def __init__(self, *shapes: tuple[int, int, bytes | None]) -> None:
        self.id = os.urandom(16)
        self.sides = []
        for number, (block, chunk_blocks, secret) in enumerate(shapes):
            repository = repositories.create(
                MemoryStore(), block_size=block, chunk_blocks=chunk_blocks, secret=secret
            )
            flow.backup(repository, MemoryDevice(CONTENT), backup_id=self.id)
            self.sides.append(Side(f"/{number}", repository))

    def store(self, number: int) -> MemoryStore:
        store: Any = self.sides[number].repository.store
        return store

    def found(self) -> Copies:
        return copies.newest(self.sides, anything)["v1"]

    def damage(self, number: int, first: float, last: float) -> None:
        """Flip a byte in what is stored of each block in a part of the volume."""
        repository, store = self.sides[number].repository, self.store(number)
        assert repository is not None
        manifest = Manifest(repository, self.id)
        maps = MapReader(repository, manifest)
        for index in range(manifest.chunk_count):
            if not first * SIZE <= index * repository.chunk_size < last * SIZE:
                continue
            chunk_map = maps.load(index)
            for pack, offset in zip(chunk_map.packs, chunk_map.offsets, strict=True):
                assert pack is not None
                name = form.pack_name(pack)
                broken = bytearray(store.objects[name])
                broken[offset] ^= 1
                store.objects[name] = bytes(broken)

    def lose(self, number: int, prefix: str) -> None:
        store = self.store(number)
        for name in [name for name in store.objects if name.startswith(prefix)]:
            del store.objects[name]


@pytest.fixture
def mirror() -> Mirror:
    return Mirror((4096, 8, None), (8192, 16, b"secret"), (4096, 8, None))


def restored(found: Copies, compare: bool = False) -> MemoryDevice:
    assert found.size() == SIZE
    device = MemoryDevice(os.urandom(SIZE))
    found.restore(device, compare=compare, threads=2, progress=Progress("v1"))
    return device


def test_the_first_repository_is_read(mirror: Mirror) -> None:
    for number in (1, 2):
        mirror.lose(number, form.PACKS)
    found = mirror.found()
    assert restored(found).content == CONTENT
    assert (found.used, found.notes) == ("/0", [])


@pytest.mark.parametrize("compare", [False, True])
def test_damaged_ranges_come_from_the_next(mirror: Mirror, compare: bool) -> None:
    mirror.damage(0, 0.2, 0.4)
    mirror.damage(1, 0.6, 0.7)
    found = mirror.found()
    device = restored(found, compare)
    assert device.content == CONTENT
    assert found.used == "/0 and /1"
    assert "/0: " in found.notes[0] and "taken from /1" in found.notes[0]
    # Only the damaged part is asked for again.
    assert sum(length for _, length in device.writes) < 1.5 * SIZE


def test_what_two_lack_comes_from_the_third(mirror: Mirror) -> None:
    mirror.damage(0, 0.2, 0.5)
    mirror.damage(1, 0.4, 0.6)
    found = mirror.found()
    assert restored(found).content == CONTENT
    assert found.used == "/0 and /1 and /2"


def test_what_all_lack_is_named_and_the_rest_is_right(mirror: Mirror) -> None:
    mirror.damage(0, 0.2, 0.5)
    mirror.damage(1, 0.4, 0.6)
    mirror.lose(2, form.PACKS)
    found = mirror.found()
    device = MemoryDevice(os.urandom(SIZE))
    with pytest.raises(errors.DamagedRanges) as raised:
        found.restore(device, compare=False, threads=2, progress=Progress("v1"))
    lost = raised.value.ranges
    assert 0 < sum(length for _, length in lost) < 0.3 * SIZE
    for address in ("/0: ", "/1: ", "/2: "):
        assert address in str(raised.value)
    assert differing(device.content) == flat(lost)


def differing(content: bytearray) -> set[int]:
    blocks = range(0, SIZE, flow.BLOCK)
    return {at for at in blocks if content[at : at + flow.BLOCK] != CONTENT[at : at + flow.BLOCK]}


def flat(ranges: list[tuple[int, int]]) -> set[int]:
    return {at for start, length in ranges for at in range(start, start + length, flow.BLOCK)}


def test_a_copy_without_its_packs_is_passed_by(mirror: Mirror) -> None:
    mirror.lose(0, form.PACKS)
    found = mirror.found()
    assert restored(found).content == CONTENT
    assert found.used == "/1"


def test_a_manifest_that_is_gone_since_it_was_listed(mirror: Mirror) -> None:
    found = mirror.found()
    mirror.lose(0, form.MANIFESTS)
    assert restored(found).content == CONTENT
    assert found.used == "/1"


@pytest.mark.parametrize("calls", [0, 1, 2, 3, 4, 6])
def test_a_store_that_goes_away(mirror: Mirror, calls: int) -> None:
    """Before or in the middle of the restore."""
    found = mirror.found()
    left = [calls]

    def fault(verb: str, name: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise errors.StoreUnavailable("It is gone.")

    mirror.store(0).fault = fault
    assert restored(found).content == CONTENT
    assert found.used is not None and found.used.endswith("/1")
    assert "/0: It is gone." in found.notes[0]


def test_a_restored_volume_is_proved_by_any_copy(mirror: Mirror) -> None:
    found = mirror.found()
    device = restored(found)
    mirror.lose(0, form.MANIFESTS)

    def prove(repository: Repository, manifest: Manifest) -> None:
        progress = Progress("v1")
        ReadBack(repository, manifest, device, zeros_beyond=True, progress=progress).run()

    found.read(prove)
    assert found.notes[-1].startswith("/0: ")
    device.content[5 * flow.CHUNK] ^= 1
    with pytest.raises(errors.ReadBackFailed):
        found.read(prove)


def test_a_device_that_fails_is_no_reason_to_try_another(mirror: Mirror) -> None:
    found = mirror.found()
    device = MemoryDevice(bytes(SIZE))
    device.fail_read = lambda offset, length: True
    with pytest.raises(errors.DeviceError):
        found.restore(device, compare=True, threads=2, progress=Progress("v1"))
    assert found.notes == []


def test_two_restores_of_the_same_copies(mirror: Mirror) -> None:
    """What failed for one device is tried again for the next."""
    found = mirror.found()
    mirror.damage(0, 0.2, 0.4)
    mirror.damage(1, 0.6, 0.8)
    mirror.lose(2, form.PACKS)
    assert restored(found).content == CONTENT
    assert restored(found).content == CONTENT


def test_a_single_repositorys_error_comes_as_it_is() -> None:
    mirror = Mirror((4096, 8, None))
    found = mirror.found()
    mirror.lose(0, form.MANIFESTS)
    with pytest.raises(errors.BackupMissing):
        found.size()
    assert (found.used, found.notes) == (None, [])


# -- which backup ----------------------------------------------------------------------------------


def test_the_newest_is_taken_wherever_it_lies(mirror: Mirror) -> None:
    newer = os.urandom(16)
    repository = mirror.sides[1].repository
    assert repository is not None
    from freezer_osbrick.pipeline.backup import BackupWriter

    head = flow.new_head(newer, time=1_700_000_500)
    BackupWriter(repository, newer, MemoryDevice(bytes(SIZE)), progress=Progress("v1")).run(head)
    found = mirror.found()
    assert found.backup.id == newer.hex()
    assert restored(found).content == bytes(SIZE)
    assert found.used == "/1"


def test_a_repository_that_cannot_be_listed_is_named(mirror: Mirror) -> None:
    def fault(verb: str, name: str) -> None:
        raise errors.StoreUnavailable("It is gone.")

    mirror.store(0).fault = fault
    mirror.sides[1] = Side("/1", None, errors.WrongKey("No key."))
    found = mirror.found()
    assert restored(found).content == CONTENT
    assert found.used == "/2"
    assert found.notes == [
        "Whether /0 has a newer backup is not known: It is gone.",
        "Whether /1 has a newer backup is not known: No key.",
    ]
    mirror.store(2).fault = fault
    with pytest.raises(errors.MirrorFailed, match="/0: It is gone. /1: No key. /2: It is gone."):
        mirror.found()


def test_an_id_that_another_backup_bears_is_no_copy(mirror: Mirror) -> None:
    mirror.lose(1, form.MANIFESTS)
    repository = mirror.sides[1].repository
    assert repository is not None
    other = MemoryDevice(bytes(SIZE - flow.BLOCK))
    flow.backup(repository, other, backup_id=mirror.id)
    assert Manifest(repository, mirror.id).size != SIZE
    mirror.lose(0, form.PACKS)
    found = mirror.found()
    assert restored(found).content == CONTENT
    assert found.used == "/2"


def test_a_backup_is_found_by_the_beginning_of_its_id(mirror: Mirror) -> None:
    mirror.lose(0, form.MANIFESTS)
    found = copies.find(mirror.sides, mirror.id.hex()[:8])
    assert restored(found).content == CONTENT
    assert found.used == "/1"
    with pytest.raises(errors.BackupMissing, match="in /0 and /1 and /2"):
        copies.find(mirror.sides, "zz")


def test_an_id_that_names_different_backups_is_refused(mirror: Mirror) -> None:
    mirror.lose(0, form.MANIFESTS)
    repository = mirror.sides[0].repository
    assert repository is not None
    similar = mirror.id[:8] + bytes(8)
    flow.backup(repository, MemoryDevice(CONTENT), backup_id=similar)
    with pytest.raises(errors.BadRequest, match="give more"):
        copies.find(mirror.sides, mirror.id.hex()[:8])
