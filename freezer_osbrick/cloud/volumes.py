# SPDX-License-Identifier: Apache-2.0
"""A volume's metadata, kept with its backup, and volumes made after it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from freezer_osbrick import errors
from freezer_osbrick.cloud import resources, waiting
from freezer_osbrick.cloud.clients import Cloud
from freezer_osbrick.cloud.ledger import Run
from freezer_osbrick.cloud.tags import DISTRUSTED, INCOMPLETE, PREFIX, users_own

# States in which nobody uses a volume.
_REMOVABLE = ("available", "error", "error_restoring", "error_extending", "error_managing")


@dataclasses.dataclass(frozen=True)
class VolumeRecord:
    """What Cinder knew of a volume.

    :ivar size_gib: in GiB.
    :ivar metadata: the user's properties, without Cinder's and ours.
    :ivar incomplete_restore: the backup whose restore in place was broken off.
    :ivar hints_wrong: the backup that found the storage's word on its changes wrong.
    :ivar attachments: of each: ``server_id``, ``device``, ``host_name``.
    """

    id: str
    name: str
    description: str
    size_gib: int
    status: str
    volume_type: str | None = None
    availability_zone: str | None = None
    bootable: bool = False
    encrypted: bool = False
    encryption_key_id: str | None = None
    multiattach: bool = False
    project_id: str | None = None
    user_id: str | None = None
    group_id: str | None = None
    source_volume_id: str | None = None
    snapshot_id: str | None = None
    image_id: str | None = None
    created_at: str | None = None
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
    image_metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
    attachments: tuple[Mapping[str, Any], ...] = ()
    incomplete_restore: str | None = None
    hints_wrong: str | None = None

    @property
    def size(self) -> int:
        """In bytes."""
        return self.size_gib << 30

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> VolumeRecord:
        """From what ``to_dict`` gave, of this or another version: unknown keys are ignored.

        :raises errors.Damaged: what cannot be missing is missing.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        values = {key: value for key, value in data.items() if key in known}
        values["attachments"] = tuple(values.get("attachments") or ())
        try:
            return cls(**values)
        except TypeError as error:
            raise errors.Damaged(f"The volume's metadata is incomplete: {error}.") from error


def capture(cloud: Cloud, volume_id: str) -> VolumeRecord:
    """What Cinder knows of a volume now.

    :raises errors.ResourceMissing: there is none with this id in the project.
    """
    return record_of(cloud, get(cloud, volume_id))


def get(cloud: Cloud, volume_id: str) -> Any:
    """A volume as cinderclient has it.

    :raises errors.ResourceMissing: there is none with this id in the project.
    """
    return cloud.call(f"look at the volume {volume_id}", cloud.cinder.volumes.get, volume_id)


def record_of(cloud: Cloud, volume: Any) -> VolumeRecord:
    """What one of cinderclient's volumes says, got or listed in detail."""
    data = volume.to_dict()
    image_metadata = dict(data.get("volume_image_metadata") or {})
    return VolumeRecord(
        id=data["id"],
        name=data.get("name") or "",
        description=data.get("description") or "",
        size_gib=int(data["size"]),
        status=data["status"],
        volume_type=data.get("volume_type"),
        availability_zone=data.get("availability_zone"),
        bootable=str(data.get("bootable")).lower() == "true",
        encrypted=bool(data.get("encrypted")),
        encryption_key_id=data.get("encryption_key_id"),
        multiattach=bool(data.get("multiattach")),
        project_id=data.get("os-vol-tenant-attr:tenant_id") or cloud.project_id,
        user_id=data.get("user_id"),
        group_id=data.get("group_id"),
        source_volume_id=data.get("source_volid"),
        snapshot_id=data.get("snapshot_id"),
        image_id=image_metadata.get("image_id"),
        created_at=data.get("created_at"),
        metadata=users_own(data.get("metadata")),
        image_metadata=image_metadata,
        attachments=tuple(
            {key: attachment.get(key) for key in ("server_id", "device", "host_name")}
            for attachment in data.get("attachments") or ()
        ),
        incomplete_restore=(data.get("metadata") or {}).get(INCOMPLETE),
        hints_wrong=(data.get("metadata") or {}).get(DISTRUSTED),
    )


def create_from_record(
    cloud: Cloud,
    run: Run,
    record: VolumeRecord,
    *,
    size_gib: int,
    name: str | None = None,
    volume_type: str | None = None,
    availability_zone: str | None = None,
) -> str:
    """A new, empty volume like the recorded one; unfinished until ``finish`` makes it the user's.

    :param name: until then; by default says what is going on.
    :param volume_type: instead of the recorded one.
    :param availability_zone: instead of the recorded one.
    :returns: its id.
    :raises errors.BadRequest: type or zone are not there (any more).
    """
    volume_type = volume_type or record.volume_type
    availability_zone = availability_zone or record.availability_zone
    _check_type(cloud, volume_type)
    _check_zone(cloud, availability_zone)
    volume = resources.create(
        cloud,
        run,
        resources.VOLUME,
        f"a volume for the restore of volume {record.id}",
        lambda tags: cloud.cinder.volumes.create(
            size_gib,
            name=name or f"freezer-osbrick {run.purpose} of {record.id}",
            volume_type=volume_type,
            availability_zone=availability_zone,
            metadata=tags,
        ),
        size_gib=size_gib,
    )
    return str(volume.id)


