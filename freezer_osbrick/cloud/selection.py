# SPDX-License-Identifier: Apache-2.0
"""The choice of volumes: by id, by project, by group, and what is left out of it."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterator, Mapping
from typing import Any

from freezer_osbrick import errors
from freezer_osbrick.cloud import groups, volumes
from freezer_osbrick.cloud.clients import Cloud
from freezer_osbrick.cloud.groups import Group
from freezer_osbrick.cloud.tags import is_ours
from freezer_osbrick.cloud.volumes import VolumeRecord

# Of a volume in such a state there is nothing to snapshot: not yet, or no more.
_EMPTY_STATES = frozenset(
    (
        "creating",
        "downloading",
        "managing",
        "deleting",
        "error",
        "error_deleting",
        "error_managing",
    )
)


@dataclasses.dataclass(frozen=True)
class Filters:
    """What a chosen volume has to be like; what is None, or empty, does not matter.

    :param name: a pattern of the shell: ``db-*``.
    :param metadata: properties that it must have, with these values.
    :param volume_type: the type's name.
    :param min_size, max_size: in GiB, both included.
    """

    name: str | None = None
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
    volume_type: str | None = None
    availability_zone: str | None = None
    min_size: int | None = None
    max_size: int | None = None

    def check(self) -> None:
        """:raises errors.BadRequest: no volume can be like that."""
        if None not in (self.min_size, self.max_size) and self.min_size > self.max_size:  # type: ignore[operator]
            raise errors.BadRequest(
                f"No volume has at least {self.min_size} and at most {self.max_size} GiB."
            )

    def against(self, record: VolumeRecord) -> str | None:
        """Why a volume is left out; None where nothing speaks against it."""
        if self.name is not None and not fnmatch.fnmatchcase(record.name, self.name):
            return f"Its name {record.name!r} does not match {self.name!r}."
        for key, value in self.metadata.items():
            if record.metadata.get(key) != value:
                has = record.metadata.get(key)
                return (
                    f"It has no property {key}={value}."
                    if has is None
                    else f"Its property {key} is {has!r}, not {value!r}."
                )
        for what, wanted, has in (
            ("type", self.volume_type, record.volume_type),
            ("availability zone", self.availability_zone, record.availability_zone),
        ):
            if wanted is not None and has != wanted:
                return f"Its {what} is {has}, not {wanted}."
        if self.min_size is not None and record.size_gib < self.min_size:
            return f"It has {record.size_gib} GiB, fewer than {self.min_size}."
        if self.max_size is not None and record.size_gib > self.max_size:
            return f"It has {record.size_gib} GiB, more than {self.max_size}."
        return None


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which volumes: one of the five, and the filters.

    :param volume_ids: these.
    :param all_tenant_volumes: all of a project.
    :param all_tenants: all of all projects.
    :param consistency_groups: all of these groups.
    :param project_id: the project; None is that of the credentials.
    :param of_several: those named are what is left of a run over several volumes.
    """

    volume_ids: tuple[str, ...] = ()
    all_tenant_volumes: bool = False
    all_tenants: bool = False
    consistency_groups: tuple[str, ...] = ()
    project_id: str | None = None
    filters: Filters = Filters()
    of_several: bool = False

    def __bool__(self) -> bool:
        """Whether anything is chosen."""
        return bool(self._ways or self.project_id)

    def check(self) -> None:
        """:raises errors.BadRequest: it contradicts itself, or nothing is chosen."""
        ways = self._ways
        if len(ways) > 1:
            raise errors.BadRequest(f"{' and '.join(ways)} choose different volumes: give one.")
        if self.project_id and ways not in ([], ["--all-tenant-volumes"]):
            raise errors.BadRequest(
                f"--project-id chooses the volumes of one project and does not go with {ways[0]}."
            )
        if not self:
            raise errors.BadRequest(
                "No volume is chosen: give --single-volume-id, --all-tenant-volumes, "
                "--consistency-groups or --all-tenants."
            )
        self.filters.check()

    def check_rights(self, cloud: Cloud) -> None:
        """:raises errors.CloudAccessDenied: only an administrator may choose so."""
        if cloud.is_admin:
            return
        if self.all_tenants:
            raise errors.CloudAccessDenied(
                "The volumes of all projects need an administrator's credentials; "
                "--all-tenant-volumes chooses those of your own."
            )
        if self.project_id not in (None, cloud.project_id):
            raise errors.CloudAccessDenied(
                f"The project {self.project_id} is not yours ({cloud.project_id}): its volumes "
                "need its own credentials or an administrator's."
            )

    def project(self, cloud: Cloud) -> str | None:
        """The project whose volumes are chosen; None where it does not matter."""
        if self.all_tenants or self.volume_ids or self.consistency_groups:
            return None
        return self.project_id or cloud.project_id

    @property
    def words(self) -> str:
        """What is chosen, for people."""
        if self.all_tenants:
            return "all projects"
        if self.consistency_groups:
            return f"the group {', '.join(self.consistency_groups)}"
        return f"the project {self.project_id}" if self.project_id else "the project"

    @property
    def _ways(self) -> list[str]:
        given = {
            "--single-volume-id": self.volume_ids,
            "--all-tenant-volumes": self.all_tenant_volumes,
            "--all-tenants": self.all_tenants,
            "--consistency-groups": self.consistency_groups,
        }
        return [option for option, value in given.items() if value]


