# SPDX-License-Identifier: Apache-2.0
"""Removing what dead runs left, and nothing else.

A run of this host's ledger is dead when its journal's lock can be had, or when it has no journal.
What a run of another ledger left is removed when its lease has run out; what is still attached
there only when the caller knows that the other host is gone, as nobody else can disconnect it.
"""

from __future__ import annotations

from freezer_osbrick import errors
from freezer_osbrick.cloud import borrowing, kept, tags
from freezer_osbrick.cloud.clients import Cloud
from freezer_osbrick.cloud.groups import KINDS
from freezer_osbrick.cloud.ledger import Ledger
from freezer_osbrick.cloud.resources import SNAPSHOT
from freezer_osbrick.cloud.tags import Tags
from freezer_osbrick.device.host import Host
from freezer_osbrick.operations.cleanup_report import (
    FAILED,
    KEPT,
    REMOVED,
    WOULD_REMOVE,
    CleanupReport,
)
from freezer_osbrick.operations.dead_runs import OwnRun, RunWithoutJournal, Work


def cleanup(
    cloud: Cloud,
    host: Host,
    ledger: Ledger,
    *,
    dry_run: bool = False,
    host_gone: str | None = None,
    kept_snapshots: bool = False,
) -> CleanupReport:
    """Remove what dead runs left in the cloud and on this host.

    Of the snapshots that are kept for change hints, only those that a newer one of their volume has
    replaced.

    An administrator cleans up all projects, everyone else the own one.

    :param dry_run: only tell.
    :param host_gone: the name of a host that will never let go of anything by itself: what its
        runs left is removed without waiting for the end of the lease.
    :param kept_snapshots: all that is kept for change hints goes.
    :raises errors.CloudError: the cloud could not be asked; nothing was removed.
    """
    work = Work(cloud, host, ledger, dry_run, host_gone)
    _clean_all(work)
    _clean_kept(work, kept_snapshots)
    return CleanupReport(work.items)


def cleanup_own(cloud: Cloud, host: Host, ledger: Ledger) -> CleanupReport:
    """Remove what dead runs of this host left. Where none has died, nobody is asked.

    For a run that is to follow a dead one: the scheduler starts it again, and nobody looks after
    it.

    :raises errors.CloudError: the cloud could not be asked.
    """
    work = Work(cloud, host, ledger, dry_run=False, host_gone=None)
    _clean_own(work)
    return CleanupReport(work.items)


def _clean_all(work: Work) -> None:
    tagged = [resource for kind in KINDS.values() for resource in kind.tagged(work.cloud, {})]
    tagged += borrowing.lent(work.cloud, {})
    run_ids = {resource.metadata[tags.RUN] for resource in tagged}
    for run_id in sorted(run_ids | set(work.ledger.runs())):
        dead = work.ledger.adopt(run_id)
        if dead is not None:
            OwnRun(work, dead).clean()
        elif run_id in work.ledger.runs():
            _keep_living(work, run_id)
        else:
            RunWithoutJournal(work, run_id).clean()
    if not work.dry_run:
        for path in work.ledger.sweep():
            work.tell(REMOVED, "files", path, "", work.ledger.host)


def _clean_kept(work: Work, everything: bool) -> None:
    found = kept.everywhere(work.cloud)
    going = {one.id for one in (found if everything else kept.superseded(found))}
    for one in found:
        told = Tags.of(one.metadata, tags.KEPT)
        state, reason = WOULD_REMOVE if work.dry_run else REMOVED, ""
        if one.id not in going:
            state = KEPT
            reason = (
                f"it is there for the next backup of volume {one.volume_id};"
                " --kept-snapshots removes it"
            )
        elif not work.dry_run:
            try:
                kept.remove(work.cloud, [one])
            except errors.OsbrickError as error:
                state, reason = FAILED, str(error)
        work.tell(state, SNAPSHOT.name, one.id, told.run if told else "", _host(told), reason)


def _host(told: Tags | None) -> str:
    return told.host if told else ""


def _clean_own(work: Work) -> None:
    for run_id in work.ledger.runs():
        dead = work.ledger.adopt(run_id)
        if dead is not None:
            OwnRun(work, dead).clean()


def _keep_living(work: Work, run_id: str) -> None:
    for kind in KINDS.values():
        for resource in kind.tagged(work.cloud, {tags.RUN: run_id}):
            work.tell(KEPT, kind.name, resource.id, run_id, work.ledger.host, "its run is alive")
    for volume in borrowing.lent(work.cloud, {tags.RUN: run_id}):
        work.tell(KEPT, "volume", volume.id, run_id, work.ledger.host, "its run is alive")
