# SPDX-License-Identifier: Apache-2.0
"""A store that fails, and a process that dies, at every call: older backups stay whole, no half
backup is listed, and the next backup goes well."""

import functools
import multiprocessing
import os

import pytest

from freezer_osbrick import errors
from freezer_osbrick.repository import catalogue, packs, repository
from freezer_osbrick.repository.manifest import Manifest
from freezer_osbrick.store.local import LocalStore
from tests.unit.fakes import MemoryDevice, MemoryStore, WatchedStore
from tests.unit.pipeline.flow import CHUNK, backup, mixed, new_repository, restore

# Ids of backups are random: a fixed one tells whether this backup was committed.
NEW = bytes(range(16))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Many packs, segments and windows in a small volume, so that there are many calls."""
    small = functools.partial(packs.PackWriter, target_size=40_000)
    monkeypatch.setattr("freezer_osbrick.pipeline.backup.PackWriter", small)
    monkeypatch.setattr("freezer_osbrick.repository.manifest.SEGMENT_CHUNKS", 4)
    monkeypatch.setattr("freezer_osbrick.repository.maps.WINDOW", 4)


class History:
    """A repository with two backups, and the volume as it is now."""

    def __init__(self, store):
        repo = new_repository(store)
        self.device = MemoryDevice(mixed(CHUNK * 24 + 50, seed=8))
        self.kept = {}
        parent = None
        for number in range(3):
            if number < 2:
                parent, _ = backup(repo, self.device, parent=parent)
                self.kept[parent.backup_id] = bytes(self.device.content)
            for start in range(number * 999, self.device.size - 9, CHUNK // 3):
                self.device.content[start : start + 9] = b"changed %d" % number
        self.parent_id = parent.backup_id

    def check(self, store, committed):
        """All is well in the store, and a new backup works."""
        repo = repository.open_repository(store)
        expected = dict(self.kept)
        if committed:
            expected[NEW] = bytes(self.device.content)
        assert {backup.id for backup in catalogue.backups(repo)} == {key.hex() for key in expected}
        for backup_id, content in expected.items():
            target = MemoryDevice(os.urandom(len(content)))
            restore(repo, Manifest(repo, backup_id), target)
            assert target.content == content
        manifest, _ = backup(repo, self.device, parent=Manifest(repo, self.parent_id))
        target = MemoryDevice(bytes(self.device.size))
        restore(repo, manifest, target)
        assert target.content == self.device.content
        catalogue.remove(repo, catalogue.find(repo, manifest.backup_id.hex()))


def run_backup(history, store):
    repo = repository.open_repository(store)
    backup(repo, history.device, parent=Manifest(repo, history.parent_id), backup_id=NEW)


def run_restore(history, store, target):
    repo = repository.open_repository(store)
    restore(repo, Manifest(repo, history.parent_id), target, threads=2)


def fail_at(number, error):
    def hook(count, verb, name):
        if count == number:
            raise error

    return hook


FAILURES = [
    ("before", errors.StoreUnavailable("The store cannot be reached.")),
    ("before", errors.StoreFull("No room is left.")),
    ("after", errors.StoreUnavailable("The answer of the store was lost.")),
]


@pytest.mark.parametrize(("moment", "error"), FAILURES)
def test_the_store_fails_at_any_call_of_a_backup(moment, error):
    inner = MemoryStore()
    history = History(inner)
    number = 0
    committed = False
    while not committed or number < 10:
        objects = dict(inner.objects)
        store = WatchedStore(inner, **{moment: fail_at(number, error)})
        try:
            run_backup(history, store)
            committed = True
        except errors.StoreError as caught:
            assert caught is error
        if committed:
            assert store.count <= number  # it went through because there was no such call
        history.check(inner, committed=f"manifests/{NEW.hex()}" in inner.objects)
        inner.objects = objects
        number += 1
    assert number > 15


@pytest.mark.parametrize("moment", ["before", "after"])
def test_the_store_fails_at_any_call_of_a_restore(moment):
    error = errors.StoreUnavailable("The store cannot be reached.")
    inner = MemoryStore()
    history = History(inner)
    content = history.kept[history.parent_id]
    number = 0
    while True:
        store = WatchedStore(inner, **{moment: fail_at(number, error)})
        target = MemoryDevice(os.urandom(len(content)))
        try:
            run_restore(history, store, target)
            break
        except errors.StoreError as caught:
            assert caught is error
        # Trying again, in place, completes it.
        restore(
            repository.open_repository(inner),
            Manifest(repository.open_repository(inner), history.parent_id),
            target,
            compare=True,
        )
        assert target.content == content
        number += 1
    assert store.count <= number > 20
    assert target.content == content
    history.check(inner, committed=False)


_fork = multiprocessing.get_context("fork")


@pytest.mark.parametrize("moment", ["before", "after"])
def test_the_process_dies_at_any_call_of_a_backup(moment, tmp_path):
    history = History(LocalStore(str(tmp_path / "store"), create=True))
    store = LocalStore(str(tmp_path / "store"))

    def die_at(number):
        def hook(count, verb, name):
            if count == number:
                os._exit(7)

        run_backup(history, WatchedStore(store, **{moment: hook}))
        os._exit(0)

    number, status = 0, 7
    while status == 7:
        before = {info.name for info in store.list("")}
        process = _fork.Process(target=die_at, args=(number,))
        process.start()
        process.join()
        status = process.exitcode
        assert status in (0, 7)
        committed = f"manifests/{NEW.hex()}" in {info.name for info in store.list("")}
        assert committed or status == 7
        history.check(store, committed=committed)
        store.sweep(older_than=0)
        for info in store.list(""):
            if info.name not in before:
                store.delete(info.name)
        number += 2
    assert number > 20


def test_the_process_dies_in_the_middle_of_putting_the_manifest(tmp_path):
    """The most delicate moment: half of the manifest is written."""
    history = History(LocalStore(str(tmp_path / "store"), create=True))
    store = LocalStore(str(tmp_path / "store"))

    class Half(WatchedStore):
        def put(self, name, parts, *, replace=False):
            def dying():
                for count, part in enumerate(parts):
                    if name.startswith("manifests/") and count == 3:
                        os._exit(7)
                    yield part

            return self.inner.put(name, dying(), replace=replace)

    process = _fork.Process(target=run_backup, args=(history, Half(store)))
    process.start()
    process.join()
    assert process.exitcode == 7
    history.check(store, committed=False)
    assert store.sweep(older_than=0) == []
