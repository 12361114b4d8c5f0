# SPDX-License-Identifier: Apache-2.0
"""Cinder in memory: what our side asks of it, with faults on demand and a log of what was asked."""

from __future__ import annotations

import types
import uuid
from collections.abc import Callable
from typing import Any

from cinderclient import exceptions
from oslo_config import cfg

from freezer_osbrick import opts
from freezer_osbrick.cloud.calls import Calls


def configuration(**cloud_options: Any) -> cfg.ConfigOpts:
    conf = cfg.ConfigOpts()
    opts.register(conf)
    conf([], project="test", default_config_files=[], default_config_dirs=[])
    conf.set_override("poll_interval", 0.05, "cloud")
    for name, value in cloud_options.items():
        conf.set_override(name, value, "cloud")
    return conf


class Resource(types.SimpleNamespace):
    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


class Manager:
    """Volumes or snapshots. ``fault(verb, resource)`` may raise before the work is done, ``lost``
    after it; ``after_create`` and ``after_delete`` say which states a resource takes."""

    def __init__(self, cinder: FakeCinder, kind: str) -> None:
        self.cinder = cinder
        self.kind = kind
        self.all: dict[str, Resource] = {}
        self.made = 0
        self.after_create: list[str] = []
        self.after_delete: list[str] = []
        self.fault: Callable[[str, Any], None] = lambda verb, resource: None
        self.lost: Callable[[str], None] = lambda verb: None

    def _log(self, verb: str, identifier: str = "") -> None:
        self.cinder.log.append((verb, self.kind, identifier))

    def create(self, first: Any, **fields: Any) -> Resource:
        self._log("create")
        self.fault("create", None)
        fields.pop("force", None)
        metadata = dict(fields.pop("metadata", None) or {})
        if self.kind == "snapshot":
            self.made += 1
            fields.update(
                volume_id=first,
                size=self.cinder.volumes.all[first].size,
                created_at=f"2026-01-01T00:00:{self.made:02}",
            )
        else:
            fields.update(size=first, bootable="false", volume_image_metadata={})
        status = self.after_create.pop(0) if self.after_create else "available"
        made = Resource(id=str(uuid.uuid4()), status=status, metadata=metadata, **fields)
        self.all[made.id] = made
        self.lost("create")
        return made

    def get(self, identifier: str) -> Resource:
        self.fault("get", self.all.get(identifier))
        if identifier not in self.all:
            raise exceptions.NotFound(404, f"{self.kind} {identifier} could not be found.")
        return Resource(**vars(self.all[identifier]))

    def list(self, detailed: bool = True, search_opts: Any = None) -> list[Resource]:
        self._log("list")
        wanted = (search_opts or {}).get("metadata", {}).items()
        if self.cinder.ignores_filters:
            wanted = {}.items()
        return [made for made in self.all.values() if wanted <= made.metadata.items()]

    def delete(self, identifier: str, force: bool = False) -> None:
        self._log("force_delete" if force else "delete", identifier)
        found = self.get(identifier)
        self.fault("delete", found)
        if self.after_delete:
            self.all[identifier].status = self.after_delete.pop(0)
        else:
            del self.all[identifier]
        self.lost("delete")

    def set_metadata(self, identifier: str, metadata: dict[str, str]) -> None:
        self._log("set_metadata", identifier)
        self.all[identifier].metadata.update(metadata)

    def update(self, identifier: str, **fields: Any) -> None:
        self._log("update", identifier)
        vars(self.all[identifier]).update(fields)

    def delete_metadata(self, identifier: str, keys: list[str]) -> None:
        self._log("delete_metadata", identifier)
        for key in keys:
            if self.all[identifier].metadata.pop(key, None) is None:
                raise exceptions.NotFound(404, f"no metadata {key}")


class Volumes(Manager):
    def force_delete(self, identifier: str) -> None:
        self.delete(identifier, force=True)

    def update_all_metadata(self, identifier: str, metadata: dict[str, str]) -> None:
        self._log("update_all_metadata", identifier)
        self.all[identifier].metadata = dict(metadata)

    def set_image_metadata(self, identifier: str, metadata: dict[str, str]) -> None:
        self._log("set_image_metadata", identifier)
        self.all[identifier].volume_image_metadata.update(metadata)

    def delete_image_metadata(self, identifier: str, keys: list[str]) -> None:
        self._log("delete_image_metadata", identifier)
        for key in keys:
            del self.all[identifier].volume_image_metadata[key]

    def set_bootable(self, identifier: str, flag: bool) -> None:
        self._log("set_bootable", identifier)
        self.all[identifier].bootable = str(flag).lower()