def finish(
    cloud: Cloud, run: Run, volume_id: str, record: VolumeRecord, *, name: str | None = None
) -> None:
    """Give a restored volume what the record says, and make it the user's: our tags go last.

    :param name: instead of the recorded one.
    """
    run.let_go(volume_id)  # a late renewal would bring a tag back
    for step in _property_steps(cloud, volume_id, record, name):
        step()
    resources.remove_twins(cloud, run, resources.VOLUME, volume_id, size_gib=record.size_gib)
    # Replaces all metadata in one request: there is no moment with half of our tags.
    cloud.call(
        _setting(volume_id),
        cloud.cinder.volumes.update_all_metadata,
        volume_id,
        dict(record.metadata),
    )
    run.record("finished", id=volume_id)


def rename(cloud: Cloud, volume_id: str, name: str) -> None:
    cloud.call(_setting(volume_id), cloud.cinder.volumes.update, volume_id, name=name)


def override(
    cloud: Cloud, volume_id: str, record: VolumeRecord, *, name: str | None = None
) -> list[str]:
    """Give a volume of the user's what the record says, as far as Cinder lets us.

    Metadata of ours stays: a run may be at work with the volume.

    :param name: instead of the recorded one.

    :returns: what could not be set, a sentence each.
    """

    def metadata() -> None:
        current = cloud.call(what, cloud.cinder.volumes.get, volume_id)
        ours = {k: v for k, v in current.metadata.items() if k.startswith(PREFIX)}
        wanted = {**record.metadata, **ours}
        cloud.call(what, cloud.cinder.volumes.update_all_metadata, volume_id, wanted)

    what = _setting(volume_id)
    refused = []
    for step in (*_property_steps(cloud, volume_id, record, name), metadata):
        try:
            step()
        except errors.CloudError as error:
            refused.append(str(error))
    return refused


def remove_replaced(
    cloud: Cloud, volume_id: str, *, first: Callable[[], None] = lambda: None
) -> None:
    """Delete a volume of the user's that a restored one replaces, and wait until it is gone.

    :param first: called when nothing uses the volume, before it is deleted.
    :raises errors.CloudRefused: something is attached to it, or Cinder says no.
    """
    current = capture(cloud, volume_id)
    servers = ", ".join(str(held["server_id"]) for held in current.attachments)
    if current.attachments or current.status not in _REMOVABLE:
        raise errors.CloudRefused(
            f"Volume {volume_id} is attached to the server {servers}."
            if servers
            else f"Volume {volume_id} is in state {current.status!r}."
        )
    first()
    what = f"the volume {volume_id}"
    manager = cloud.cinder.volumes
    cloud.call(f"delete {what}", manager.delete, volume_id)
    waiting.wait_gone(cloud, what, manager.get, volume_id, size_gib=current.size_gib)


def _setting(volume_id: str) -> str:
    return f"set the properties of the volume {volume_id}"


def _property_steps(
    cloud: Cloud, volume_id: str, record: VolumeRecord, name: str | None
) -> list[Callable[[], None]]:
    """What brings a volume's properties, other than its metadata, to those of the record."""
    what = _setting(volume_id)
    volumes = cloud.cinder.volumes

    def words() -> None:
        cloud.call(
            what,
            volumes.update,
            volume_id,
            name=record.name if name is None else name,
            description=record.description,
        )

    def image_metadata() -> None:
        current = cloud.call(what, volumes.get, volume_id)
        present = dict(getattr(current, "volume_image_metadata", None) or {})
        superfluous = sorted(set(present) - set(record.image_metadata))
        if superfluous:
            cloud.call(what, volumes.delete_image_metadata, volume_id, superfluous)
        if record.image_metadata and dict(record.image_metadata) != present:
            cloud.call(what, volumes.set_image_metadata, volume_id, dict(record.image_metadata))

    def bootable() -> None:
        current = cloud.call(what, volumes.get, volume_id)
        if (str(current.bootable).lower() == "true") != record.bootable:
            cloud.call(what, volumes.set_bootable, volume_id, record.bootable)

    return [words, image_metadata, bootable]


def _check_type(cloud: Cloud, volume_type: str | None) -> None:
    if volume_type is None:
        return
    types = cloud.call("list the volume types", cloud.cinder.volume_types.list)
    if not any(volume_type in (known.name, known.id) for known in types):
        raise errors.BadRequest(
            f"The volume type {volume_type!r} is not there (any more): "
            f"choose another with --volume-type ({_choice(known.name for known in types)})."
        )


def _check_zone(cloud: Cloud, availability_zone: str | None) -> None:
    if availability_zone is None:
        return
    zones = cloud.call("list the availability zones", cloud.cinder.availability_zones.list)
    usable = [zone.zoneName for zone in zones if zone.zoneState.get("available")]
    if availability_zone not in usable:
        raise errors.BadRequest(
            f"The availability zone {availability_zone!r} is not there (any more): "
            f"choose another with --availability-zone ({_choice(usable)})."
        )


def _choice(names: Any) -> str:
    return ", ".join(sorted(str(name) for name in names)) or "there is none"
