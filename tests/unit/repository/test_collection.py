# SPDX-License-Identifier: Apache-2.0
"""Garbage collection beside backups that come, go, and begin at the worst moment."""

import os
import random

import pytest

from freezer_osbrick import errors
from freezer_osbrick.repository import catalogue, collection, leases, repository
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository.manifest import Manifest
from freezer_osbrick.store import base
from tests.unit.fakes import MemoryDevice, MemoryStore
from tests.unit.pipeline.flow import BLOCK, CHUNK, CHUNK_BLOCKS, backup, mixed, restore


class ClockStore(MemoryStore):
    """A store whose clock stands still until it is told to go on."""

    def __init__(self):
        super().__init__()
        self.time = 1_000_000.0
        self.times = {}

    def put(self, name, parts, *, replace=False):
        size = super().put(name, parts, replace=replace)
        self.times[name] = self.time
        return size

    def stat(self, name):
        info = super().stat(name)
        return base.ObjectInfo(info.name, info.size, self.times[name])

    def list(self, prefix):
        for info in super().list(prefix):
            yield base.ObjectInfo(info.name, info.size, self.times[info.name])

    def now(self):
        return self.time


@pytest.fixture
def repo():
    return repository.create(ClockStore(), block_size=BLOCK, chunk_blocks=CHUNK_BLOCKS)


def packs(repo):
    return {name for name in repo.store.objects if name.startswith(form.PACKS)}


def remove(repo, manifest):
    catalogue.remove(repo, catalogue.find(repo, manifest.backup_id.hex()))


def test_two_phases_and_a_grace_period(repo):
    first, _ = backup(repo, MemoryDevice(mixed(CHUNK * 10, seed=1)))
    second, _ = backup(repo, MemoryDevice(mixed(CHUNK * 10, seed=2)))
    remove(repo, first)
    everything = packs(repo)
    result = collection.collect(repo)
    assert result.doomed == len(first.packs) and result.deleted == 0
    assert packs(repo) == everything
    repo.store.time += collection.DEFAULT_GRACE - 1
    assert collection.collect(repo).waiting == len(first.packs)
    repo.store.time += 1
    result = collection.collect(repo)
    assert result.deleted == len(first.packs)
    assert packs(repo) == {form.pack_name(pack) for pack in second.packs}
    assert not [name for name in repo.store.objects if name.startswith(form.DOOMED)]
    assert collection.collect(repo) == collection.Collected(
        needed=result.needed, needed_bytes=result.needed_bytes
    )


def test_what_an_incremental_reuses_is_kept(repo):
    source = MemoryDevice(mixed(CHUNK * 10))
    first, _ = backup(repo, source)
    source.content[:5] = b"12345"
    second, _ = backup(repo, source, parent=first)
    remove(repo, first)
    collection.collect(repo, grace=0)
    collection.collect(repo, grace=0)
    target = MemoryDevice(os.urandom(source.size))
    restore(repo, second, target)
    assert target.content == source.content


def test_the_dry_run_is_exact_and_changes_nothing(repo):
    manifests = [backup(repo, MemoryDevice(mixed(CHUNK * 3, seed=n)))[0] for n in range(4)]
    for manifest in manifests[:3]:
        remove(repo, manifest)
        for _ in range(2):
            before = dict(repo.store.objects)
            told = collection.collect(repo, dry_run=True)
            assert repo.store.objects == before
            assert collection.collect(repo) == told
            repo.store.time += collection.DEFAULT_GRACE / 2
    assert len(packs(repo)) < sum(len(manifest.packs) for manifest in manifests)


def test_a_running_backup_holds_up_what_it_may_build_upon(repo):
    source = MemoryDevice(mixed(CHUNK * 10))
    first, _ = backup(repo, source)
    with leases.Lease(repo, "backup") as lease:
        first.entry(0)  # the backup has read of its parent what it needs
        remove(repo, first)
        collection.collect(repo)
        repo.store.time += collection.DEFAULT_GRACE / 2
        lease._renew()
        repo.store.time += collection.DEFAULT_GRACE / 2
        result = collection.collect(repo)
        assert result.deleted == 0 and "waits for a backup" in result.reasons[0]
        second, _ = backup(repo, source, parent=first)
        lease.confirm()
    assert collection.collect(repo).deleted == 0
    target = MemoryDevice(bytes(source.size))
    restore(repo, second, target)
    assert target.content == source.content


