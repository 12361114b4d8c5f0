# SPDX-License-Identifier: Apache-2.0
"""Listing, showing and removing backups."""

from __future__ import annotations

import dataclasses
from typing import Any

from freezer_osbrick import errors
from freezer_osbrick.operations.context import Context
from freezer_osbrick.repository import catalogue
from freezer_osbrick.repository.catalogue import Backup


@dataclasses.dataclass(frozen=True)
class BackupSummary:
    """A backup in a listing.

    :param time_stamp: seconds since the epoch, when the volume was frozen.
    :param size: bytes of the volume.
    :param bytes_stored: that this backup put into the repository.
    """

    backup_id: str
    time_stamp: int
    level: int
    volume_id: str
    volume_name: str | None
    project_id: str | None
    size: int
    bytes_stored: int
    backup_name: str
    hostname: str

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class BackupDetail:
    """All that is recorded about a backup."""

    summary: BackupSummary
    head: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        told = self.summary.to_dict()
        for key in ("parent", "mode", "content", "agent", "bytes", "volume"):
            told[key] = self.head.get(key)
        return told


def list_backups(
    context: Context,
    url: str,
    *,
    volume_id: str | None = None,
    backup_name: str | None = None,
    hostname: str | None = None,
    project_id: str | None = None,
) -> list[BackupSummary]:
    """The complete backups in a repository that answer to all that is given, oldest first."""
    repository = context.open_repository(url)
    chosen = catalogue.backups(repository, matching([volume_id], backup_name, hostname, project_id))
    return [_summary(backup) for backup in chosen]


def show_backup(context: Context, url: str, backup_id: str) -> BackupDetail:
    """One backup.

    :param backup_id: or its first characters.
    :raises errors.BackupMissing: there is none.
    """
    backup = catalogue.find(context.open_repository(url), backup_id)
    return BackupDetail(_summary(backup), backup.head)


def remove_backups(
    context: Context,
    url: str,
    *,
    before: int,
    backup_name: str | None = None,
    hostname: str | None = None,
    volume_id: str | None = None,
    dry_run: bool = False,
) -> list[BackupSummary]:
    """Remove the backups made at ``before`` (seconds since the epoch) or earlier.

    Every backup that stays can be restored as before.

    :returns: those that were, or with ``dry_run`` would be, removed.
    """
    try:
        repository = context.open_repository(url)
    except errors.RepositoryMissing:
        return []
    fits = matching([volume_id], backup_name, hostname)
    doomed = catalogue.backups(repository, lambda b: b.time <= before and fits(b))
    for backup in doomed:
        if not dry_run:
            catalogue.remove(repository, backup)
    return [_summary(backup) for backup in doomed]


def matching(
    volume_ids: list[str | None] | tuple[str, ...] = (),
    backup_name: str | None = None,
    hostname: str | None = None,
    project_id: str | None = None,
) -> catalogue.Condition:
    """The condition that a backup answers to all that is given."""
    wanted = {volume_id for volume_id in volume_ids if volume_id}

    def condition(backup: Backup) -> bool:
        head = backup.head
        return (
            (not wanted or backup.volume_id in wanted)
            and backup_name in (None, head["name"])
            and hostname in (None, head["hostname"])
            and project_id in (None, head["volume"].get("project_id"))
        )

    return condition


def _summary(backup: Backup) -> BackupSummary:
    head = backup.head
    return BackupSummary(
        backup_id=backup.id,
        time_stamp=backup.time,
        level=backup.level,
        volume_id=backup.volume_id,
        volume_name=head["volume"].get("name"),
        project_id=head["volume"].get("project_id"),
        size=backup.size,
        bytes_stored=head["bytes"]["stored"],
        backup_name=head["name"],
        hostname=head["hostname"],
    )
