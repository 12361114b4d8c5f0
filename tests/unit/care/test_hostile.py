# SPDX-License-Identifier: Apache-2.0
"""Whatever a store does to its objects: care names it, or nothing is lost; it never breaks down."""

from __future__ import annotations

import random

import pytest

from freezer_osbrick import errors
from freezer_osbrick.operations.check import check
from freezer_osbrick.operations.prune import PruneRequest, prune
from freezer_osbrick.operations.repair import repair
from freezer_osbrick.operations.stats import stats
from freezer_osbrick.operations.verify import VerifyRequest, verify
from freezer_osbrick.repository import catalogue, collection, keys, leases, verifications
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository import repository as repositories
from tests.unit.care.conftest import BLOCK, CHUNK, SECRET, URL


@pytest.fixture
def made(shelf) -> list[str]:
    randomness = random.Random(1)
    content = bytearray(randomness.randbytes(CHUNK) + bytes(CHUNK) + b"text " * 300)
    first = shelf.backup(bytes(content), time=1)
    content[BLOCK : BLOCK + 4] = b"next"
    second = shelf.backup(bytes(content), time=2, parent=first)
    return [first, second]


def outcome(call) -> str:
    """What a verb says: nothing wrong, something wrong, or that it cannot work."""
    try:
        return "sound" if call() else "wrong"
    except errors.OsbrickError as error:
        assert str(error).strip().endswith((".", ")")), error
        return "refused"


def restores(shelf, backup_id: str) -> bool:
    try:
        assert shelf.restores(backup_id), "wrong data"
        return True
    except (errors.RepositoryError, errors.ObjectMissing):
        return False


def judge(shelf, context, made) -> None:
    """Ask everybody about a repository to which something was done."""
    right = [backup_id for backup_id in made if restores(shelf, backup_id)]
    verified = outcome(lambda: verify(context, URL, VerifyRequest()).ok)
    assert verified == "sound" or len(right) < len(made)
    if len(right) < len(made):
        assert verified != "sound"
    outcome(lambda: check(context, URL).ok)
    outcome(lambda: stats(context, URL))
    outcome(lambda: prune(context, URL, PruneRequest(keep_last=1), dry_run=True))
    mended = outcome(lambda: repair(context, URL).ok)
    for backup_id in right:
        assert shelf.restores(backup_id)
    if mended == "sound":
        assert outcome(lambda: check(context, URL).ok) == "sound"
        assert all(restores(shelf, backup_id) for backup_id in made if backup_id in shelf.ids())


def positions(data: bytes) -> list[int]:
    """The ends of an object byte by byte, the middle in steps."""
    size = len(data)
    return sorted({*range(min(size, 60)), *range(max(0, size - 60), size), *range(0, size, 331)})


def test_every_byte(shelf, context, made) -> None:
    whole = dict(shelf.store.objects)
    for name in sorted(whole):
        if not name.startswith((form.PACKS, form.MANIFESTS)):
            continue
        for position in positions(whole[name])[::7]:
            shelf.store.objects = dict(whole)
            bad = bytearray(whole[name])
            bad[position] ^= 1 << position % 8
            shelf.store.objects[name] = bytes(bad)
            judge(shelf, context, made)


