# SPDX-License-Identifier: Apache-2.0
"""Garbage collection: giving back the space of packs that no backup needs.

In two phases, with a grace period on the store's clock between them. First the unneeded packs are
written into a doomed list. A backup that begins later reads that list and builds on none of its
packs; one that began earlier holds a lease that says it does not know the list, and holds it up.
When the grace period has passed and no such lease lives, the manifests are read again, and what
still is unneeded is deleted.

It may be ended at any point and started again, and several may run at once: every step can be
repeated.
"""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Iterable, Set

from freezer_osbrick import errors
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository import leases, rewriting
from freezer_osbrick.repository.manifest import Manifest
from freezer_osbrick.repository.repository import Repository

DEFAULT_GRACE = 24 * 3600.0


@dataclasses.dataclass
class Collected:
    """What a collection did, or with ``dry_run`` would have done. Amounts in bytes.

    :param doomed: packs that were found unneeded now.
    :param deleted: packs that were doomed long enough and are gone.
    :param waiting: packs that are doomed and wait, for the grace period or for a lease.
    :param needed: packs that backups need.
    :param rewritten: of those, packs of which little was needed; the next collection dooms them.
    :param reasons: why some wait, a sentence each.
    """

    doomed: int = 0
    doomed_bytes: int = 0
    deleted: int = 0
    deleted_bytes: int = 0
    waiting: int = 0
    waiting_bytes: int = 0
    needed: int = 0
    needed_bytes: int = 0
    rewritten: int = 0
    rewritten_bytes: int = 0
    reasons: list[str] = dataclasses.field(default_factory=list)


def collect(
    repository: Repository,
    *,
    grace: float = DEFAULT_GRACE,
    rewrite_below: float = 0.0,
    dry_run: bool = False,
) -> Collected:
    """Delete what was doomed long enough, doom what is unneeded now, rewrite what is mostly
    unneeded.

    :param grace: seconds that a doomed pack is kept.
    :param rewrite_below: packs of which a smaller share is needed are rewritten.
    :raises errors.Damaged: a manifest cannot be read, so that nobody knows what it needs; nothing
        was deleted.
    """
    return _Collection(repository, grace, rewrite_below, dry_run).run()


class _Collection:
    def __init__(
        self, repository: Repository, grace: float, rewrite_below: float, dry_run: bool
    ) -> None:
        self._repository = repository
        self._store = repository.store
        self._grace = grace
        self._rewrite_below = rewrite_below
        self._dry_run = dry_run
        self._result = Collected()

    def run(self) -> Collected:
        result = self._result
        now = self._store.now()
        lists = leases.doomed_lists(self._store)
        living = self._living_leases(now)
        sizes = self._packs()
        # After the leases and the packs: a backup that has ended since shows its manifest here, one
        # that has not shows its lease there.
        manifests = self._manifests()
        needed = frozenset().union(*(manifest.packs.keys() for manifest in manifests))
        result.needed = len(needed & sizes.keys())
        result.needed_bytes = sum(sizes[pack] for pack in needed & sizes.keys())
        ages = self._ages(lists, now)
        ripe = {
            name: packs
            for name, packs in lists.items()
            if name in ages and self._is_ripe(name, ages[name], living)
        }
        self._sweep(ripe, needed, sizes)
        unripe = {name: packs for name, packs in lists.items() if name not in ripe}
        # Doomed while their backup was still being made: a new backup must be free to build on
        # them. Doomed before the store's clock was set back: the list never gets old. What is
        # unneeded all the same is doomed anew.
        wrong = {
            name: packs
            for name, packs in unripe.items()
            if packs & needed or ages.get(name, 0.0) < -leases.SETTLES_WITHIN
        }
        waiting = _all_of(unripe) - _all_of(wrong)
        held = waiting & sizes.keys()
        result.waiting = len(held)
        result.waiting_bytes = sum(sizes[pack] for pack in held)
        self._doom(sizes.keys() - needed - waiting, sizes)
        if not self._dry_run:
            for name in wrong:
                self._store.delete(name)
        self._rewrite(manifests, sizes)
        return result

    def _rewrite(self, manifests: list[Manifest], sizes: dict[bytes, int]) -> None:
        if self._rewrite_below:
            done = rewriting.rewrite(
                self._repository,
                manifests,
                sizes,
                below=self._rewrite_below,
                dry_run=self._dry_run,
            )
            self._result.rewritten = done.packs
            self._result.rewritten_bytes = done.bytes

    def _living_leases(self, now: float) -> list[leases.SeenLease]:
        living = []
        for lease in leases.leases(self._store):
            if lease.alive(now):
                living.append(lease)
                if lease.from_the_future(now) and not self._dry_run:
                    leases.witness(self._store, lease)
            elif not self._dry_run:
                for name in lease.names:
                    self._store.delete(name)
        return living

    def _packs(self) -> dict[bytes, int]:
        """All packs in the store, with their sizes."""
        found = {}
        for info in self._store.list(form.PACKS):
            text = info.name.rsplit("/", 1)[1]
            try:
                pack = bytes.fromhex(text)
            except ValueError:
                continue
            if form.pack_name(pack) == info.name:  # anything else is not ours to delete
                found[pack] = info.size
        return found

    def _manifests(self) -> list[Manifest]:
        found = []
        for info in self._store.list(form.MANIFESTS):
            try:
                backup_id = bytes.fromhex(info.name.removeprefix(form.MANIFESTS))
                found.append(Manifest(self._repository, backup_id))
            except errors.BackupMissing:
                continue  # removed since we listed it
            except (errors.RepositoryError, ValueError) as error:
                raise errors.Damaged(
                    f"Object {info.name} cannot be read, so that nobody knows what it needs: "
                    f"nothing was deleted. Repair it or remove it first. ({error})"
                ) from None
        return found

    def _ages(self, lists: Iterable[str], now: float) -> dict[str, float]:
        """Seconds for which each list has been there."""
        ages = {}
        for name in lists:
            try:
                ages[name] = now - self._store.stat(name).modified
            except errors.ObjectMissing:
                continue  # another collection is done with it
        return ages

    def _is_ripe(self, name: str, age: float, living: list[leases.SeenLease]) -> bool:
        if age < self._grace:
            self._result.reasons.append(
                f"{name} waits for {int(self._grace - age)} more seconds of its grace period."
            )
            return False
        holding = [lease for lease in living if name not in lease.avoids]
        for lease in holding:
            self._result.reasons.append(f"{name} waits for a {lease.purpose} (lease {lease.id}).")
        return not holding

    def _sweep(
        self, ripe: dict[str, frozenset[bytes]], needed: frozenset[bytes], sizes: dict[bytes, int]
    ) -> None:
        for name, packs in ripe.items():
            for pack in sorted(packs - needed):
                if pack not in sizes:
                    continue
                self._result.deleted += 1
                self._result.deleted_bytes += sizes.pop(pack)
                if not self._dry_run:
                    self._store.delete(form.pack_name(pack))
            if not self._dry_run:
                self._store.delete(name)  # last: what was not deleted is still doomed

    def _doom(self, unneeded: Set[bytes], sizes: dict[bytes, int]) -> None:
        if not unneeded:
            return
        self._result.doomed = len(unneeded)
        self._result.doomed_bytes = sum(sizes[pack] for pack in unneeded)
        if not self._dry_run:
            document = {"packs": sorted(pack.hex() for pack in unneeded)}
            name = form.DOOMED + uuid.uuid4().hex
            self._store.put(name, [json.dumps(document).encode()])


def _all_of(lists: dict[str, frozenset[bytes]]) -> frozenset[bytes]:
    return frozenset().union(*lists.values())
