# SPDX-License-Identifier: Apache-2.0
"""Stored bytes that were changed, swapped, cut or lost: right data or a clear error, never wrong
data, never another exception."""

import os
import random

import pytest

from freezer_osbrick import errors
from freezer_osbrick.repository import catalogue, keys, packs, repository
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository.manifest import Manifest
from freezer_osbrick.repository.maps import MapReader
from tests.unit.fakes import MemoryDevice, MemoryStore
from tests.unit.pipeline.flow import BLOCK, CHUNK, CHUNK_BLOCKS, backup, mixed, restore

SECRET = b"a secret"

RIGHT = "right"


@pytest.fixture(params=["checked", "sealed"])
def repo(request, monkeypatch):
    secret = None
    if request.param == "sealed":
        secret = SECRET
        monkeypatch.setattr(keys, "_SCRYPT", {"n": 2, "r": 1, "p": 1})
    return repository.create(
        MemoryStore(), secret=secret, block_size=BLOCK, chunk_blocks=CHUNK_BLOCKS
    )


def small_content(seed=1):
    """Few bytes in the store, but of every kind: zeros, text, noise, a short last block."""
    noise = random.Random(seed).randbytes
    return (b"text" * 2 * BLOCK)[: 2 * BLOCK] + noise(200) + bytes(CHUNK * 2) + noise(90)


def outcome(repo, backup_id, content, compare=False):
    """What comes of a restore: RIGHT, or the error, whose ranges are proved to hold all that is not
    right."""
    randomness = random.Random(5)
    target = MemoryDevice(randomness.randbytes(len(content)))
    try:
        manifest = Manifest(repo, backup_id)
        restore(repo, manifest, target, compare=compare)
    except errors.DamagedRanges as error:
        assert error.ranges
        for offset, length in error.ranges:
            assert length > 0 and 0 <= offset and offset + length <= len(content)
            assert f"{offset}+{length}" in str(error) or len(error.ranges) > 8
            target.content[offset : offset + length] = content[offset : offset + length]
        assert target.content == content, "what is not named is not right"
        return error
    except (errors.Damaged, errors.UnknownFormat, errors.BackupMissing) as error:
        assert not target.writes and not target.zeroed  # noticed before anything was written
        return error
    assert target.content == content
    return RIGHT


def silent_ranges(repo, manifest):
    """The bytes that a restore of this manifest does not need: headers, trailers and footers of
    packs."""
    silent = {}
    for pack, use in manifest.packs.items():
        boxes = packs.read_trailer(repo, use.kind, pack)
        begin, end = form.HEADER.size, max(offset + length for _, offset, length in boxes)
        name = form.pack_name(pack)
        assert sum(length for _, _, length in boxes) == end - begin  # boxes leave no gap
        silent[name] = {*range(begin), *range(end, len(repo.store.objects[name]))}
    return silent


def test_every_byte_of_a_small_repository(repo):
    """A flipped bit anywhere is noticed, but for those that a restore does not need."""
    content = small_content()
    manifest, _ = backup(repo, MemoryDevice(content))
    silent = silent_ranges(repo, manifest)
    objects = repo.store.objects
    assert len(silent) == 2
    for name, good in list(objects.items()):
        if not name.startswith((form.PACKS, form.MANIFESTS)):
            continue
        unnoticed = silent.get(name, set())
        for position in range(len(good)):
            bad = bytearray(good)
            bad[position] ^= 1 << position % 8
            objects[name] = bytes(bad)
            result = outcome(repo, manifest.backup_id, content)
            assert (result is RIGHT) == (position in unnoticed), (name, position, result)
        objects[name] = good
    # They are noticed as soon as somebody reads them.
    for name, positions in silent.items():
        kind = objects[name][5]
        for position in positions:
            bad = bytearray(objects[name])
            bad[position] ^= 1 << position % 8
            good, objects[name] = objects[name], bytes(bad)
            with pytest.raises((errors.Damaged, errors.UnknownFormat)):
                packs.read_trailer(repo, kind, bytes.fromhex(name.rpartition("/")[2]))
            objects[name] = good


