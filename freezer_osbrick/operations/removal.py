# SPDX-License-Identifier: Apache-2.0
"""Removing backups by rules. Pruning and Freezer's removal by age both end here."""

from __future__ import annotations

from oslo_log import log

from freezer_osbrick import errors
from freezer_osbrick.repository import catalogue, retention, verifications
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository.catalogue import Backup
from freezer_osbrick.repository.repository import Repository
from freezer_osbrick.repository.retention import Decision, Findings, Rules

LOG = log.getLogger(__name__)


def carry_out(
    repository: Repository,
    rules: Rules,
    chosen: catalogue.Condition,
    *,
    by_series: bool = False,
    dry_run: bool = False,
) -> list[tuple[Decision, verifications.Condition]]:
    """Decide on the chosen backups and remove those that are not kept, oldest first.

    :returns: of each chosen backup what was decided, and what verifications say of it.
    :raises errors.StoreAccessDenied: the credentials may not delete.
    """
    backups = catalogue.backups(repository)
    known = verifications.read(repository)
    conditions = {
        backup_id: verifications.condition_of(several.values())
        for backup_id, several in known.items()
    }
    findings = Findings(
        damaged={name for name, state in conditions.items() if state.damage},
        verified={name for name, state in conditions.items() if state.verified is not None},
        stored={
            info.name.removeprefix(form.MANIFESTS): info.modified
            for info in repository.store.list(form.MANIFESTS)
        },
    )
    decisions = retention.decide(
        backups,
        rules,
        now=repository.store.now(),
        findings=findings,
        chosen=chosen,
        by_series=by_series,
    )
    if not dry_run:
        _remove(repository, [decision.backup for decision in decisions if not decision.keep])
        _tidy(repository, known)
    unknown = verifications.Condition()
    return [(decision, conditions.get(decision.backup.id, unknown)) for decision in decisions]


def _remove(repository: Repository, backups: list[Backup]) -> None:
    for number, backup in enumerate(backups):
        try:
            catalogue.remove(repository, backup)
        except errors.StoreAccessDenied as error:
            raise errors.StoreAccessDenied(
                f"{number} of {len(backups)} backups were removed: these credentials may not"
                f" delete, use those of the repository's maintenance. ({error})"
            ) from error
        LOG.info("Backup %s of volume %s is removed.", backup.id, backup.volume_id)


def _tidy(repository: Repository, known: dict[str, dict[str, verifications.Verification]]) -> None:
    try:
        verifications.tidy(repository, known)
    except errors.StoreAccessDenied as error:
        LOG.info("Superseded verifications stay: %s", error)