def test_a_backup_that_begins_later_is_told_what_is_doomed(repo):
    first, _ = backup(repo, MemoryDevice(mixed(CHUNK * 5)))
    remove(repo, first)
    collection.collect(repo)
    with leases.Lease(repo, "backup") as lease:
        assert lease.doomed == frozenset(first.packs)
        repo.store.time += collection.DEFAULT_GRACE
        assert collection.collect(repo).deleted == len(first.packs)


def test_packs_of_a_backup_that_was_under_way_are_pardoned(repo):
    source = MemoryDevice(mixed(CHUNK * 5))
    with leases.Lease(repo, "backup"):
        manifest, _ = backup(repo, source)
        hidden = repo.store.objects.pop(form.manifest_name(manifest.backup_id))
        collection.collect(repo)
        repo.store.objects[form.manifest_name(manifest.backup_id)] = hidden
    collection.collect(repo)
    with leases.Lease(repo, "backup") as lease:
        assert not lease.doomed


def test_a_lease_that_nobody_renews_expires(repo):
    first, _ = backup(repo, MemoryDevice(mixed(CHUNK * 5)))
    with leases.Lease(repo, "backup") as lease:
        remove(repo, first)
        collection.collect(repo)
        repo.store.time += leases.EXPIRED_AFTER
        assert collection.collect(repo).deleted == len(first.packs)
        with pytest.raises(errors.LeaseLost):
            lease.confirm()


def test_a_sleeper_does_not_commit(repo):
    with leases.Lease(repo, "backup") as lease:
        lease.confirm()
        repo.store.time += leases.TRUSTED_FOR + 1
        with pytest.raises(errors.LeaseLost):
            lease.confirm()


def sleep_at_the_commit(repo, hours):
    """The process sleeps, after the lease was confirmed, until the manifest is under way."""
    put = repo.store.put

    def late(name, parts, **options):
        if name.startswith(form.MANIFESTS):
            repo.store.time += hours * 3600
            for _ in range(3):
                collection.collect(repo, grace=0)
        return put(name, parts, **options)

    repo.store.put = late


@pytest.mark.parametrize("hours", [1, 13, 25])
def test_who_slept_at_the_commit_takes_it_back(repo, hours):
    """Whether a collection has taken it for dead meanwhile or might have."""
    source = MemoryDevice(mixed(CHUNK * 5))
    first, _ = backup(repo, source)
    with leases.Lease(repo, "backup") as lease:
        first.entry(0)
        remove(repo, first)
        sleep_at_the_commit(repo, hours)
        second, _ = backup(repo, source, parent=first)
        name = form.manifest_name(second.backup_id)
        if hours == 1:
            lease.prove_commit(lambda: repo.store.delete(name))
            restore(repo, second, MemoryDevice(bytes(source.size)))
            return
        with pytest.raises(errors.LeaseLost, match="what was committed was taken back"):
            lease.prove_commit(lambda: repo.store.delete(name))
    assert catalogue.backups(repo) == []


def test_what_cannot_be_taken_back_is_said(repo):
    def refused():
        raise errors.StoreAccessDenied("No deleting here.")

    with leases.Lease(repo, "backup") as lease:
        repo.store.time += leases.TRUSTED_FOR + 1
        with pytest.raises(errors.LeaseLost, match="not be taken back, remove it.*No deleting"):
            lease.prove_commit(refused)


def test_a_renewal_after_a_long_sleep_hides_nothing(repo):
    with leases.Lease(repo, "backup") as lease:
        repo.store.time += leases.TRUSTED_FOR + 1
        lease._renew()
        with pytest.raises(errors.LeaseLost):
            lease.confirm()


@pytest.mark.parametrize("number", [0, 1, 2])
def test_who_slept_while_it_renewed_is_told(repo, monkeypatch, number):
    """Between the put of a renewal and the look at its time the lease was taken for dead."""
    stat, calls = repo.store.stat, []

    def late(name):
        if name.startswith(form.LEASES) and len(calls) <= number:
            calls.append(name)
            if len(calls) == number + 1:
                repo.store.time += leases.EXPIRED_AFTER
                collection.collect(repo)
        return stat(name)

    monkeypatch.setattr(repo.store, "stat", late)
    with leases.Lease(repo, "backup") as lease, pytest.raises(errors.LeaseLost):
        lease.confirm()


