# SPDX-License-Identifier: Apache-2.0
"""Snapshots that stay on the user's volumes between two backups, and what is known of the
storage's word on what has changed since.

There is at most one a volume: the newest takes the place of the others. It is no dead run's
leftover, so nothing sweeps it; it goes when the next one comes, or when somebody asks for that.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from oslo_log import log as logging

from freezer_osbrick import errors
from freezer_osbrick.cloud import borrowing, resources, tags
from freezer_osbrick.cloud.clients import Cloud
from freezer_osbrick.cloud.ledger import Run
from freezer_osbrick.cloud.resources import SNAPSHOT, VOLUME

LOG = logging.getLogger(__name__)

# For who wonders why Cinder does not delete the volume.
_DESCRIPTION = (
    "Kept by freezer-osbrick, so that the next backup reads only what has changed."
    " 'freezer-osbrick cleanup --kept-snapshots' removes it."
)


def keep(cloud: Cloud, run: Run, snapshot: Any) -> None:
    """Let a snapshot of a run outlive it, in the place of older ones of the same volume.

    May be called again after a failure.

    :raises errors.CloudError: it is the run's, as before.
    """
    what = f"keep the snapshot {snapshot.id}"
    manager = cloud.cinder.volume_snapshots
    run.let_go(snapshot.id)
    # From here on no cleanup of dead runs finds it.
    cloud.call(what, manager.set_metadata, snapshot.id, dict(tags.KEPT))
    run.record("finished", id=snapshot.id)
    resources.remove_twins(cloud, run, SNAPSHOT, snapshot.id, size_gib=snapshot.size)
    try:
        cloud.call(
            what,
            manager.update,
            snapshot.id,
            name=f"freezer-osbrick: newest backup of {snapshot.volume_id}",
            description=_DESCRIPTION,
        )
        remove(cloud, superseded(of_volume(cloud, snapshot.volume_id)))
    except errors.OsbrickError as error:
        LOG.warning("%s The next backup, or 'freezer-osbrick cleanup', tries again.", error)


def of_volume(cloud: Cloud, volume_id: str) -> list[Any]:
    """The kept snapshots of a volume."""
    return [found for found in everywhere(cloud) if found.volume_id == volume_id]


def everywhere(cloud: Cloud) -> list[Any]:
    """All kept snapshots: those of all projects for an administrator."""
    return SNAPSHOT.tagged(cloud, {}, tags.KEPT)


def superseded(snapshots: Iterable[Any]) -> list[Any]:
    """Those that are not the newest of their volume."""
    volumes: dict[str, list[Any]] = defaultdict(list)
    for found in snapshots:
        volumes[found.volume_id].append(found)
    for several in volumes.values():
        several.sort(key=lambda found: (str(found.created_at), found.id))
    return [found for several in volumes.values() for found in several[:-1]]


def remove(cloud: Cloud, snapshots: Iterable[Any]) -> None:
    """Delete kept snapshots, and wait until they are gone.

    :raises errors.Leftovers: one is still there.
    """
    for found in snapshots:
        resources.delete(cloud, SNAPSHOT, found.id, size_gib=found.size)


def remove_of(cloud: Cloud, volume_id: str) -> None:
    """Delete what is kept of a volume.

    :raises errors.Leftovers: something is still there.
    """
    remove(cloud, of_volume(cloud, volume_id))


def distrust(cloud: Cloud, volume_id: str, backup_id: str) -> None:
    """Record, where every agent sees it, that the storage's word on a volume's changes was wrong.

    :param backup_id: the backup that found out.
    """
    borrowing.tag(cloud, volume_id, {tags.DISTRUSTED: backup_id})


def distrusted(cloud: Cloud, volume_id: str) -> str | None:
    """The backup that found the storage's word wrong; None where it counts."""
    return VOLUME.get(cloud, volume_id).metadata.get(tags.DISTRUSTED) or None


def trust(cloud: Cloud, volume_id: str) -> str | None:
    """Let the storage's word count again; returns the backup that had found it wrong."""
    found = distrusted(cloud, volume_id)
    if found:
        borrowing.untag(cloud, volume_id, [tags.DISTRUSTED])
    return found