class Attachments:
    def __init__(self, cinder: FakeCinder) -> None:
        self.cinder = cinder
        self.all: dict[str, Resource] = {}
        self.fault: Callable[[str], None] = lambda verb: None
        self.lost: Callable[[str], None] = lambda verb: None

    def _log(self, verb: str, identifier: str = "") -> None:
        self.cinder.log.append((verb, "attachment", identifier))

    def create(self, volume_id: str, connector: Any, mode: str) -> dict[str, Any]:
        self._log("create")
        assert connector is None
        self.fault("create")
        made = Resource(
            id=str(uuid.uuid4()),
            volume_id=volume_id,
            mode=mode,
            connection_info={},
            instance=None,
            status="reserved",
        )
        self.all[made.id] = made
        self.lost("create")
        return made.to_dict()

    def update(self, identifier: str, connector: dict[str, Any]) -> Resource:
        self._log("update", identifier)
        self.fault("update")
        found = self.all[identifier]
        found.status = "attaching"
        assert connector["mode"] == found.mode
        found.connection_info = {
            "driver_volume_type": "local",
            "device_path": f"/pool/{found.volume_id}",
            "access_mode": found.mode,
            "attachment_id": identifier,
        }
        return found

    def complete(self, identifier: str) -> None:
        self._log("complete", identifier)
        self.fault("complete")
        self.all[identifier].status = "attached"

    def delete(self, identifier: str) -> None:
        self._log("delete", identifier)
        self.fault("delete")
        if self.all.pop(identifier, None) is None:
            raise exceptions.NotFound(404, "no such attachment")

    def show(self, identifier: str) -> Resource:
        return self.all[identifier]

    def list(self, detailed: bool = True, search_opts: Any = None) -> list[Resource]:
        return list(self.all.values())  # a cloud may ignore the filter


class GroupSnapshots:
    """Snapshots of groups of one API, with the snapshots of their members."""

    def __init__(self, cinder: FakeCinder) -> None:
        self.cinder = cinder
        self.all: dict[str, Resource] = {}
        self.fault: Callable[[str], None] = lambda verb: None

    def create(self, group_id: str, name: str, description: str) -> Resource:
        self.cinder.log.append(("create", "group snapshot", group_id))
        self.fault("create")
        made = Resource(id=str(uuid.uuid4()), status="available", description=description)
        self.all[made.id] = made
        for volume in self.cinder.volumes.all.values():
            if getattr(volume, "group_id", None) == group_id:
                member = Resource(
                    id=str(uuid.uuid4()),
                    volume_id=volume.id,
                    size=volume.size,
                    status="available",
                    metadata={},
                    group_snapshot_id=made.id,
                )
                self.cinder.volume_snapshots.all[member.id] = member
        return made

    def get(self, identifier: str) -> Resource:
        if identifier not in self.all:
            raise exceptions.NotFound(404, f"group snapshot {identifier} could not be found.")
        return self.all[identifier]

    def list(self, detailed: bool = True, search_opts: Any = None) -> list[Resource]:
        return list(self.all.values())

    def delete(self, identifier: str) -> None:
        self.cinder.log.append(("delete", "group snapshot", identifier))
        self.fault("delete")
        del self.all[identifier]
        snapshots = self.cinder.volume_snapshots.all
        for member in list(snapshots.values()):
            if getattr(member, "group_snapshot_id", None) == identifier:
                del snapshots[member.id]


class Groups:
    """Groups of one API: id and, for generic ones, type."""

    def __init__(self) -> None:
        self.all: dict[str, Resource] = {}
        self.refused: set[str] = set()

    def get(self, identifier: str) -> Resource:
        if identifier in self.refused:
            raise exceptions.BadRequest(400, "Migrated group can only be operated by CG APIs.")
        if identifier not in self.all:
            raise exceptions.NotFound(404, f"group {identifier} could not be found.")
        return self.all[identifier]


class FakeCinder:
    def __init__(self) -> None:
        self.log: list[tuple[str, str, str]] = []
        self.ignores_filters = False
        self.said: list[Any] = []
        self.volumes = Volumes(self, "volume")
        self.volume_snapshots = Manager(self, "snapshot")
        self.attachments = Attachments(self)
        self.group_snapshots = GroupSnapshots(self)
        self.cgsnapshots = GroupSnapshots(self)
        self.groups = Groups()
        self.consistencygroups = Groups()
        self.group_specs: dict[str, str] | None = None
        self.group_types = types.SimpleNamespace(
            get=lambda type_id: Resource(id=type_id, group_specs=self.group_specs)
        )
        self.messages = types.SimpleNamespace(list=lambda **keywords: self.said)
        self.volume_types = types.SimpleNamespace(list=lambda: [Resource(name="fast", id="t1")])
        self.availability_zones = types.SimpleNamespace(
            list=lambda: [
                Resource(zoneName="nova", zoneState={"available": True}),
                Resource(zoneName="closed", zoneState={"available": False}),
            ]
        )

    def verbs(self, *kinds: str) -> list[str]:
        """What was asked, without listing and looking."""
        return [
            f"{verb} {kind}"
            for verb, kind, _ in self.log
            if verb != "list" and (not kinds or kind in kinds)
        ]


class FakeCloud:
    """``Cloud`` without a session."""

    def __init__(self, **cloud_options: Any) -> None:
        self.conf = configuration(**cloud_options)
        self.cinder = FakeCinder()
        self.project_id = "p1"
        self.is_admin = False
        self.pauses: list[float] = []
        self._calls = Calls(self.conf.cloud.api_retries, sleep=self.pauses.append)
        self.call = self._calls.call
        self.create = self._calls.create

    def messages(self, resource_id: str) -> str:
        return "; ".join(message.user_message for message in self.cinder.said)

    def volume(self, size: int = 1, **fields: Any) -> Resource:
        """A volume of the user's."""
        made = self.cinder.volumes.create(size, name="users own", **fields)
        self.cinder.log.clear()
        return made


def server_error(status: int = 503) -> exceptions.ClientException:
    return exceptions.ClientException(status, "out of order")
