# SPDX-License-Identifier: Apache-2.0
"""Leases: a sign in the store that somebody works with the repository.

Garbage collection deletes nothing that a living lease might still build upon. A lease is a prefix
with one small object for each renewal, all of them new: a credential that may neither delete nor
overwrite can hold a lease as well. What counts is the store's clock, never the agent's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable
from types import TracebackType

from oslo_log import log

from freezer_osbrick import errors
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository.repository import Repository
from freezer_osbrick.store.base import Store

LOG = log.getLogger(__name__)

# Seconds. Between a renewal that its holder still trusts and one that others take for dead lie
# hours: a holder that slept finds out before it commits, not after its packs are gone.
RENEWED_EVERY = 900.0
TRUSTED_FOR = 12 * 3600.0
EXPIRED_AFTER = 24 * 3600.0

# Seconds within which a listing that lags behind shows what was put: so long the end of a lease
# still counts as the lease, lest what its holder committed is not seen yet.
SETTLES_WITHIN = 3600.0

# Beside its renewals: that its holder has ended it; that somebody saw it while all of its renewals
# bore times that had not come yet.
_ENDED, _SEEN = "ended", "seen"

_OUT_OF_TOUCH = (
    "This run was out of touch with the repository for so long that garbage collection may have"
    " taken it for dead"
)


class Lease:
    """Held by a backup, a restore or a verification while it works; a context manager.

    :ivar doomed: the packs that were to be deleted when the lease began: nothing may be built on
    them.
    """

    def __init__(self, repository: Repository, purpose: str, *, needed: bool = True) -> None:
        """:param purpose: a word for people: backup, restore, verify.
        :param needed: False for who only reads: without room or right to hold a lease it goes on.
        """
        self.id = uuid.uuid4().hex
        self.doomed: frozenset[bytes] = frozenset()
        self._store = repository.store
        self._purpose = purpose
        self._needed = needed
        self._count = 0
        self._began = self._last = 0.0
        self._slept = False
        self._avoids: list[str] = []
        self._renewing = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def __enter__(self) -> Lease:
        # First the lease, then the look at what is doomed: a list that appears after the look
        # finds the lease, which does not say that it avoids that list.
        try:
            self._renew()
        except (errors.StoreAccessDenied, errors.StoreFull) as error:
            if self._needed:
                raise
            LOG.warning("No lease is held, so that garbage collection may interfere: %s", error)
            return self
        found = doomed_lists(self._store)
        self.doomed = frozenset(pack for packs in found.values() for pack in packs)
        # One that cannot be read is not avoided: then it is not carried out as long as we work.
        self._avoids = sorted(name for name, packs in found.items() if packs)
        self._renew()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        if not self._count:
            return
        self._thread.join()
        try:
            self._end()
        except errors.StoreError as failure:
            # It expires by itself; what was done with it is not undone for that.
            LOG.warning("The lease %s could not be ended: %s", self.id, failure)

    def confirm(self) -> None:
        """Renew the lease and make sure that nobody can have taken it for dead.

        :raises errors.LeaseLost: it was not renewed for too long, or somebody did.
        """
        self._renew()
        if self._is_lost():
            raise errors.LeaseLost(f"{_OUT_OF_TOUCH}: nothing was committed.")

    def prove_commit(self, take_back: Callable[[], object]) -> None:
        """Make sure, after a commit, that the lease held until then: between :meth:`confirm` and
        the commit a process may have slept for days.

        :param take_back: undoes the commit; called where the lease was lost.
        :raises errors.LeaseLost: it was.
        """
        if not self._is_lost(self._store.now()):
            return
        try:
            take_back()
        except errors.StoreError as error:
            raise errors.LeaseLost(
                f"{_OUT_OF_TOUCH}: what was committed may lack something and could not be taken"
                f" back, remove it. ({error})"
            ) from error
        raise errors.LeaseLost(f"{_OUT_OF_TOUCH}: what was committed was taken back.")

    def _is_lost(self, now: float | None = None) -> bool:
        """:param now: seconds on the store's clock, where that is not the last renewal."""
        if self._slept or (now is not None and now - self._last > TRUSTED_FOR):
            return True
        try:
            # Who takes a lease for dead deletes its objects, this one first.
            self._store.stat(f"{self._prefix}{0:06d}")
        except errors.ObjectMissing:
            return True
        return False

    @property
    def _prefix(self) -> str:
        return f"{form.LEASES}{self.id}/"

    def _renew(self) -> None:
        with self._renewing:
            name = f"{self._prefix}{self._count:06d}"
            document = {"purpose": self._purpose, "avoids": self._avoids}
            self._store.put(name, [json.dumps(document).encode()])
            try:
                modified = self._store.stat(name).modified
            except errors.ObjectMissing:
                self._slept = True  # since the put, so long that it was taken for dead
                self._count += 1
                return
            self._slept |= self._count > 0 and modified - self._last > TRUSTED_FOR
            self._began = self._began if self._count else modified
            self._count += 1
            self._last = modified

    def _keep(self) -> None:
        while not self._ended.wait(RENEWED_EVERY):
            try:
                self._renew()
            except errors.StoreError as error:
                LOG.warning("The lease %s was not renewed: %s", self.id, error)

    def _end(self) -> None:
        if self._needed and self._may_be_unseen():
            self._put_end()
        try:
            # The newest goes last: a lease that is half deleted must not look younger than it is.
            for info in sorted(self._store.list(self._prefix), key=lambda info: info.name):
                if not info.name.endswith(f"/{_ENDED}"):
                    self._store.delete(info.name)
        except errors.StoreAccessDenied:
            self._put_end()

    def _may_be_unseen(self) -> bool:
        """Whether a collection that sees no lease any more might not see yet what was committed,
        and delete what that needs: its lists of doomed packs must be older than the run."""
        lags = not self._store.capabilities.consistent_listing
        return lags or self._last - self._began > TRUSTED_FOR  # some file servers lag, too

    def _put_end(self) -> None:
        with contextlib.suppress(errors.ObjectExists):
            self._store.put(self._prefix + _ENDED, [b"{}"])


