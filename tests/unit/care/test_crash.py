# SPDX-License-Identifier: Apache-2.0
"""Every verb dies at every one of its calls to the store: older backups restore, a check finds
nothing wrong and counts what was left, and the next garbage collections clear exactly that."""

from __future__ import annotations

import functools
import os
import random
from collections.abc import Callable

import pytest

from freezer_osbrick.operations.check import check
from freezer_osbrick.operations.prune import PruneRequest, prune
from freezer_osbrick.operations.repair import repair
from freezer_osbrick.operations.verify import VerifyRequest, verify
from freezer_osbrick.pipeline.progress import Progress
from freezer_osbrick.pipeline.restore import RestoreReader
from freezer_osbrick.repository import catalogue, collection, keys, leases, packs
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository import repository as repositories
from freezer_osbrick.repository.manifest import Manifest
from freezer_osbrick.repository.repository import Repository
from freezer_osbrick.store import base
from tests.unit.care.conftest import (
    CHUNK,
    DAY,
    SECRET,
    URL,
    Shelf,
    context_of,
    new_shelf,
    volume_backup,
)
from tests.unit.fakes import MemoryDevice, WatchedStore
from tests.unit.stress.agents import Died

Verb = Callable[[Repository, pytest.MonkeyPatch], object]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several packs and segments in a small volume."""
    small = functools.partial(packs.PackWriter, target_size=40_000)
    for module in ("pipeline.backup", "repository.rewriting"):
        monkeypatch.setattr(f"freezer_osbrick.{module}.PackWriter", small)
    monkeypatch.setattr("freezer_osbrick.repository.manifest.SEGMENT_CHUNKS", 2)
    monkeypatch.setattr(keys, "_SCRYPT", {"n": 2, "r": 1, "p": 1})


class History:
    """Three backups of a volume, each with something of its own; a fourth that is gone."""

    def __init__(self, sealed: bool) -> None:
        shelf = self.shelf = new_shelf(sealed)
        self.secret = SECRET if sealed else None
        randomness = random.Random(3)
        content = bytearray(randomness.randbytes(CHUNK * 5 + 77) + bytes(CHUNK))
        parent = None
        self.ids = []
        for number in range(4):
            start = number * CHUNK
            content[start : start + 5000] = randomness.randbytes(5000)
            shelf.store.clock += DAY
            parent = shelf.backup(bytes(content), parent=parent, volume="v1")
            self.ids.append(parent)
        self.content = bytes(content)
        repo = shelf.repository
        catalogue.remove(repo, catalogue.find(repo, self.ids.pop(0)))
        collection.collect(repo)
        shelf.store.clock += DAY + 60

    def damage(self) -> None:
        """Lose the trailer of a pack that all need."""
        repo = self.shelf.repository
        manifest = Manifest(repo, bytes.fromhex(self.ids[-1]))
        name = form.pack_name(max(manifest.packs, key=lambda pack: manifest.packs[pack].live))
        self.shelf.store.objects[name] = self.shelf.store.objects[name][:-20]


# -- the verbs ------------------------------------------------------------------------------------


def back_up(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    context = context_of(Shelf(repo, repo.store), monkeypatch)  # type: ignore[arg-type]
    content = random.Random(4).randbytes(CHUNK * 2) + bytes(CHUNK * 4)
    device = MemoryDevice(content, writable=False)
    one, record, _ = volume_backup(context, repo, "v1", device)
    one.store(os.urandom(16), record, int(repo.store.now()))


def restore(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    with leases.Lease(repo, "restore", needed=False):
        backup = catalogue.backups(repo)[-1]
        manifest = Manifest(repo, bytes.fromhex(backup.id))
        device = MemoryDevice(bytes(backup.size))
        RestoreReader(repo, manifest, device, compare=True, progress=Progress("v1")).run()


def collect(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    collection.collect(repo)


def collect_and_rewrite(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    assert collection.collect(repo, rewrite_below=0.95).rewritten


def with_context(verb: Callable[..., object], *arguments: object) -> Verb:
    def call(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
        shelf = Shelf(repo, repo.store)  # type: ignore[arg-type]
        verb(context_of(shelf, monkeypatch), URL, *arguments)

    return call


VERBS: dict[str, Verb] = {
    "backup": back_up,
    "restore": restore,
    "gc": collect,
    "gc with rewriting": collect_and_rewrite,
    "prune": with_context(prune, PruneRequest(keep_last=1)),
    "verify": with_context(verify, VerifyRequest()),
    "check": with_context(check),
    "repair": with_context(repair),
}


def dying(inner: base.Store, number: int) -> WatchedStore:
    """A store whose user dies before a call: neither it nor any later one reaches the store."""

    def before(count: int, verb: str, name: str) -> None:
        if count >= number:
            raise Died

    return WatchedStore(inner, before=before)


# They change nothing but a lease: some of their calls will do.
READING = ("restore", "verify", "check")


@pytest.mark.parametrize("sealed", [False, True], ids=["unsealed", "sealed"])
@pytest.mark.parametrize("name", VERBS)
def test_a_verb_dies_at_every_call(
    name: str, sealed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sealed, where the calls are the same, at some of them."""
    step = 7 if sealed else 3 if name in READING else 1
    history = History(sealed)
    if name == "repair":
        history.damage()
    store = history.shelf.store
    objects, modified = dict(store.objects), dict(store.modified)
    number, died = 0, True
    while died:
        store.objects, store.modified = dict(objects), dict(modified)
        died = False
        try:
            repo = repositories.open_repository(dying(store, number), secret=history.secret)
            VERBS[name](repo, monkeypatch)
        except Died:
            died = True
        all_is_well(history, name, monkeypatch)
        number += step
    assert number > 8


def all_is_well(history: History, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = history.shelf
    context = context_of(shelf, monkeypatch)
    listed = shelf.ids() & set(history.ids)
    assert listed == set(history.ids) or (name == "prune" and history.ids[-1] in listed)
    for backup_id in listed:
        assert shelf.restores(backup_id)
    if name == "repair" and not check(context, URL).ok:
        assert repair(context, URL).ok  # it was not done; done again it is
    before = check(context, URL)
    assert before.ok
    clock = shelf.store.clock
    for _ in range(4):
        collection.collect(shelf.repository)
        shelf.store.clock += DAY + 1
    prune(context, URL, PruneRequest(keep_last=9))  # tidies verifications of removed backups up
    shelf.store.clock = clock
    after = check(context, URL)
    assert after.ok
    census = after.census
    assert (census.unneeded, census.leases, census.doomed, census.stale) == (0, 0, 0, 0)
    # What is gone is what the check has counted.
    assert before.census.unneeded is not None
    assert before.census.packs - census.packs == before.census.unneeded
    for backup_id in listed:
        assert shelf.restores(backup_id)
