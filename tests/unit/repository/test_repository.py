# SPDX-License-Identifier: Apache-2.0
"""Repositories: made once, and refused where they are not understood."""

import json
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freezer_osbrick import errors
from freezer_osbrick.repository import keys, repository
from freezer_osbrick.store import base
from freezer_osbrick.store.local import LocalStore
from tests.unit.fakes import MemoryStore

GOOD = {
    "format": 1,
    "repository": "ab" * 16,
    "created": 1_700_000_000,
    "block_size": 65536,
    "chunk_blocks": 64,
    "sealing": "none",
    "features": [],
}


def opened(config):
    store = MemoryStore()
    store.objects["config"] = config if isinstance(config, bytes) else json.dumps(config).encode()
    return repository.open_repository(store)


def test_what_is_made_can_be_opened():
    made = repository.create(MemoryStore(), block_size=4096, chunk_blocks=3)
    again = repository.open_repository(made.store)
    assert (again.id, again.block_size, again.chunk_blocks) == (made.id, 4096, 3)
    assert again.chunk_size == 12288
    assert [again.chunk_count(size) for size in (0, 1, 12288, 12289)] == [0, 1, 1, 2]
    assert again.ids.block(b"x") == made.ids.block(b"x")
    assert repository.create(MemoryStore()).id != made.id


def test_a_repository_is_made_once():
    made = repository.create(MemoryStore())
    with pytest.raises(errors.ObjectExists):
        repository.create(made.store)
    assert repository.open_or_create(made.store).id == made.id


def test_where_there_is_none():
    with pytest.raises(errors.RepositoryMissing, match="memory:"):
        repository.open_repository(MemoryStore())
    assert repository.open_or_create(MemoryStore()).block_size == 65536


@pytest.mark.parametrize(
    "options",
    [{"block_size": size} for size in (0, -4096, 2048, 4097, 1 << 21)]
    + [{"chunk_blocks": blocks} for blocks in (0, -1, 129)],
)
def test_impossible_sizes_are_refused_before_anything_is_stored(options):
    store = MemoryStore()
    with pytest.raises(errors.BadRequest):
        repository.create(store, **options)
    assert not store.objects


NONSENSE = [None, True, False, -1, 0, 1.5, 65536.0, float("inf"), "", "x", "64", [], {}, [[]], [1]]


@pytest.mark.parametrize("field", [field for field in GOOD if field != "created"])
@pytest.mark.parametrize("value", NONSENSE, ids=str)
def test_wrong_fields(field, value):
    if value == GOOD[field] and type(value) is type(GOOD[field]):
        assert opened({**GOOD, field: value}).block_size == 65536
        return
    with pytest.raises((errors.Damaged, errors.UnknownFormat)):
        opened({**GOOD, field: value})


@pytest.mark.parametrize("field", [field for field in GOOD if field != "created"])
def test_missing_fields(field):
    with pytest.raises(errors.Damaged, match=f"'{field}' is missing"):
        opened({key: value for key, value in GOOD.items() if key != field})


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"null", b"[]", b"1", b'"config"', b"\xff", b"[" * 100_000, b'{"format":' * 9999],
    ids=range(9),
)
def test_what_is_no_configuration(text):
    with pytest.raises(errors.Damaged, match="config"):
        opened(text)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@settings(deadline=None)
def test_any_bytes(text):
    with pytest.raises(errors.RepositoryError):
        opened(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(list(GOOD)), json_values, min_size=1))
@settings(deadline=None)
def test_any_fields(changes):
    config = {**GOOD, **changes}
    try:
        repo = opened(config)
    except errors.RepositoryError:
        return
    for field, value in config.items():
        kept = GOOD if field not in ("created", "repository", "block_size", "chunk_blocks") else {}
        assert kept.get(field, value) == value
    assert len(repo.id) == 16 and repo.block_size == config["block_size"]


def test_every_configuration_has_a_check():
    store = MemoryStore()
    made = repository.create(store)
    config = json.loads(store.objects["config"])
    assert repository.open_repository(store).id == made.id
    for field, value in (("created", 1), ("block_size", 4096), ("note", "a field of nobody's")):
        with pytest.raises(errors.Damaged, match="was changed"):
            opened({**config, field: value})
    for check in (None, 5, "", "ä", config["check"].upper(), config["check"][:-1]):
        with pytest.raises(errors.Damaged, match="was changed"):
            opened({**config, "check": check})


def test_a_configuration_of_an_early_version_has_none():
    assert opened(GOOD).block_size == 65536
    with pytest.raises(errors.Damaged, match="was changed"):
        opened({**GOOD, "cheek": "of a check that was damaged"})


def test_a_later_format_is_refused_by_its_number():
    with pytest.raises(errors.UnknownFormat, match="format 2; this version reads format 1"):
        opened({"format": 2, "everything": "else"})


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"features": ["tape", "moon"]}, "moon, tape"), ({"sealing": "rot13"}, "sealing rot13")],
)
def test_what_only_a_later_version_knows_is_named(changes, named):
    with pytest.raises(errors.UnknownFormat, match=named):
        opened({**GOOD, **changes})


@pytest.mark.parametrize("secret", [None, b"secret"])
def test_several_creators_at_once(tmp_path, monkeypatch, secret):
    """They all get the same repository, and no key of a loser stays."""
    monkeypatch.setattr("freezer_osbrick.repository.keys._SCRYPT", {"n": 2, "r": 1, "p": 1})
    store = LocalStore(str(tmp_path), create=True)
    barrier = threading.Barrier(8)
    made = []

    def work():
        barrier.wait()
        made.append(repository.open_or_create(store, secret=secret))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8 and len({(repo.id, repo.master_key) for repo in made}) == 1
    assert repository.open_repository(store, secret=secret).id == made[0].id
    names = [info.name for info in store.list("")]
    assert len(names) == (2 if secret else 1)


def test_one_damaged_key_does_not_lock_the_others_out(monkeypatch):
    monkeypatch.setattr("freezer_osbrick.repository.keys._SCRYPT", {"n": 2, "r": 1, "p": 1})
    made = repository.create(MemoryStore(), secret=b"one")
    store = made.store
    [first] = [info.name for info in store.list("keys/")]
    keys.add(store, made.id, made.master_key, b"two", "second")
    store.objects["keys/" + "0" * 32] = store.objects["keys/" + "f" * 32] = b"no key"
    for secret in (b"one", b"two"):
        assert repository.open_repository(store, secret=secret).id == made.id
    with pytest.raises(errors.Damaged, match="0000"):
        repository.open_repository(store, secret=b"three")

    def fault(verb, name):
        if (verb, name) == ("get", first):
            raise errors.ObjectMissing("Removed this moment.")

    store.fault = fault
    assert repository.open_repository(store, secret=b"two").id == made.id


def test_two_creators_at_a_store_without_conditional_put(monkeypatch):
    """The one whose configuration was replaced goes on with the one that is there."""
    store = MemoryStore()
    store.capabilities = base.Capabilities(False, True, True, True)
    put = store.put

    def replaced_at_once(name, parts, *, replace=False):
        size = put(name, parts, replace=True)
        monkeypatch.setattr(store, "put", put)
        del store.objects[name]
        repository.create(store)
        return size

    monkeypatch.setattr(store, "put", replaced_at_once)
    opened = repository.open_or_create(store)
    assert opened.id == repository.open_repository(store).id