def test_every_bit_of_the_configuration(repo):
    """It has a check, sealed or not: a flip anywhere is noticed when the repository is opened."""
    secret = SECRET if repo.master_key else None
    objects = repo.store.objects
    good = objects[form.CONFIG_NAME]
    for position in range(len(good)):
        for bit in range(8):
            bad = bytearray(good)
            bad[position] ^= 1 << bit
            objects[form.CONFIG_NAME] = bytes(bad)
            with pytest.raises(errors.RepositoryError):
                repository.open_repository(repo.store, secret=secret)
    for length in range(len(good) - 1):
        objects[form.CONFIG_NAME] = good[:length]
        with pytest.raises(errors.RepositoryError):
            repository.open_repository(repo.store, secret=secret)


@pytest.mark.parametrize("compare", [False, True])
def test_truncated_objects(repo, compare):
    content = small_content()
    manifest, _ = backup(repo, MemoryDevice(content))
    objects = repo.store.objects
    silent = silent_ranges(repo, manifest)
    for name, good in list(objects.items()):
        if not name.startswith((form.PACKS, form.MANIFESTS)):
            continue
        needed = max(set(range(len(good))) - silent.get(name, set())) + 1
        for length in sorted({*range(0, len(good), 7), 39, 40, 41, needed - 1, needed}):
            objects[name] = good[:length]
            result = outcome(repo, manifest.backup_id, content, compare)
            assert (result is RIGHT) == (length >= needed), (name, length, result)
        objects[name] = good + b"appended"
        assert outcome(repo, manifest.backup_id, content, compare) is RIGHT
        objects[name] = good


@pytest.fixture
def chain(repo):
    """Three backups of one volume, each with packs of its own."""
    source = MemoryDevice(mixed(CHUNK * 12 + 50, seed=8))
    made, parent = [], None
    for number in range(3):
        parent, _ = backup(repo, source, parent=parent)
        made.append((parent.backup_id, bytes(source.content)))
        for block in range(number, 90, 7):
            source.content[block * BLOCK : block * BLOCK + 9] = b"changed %d" % number
    return made


def test_swapped_objects(repo, chain):
    """Any object's bytes under the name of any other."""
    objects = repo.store.objects
    names = [name for name in objects if name.startswith((form.PACKS, form.MANIFESTS))]
    for name in names:
        good = objects[name]
        noticed = 0
        for other in names:
            if other == name:
                continue
            objects[name] = objects[other]
            results = [outcome(repo, backup_id, content) for backup_id, content in chain]
            noticed += any(result is not RIGHT for result in results)
            objects[name] = good
        assert noticed == len(names) - 1, name


def test_deleted_objects(repo, chain):
    objects = repo.store.objects
    for name in list(objects):
        if not name.startswith((form.PACKS, form.MANIFESTS)):
            continue
        good = objects.pop(name)
        for backup_id, content in chain:
            result = outcome(repo, backup_id, content)
            if name == form.manifest_name(backup_id):
                assert isinstance(result, errors.BackupMissing)
            elif name.startswith(form.PACKS):
                used = bytes.fromhex(name.rpartition("/")[2]) in _packs(repo, backup_id)
                assert isinstance(result, errors.DamagedRanges) == used
                assert (result is RIGHT) != used
            else:
                assert result is RIGHT
        objects[name] = good


def _packs(repo, backup_id):
    return Manifest(repo, backup_id).packs


def test_boxes_moved_within_a_pack(repo, chain):
    """The bytes of every box in the place of the next one of the same length, or over it."""
    objects = repo.store.objects
    for backup_id, content in chain[:1]:
        for pack, use in _packs(repo, backup_id).items():
            boxes = packs.read_trailer(repo, use.kind, pack)
            name = form.pack_name(pack)
            good = objects[name]
            for (_, offset, length), (_, target, other_length) in zip(
                boxes, boxes[1:], strict=False
            ):
                moved = bytearray(good)
                size = min(length, other_length)
                moved[target : target + size] = good[offset : offset + size]
                objects[name] = bytes(moved)
                assert isinstance(outcome(repo, backup_id, content), errors.DamagedRanges)
            objects[name] = good


