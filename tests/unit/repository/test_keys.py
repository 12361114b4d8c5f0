# SPDX-License-Identifier: Apache-2.0
"""Sealed repositories: their keys, what the store learns, and what tampering does."""

import json
import os

import pytest

from freezer_osbrick import errors
from freezer_osbrick.repository import catalogue, keys, repository
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository.manifest import Manifest
from tests.unit.fakes import MemoryDevice, MemoryStore
from tests.unit.pipeline.flow import BLOCK, CHUNK, CHUNK_BLOCKS, backup, mixed, restore

SECRET = b"correct horse battery staple"


@pytest.fixture(autouse=True)
def quick_scrypt(monkeypatch):
    monkeypatch.setattr(keys, "_SCRYPT", {"n": 1 << 10, "r": 8, "p": 1})


@pytest.fixture
def repo():
    return repository.create(
        MemoryStore(), secret=SECRET, block_size=BLOCK, chunk_blocks=CHUNK_BLOCKS
    )


def test_round_trip(repo):
    source = MemoryDevice(mixed(CHUNK * 20 + 5))
    first, _ = backup(repo, source)
    source.content[:100] = b"y" * 100
    second, amounts = backup(repo, source, parent=first)
    assert amounts.new == BLOCK
    again = repository.open_repository(repo.store, secret=SECRET)
    target = MemoryDevice(os.urandom(source.size))
    restore(again, Manifest(again, second.backup_id), target)
    assert target.content == source.content


def test_the_store_learns_nothing(repo):
    text = b"a secret that nobody else shall read " * 400
    source = MemoryDevice(text.ljust(CHUNK, b"."))
    backup(repo, source)
    everything = b"".join(repo.store.objects.values())
    assert b"secret that" not in everything
    assert b'"volume"' not in everything and b"hostname" not in everything
    known = repository.create(MemoryStore(), block_size=BLOCK, chunk_blocks=CHUNK_BLOCKS)
    for start in range(0, CHUNK, BLOCK):
        block = bytes(source.content[start : start + BLOCK])
        assert known.ids.block(block) not in everything
        assert repo.ids.block(block) not in everything


def test_without_or_with_a_wrong_key_nothing_is_written(repo):
    before = dict(repo.store.objects)
    for secret in (None, b"wrong"):
        with pytest.raises(errors.WrongKey):
            repository.open_or_create(repo.store, secret=secret)
    assert repo.store.objects == before


def test_a_key_for_a_repository_that_is_not_sealed():
    store = MemoryStore()
    repository.create(store)
    with pytest.raises(errors.WrongKey, match="is not sealed"):
        repository.open_repository(store, secret=SECRET)


def test_keys_come_and_go(repo):
    keys.add(repo.store, repo.id, repo.master_key, b"second", "colleague")
    first, second = sorted(keys.keys(repo.store), key=lambda key: key.label, reverse=True)
    assert (first.label, second.label) == ("first", "colleague")
    assert repository.open_repository(repo.store, secret=b"second").master_key == repo.master_key
    keys.remove(repo.store, first.id[:8])
    with pytest.raises(errors.WrongKey):
        repository.open_repository(repo.store, secret=SECRET)
    with pytest.raises(errors.BadRequest, match="the last key"):
        keys.remove(repo.store, second.id)
    with pytest.raises(errors.BadRequest):
        keys.remove(repo.store, "")


def test_empty_secret():
    with pytest.raises(errors.BadRequest):
        repository.create(MemoryStore(), secret=b"")


def test_paper(repo):
    paper = keys.to_paper(repo.id, repo.master_key).encode()
    assert repository.open_repository(repo.store, secret=paper).master_key == repo.master_key
    typed = b"\n " + paper.upper().replace(b"\n", b"  \n")
    assert keys.from_paper(repo.id, typed.strip()) == repo.master_key
    with pytest.raises(errors.WrongKey, match="another repository"):
        keys.from_paper(os.urandom(16), paper)
    for position in range(len(paper)):
        if paper[position : position + 1].isspace():
            continue
        mistyped = bytearray(paper)
        mistyped[position] = ord("1") if mistyped[position] != ord("1") else ord("2")
        with pytest.raises(errors.WrongKey):
            keys.from_paper(repo.id, bytes(mistyped))


@pytest.mark.parametrize("field", ["block_size", "chunk_blocks", "created", "features", "sealing"])
def test_a_changed_configuration_is_noticed(repo, field):
    config = json.loads(repo.store.objects[form.CONFIG_NAME])
    config[field] = {
        "block_size": 8192,
        "chunk_blocks": 16,
        "created": 1,
        "features": ["x"],
        "sealing": "none",
    }[field]
    repo.store.objects[form.CONFIG_NAME] = json.dumps(config).encode()
    with pytest.raises(errors.RepositoryError):
        repository.open_repository(repo.store, secret=SECRET)


def test_every_byte_of_a_key_object(repo):
    [name] = [name for name in repo.store.objects if name.startswith(form.KEYS)]
    good = repo.store.objects[name]
    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 1
        repo.store.objects[name] = bytes(bad)
        try:
            opened = repository.open_repository(repo.store, secret=SECRET)
        except errors.RepositoryError:
            continue
        # White space between the fields, and the case of digits, say nothing.
        assert opened.master_key == repo.master_key


def test_objects_of_one_backup_under_the_name_of_another(repo):
    first, _ = backup(repo, MemoryDevice(mixed(CHUNK * 4, seed=1)))
    second, _ = backup(repo, MemoryDevice(mixed(CHUNK * 4, seed=2)))
    objects = repo.store.objects
    names = [form.manifest_name(m.backup_id) for m in (first, second)]
    objects[names[0]], objects[names[1]] = objects[names[1]], objects[names[0]]
    assert catalogue.backups(repo) == []
    objects[names[0]], objects[names[1]] = objects[names[1]], objects[names[0]]
    packs = [
        form.pack_name(pack)
        for manifest in (first, second)
        for pack, use in manifest.packs.items()
        if use.kind == form.KIND_BLOCKS
    ]
    objects[packs[0]], objects[packs[1]] = objects[packs[1]], objects[packs[0]]
    target = MemoryDevice(bytes(CHUNK * 4))
    with pytest.raises(errors.Damaged):
        restore(repo, Manifest(repo, first.backup_id), target)


def test_an_object_key_is_never_used_twice_with_a_nonce(repo, monkeypatch):
    """The nonce is the position, so a position may be used once in an object."""
    seen = set()
    seal = repo.sealer.seal

    def watched(kind, object_id, position, data, data_id=b""):
        assert (kind, object_id, position) not in seen
        seen.add((kind, object_id, position))
        return seal(kind, object_id, position, data, data_id)

    monkeypatch.setattr(repo.sealer, "seal", watched)
    source = MemoryDevice(mixed(CHUNK * 30))
    first, _ = backup(repo, source)
    source.content[5:10] = b"55555"
    backup(repo, source, parent=first)
    assert len(seen) > 30


def test_where_no_key_is_listed(repo):
    """Of a repository that was made a moment ago, where listings lag behind."""
    for name in [name for name in repo.store.objects if name.startswith(form.KEYS)]:
        del repo.store.objects[name]
    with pytest.raises(errors.Damaged, match="no key of it is listed"):
        repository.open_repository(repo.store, secret=SECRET)