@dataclasses.dataclass
class Choice:
    """What a selection comes to.

    :param volumes: that are to be backed up.
    :param excluded: that were left out, each with the reason.
    :param missing: ids that were given and are not there, each with the reason.
    :param groups: the groups that are to be frozen together, with the ids of their volumes.
    """

    volumes: list[VolumeRecord] = dataclasses.field(default_factory=list)
    excluded: list[tuple[VolumeRecord, str]] = dataclasses.field(default_factory=list)
    missing: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    groups: list[tuple[Group, list[str]]] = dataclasses.field(default_factory=list)


def choose(cloud: Cloud, selection: Selection) -> Choice:
    """Find the volumes in the cloud. Own temporary ones are never among them.

    :raises errors.BadRequest: the selection contradicts itself, or nothing is there to choose.
    :raises errors.CloudAccessDenied: only an administrator may choose so.
    :raises errors.ResourceMissing: there is no such group.
    """
    selection.check()
    selection.check_rights(cloud)
    choice = Choice()
    for record in _candidates(cloud, selection, choice):
        reason = _against(record, selection)
        if reason is None:
            choice.volumes.append(record)
        else:
            choice.excluded.append((record, reason))
    chosen = {record.id for record in choice.volumes}
    choice.groups = [
        (group, [volume_id for volume_id in members if volume_id in chosen])
        for group, members in choice.groups
    ]
    return choice


def _candidates(cloud: Cloud, selection: Selection, choice: Choice) -> Iterator[VolumeRecord]:
    if selection.volume_ids:
        for volume_id in selection.volume_ids:
            try:
                volume = volumes.get(cloud, volume_id)
            except errors.ResourceMissing as error:
                choice.missing.append((volume_id, str(error)))
                continue
            if is_ours(volume.metadata):
                why = f"Volume {volume_id} is a temporary one, of a backup or restore."
                choice.missing.append((volume_id, why))
            else:
                yield volumes.record_of(cloud, volume)
        return
    if selection.consistency_groups:
        seen: set[str] = set()
        for group_id in dict.fromkeys(selection.consistency_groups):
            group = groups.find(cloud, group_id)
            members = [r for r in _listed(cloud, {"group_id": group_id}) if r.group_id == group_id]
            if not members:
                raise errors.BadRequest(f"The group {group_id} has no volumes.")
            choice.groups.append((group, [record.id for record in members]))
            yield from (record for record in members if record.id not in seen)
            seen.update(record.id for record in members)
        return
    project_id = selection.project(cloud)
    search = {"project_id": project_id} if project_id else {}
    for record in _listed(cloud, search):
        if project_id in (None, record.project_id):
            yield record


def _listed(cloud: Cloud, search: dict[str, Any]) -> Iterator[VolumeRecord]:
    if cloud.is_admin:
        search = {**search, "all_tenants": 1}
    else:
        search = {key: value for key, value in search.items() if key != "project_id"}
    found = cloud.call(
        "list the volumes", cloud.cinder.volumes.list, detailed=True, search_opts=search
    )
    for volume in found:
        if not is_ours(volume.metadata):
            yield volumes.record_of(cloud, volume)


def _against(record: VolumeRecord, selection: Selection) -> str | None:
    if record.status in _EMPTY_STATES:
        return f"Its state is {record.status!r}."
    return selection.filters.against(record)