@dataclasses.dataclass(frozen=True)
class SeenLease:
    """A lease as others see it.

    :param names: of its objects, the first renewal first.
    :param moments: when they were put, in seconds on the store's clock.
    :param avoids: the doomed lists that its holder knew when it began.
    """

    id: str
    names: tuple[str, ...]
    moments: tuple[float, ...]
    ended: bool
    avoids: frozenset[str]
    purpose: str

    def alive(self, now: float) -> bool:
        """:param now: seconds on the store's clock."""
        return now - self._renewed(now) < (SETTLES_WITHIN if self.ended else EXPIRED_AFTER)

    def from_the_future(self, now: float) -> bool:
        """Whether the store's clock was set back since all of its objects were put, so that they
        do not tell how old it is."""
        return all(is_future(moment, now) for moment in self.moments)

    def _renewed(self, now: float) -> float:
        told = [moment for moment in self.moments if not is_future(moment, now)]
        return max(told or self.moments)


def is_future(moment: float, now: float) -> bool:
    """Whether a time on the store's clock is later than any delay or rounding explains."""
    return moment - now > SETTLES_WITHIN


def witness(store: Store, lease: SeenLease) -> None:
    """Note in a lease from the future that it was seen now. If nobody renews it from now on, it
    expires as any other."""
    store.put(f"{form.LEASES}{lease.id}/{_SEEN}", [b"{}"], replace=True)


def leases(store: Store) -> list[SeenLease]:
    """All leases in the store, also ended and expired ones."""
    found = defaultdict(list)
    for info in store.list(form.LEASES):
        found[info.name.removeprefix(form.LEASES).split("/")[0]].append(info)
    return [_seen(store, lease_id, infos) for lease_id, infos in found.items()]


def doomed_lists(store: Store) -> dict[str, frozenset[bytes]]:
    """The lists of packs that are to be deleted, by their names. One that cannot be read names
    nothing: what it named is found unneeded again."""
    found: dict[str, frozenset[bytes]] = {}
    for info in store.list(form.DOOMED):
        try:
            document = json.loads(store.get(info.name))
            found[info.name] = frozenset(bytes.fromhex(pack) for pack in document["packs"])
        except errors.ObjectMissing:
            continue  # done with just now
        except form.UNREADABLE_JSON as error:
            LOG.warning("Object %s is damaged and counts for nothing: %s", info.name, error)
            found[info.name] = frozenset()
    return found


def _seen(store: Store, lease_id: str, infos: list) -> SeenLease:
    infos = sorted(infos, key=lambda info: info.name)
    renewals = [info for info in infos if info.name.rpartition("/")[2] not in (_ENDED, _SEEN)]
    avoids: frozenset[str] = frozenset()
    purpose = "unknown"
    try:
        document = json.loads(store.get(renewals[-1].name))
        avoids, purpose = frozenset(document["avoids"]), str(document["purpose"])
    except (errors.ObjectMissing, IndexError, *form.UNREADABLE_JSON):
        pass  # then it avoids nothing, and holds everything up
    return SeenLease(
        id=lease_id,
        names=tuple(info.name for info in infos),
        moments=tuple(info.modified for info in infos),
        ended=any(info.name.endswith(f"/{_ENDED}") for info in infos),
        avoids=avoids,
        purpose=purpose,
    )
