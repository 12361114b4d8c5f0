# SPDX-License-Identifier: Apache-2.0
"""Packs of which little is needed: rewritten, and every backup restores as before."""

import os
import random

import pytest

from freezer_osbrick import errors
from freezer_osbrick.repository import catalogue, collection, keys
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository.manifest import Manifest
from tests.unit.fakes import MemoryDevice
from tests.unit.pipeline.flow import BLOCK, CHUNK, backup, mixed, new_repository, restore
from tests.unit.pipeline.test_round_trip import _counted as counted
from tests.unit.repository.test_collection import packs, remove


@pytest.fixture
def repo():
    return new_repository()


@pytest.fixture
def sparse(repo):
    """Two backups that need a tenth of what the first one stored, which is removed."""
    source = MemoryDevice(os.urandom(CHUNK * 40))
    first, _ = backup(repo, source)
    source.content[CHUNK * 4 :] = os.urandom(CHUNK * 36)
    second, _ = backup(repo, source, parent=first)
    content = bytes(source.content)
    source.content[BLOCK : 2 * BLOCK] = os.urandom(BLOCK)
    third, _ = backup(repo, source, parent=second)
    remove(repo, first)
    return [(second, content), (third, bytes(source.content))]


def collected(repo, **options):
    return collection.collect(repo, grace=0, rewrite_below=0.2, **options)


def check(repo, kept):
    for manifest, content in kept:
        again = Manifest(repo, manifest.backup_id)
        target = MemoryDevice(bytes(len(content)))
        restore(repo, again, target)
        assert target.content == content
        assert {pack: use.live for pack, use in again.packs.items()} == counted(repo, again)
        for pack, use in again.packs.items():
            assert use.size == len(repo.store.objects[form.pack_name(pack)])


def size(repo):
    return sum(len(repo.store.objects[name]) for name in packs(repo))


def test_the_space_is_given_back(repo, sparse):
    before = size(repo)
    told = collected(repo, dry_run=True)
    assert told.rewritten == 2  # of blocks and of maps
    assert collected(repo) == told
    check(repo, sparse)
    collected(repo)
    assert collected(repo).deleted == 3  # and a map of the third backup, whose block has moved
    check(repo, sparse)
    assert size(repo) < before * 0.62
    assert collected(repo).rewritten == 0


def test_the_dry_run_changes_nothing(repo, sparse):
    before = dict(repo.store.objects)
    collected(repo, dry_run=True)
    assert repo.store.objects == before


def test_whoever_is_at_work_with_the_old_manifest_finishes(repo, sparse):
    manifest, content = sparse[0]
    opened = Manifest(repo, manifest.backup_id)
    opened.entry(0)
    collected(repo)
    target = MemoryDevice(bytes(len(content)))
    restore(repo, opened, target)
    assert target.content == content


def test_a_manifest_that_was_only_opened_is_told(repo, sparse):
    opened = Manifest(repo, sparse[0][0].backup_id)
    collected(repo)
    with pytest.raises(errors.BackupMissing, match="try again"):
        opened.entry(0)


@pytest.mark.parametrize("number", range(3))
def test_a_manifest_that_is_replaced_between_two_reads(repo, sparse, monkeypatch, number):
    """Its head is read, and then its index: they are of two manifests, and that is no damage."""
    manifest, content = sparse[0]
    get, calls = repo.store.get, []

    def replaced_meanwhile(name, *arguments):
        if name == form.manifest_name(manifest.backup_id):
            calls.append(name)
            if len(calls) == number + 1:
                collected(repo)
        return get(name, *arguments)

    monkeypatch.setattr(repo.store, "get", replaced_meanwhile)
    target = MemoryDevice(bytes(len(content)))
    opened = Manifest(repo, manifest.backup_id)
    try:
        restore(repo, opened, target)
    except errors.BackupMissing:  # replaced after it was opened
        restore(repo, Manifest(repo, manifest.backup_id), target)
    assert target.content == content


def test_interrupted_anywhere(sparse, repo):
    objects = dict(repo.store.objects)
    for fails_at in range(400):
        repo.store.objects = dict(objects)
        calls = 0

        def fault(verb, name, fails_at=fails_at):
            nonlocal calls
            calls += 1
            if calls == fails_at + 1:
                raise errors.StoreUnavailable("Now of all times.")

        repo.store.fault = fault
        try:
            collected(repo)
        except errors.StoreUnavailable:
            pass
        else:
            break
        finally:
            repo.store.fault = lambda verb, name: None
        check(repo, sparse)
    assert 10 < fails_at < 399


def test_sealed_no_nonce_is_used_twice(monkeypatch):
    monkeypatch.setattr(keys, "_SCRYPT", {"n": 1 << 10, "r": 8, "p": 1})
    repo = new_repository(secret=b"hush")
    seen = set()
    seal = repo.sealer.seal

    def watched(kind, object_id, position, data, data_id=b""):
        assert (kind, object_id, position) not in seen
        seen.add((kind, object_id, position))
        return seal(kind, object_id, position, data, data_id)

    monkeypatch.setattr(repo.sealer, "seal", watched)
    source = MemoryDevice(os.urandom(CHUNK * 20))
    first, _ = backup(repo, source)
    source.content[CHUNK * 2 :] = os.urandom(CHUNK * 18)
    second, _ = backup(repo, source, parent=first)
    remove(repo, first)
    assert collected(repo).rewritten
    check(repo, [(second, bytes(source.content))])


def test_a_backup_removed_meanwhile_does_not_come_back(repo, sparse):
    put = repo.store.put
    gone = sparse[0][0]

    def remove_before(name, parts, **options):
        stored = put(name, parts, **options)
        if name.startswith(form.PACKS):
            repo.store.objects.pop(form.manifest_name(gone.backup_id), None)
        return stored

    repo.store.put = remove_before
    collected(repo)
    assert [found.id for found in catalogue.backups(repo)] == [sparse[1][0].backup_id.hex()]
    check(repo, sparse[1:])


def test_random_histories(repo):
    randomness = random.Random(5)
    source = MemoryDevice(mixed(CHUNK * 12))
    kept = []
    for _ in range(40):
        for _ in range(randomness.randrange(4)):
            start = randomness.randrange(source.size - CHUNK)
            length = randomness.choice([100, CHUNK])
            source.content[start : start + length] = randomness.randbytes(length)
        manifest, _ = backup(repo, source, parent=kept[-1][0] if kept else None)
        kept.append((manifest, bytes(source.content)))
        if len(kept) > 3:
            remove(repo, kept.pop(randomness.randrange(3))[0])
        collection.collect(repo, grace=0, rewrite_below=0.6)
        kept = [(Manifest(repo, manifest.backup_id), content) for manifest, content in kept]
        check(repo, kept)