def test_a_listing_that_lags_takes_no_lease_away(repo, monkeypatch):
    with leases.Lease(repo, "backup") as lease:
        monkeypatch.setattr(repo.store, "list", lambda prefix: iter(()))
        lease.confirm()


@pytest.mark.parametrize("lags", [False, True])
def test_a_commit_that_listings_do_not_show_yet(repo, lags, monkeypatch):
    """A backup that took longer than the grace period has just ended: its lease is gone, and its
    manifest is not listed yet."""
    repo.store.capabilities = base.Capabilities(True, True, True, True, not lags)
    source = MemoryDevice(mixed(CHUNK * 5))
    with leases.Lease(repo, "backup") as lease:
        manifest, _ = backup(repo, source)
        name = form.manifest_name(manifest.backup_id)
        hidden = repo.store.objects.pop(name)
        for _ in range(30):
            repo.store.time += 3600
            lease._renew()
            collection.collect(repo)
        lease.confirm()
    repo.store.time += 60
    collection.collect(repo)
    repo.store.objects[name] = hidden
    repo.store.time += leases.SETTLES_WITHIN
    collection.collect(repo)
    restore(repo, manifest, MemoryDevice(bytes(source.size)))
    for _ in range(2):
        repo.store.time += collection.DEFAULT_GRACE
        collection.collect(repo)
    assert not [name for name in repo.store.objects if name.startswith((form.LEASES, form.DOOMED))]


YEAR = 365 * 86400.0


def test_a_dead_lease_from_the_future_expires(repo):
    """The store's clock was a year ahead for a while, in which a backup died."""
    first, _ = backup(repo, MemoryDevice(mixed(CHUNK * 5)))
    repo.store.time += YEAR
    leases.Lease(repo, "backup").__enter__()
    repo.store.time -= YEAR
    remove(repo, first)
    collection.collect(repo)
    repo.store.time += collection.DEFAULT_GRACE
    assert collection.collect(repo).deleted == len(first.packs)
    assert not leases.leases(repo.store)


def test_a_living_lease_from_the_future_holds(repo):
    first, _ = backup(repo, MemoryDevice(mixed(CHUNK * 5)))
    repo.store.time += YEAR
    with leases.Lease(repo, "backup") as lease:
        repo.store.time -= YEAR
        remove(repo, first)
        for _ in range(6):
            assert collection.collect(repo).deleted == 0
            repo.store.time += 8 * 3600
            lease._renew()
        lease.confirm()
    repo.store.time += 60
    assert collection.collect(repo).deleted == len(first.packs)


def test_a_doomed_list_from_the_future_is_made_anew(repo):
    first, _ = backup(repo, MemoryDevice(mixed(CHUNK * 5)))
    remove(repo, first)
    repo.store.time += YEAR
    collection.collect(repo)
    repo.store.time -= YEAR
    told = collection.collect(repo, dry_run=True)
    assert collection.collect(repo) == told and told.doomed == len(first.packs)
    repo.store.time += collection.DEFAULT_GRACE
    assert collection.collect(repo).deleted == len(first.packs)


@pytest.mark.parametrize("text", [b"", b"{", b"[" * 100_000, b"[]", b'{"packs": [5]}', b"\xff"])
def test_a_damaged_doomed_list_counts_for_nothing(repo, text, caplog):
    first, _ = backup(repo, MemoryDevice(mixed(CHUNK * 5)))
    kept, _ = backup(repo, MemoryDevice(mixed(CHUNK * 5, seed=2)))
    remove(repo, first)
    collection.collect(repo)
    [name] = [name for name in repo.store.objects if name.startswith(form.DOOMED)]
    repo.store.objects[name] = text
    repo.store.time += collection.DEFAULT_GRACE
    with leases.Lease(repo, "backup") as lease:
        assert not lease.doomed
        collection.collect(repo)  # held up: nobody knows whether it builds on what was doomed
        assert name in repo.store.objects and name in caplog.text
    collection.collect(repo)
    assert name not in repo.store.objects
    repo.store.time += collection.DEFAULT_GRACE
    collection.collect(repo)
    assert packs(repo) == {form.pack_name(pack) for pack in kept.packs}


