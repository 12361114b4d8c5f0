# SPDX-License-Identifier: Apache-2.0
"""What a repository uses, by volume and by backup."""

from __future__ import annotations

import dataclasses
from typing import Any

from oslo_log import log

from freezer_osbrick.operations.context import Context
from freezer_osbrick.repository import usage
from freezer_osbrick.repository.usage import Amounts, BackupUsage, VolumeUsage

LOG = log.getLogger(__name__)

BACKUP, VOLUME, TOTAL = "backup", "volume", "total"


@dataclasses.dataclass(frozen=True)
class UsageLine:
    """What a backup, a volume or all of the repository uses. Amounts in bytes.

    :param of: ``backup``, ``volume`` or ``total``.
    :param backups: how many.
    :param size: of the volume, at its newest backup; of all volumes.
    :param live: of blocks and maps that are needed, counted for each backup.
    :param referenced: of the packs that are needed.
    :param unique: of the packs that nothing else needs.
    :param shared: of the packs that others need, too.
    :param frees: what deletion and garbage collection would give back.
    :param stored: of everything that is in packs and manifests now; only of the total.
    :param unneeded: of packs that no backup needs; only of the total.
    """

    of: str
    backups: int
    size: int
    live: int
    referenced: int
    unique: int
    shared: int
    frees: int
    volume_id: str | None = None
    volume_name: str | None = None
    project_id: str | None = None
    backup_id: str | None = None
    time_stamp: int | None = None
    stored: int | None = None
    unneeded: int | None = None

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def stats(
    context: Context, url: str, *, volume_id: str | None = None, by_backup: bool = False
) -> list[UsageLine]:
    """A line for each volume, with ``by_backup`` also for each of its backups before it, and one in
    total.

    :param volume_id: leave out the other volumes, though they count in what is shared.
    """
    measured = usage.measure(context.open_repository(url))
    for backup_id, reason in measured.unreadable.items():
        LOG.warning(
            "What backup %s needs is not known, so that less may be freed: %s", backup_id, reason
        )
    lines: list[UsageLine] = []
    for volume in measured.volumes:
        if volume_id in (None, volume.volume_id):
            lines += [_of_backup(used) for used in volume.backups] if by_backup else []
            lines.append(_of_volume(volume))
    lines.append(_total(measured))
    return lines


def _of_backup(used: BackupUsage) -> UsageLine:
    backup = used.backup
    volume = backup.head["volume"]
    return UsageLine(
        of=BACKUP,
        backups=1,
        size=backup.size,
        volume_id=backup.volume_id,
        volume_name=volume.get("name"),
        project_id=volume.get("project_id"),
        backup_id=backup.id,
        time_stamp=backup.time,
        **_amounts(used.amounts),
    )


def _of_volume(volume: VolumeUsage) -> UsageLine:
    record = volume.newest.head["volume"]
    return UsageLine(
        of=VOLUME,
        backups=len(volume.backups),
        size=volume.newest.size,
        volume_id=volume.volume_id,
        volume_name=record.get("name"),
        project_id=record.get("project_id"),
        **_amounts(volume.amounts),
    )


def _total(measured: usage.Usage) -> UsageLine:
    return UsageLine(
        of=TOTAL,
        backups=sum(len(volume.backups) for volume in measured.volumes),
        size=sum(volume.newest.size for volume in measured.volumes),
        live=sum(volume.amounts.live for volume in measured.volumes),
        referenced=measured.needed,
        unique=measured.needed,
        shared=0,
        frees=measured.stored + measured.manifests,
        stored=measured.stored + measured.manifests,
        unneeded=measured.unneeded,
    )


def _amounts(amounts: Amounts) -> dict[str, Any]:
    return {
        "live": amounts.live,
        "referenced": amounts.referenced,
        "unique": amounts.unique,
        "shared": amounts.shared,
        "frees": amounts.frees,
    }