def test_cut_lengthened_and_emptied(shelf, context, made) -> None:
    whole = dict(shelf.store.objects)
    for name in sorted(whole):
        if name == form.CONFIG_NAME or name.startswith(form.KEYS):
            continue
        good = whole[name]
        for bad in (b"", good[:1], good[:39], good[:-1], good[: len(good) // 2], good + b"\0"):
            shelf.store.objects = {**whole, name: bad}
            judge(shelf, context, made)


def test_removed_and_swapped(shelf, context, made) -> None:
    verify(context, URL, VerifyRequest())
    whole = dict(shelf.store.objects)
    names = [name for name in sorted(whole) if not name.startswith((form.CONFIG_NAME, form.KEYS))]
    for name in names:
        if not name.startswith(form.MANIFESTS):
            shelf.store.objects = {n: data for n, data in whole.items() if n != name}
            judge(shelf, context, made)
        for other in names:
            if other != name:
                shelf.store.objects = {**whole, name: whole[other], other: whole[name]}
                judge(shelf, context, made)


def test_every_byte_of_what_has_no_tag(shelf, context, made) -> None:
    """Leases and doomed lists: whatever they say, nothing that is needed is deleted, and nobody
    breaks down."""
    gone = shelf.backup(random.Random(2).randbytes(CHUNK), time=3, volume="v2")
    catalogue.remove(shelf.repository, catalogue.find(shelf.repository, gone))
    collection.collect(shelf.repository)
    with leases.Lease(shelf.repository, "backup"):
        whole, times = dict(shelf.store.objects), dict(shelf.store.modified)
    shelf.store.clock += collection.DEFAULT_GRACE
    names = [name for name in whole if name.startswith((form.LEASES, form.DOOMED))]
    assert len(names) == 3
    for name in names:
        for position in range(len(whole[name])):
            bad = bytearray(whole[name])
            bad[position] ^= 1 << position % 8
            shelf.store.objects = {**whole, name: bytes(bad)}
            shelf.store.modified = dict(times)
            with leases.Lease(shelf.repository, "backup"):
                collection.collect(shelf.repository)
            collection.collect(shelf.repository)
            needed = {pack for backup_id in made for pack in shelf.manifest(backup_id).packs}
            assert {form.pack_name(pack) for pack in needed} <= shelf.store.objects.keys()
            if position % 16 == 0:
                assert outcome(lambda: check(context, URL).ok) == "sound"
    for backup_id in made:
        assert shelf.restores(backup_id)


def test_every_byte_of_a_verification(shelf, context, made) -> None:
    """One that was changed says nothing, and nobody breaks down."""
    verify(context, URL, VerifyRequest())
    whole = dict(shelf.store.objects)
    for name in [name for name in whole if name.startswith(form.VERIFIED)]:
        backup_id = name.split("/")[1]
        for position in range(len(whole[name])):
            bad = bytearray(whole[name])
            bad[position] ^= 1 << position % 8
            shelf.store.objects = {**whole, name: bytes(bad)}
            assert verifications.condition(shelf.repository, backup_id).word == "unverified"


def test_every_byte_of_a_key(made, shelf, monkeypatch) -> None:
    """It opens the repository or says what is wrong: never the wrong master key."""
    if not shelf.repository.master_key:
        pytest.skip("not sealed")
    monkeypatch.setattr(keys, "_SCRYPT", {"n": 2, "r": 1, "p": 1})
    store, sound = shelf.store, shelf.repository
    for info in list(store.list(form.KEYS)):
        store.delete(info.name)
    keys.add(store, sound.id, sound.master_key, SECRET, "quick")
    [name] = [info.name for info in store.list(form.KEYS)]
    good = store.objects[name]
    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 1 << position % 8
        store.objects[name] = bytes(bad)
        try:
            opened = repositories.open_repository(store, secret=SECRET)
        except errors.RepositoryError:
            continue
        assert opened.master_key == sound.master_key


def test_objects_replaced_by_an_older_copy(shelf, context, made) -> None:
    """Manifests are the only objects of which there ever is an older copy. It is as good as long as
    what it needs is there, and then it is noticed."""
    catalogue.remove(shelf.repository, catalogue.find(shelf.repository, made[0]))
    old = dict(shelf.store.objects)
    assert collection.collect(shelf.repository, rewrite_below=0.99).rewritten
    name = form.MANIFESTS + made[1]
    new = shelf.store.objects[name]
    assert new != old[name]
    shelf.store.objects[name] = old[name]
    assert shelf.restores(made[1])
    shelf.store.objects[name] = new
    for _ in range(3):
        collection.collect(shelf.repository)
        shelf.store.clock += collection.DEFAULT_GRACE
    assert shelf.restores(made[1])
    shelf.store.objects[name] = old[name]
    with pytest.raises(errors.DamagedRanges):
        shelf.restores(made[1])
    [told] = verify(context, URL, VerifyRequest()).backups
    assert told.state == "damaged" and told.ranges
    assert outcome(lambda: check(context, URL).ok) == "wrong"
