# SPDX-License-Identifier: Apache-2.0
"""Verifying backups: reading their blocks, and recording what was found."""

from __future__ import annotations

import dataclasses
from typing import Any

from oslo_log import log

from freezer_osbrick import errors
from freezer_osbrick.operations.catalogue import matching
from freezer_osbrick.operations.context import Context
from freezer_osbrick.pipeline.progress import Listener, Progress
from freezer_osbrick.pipeline.verify import BackupVerifier, Finding
from freezer_osbrick.repository import catalogue, verifications
from freezer_osbrick.repository.catalogue import Backup
from freezer_osbrick.repository.leases import Lease
from freezer_osbrick.repository.repository import Repository
from freezer_osbrick.repository.verifications import Condition, Verification

LOG = log.getLogger(__name__)

OK, DAMAGED = "ok", "damaged"


@dataclasses.dataclass(frozen=True)
class VerifyRequest:
    """Which backups to verify, and how much of them.

    :param backup_ids: these, or their first characters; none stands for all.
    :param share: of the stored blocks of each backup: 1.0 for all. The blocks of a smaller share
        are chosen at random, at least 64 of each backup.
    :param not_verified_for: only backups of which as much was not read for so many seconds, on the
        store's clock.
    """

    backup_ids: tuple[str, ...] = ()
    volume_id: str | None = None
    backup_name: str | None = None
    hostname: str | None = None
    project_id: str | None = None
    share: float = 1.0
    not_verified_for: float | None = None


@dataclasses.dataclass(frozen=True)
class VerifiedBackup:
    """What was found of one backup.

    :param state: ``ok`` or ``damaged``.
    :param share: of its stored blocks that were read.
    :param blocks: stored blocks that were read, also where another backup shares them.
    :param bytes_stored: of them, in the store.
    :param lost_bytes: of the volume, that cannot be restored; None where not even that is known.
    :param ranges: ``[offset, length]`` in bytes of the volume that cannot be restored.
    :param reasons: what is wrong, a sentence each.
    """

    backup_id: str
    state: str
    time_stamp: int | None = None
    volume_id: str | None = None
    volume_name: str | None = None
    project_id: str | None = None
    share: float | None = None
    blocks: int = 0
    bytes_stored: int = 0
    lost_bytes: int | None = 0
    ranges: list[list[int]] = dataclasses.field(default_factory=list)
    reasons: list[str] = dataclasses.field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass
class VerifyReport:
    """A verification of a repository.

    :param bytes_read: from the store, for blocks; what several backups share is read once.
    """

    backups: list[VerifiedBackup]
    bytes_read: int = 0

    @property
    def ok(self) -> bool:
        return all(backup.state == OK for backup in self.backups)

    def to_dict(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "bytes_read": self.bytes_read,
            "backups": [backup.to_dict() for backup in self.backups],
        }


def verify(
    context: Context, url: str, request: VerifyRequest, progress: Listener | None = None
) -> VerifyReport:
    """Read the stored blocks of backups, check each, and record in the repository what was found.

    Backups whose manifests cannot be read are damaged, too; they are in the report unless the
    request names backups or says whose.

    :raises errors.BackupMissing: a backup that is named does not exist.
    :raises errors.StoreError: the store failed, which says nothing about backups; those that were
        done by then are recorded.
    """
    if not 0 < request.share <= 1:
        raise errors.BadRequest("The share of blocks to verify lies above 0 and is at most 100 %.")
    repository = context.open_repository(url)
    report = VerifyReport([])
    with Lease(repository, "verify", needed=False):
        chosen, unreadable = _choose(repository, request)
        report.backups += [
            VerifiedBackup(backup_id, DAMAGED, lost_bytes=None, reasons=[reason])
            for backup_id, reason in unreadable.items()
        ]
        verifier = BackupVerifier(
            repository,
            chosen,
            share=request.share,
            threads=context.conf.osbrick.workers,
            progress=Progress("backups", progress),
        )
        for finding in verifier.run():
            record(repository, finding)
            report.backups.append(_told(finding))
        report.bytes_read = verifier.fetched
    order = {backup.id: number for number, backup in enumerate(chosen)}
    report.backups.sort(key=lambda backup: order.get(backup.backup_id, -1))
    return report


def record(repository: Repository, finding: Finding) -> None:
    """Write down what was found; a warning says where that is not allowed."""
    verification = Verification(
        backup=finding.backup.id,
        time=repository.store.now(),
        share=finding.share,
        ranges=tuple(finding.ranges),
        lost=finding.lost,
        reason=finding.reasons[0] if finding.reasons else "",
    )
    try:
        verifications.add(repository, verification)
    except (errors.StoreAccessDenied, errors.StoreFull) as error:
        LOG.warning("That backup %s was verified is not recorded: %s", finding.backup.id, error)


def _choose(repository: Repository, request: VerifyRequest) -> tuple[list[Backup], dict[str, str]]:
    """The backups to read, and those of which not even the head can be read."""
    unreadable: dict[str, str] = {}
    if request.backup_ids:
        named = [catalogue.find(repository, text) for text in request.backup_ids]
        backups = list({backup.id: backup for backup in named}.values())
    else:
        backups, unreadable = catalogue.survey(repository)
    filters = (request.backup_name, request.hostname, request.project_id)
    fits = matching([request.volume_id], *filters)
    if request.volume_id or any(filters):
        unreadable = {}
    backups = [backup for backup in backups if fits(backup)]
    if request.not_verified_for is None:
        return backups, unreadable
    conditions = verifications.conditions(repository, {backup.id for backup in backups})
    before = repository.store.now() - request.not_verified_for
    whole = request.share >= 1
    never = Condition()
    due = [
        backup
        for backup in backups
        if _last_read(conditions.get(backup.id, never), whole) <= before
    ]
    return due, unreadable


def _last_read(condition: Condition, whole: bool) -> float:
    """When as much of a backup was last read; long ago for never."""
    moments = [condition.verified if whole else condition.sampled]
    if condition.damage and (condition.damage.whole or not whole):
        moments.append(condition.damage.time)
    return max((moment for moment in moments if moment is not None), default=float("-inf"))


def _told(finding: Finding) -> VerifiedBackup:
    backup = finding.backup
    volume = backup.head["volume"]
    return VerifiedBackup(
        backup_id=backup.id,
        state=DAMAGED if finding.damaged else OK,
        time_stamp=backup.time,
        volume_id=backup.volume_id,
        volume_name=volume.get("name"),
        project_id=volume.get("project_id"),
        share=finding.share,
        blocks=finding.blocks,
        bytes_stored=finding.stored,
        lost_bytes=finding.lost,
        ranges=[list(pair) for pair in finding.ranges],
        reasons=list(finding.reasons),
    )
