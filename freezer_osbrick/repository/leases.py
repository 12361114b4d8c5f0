# SPDX-License-Identifier: Apache-2.0
"""Leases: a sign in the store that somebody works with the repository.

Garbage collection deletes nothing that a living lease might still build upon. A lease is a prefix
with one small object for each renewal, all of them new: a credential that may neither delete nor
overwrite can hold a lease as well. What counts is the store's clock, never the agent's.
"""

from __future__ import annotations

import dataclasses
import json
import threading
import uuid
from collections import defaultdict
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

_ENDED = "ended"


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
        self._last = 0.0
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
        self._avoids = sorted(found)
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
        """Make sure that nobody can have taken the lease for dead.

        :raises errors.LeaseLost: it was not renewed for too long.
        """
        before = self._last
        self._renew()
        objects = [info.name for info in self._store.list(self._prefix)]
        if self._last - before > TRUSTED_FOR or len(objects) < self._count:
            raise errors.LeaseLost(
                "This run was out of touch with the repository for so long that garbage collection"
                " may have taken it for dead: nothing was committed."
            )

    @property
    def _prefix(self) -> str:
        return f"{form.LEASES}{self.id}/"

    def _renew(self) -> None:
        with self._renewing:
            name = f"{self._prefix}{self._count:06d}"
            document = {"purpose": self._purpose, "avoids": self._avoids}
            self._store.put(name, [json.dumps(document).encode()])
            self._count += 1
            self._last = self._store.stat(name).modified

    def _keep(self) -> None:
        while not self._ended.wait(RENEWED_EVERY):
            try:
                self._renew()
            except errors.StoreError as error:
                LOG.warning("The lease %s was not renewed: %s", self.id, error)

    def _end(self) -> None:
        try:
            # The newest goes last: a lease that is half deleted must not look younger than it is.
            for info in sorted(self._store.list(self._prefix), key=lambda info: info.name):
                self._store.delete(info.name)
        except errors.StoreAccessDenied:
            self._store.put(self._prefix + _ENDED, [b"{}"])


@dataclasses.dataclass(frozen=True)
class SeenLease:
    """A lease as others see it.

    :param renewed: seconds on the store's clock.
    :param avoids: the doomed lists that its holder knew when it began.
    """

    id: str
    names: tuple[str, ...]
    renewed: float
    ended: bool
    avoids: frozenset[str]
    purpose: str

    def alive(self, now: float) -> bool:
        """:param now: seconds on the store's clock."""
        return not self.ended and now - self.renewed < EXPIRED_AFTER


def leases(store: Store) -> list[SeenLease]:
    """All leases in the store, also ended and expired ones."""
    found = defaultdict(list)
    for info in store.list(form.LEASES):
        found[info.name.removeprefix(form.LEASES).split("/")[0]].append(info)
    return [_seen(store, lease_id, infos) for lease_id, infos in found.items()]


def doomed_lists(store: Store) -> dict[str, frozenset[bytes]]:
    """The lists of packs that are to be deleted, by their names."""
    found = {}
    for info in store.list(form.DOOMED):
        try:
            document = json.loads(store.get(info.name))
            found[info.name] = frozenset(bytes.fromhex(pack) for pack in document["packs"])
        except errors.ObjectMissing:
            continue  # done with just now
        except (ValueError, KeyError, TypeError) as error:
            raise errors.Damaged(f"Object {info.name} is damaged: {error}.") from None
    return found


def _seen(store: Store, lease_id: str, infos: list) -> SeenLease:
    infos = sorted(infos, key=lambda info: info.name)
    renewals = [info for info in infos if not info.name.endswith(_ENDED)]
    avoids: frozenset[str] = frozenset()
    purpose = "unknown"
    try:
        document = json.loads(store.get(renewals[-1].name))
        avoids, purpose = frozenset(document["avoids"]), str(document["purpose"])
    except (errors.ObjectMissing, IndexError, ValueError, KeyError, TypeError):
        pass  # then it avoids nothing, and holds everything up
    return SeenLease(
        id=lease_id,
        names=tuple(info.name for info in infos),
        renewed=max(info.modified for info in infos),
        ended=len(renewals) < len(infos),
        avoids=avoids,
        purpose=purpose,
    )
