# SPDX-License-Identifier: Apache-2.0
"""What the next backup of a volume builds upon."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from freezer_osbrick.cloud.volumes import VolumeRecord
from freezer_osbrick.operations.levels import Levels
from freezer_osbrick.repository.catalogue import Backup


@dataclasses.dataclass(frozen=True)
class Plan:
    """:param level: Freezer's number for it; 0 is a full backup.
    :param parent: what it holds at the same place is not stored again; None stores everything.
    :param first: whether this is the volume's very first backup.
    """

    level: int
    parent: Backup | None
    first: bool = False


def plan(
    backups: Sequence[Backup],
    record: VolumeRecord,
    levels: Levels,
    *,
    backup_name: str,
    hostname: str,
    now: float,
) -> Plan:
    """Choose level and parent.

    An incremental backup builds on the newest backup of the volume, whatever its name. A full one
    builds on nothing, so that damage to older ones does not reach it; but a volume's very first
    builds on its newest relative: a volume of the same project that was made from the same image,
    snapshot or volume, the volume that it was made from, or one that was made from it.

    :param backups: usable ones of the repository, oldest first.
    :param now: seconds since the epoch.
    """
    of_volume = [backup for backup in backups if backup.volume_id == record.id]
    series = [
        backup
        for backup in of_volume
        if (backup.head["name"], backup.head["hostname"]) == (backup_name, hostname)
    ]
    level = levels.next(series, now)
    if level:
        return Plan(level, of_volume[-1])
    if of_volume:
        return Plan(0, None)
    relatives = [backup for backup in backups if _related(record, backup)]
    return Plan(0, relatives[-1] if relatives else None, first=True)


def _related(record: VolumeRecord, backup: Backup) -> bool:
    other = backup.head["volume"]
    if other.get("project_id") != record.project_id:
        return False  # else a project could find out what others have stored
    same_image = record.image_id and record.image_id == other.get("image_id")
    same_snapshot = record.snapshot_id and record.snapshot_id == other.get("snapshot_id")
    same_source = record.source_volume_id and record.source_volume_id in (
        other.get("source_volume_id"),
        backup.volume_id,
    )
    made_of_it = record.id == other.get("source_volume_id")
    return bool(same_image or same_snapshot or same_source or made_of_it)
