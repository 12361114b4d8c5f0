# SPDX-License-Identifier: Apache-2.0
"""Volumes that backups and restores work on in place of the user's own, which is never touched."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

from oslo_log import log as logging

from freezer_osbrick import errors
from freezer_osbrick.cloud import attachments, kept, resources, volumes
from freezer_osbrick.cloud.clients import Cloud
from freezer_osbrick.cloud.ledger import Run
from freezer_osbrick.cloud.unwinding import Unwinding
from freezer_osbrick.cloud.volumes import VolumeRecord

LOG = logging.getLogger(__name__)


class FrozenVolume:
    """A snapshot of the user's volume.

    :ivar keep: set in the block: the snapshot stays at its end, as :func:`kept.keep` says.
    """

    def __init__(self, snapshot: Any) -> None:
        self.snapshot = snapshot
        self.keep = False


@contextlib.contextmanager
def snapshot_of(
    cloud: Cloud, run: Run, record: VolumeRecord, *, purpose: str = "backup"
) -> Iterator[FrozenVolume]:
    """The volume as it is at one instant. At the end the snapshot is deleted, whatever happened,
    unless it is to be kept.

    :param purpose: a word for its name.
    """
    with Unwinding() as unwinding:
        frozen = FrozenVolume(_snapshot(cloud, run, record, purpose))
        unwinding.push(lambda: _let_go(cloud, run, frozen))
        yield frozen


@contextlib.contextmanager
def clone_of(
    cloud: Cloud, run: Run, record: VolumeRecord, snapshot: Any, *, purpose: str = "backup"
) -> Iterator[str]:
    """A volume made of a snapshot that is there, and that others take care of.

    :param snapshot: of the recorded volume.
    :returns: the id of the clone, which is deleted at the end.
    """
    with Unwinding() as unwinding:
        clone = _clone(cloud, run, record, snapshot, purpose)
        unwinding.push(functools.partial(_remove_volume, cloud, run, clone))
        yield str(clone.id)


@contextlib.contextmanager
def kept_clone(
    cloud: Cloud,
    run: Run,
    record: VolumeRecord,
    *,
    size_gib: int | None = None,
    purpose: str = "restore",
) -> Iterator[str]:
    """A clone of the user's volume as it is now, to be restored into and kept.

    At the end the snapshot between the two is deleted; if the storage refuses, because the clone
    depends on it, it is kept and a warning says so. The clone is deleted unless ``volumes.finish``
    made it the user's.

    :param size_gib: of the clone, where it is to be larger than the volume.
    :returns: the id of the clone.
    """
    with Unwinding() as unwinding:
        snapshot = _snapshot(cloud, run, record, purpose)
        unwinding.push(functools.partial(_remove_or_keep, cloud, run, snapshot))
        clone = _clone(cloud, run, record, snapshot, purpose, size_gib)
        unwinding.push(functools.partial(_remove_unfinished, cloud, run, clone))
        yield str(clone.id)


@contextlib.contextmanager
def new_volume(
    cloud: Cloud,
    run: Run,
    record: VolumeRecord,
    *,
    size_gib: int | None = None,
    volume_type: str | None = None,
    availability_zone: str | None = None,
) -> Iterator[str]:
    """A new volume like the recorded one, to be restored into and kept.

    At the end it is deleted unless ``volumes.finish`` made it the user's.

    :returns: its id.
    """
    with Unwinding() as unwinding:
        volume_id = volumes.create_from_record(
            cloud,
            run,
            record,
            size_gib=size_gib or record.size_gib,
            volume_type=volume_type,
            availability_zone=availability_zone,
        )
        volume = resources.VOLUME.get(cloud, volume_id)
        unwinding.push(functools.partial(_remove_unfinished, cloud, run, volume))
        if getattr(volume, "encrypted", False):
            raise errors.BadRequest(
                f"Volumes of the type {volume.volume_type!r} are encrypted, and volume {record.id}"
                " was not: what is restored there could never be opened. Choose another type with"
                " --volume-type."
            )
        yield volume_id


def _snapshot(cloud: Cloud, run: Run, record: VolumeRecord, purpose: str) -> Any:
    snapshot = resources.create(
        cloud,
        run,
        resources.SNAPSHOT,
        f"a snapshot of volume {record.id}",
        # force: also of a volume that is in use, without touching its state.
        lambda tags: cloud.cinder.volume_snapshots.create(
            record.id,
            force=True,
            name=f"freezer-osbrick {purpose} of {record.id}",
            metadata=tags,
        ),
        size_gib=record.size_gib,
    )
    if snapshot.size != record.size_gib:
        resources.remove(cloud, run, resources.SNAPSHOT, snapshot.id, size_gib=snapshot.size)
        raise errors.ResourceFailed(
            f"The volume {record.id} was resized from {record.size_gib} to {snapshot.size} GiB "
            "just now: try again."
        )
    return snapshot


def _clone(
    cloud: Cloud,
    run: Run,
    record: VolumeRecord,
    snapshot: Any,
    purpose: str,
    size_gib: int | None = None,
) -> Any:
    size_gib = size_gib or record.size_gib
    return resources.create(
        cloud,
        run,
        resources.VOLUME,
        f"a volume from the snapshot of volume {record.id}",
        lambda tags: cloud.cinder.volumes.create(
            size_gib,
            snapshot_id=snapshot.id,
            name=f"freezer-osbrick {purpose} of {record.id}",
            metadata=tags,
        ),
        size_gib=size_gib,
    )


def _remove_snapshot(cloud: Cloud, run: Run, snapshot: Any) -> None:
    resources.remove(cloud, run, resources.SNAPSHOT, snapshot.id, size_gib=snapshot.size)


def _let_go(cloud: Cloud, run: Run, frozen: FrozenVolume) -> None:
    if frozen.keep:
        try:
            kept.keep(cloud, run, frozen.snapshot)
            return
        except errors.OsbrickError as error:
            LOG.warning(
                "Snapshot %s is not kept, so the next backup reads the whole volume: %s",
                *(frozen.snapshot.id, error),
            )
    _remove_snapshot(cloud, run, frozen.snapshot)


def _remove_volume(cloud: Cloud, run: Run, volume: Any) -> None:
    attachments.clear(cloud, run, volume.id)
    resources.remove(cloud, run, resources.VOLUME, volume.id, size_gib=volume.size)


def _remove_unfinished(cloud: Cloud, run: Run, volume: Any) -> None:
    if volume.id in run.outstanding.resources:
        _remove_volume(cloud, run, volume)


def _remove_or_keep(cloud: Cloud, run: Run, snapshot: Any) -> None:
    try:
        _remove_snapshot(cloud, run, snapshot)
    except errors.Leftovers as error:
        LOG.warning(
            "%s It is kept: the restored volume may depend on it. "
            "'freezer-osbrick cleanup' tries again.",
            error,
        )
