# SPDX-License-Identifier: Apache-2.0
"""Which volumes a run is about: those in the cloud for a backup, those in the repository for a
restore."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

from freezer_osbrick import errors
from freezer_osbrick.cloud import selection as selecting
from freezer_osbrick.cloud.clients import Cloud
from freezer_osbrick.cloud.selection import Choice, Filters, Selection
from freezer_osbrick.cloud.volumes import VolumeRecord
from freezer_osbrick.operations import report
from freezer_osbrick.operations.context import Context
from freezer_osbrick.operations.report import RunReport, VolumeReport
from freezer_osbrick.repository.catalogue import Backup

__all__ = [
    "Choice",
    "Filters",
    "Selection",
    "again",
    "backups_of",
    "begin",
    "filters",
    "volumes_of",
]


def filters(
    *,
    name: str | None = None,
    metadata: Iterable[str] = (),
    volume_type: str | None = None,
    availability_zone: str | None = None,
    size: str | None = None,
) -> Filters:
    """Filters as people write them.

    :param metadata: ``key=value`` each.
    :param size: in GiB: ``10``, ``10-200``, ``10-`` or ``-200``.
    :raises errors.BadRequest: one of them makes no sense.
    """
    properties = {}
    for word in metadata:
        key, sign, value = word.partition("=")
        if not (sign and key):
            raise errors.BadRequest(f"{word!r} is no property: give --only-metadata KEY=VALUE.")
        properties[key] = value
    smallest, largest = _sizes(size)
    made = Filters(name, properties, volume_type, availability_zone, smallest, largest)
    made.check()
    return made


def again(selection: Selection, path: str) -> Selection:
    """The selection for a second try of what a run did not finish.

    :param path: of the run's report.

    :raises errors.BadRequest: others are chosen beside it, it is no report, or all is done.
    """
    if selection:
        raise errors.BadRequest("Choose volumes or give --retry-failed, not both.")
    rest = report.not_done(path)
    return dataclasses.replace(selection, volume_ids=rest.volume_ids, of_several=rest.of_several)


def _sizes(text: str | None) -> tuple[int | None, int | None]:
    if text is None:
        return None, None
    found = re.fullmatch(r"\s*(\d*)\s*(-?)\s*(\d*)\s*(?:GiB)?\s*", text, re.ASCII)
    if not found or not (found[1] or found[3]):
        raise errors.BadRequest(f"{text!r} is no size: give --only-size 10, 10-200, 10- or -200.")
    if not found[2]:
        return int(found[1]), int(found[1])
    return (
        int(found[1]) if found[1] else None,
        int(found[3]) if found[3] else None,
    )


def volumes_of(cloud: Cloud, selection: Selection) -> Choice:
    """The volumes of the cloud that are chosen.

    :raises errors.BadRequest: nothing is left to be backed up, or the selection makes no sense.
    :raises errors.CloudError: it needs other credentials, or names a group that is not there.
    """
    choice = selecting.choose(cloud, selection)
    if not choice.volumes and not choice.missing:
        raise _nothing("back up", selection, choice)
    return choice


def backups_of(
    context: Context, found: Iterable[Backup], selection: Selection, *, lacking: str
) -> Choice:
    """The volumes of a repository that are chosen, as they were when backed up.

    Where they are named, or those of a group, no cloud is asked.

    :param found: the backup of each volume that may be restored.
    :param lacking: of a volume that is named and not there, a sentence up to its id.
    :raises errors.BadRequest: nothing is left to be restored, or the selection makes no sense.
    :raises errors.CloudAccessDenied: it needs an administrator's credentials.
    """
    selection.check()
    project_id = None
    if selection.all_tenants or selection.all_tenant_volumes or selection.project_id:
        selection.check_rights(context.cloud)
        project_id = selection.project(context.cloud)
    newest = {backup.volume_id: backup for backup in found}
    choice = Choice()
    for volume_id in selection.volume_ids:
        if volume_id not in newest:
            choice.missing.append((volume_id, f"{lacking} {volume_id}."))
    for volume_id, backup in newest.items():
        record = VolumeRecord.from_dict(backup.head["volume"])
        if (
            (selection.volume_ids and volume_id not in selection.volume_ids)
            or (
                selection.consistency_groups and record.group_id not in selection.consistency_groups
            )
            or project_id not in (None, record.project_id)
        ):
            continue
        reason = selection.filters.against(record)
        if reason is None:
            choice.volumes.append(record)
        else:
            choice.excluded.append((record, reason))
    if not choice.volumes and not choice.missing:
        raise _nothing("restore", selection, choice)
    return choice


def begin(choice: Choice, path: str | None, *, of_several: bool = False) -> RunReport:
    """The report of a run that begins: what is chosen waits, the rest stands there with reasons.

    :param path: where the report is kept while the run goes on.
    :param of_several: whether it is about several volumes, or what was left of such a run.
    """
    waiting = [_of(record) for record in choice.volumes]
    missing = [
        VolumeReport(volume_id, state=report.ERROR, reason=reason)
        for volume_id, reason in choice.missing
    ]
    excluded = [
        _of(record, state=report.EXCLUDED, reason=reason) for record, reason in choice.excluded
    ]
    return RunReport([*waiting, *missing, *excluded], path, of_several)


def _of(
    record: VolumeRecord, state: str = report.WAITING, reason: str | None = None
) -> VolumeReport:
    return VolumeReport(
        record.id,
        volume_name=record.name,
        project_id=record.project_id,
        volume_type=record.volume_type,
        size_gib=record.size_gib,
        state=state,
        reason=reason,
    )


def _nothing(verb: str, selection: Selection, choice: Choice) -> errors.BadRequest:
    if not choice.excluded:
        return errors.BadRequest(f"There is nothing to {verb}: no volume of {selection.words}.")
    shown = "; ".join(f"{record.id}: {reason}" for record, reason in choice.excluded[:5])
    more = f" And {len(choice.excluded) - 5} more." if len(choice.excluded) > 5 else ""
    return errors.BadRequest(
        f"There is nothing to {verb}: all {len(choice.excluded)} volumes are left out. "
        f"{shown}{more}"
    )
