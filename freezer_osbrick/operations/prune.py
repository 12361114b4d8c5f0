# SPDX-License-Identifier: Apache-2.0
"""Pruning: removing the backups that no retention rule keeps."""

from __future__ import annotations

import dataclasses
from typing import Any

from freezer_osbrick.operations.catalogue import BackupSummary, matching, summary
from freezer_osbrick.operations.context import Context
from freezer_osbrick.operations.removal import carry_out
from freezer_osbrick.repository.retention import Rules

KEEP, DELETE = "keep", "delete"


@dataclasses.dataclass(frozen=True)
class PruneRequest:
    """What to keep, and of which backups.

    :param keep_last: so many newest backups of each volume.
    :param keep_hourly, keep_daily, keep_weekly, keep_monthly, keep_yearly: the newest one of so
        many hours, days, … in UTC.
    :param keep_within: all that are at most so many seconds old.
    :param keep_after: all that were made later than this, in seconds since the epoch.
    :param by_series: count backups of one volume apart that have another backup name or host name.
    """

    keep_last: int = 0
    keep_hourly: int = 0
    keep_daily: int = 0
    keep_weekly: int = 0
    keep_monthly: int = 0
    keep_yearly: int = 0
    keep_within: float | None = None
    keep_after: float | None = None
    by_series: bool = False
    volume_id: str | None = None
    backup_name: str | None = None
    hostname: str | None = None
    project_id: str | None = None

    @property
    def rules(self) -> Rules:
        """:raises errors.BadRequest: nothing is to be kept, or less."""
        rules = {field.name for field in dataclasses.fields(Rules)}
        given = dataclasses.asdict(self).items()
        kept = {name.removeprefix("keep_"): value for name, value in given}
        return Rules(**{name: value for name, value in kept.items() if name in rules})


@dataclasses.dataclass(frozen=True)
class PruneLine:
    """What becomes, or became, of one backup.

    :param action: ``keep`` or ``delete``.
    """

    backup: BackupSummary
    action: str
    reasons: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        told = {"action": self.action, **self.backup.to_dict()}
        return {**told, "reasons": list(self.reasons)}


def prune(
    context: Context, url: str, request: PruneRequest, *, dry_run: bool = False
) -> list[PruneLine]:
    """Remove the backups that no rule keeps; garbage collection gives their space back.

    :returns: a line for each backup that the request is about, oldest first, kept or deleted. A dry
        run returns exactly what the real one does.
    :raises errors.StoreAccessDenied: the credentials may not delete.
    """
    rules = request.rules
    repository = context.open_repository(url)
    fits = matching([request.volume_id], request.backup_name, request.hostname, request.project_id)
    return [
        PruneLine(
            summary(decision.backup, condition),
            KEEP if decision.keep else DELETE,
            decision.reasons,
        )
        for decision, condition in carry_out(
            repository, rules, fits, by_series=request.by_series, dry_run=dry_run
        )
    ]