def test_leases_leave_nothing(repo):
    before = set(repo.store.objects)
    with leases.Lease(repo, "backup"):
        assert len(leases.leases(repo.store)) == 1
    assert set(repo.store.objects) == before


def test_a_lease_without_the_right_to_delete(repo):
    def fault(verb, name):
        if verb == "delete":
            raise errors.StoreAccessDenied("No deleting here.")

    first, _ = backup(repo, MemoryDevice(mixed(CHUNK * 5)))
    repo.store.fault = fault
    with leases.Lease(repo, "backup") as lease:
        lease.confirm()
    repo.store.fault = lambda verb, name: None
    [seen] = leases.leases(repo.store)
    assert seen.ended
    remove(repo, first)
    collection.collect(repo, grace=0)
    repo.store.time += leases.SETTLES_WITHIN
    assert collection.collect(repo, grace=0).deleted == len(first.packs)
    assert not leases.leases(repo.store)


@pytest.mark.parametrize("error", [errors.StoreAccessDenied, errors.StoreFull])
def test_who_only_reads_goes_on_without_a_lease(repo, error):
    def fault(verb, name):
        if verb == "put":
            raise error("No.")

    repo.store.fault = fault
    with leases.Lease(repo, "restore", needed=False):
        pass
    with pytest.raises(error), leases.Lease(repo, "backup"):
        pass


def test_a_damaged_manifest_stops_everything(repo):
    first, _ = backup(repo, MemoryDevice(mixed(CHUNK * 5, seed=1)))
    second, _ = backup(repo, MemoryDevice(mixed(CHUNK * 5, seed=2)))
    remove(repo, first)
    name = form.manifest_name(second.backup_id)
    repo.store.objects[name] = repo.store.objects[name][:-1]
    repo.store.objects[name] = b"x" + repo.store.objects[name]
    before = packs(repo)
    with pytest.raises(errors.Damaged, match="nothing was deleted"):
        collection.collect(repo, grace=0)
    assert packs(repo) == before


def test_interrupted_anywhere_and_begun_again(repo):
    """Whatever call fails: what is kept stays whole, and the next collection finishes the work."""
    source = MemoryDevice(mixed(CHUNK * 6, seed=1))
    kept, _ = backup(repo, source)
    for fails_at in range(60):
        doomed, _ = backup(repo, MemoryDevice(mixed(CHUNK * 3, seed=fails_at + 2)))
        remove(repo, doomed)
        calls = 0

        def fault(verb, name, fails_at=fails_at):
            nonlocal calls
            calls += 1
            if calls == fails_at + 1:
                raise errors.StoreUnavailable("Now of all times.")

        repo.store.fault = fault
        try:
            for _ in range(3):
                collection.collect(repo, grace=0)
        except errors.StoreUnavailable:
            pass
        repo.store.fault = lambda verb, name: None
    for _ in range(3):
        collection.collect(repo, grace=0)
    assert packs(repo) == {form.pack_name(pack) for pack in kept.packs}
    target = MemoryDevice(bytes(source.size))
    restore(repo, kept, target)
    assert target.content == source.content


def test_random_histories(repo):
    """Backups, removals and collections in any order, with the clock jumping: all kept ones
    restore."""
    randomness = random.Random(11)
    source = MemoryDevice(mixed(CHUNK * 8))
    kept = []
    for _ in range(60):
        deed = randomness.randrange(4)
        if deed == 0 and kept:
            manifest, _ = kept.pop(randomness.randrange(len(kept)))
            remove(repo, manifest)
        elif deed == 1:
            collection.collect(repo)
        elif deed == 2:
            repo.store.time += randomness.choice([60, 3600, 90_000, -7200])
        else:
            start = randomness.randrange(source.size - 5000)
            source.content[start : start + 5000] = randomness.randbytes(5000)
            with leases.Lease(repo, "backup") as lease:
                parent = kept[-1][0] if kept else None
                if parent and parent.packs.keys() & lease.doomed:
                    parent = None
                manifest, _ = backup(repo, source, parent=parent)
            kept.append((manifest, bytes(source.content)))
    for manifest, content in kept:
        target = MemoryDevice(bytes(len(content)))
        restore(repo, Manifest(repo, manifest.backup_id), target)
        assert target.content == content
