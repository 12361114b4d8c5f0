# SPDX-License-Identifier: Apache-2.0
"""Listing, showing and removing backups."""

from __future__ import annotations

import dataclasses
from typing import Any

from oslo_log import log

from freezer_osbrick import errors
from freezer_osbrick.operations.context import Context
from freezer_osbrick.operations.removal import carry_out
from freezer_osbrick.repository import catalogue, verifications
from freezer_osbrick.repository.catalogue import Backup
from freezer_osbrick.repository.retention import Rules
from freezer_osbrick.repository.verifications import Condition

LOG = log.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class BackupSummary:
    """A backup in a listing.

    :param time_stamp: seconds since the epoch, when the volume was frozen.
    :param size: bytes of the volume.
    :param bytes_stored: that this backup put into the repository.
    :param state: what verifications have shown: ``verified`` (all blocks read), ``sampled`` (some),
        ``damaged``, or ``unverified`` where there was none.
    :param verified: when it was last read whole and found undamaged, in seconds on the store's
        clock.
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
    state: str = "unverified"
    verified: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class BackupDetail:
    """All that is recorded about a backup."""

    summary: BackupSummary
    head: dict[str, Any]
    condition: Condition = dataclasses.field(default_factory=Condition)

    def to_dict(self) -> dict[str, Any]:
        told = self.summary.to_dict()
        for key in ("parent", "mode", "content", "instant", "agent", "bytes", "volume"):
            told[key] = self.head.get(key)
        if "files" in self.head:
            told["files"] = self.head["files"]
        told["sampled"] = self.condition.sampled
        damage = self.condition.damage
        told["damage"] = damage and {
            "found": damage.time,
            "reason": damage.reason,
            "lost_bytes": damage.lost,
            "ranges": [list(pair) for pair in damage.ranges],
        }
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
    conditions = verifications.conditions(repository, {backup.id for backup in chosen})
    return [summary(backup, conditions.get(backup.id)) for backup in chosen]


def show_backup(context: Context, url: str, backup_id: str) -> BackupDetail:
    """One backup.

    :param backup_id: or its first characters.
    :raises errors.BackupMissing: there is none.
    """
    repository = context.open_repository(url)
    backup = catalogue.find(repository, backup_id)
    condition = verifications.condition(repository, backup.id)
    return BackupDetail(summary(backup, condition), backup.head, condition)


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

    Every backup that stays can be restored as before. The newest backup of a volume stays, however
    old it is, and so do its newest undamaged and its newest verified one; a warning names each of
    them.

    :returns: those that were, or with ``dry_run`` would be, removed.
    :raises errors.StoreAccessDenied: the credentials may not delete.
    """
    try:
        repository = context.open_repository(url)
    except errors.RepositoryMissing:
        return []
    fits = matching([volume_id], backup_name, hostname)
    removed = []
    for decision, condition in carry_out(
        repository,
        Rules(after=before),
        lambda backup: backup.time <= before and fits(backup),
        dry_run=dry_run,
    ):
        if not decision.keep:
            removed.append(summary(decision.backup, condition))
            continue
        LOG.warning(
            "Backup %s of volume %s stays, though it is old: %s.",
            decision.backup.id,
            decision.backup.volume_id,
            ", ".join(decision.reasons),
        )
    return removed


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


def summary(backup: Backup, condition: Condition | None = None) -> BackupSummary:
    """What a listing says of a backup, and of what verifications have shown."""
    head = backup.head
    condition = condition or Condition()
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
        state=condition.word,
        verified=condition.verified,
    )
