# SPDX-License-Identifier: Apache-2.0
"""The volumes that a backup can be restored into."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Protocol

from oslo_log import log

from freezer_osbrick import errors
from freezer_osbrick.cloud import borrowing, staging, volumes
from freezer_osbrick.cloud.clients import Cloud
from freezer_osbrick.cloud.ledger import Run
from freezer_osbrick.cloud.tags import INCOMPLETE
from freezer_osbrick.cloud.volumes import VolumeRecord

LOG = log.getLogger(__name__)

GIB = 1 << 30

# A restore that fails with one of these may succeed with another volume.
OF_THE_VOLUME = (
    errors.CloudRefused,
    errors.CloudTimeout,
    errors.DeviceError,
    errors.ResourceFailed,
    errors.ResourceMissing,
)


@dataclasses.dataclass(frozen=True)
class TargetRequest:
    """What the restored volume is to be like, where it is not to be like the backed-up one.

    :param volume_type, availability_zone: of a new volume.
    :param new_name: of the restored volume.
    :param size_gib: of the restored volume: not less than the backed-up one had.
    :param meta_override: a volume that exists gets name, description, properties, image metadata
        and bootable flag of the backup.
    :param in_place: write to the volume itself, which nothing may be attached to.
    """

    volume_type: str | None = None
    availability_zone: str | None = None
    new_name: str | None = None
    size_gib: int | None = None
    meta_override: bool = False
    in_place: bool = False


class Target(Protocol):
    """One volume to restore into.

    :ivar kind: as reports have it.
    :ivar size_gib: of the volume, in GiB.
    :ivar compare: the volume holds another state of the same data: only what differs is written,
        and what lies beyond the backup's end stays as it is.
    """

    kind: str
    size_gib: int
    compare: bool

    def volume(self, cloud: Cloud, run: Run) -> contextlib.AbstractContextManager[str]:
        """Have the volume, by its id, for as long as a block runs. One that was made is deleted
        again unless it gets finished."""

    def begin(self, cloud: Cloud, volume_id: str) -> None:
        """The first byte is about to be written."""

    def finish(self, cloud: Cloud, run: Run, volume_id: str) -> None:
        """All is written: give the volume its properties, and to the user."""


def choose(
    record: VolumeRecord,
    existing: VolumeRecord | None,
    request: TargetRequest,
    size: int,
    backup_id: str,
) -> Target:
    """What to restore a backup into.

    :param record: of the volume as it was backed up.
    :param existing: the volume now; None if it is gone.
    :param size: of the backup, in bytes.
    :raises errors.BadRequest: it cannot end well; nothing was made.
    """
    needed = -(-size // GIB)
    if request.size_gib is not None and request.size_gib < needed:
        raise errors.BadRequest(
            f"The backup of volume {record.id} needs {needed} GiB: it does not fit into the"
            f" {request.size_gib} GiB of --size."
        )
    if request.in_place:
        return InPlace(record, existing, request, needed, backup_id)
    if existing is None:
        return NewVolume(record, request, needed)
    return Clone(record, existing, request, needed)


class NewVolume:
    """An empty volume like the backed-up one."""

    kind = "new"
    compare = False

    def __init__(self, record: VolumeRecord, request: TargetRequest, needed_gib: int) -> None:
        if record.encrypted:
            raise errors.BadRequest(
                f"Volume {record.id} was encrypted by Cinder with a key of its own, which a new"
                " volume does not get: what is restored there could never be opened."
            )
        self.size_gib = request.size_gib or needed_gib
        self._record = record
        self._request = request

    def volume(self, cloud: Cloud, run: Run) -> contextlib.AbstractContextManager[str]:
        return staging.new_volume(
            cloud,
            run,
            self._record,
            size_gib=self.size_gib,
            volume_type=self._request.volume_type,
            availability_zone=self._request.availability_zone,
        )

    def begin(self, cloud: Cloud, volume_id: str) -> None:
        pass

    def finish(self, cloud: Cloud, run: Run, volume_id: str) -> None:
        volumes.finish(cloud, run, volume_id, self._record, name=self._request.new_name)


class Clone:
    """A clone of the volume as it is now. The volume itself is not touched."""

    kind = "clone"
    compare = True

    def __init__(
        self,
        record: VolumeRecord,
        existing: VolumeRecord,
        request: TargetRequest,
        needed_gib: int,
    ) -> None:
        self.size_gib = request.size_gib or existing.size_gib
        if self.size_gib < needed_gib:
            raise errors.BadRequest(
                f"Volume {existing.id} has {existing.size_gib} GiB now; the backup needs"
                f" {needed_gib} GiB: give --size {needed_gib} or more."
            )
        if self.size_gib < existing.size_gib:
            raise errors.BadRequest(
                f"Volume {existing.id} has {existing.size_gib} GiB now, and a clone of it cannot be"
                f" smaller: give --size {existing.size_gib} or more, or leave it out."
            )
        if request.volume_type or request.availability_zone:
            raise errors.BadRequest(
                f"Volume {existing.id} exists, so that it is restored into a clone of it, which has"
                " its type and zone: leave --volume-type and --availability-zone out."
            )
        refuse_other_key(record, existing)
        self._existing = existing
        self._properties = record if request.meta_override else existing
        self._new_name = request.new_name

    def volume(self, cloud: Cloud, run: Run) -> contextlib.AbstractContextManager[str]:
        return staging.kept_clone(cloud, run, self._existing, size_gib=self.size_gib)

    def begin(self, cloud: Cloud, volume_id: str) -> None:
        pass

    def finish(self, cloud: Cloud, run: Run, volume_id: str) -> None:
        volumes.finish(cloud, run, volume_id, self._properties, name=self._new_name)


class InPlace:
    """The volume itself. From the first byte written to the last it holds parts of two states. Its
    metadata tells that as long as it is so: this process may not live to say it.
    """

    kind = "in place"
    compare = True

    def __init__(
        self,
        record: VolumeRecord,
        existing: VolumeRecord | None,
        request: TargetRequest,
        needed_gib: int,
        backup_id: str,
    ) -> None:
        if existing is None:
            raise errors.BadRequest(
                f"Volume {record.id} does not exist: nothing can be restored into it. Without"
                " --in-place a new volume is made."
            )
        if request.volume_type or request.availability_zone or request.size_gib:
            raise errors.BadRequest(
                "With --in-place the volume stays what it is: leave --volume-type,"
                " --availability-zone and --size out."
            )
        servers = ", ".join(str(held.get("server_id")) for held in existing.attachments)
        if servers:
            raise errors.BadRequest(
                f"Volume {existing.id} is attached to the server {servers}: detach it first, or"
                " leave --in-place out."
            )
        if existing.status != "available":
            raise errors.BadRequest(
                f"Volume {existing.id} is in state {existing.status!r}: only an available one is"
                " restored in place."
            )
        if existing.size_gib < needed_gib:
            raise errors.BadRequest(
                f"Volume {existing.id} has {existing.size_gib} GiB now, and the backup needs"
                f" {needed_gib} GiB."
            )
        refuse_other_key(record, existing)
        self.size_gib = existing.size_gib
        self._record = record
        self._existing = existing
        self._request = request
        self._backup_id = backup_id
        self._is_mixed = False

    @contextlib.contextmanager
    def volume(self, cloud: Cloud, run: Run) -> Iterator[str]:
        try:
            with borrowing.borrowed(
                cloud, run, self._existing.id, size_gib=self.size_gib
            ) as volume_id:
                yield volume_id
        except BaseException as error:
            if self._is_mixed:
                told = (
                    f"The volume {self._existing.id} holds parts of two states now: restore it"
                    " again."
                )
                errors.annotate(error, told)
                LOG.warning("%s", told)
            raise

    def begin(self, cloud: Cloud, volume_id: str) -> None:
        borrowing.tag(cloud, volume_id, {INCOMPLETE: self._backup_id})
        self._is_mixed = True

    def finish(self, cloud: Cloud, run: Run, volume_id: str) -> None:
        borrowing.untag(cloud, volume_id, [INCOMPLETE])
        self._is_mixed = False
        if self._request.new_name is not None:
            volumes.rename(cloud, volume_id, self._request.new_name)


def refuse_other_key(record: VolumeRecord, existing: VolumeRecord) -> None:
    """Stored is what the storage holds: of an encrypted volume, what its key has encrypted. With
    another key, or none, a server could never open it.

    A volume that was handed over to another project has the same key by another id.

    :raises errors.BadRequest: the volume has not the key that it had.
    """
    if record.encrypted != existing.encrypted:
        then, now = (
            "encrypted" if encrypted else "not encrypted"
            for encrypted in (record.encrypted, existing.encrypted)
        )
        reason = f"was {then} when it was backed up and is {now} now"
    elif (
        record.encryption_key_id
        and existing.encryption_key_id
        and record.encryption_key_id != existing.encryption_key_id
        and record.project_id == existing.project_id
    ):
        reason = "is encrypted with another key than when it was backed up"
    else:
        return
    raise errors.BadRequest(
        f"Volume {existing.id} {reason}: what is restored there could never be opened."
    )