def test_an_older_manifest_under_a_newer_name_is_not_listed(repo, chain):
    """A rollback: the store gives an old backup for a new one."""
    objects = repo.store.objects
    old, new = (form.manifest_name(backup_id) for backup_id, _ in (chain[0], chain[2]))
    objects[new] = objects[old]
    listed = {backup.id for backup in catalogue.backups(repo)}
    assert listed == {backup_id.hex() for backup_id, _ in chain[:2]}
    with pytest.raises(errors.Damaged, match="another backup"):
        catalogue.find(repo, chain[2][0].hex())


def test_an_object_of_another_repository(repo, chain):
    other = repository.create(MemoryStore(), block_size=BLOCK, chunk_blocks=CHUNK_BLOCKS)
    backup_id, content = chain[0]
    for name, data in repo.store.objects.items():
        if name.startswith((form.PACKS, form.MANIFESTS)):
            other.store.objects[name] = data
    assert isinstance(outcome(other, backup_id, content), errors.Damaged)
    assert catalogue.backups(other) == []


def test_a_damaged_segment_of_the_list_of_chunks(monkeypatch):
    """What other segments list is restored; what this one lists is named."""
    monkeypatch.setattr("freezer_osbrick.repository.manifest.SEGMENT_CHUNKS", 4)
    monkeypatch.setattr("freezer_osbrick.repository.maps.WINDOW", 2)
    repo = repository.create(MemoryStore(), block_size=BLOCK, chunk_blocks=CHUNK_BLOCKS)
    content = os.urandom(CHUNK * 12)
    manifest, _ = backup(repo, MemoryDevice(content))
    name = form.manifest_name(manifest.backup_id)
    bad = bytearray(repo.store.objects[name])
    offset, length = manifest._places[1]
    bad[offset + length // 2] ^= 1
    repo.store.objects[name] = bytes(bad)
    result = outcome(repo, manifest.backup_id, content)
    assert isinstance(result, errors.DamagedRanges)
    assert result.ranges == [(CHUNK * 4, CHUNK * 4)]


def test_a_chunk_map_with_too_few_blocks_is_noticed():
    """Forged with the right tags, as only somebody with the key can: the gap is named."""
    repo = repository.create(MemoryStore(), block_size=BLOCK, chunk_blocks=CHUNK_BLOCKS)
    content = os.urandom(CHUNK * 2)
    manifest, _ = backup(repo, MemoryDevice(content[: CHUNK + 5 * BLOCK]))
    assert len(MapReader(repo, manifest).load(1)) == 5
    manifest.size = len(content)
    target = MemoryDevice(bytes(len(content)))
    with pytest.raises(errors.DamagedRanges) as caught:
        restore(repo, manifest, target)
    assert caught.value.ranges == [(CHUNK, CHUNK)]


def test_a_parent_with_a_damaged_map_ends_an_incremental(repo):
    """It must not end in a successor that lacks the same: the caller makes a full one instead."""
    source = MemoryDevice(mixed(CHUNK * 4))
    parent, _ = backup(repo, source)
    [map_pack] = [pack for pack, use in parent.packs.items() if use.kind == form.KIND_MAPS]
    name = form.pack_name(map_pack)
    bad = bytearray(repo.store.objects[name])
    bad[form.HEADER.size + 3] ^= 1
    repo.store.objects[name] = bytes(bad)
    source.content[:] = os.urandom(source.size)
    before = len(catalogue.backups(repo))
    with pytest.raises(errors.Damaged):
        backup(repo, source, parent=parent)
    assert len(catalogue.backups(repo)) == before


def test_a_manifest_removed_while_it_is_read(repo, monkeypatch):
    monkeypatch.setattr("freezer_osbrick.repository.manifest.SEGMENT_CHUNKS", 4)
    source = MemoryDevice(mixed(CHUNK * 12))
    manifest, _ = backup(repo, source)
    repo.store.delete(form.manifest_name(manifest.backup_id))
    with pytest.raises(errors.BackupMissing):
        restore(repo, manifest, MemoryDevice(bytes(source.size)))
    with pytest.raises(errors.BackupMissing):
        backup(repo, source, parent=manifest)
