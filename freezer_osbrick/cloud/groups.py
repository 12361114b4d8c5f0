# SPDX-License-Identifier: Apache-2.0
"""Groups of volumes, and snapshots of all volumes of a group at one instant.

Cinder has generic groups and, beside them, the older consistency groups with an API of their own.
A group snapshot has no metadata: its tags stand in its description, and their renewed expiry in
the metadata of its member snapshots.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from freezer_osbrick import errors
from freezer_osbrick.cloud import resources, tags
from freezer_osbrick.cloud.clients import Cloud
from freezer_osbrick.cloud.ledger import Run

# How Cinder tells that it snapshots all volumes of a group of this type at one instant.
_CONSISTENT = "consistent_group_snapshot_enabled"


@dataclasses.dataclass(frozen=True)
class Group:
    """
    :param legacy: a consistency group, which only its own API takes.
    :param consistent: whether its snapshots are of one instant; None where Cinder does not tell,
        which it does only to administrators.
    """

    id: str
    name: str
    legacy: bool
    consistent: bool | None

    @property
    def kind(self) -> GroupSnapshotKind:
        """Of the snapshots of this group."""
        return CG_SNAPSHOT if self.legacy else GROUP_SNAPSHOT


def find(cloud: Cloud, group_id: str) -> Group:
    """The group with this id, of either API.

    :raises errors.ResourceMissing: there is none, or not in this project.
    """
    what = f"look at the group {group_id}"
    try:
        group = cloud.call(what, cloud.cinder.groups.get, group_id)
    except errors.CloudRefused:
        # Cinder keeps both kinds together and refuses the older one here.
        group = cloud.call(what, cloud.cinder.consistencygroups.get, group_id)
        return Group(group_id, group.name or "", legacy=True, consistent=True)
    return Group(
        group_id,
        group.name or "",
        legacy=False,
        consistent=_is_consistent(cloud, group.group_type),
    )


def snapshot(cloud: Cloud, run: Run, group: Group, *, purpose: str, size_gib: int) -> str:
    """Freeze all volumes of a group at one instant; returns the id of the group snapshot.

    :param size_gib: of all its volumes.
    :raises errors.CloudError: it could not be made, and nothing stays.
    """
    kind = group.kind
    made = resources.create(
        cloud,
        run,
        kind,
        f"a snapshot of the group {group.id}",
        lambda metadata: kind.manager(cloud).create(
            group.id, f"freezer-osbrick {purpose} of group {group.id}", metadata
        ),
        size_gib=size_gib,
    )
    return str(made.id)


def member(cloud: Cloud, group_snapshot_id: str, volume_id: str) -> Any:
    """The snapshot of one volume in a group snapshot.

    :raises errors.ResourceMissing: the volume was not in the group then.
    """
    for found in _members(cloud, {"volume_id": volume_id}):
        if (found.group_snapshot_id, found.volume_id) == (group_snapshot_id, volume_id):
            return found
    raise errors.ResourceMissing(
        f"The volume {volume_id} is not in the group snapshot {group_snapshot_id}: it left the "
        "group just now."
    )


class GroupSnapshotKind(resources.Kind):
    """Group snapshots, with the tags of other resources."""

    def manager(self, cloud: Cloud) -> _Manager:
        return _Manager(cloud, getattr(cloud.cinder, self.manager_name))

    def tagged(
        self, cloud: Cloud, metadata: Mapping[str, str], mark: Mapping[str, str] = tags.MARK
    ) -> list[Any]:
        wanted = {**mark, **metadata}
        search = {"all_tenants": 1} if cloud.is_admin else {}
        try:
            found = cloud.call(f"list our {self.name}s", self.manager(cloud).list, search)
        except (errors.ResourceMissing, errors.CloudAccessDenied, errors.CloudRefused):
            return []  # this cloud has none, or not for us
        return [one for one in found if wanted.items() <= one.metadata.items()]


class _Manager:
    """What resources ask of a manager of cinderclient's."""

    def __init__(self, cloud: Cloud, inner: Any) -> None:
        self._cloud = cloud
        self._inner = inner

    def create(self, group_id: str, name: str, metadata: Mapping[str, str]) -> _GroupSnapshot:
        made = self._inner.create(group_id, name=name, description=tags.to_text(metadata))
        return _GroupSnapshot(made.id, "creating", dict(metadata))

    def get(self, snapshot_id: str) -> _GroupSnapshot:
        return _told(self._inner.get(snapshot_id), [])

    def list(self, search: Mapping[str, Any]) -> list[_GroupSnapshot]:
        found = self._inner.list(detailed=True, search_opts=dict(search))
        ours = [one for one in found if tags.from_text(one.description)]
        members = _members(self._cloud, {}) if ours else []
        return [_told(one, members) for one in ours]

    def delete(self, snapshot_id: str) -> None:
        self._inner.delete(snapshot_id)

    def force_delete(self, snapshot_id: str) -> None:
        if hasattr(self._inner, "reset_state"):
            self._inner.reset_state(snapshot_id, "error")
        self._inner.delete(snapshot_id)

    def set_metadata(self, snapshot_id: str, metadata: Mapping[str, str]) -> None:
        for one in _members(self._cloud, {}):
            if one.group_snapshot_id == snapshot_id:
                self._cloud.cinder.volume_snapshots.set_metadata(one.id, dict(metadata))


@dataclasses.dataclass(frozen=True)
class _GroupSnapshot:
    """A group snapshot with the fields of other resources."""

    id: str
    status: str
    metadata: dict[str, str]
    size: int = 0


GROUP_SNAPSHOT = GroupSnapshotKind("group snapshot", "group_snapshots")
CG_SNAPSHOT = GroupSnapshotKind("consistency group snapshot", "cgsnapshots")


# In the order of removal: what is made of another goes first.
KINDS = {
    kind.name: kind for kind in (resources.VOLUME, GROUP_SNAPSHOT, CG_SNAPSHOT, resources.SNAPSHOT)
}


def _told(one: Any, members: list[Any]) -> _GroupSnapshot:
    """A group snapshot with its tags, whose newest expiry is a member's."""
    found = tags.from_text(one.description)
    if found:
        expiries = [
            int(expiry)
            for other in members
            if other.group_snapshot_id == one.id
            and (expiry := (other.metadata or {}).get(tags.EXPIRES, "")).isdecimal()
        ]
        found[tags.EXPIRES] = str(max([int(found[tags.EXPIRES]), *expiries]))
    return _GroupSnapshot(one.id, one.status, found)


def _members(cloud: Cloud, search: dict[str, Any]) -> list[Any]:
    """Snapshots that are part of group snapshots."""
    if cloud.is_admin:
        search = {**search, "all_tenants": 1}
    found = cloud.call(
        "list the snapshots", cloud.cinder.volume_snapshots.list, detailed=True, search_opts=search
    )
    return [one for one in found if getattr(one, "group_snapshot_id", None)]


def _is_consistent(cloud: Cloud, type_id: str) -> bool | None:
    try:
        found = cloud.call("look at the group type", cloud.cinder.group_types.get, type_id)
    except errors.CloudError:
        return None
    specs = getattr(found, "group_specs", None)
    if specs is None:
        return None
    return str(specs.get(_CONSISTENT, "")).strip().lower() == "<is> true"
