# SPDX-License-Identifier: Apache-2.0
"""Repairing a repository."""

from __future__ import annotations

import dataclasses
from typing import Any

from oslo_log import log

from freezer_osbrick import errors
from freezer_osbrick.operations.context import Context
from freezer_osbrick.operations.verify import record
from freezer_osbrick.pipeline.check import RepositoryChecker
from freezer_osbrick.pipeline.progress import Listener, Progress
from freezer_osbrick.pipeline.repair import BackupRepairer, Repair
from freezer_osbrick.pipeline.verify import BackupVerifier, Finding
from freezer_osbrick.repository import catalogue, verifications
from freezer_osbrick.repository.catalogue import Backup
from freezer_osbrick.repository.leases import Lease
from freezer_osbrick.repository.repository import Repository

LOG = log.getLogger(__name__)

OK, REPAIRED, DAMAGED, UNREADABLE = "ok", "repaired", "damaged", "unreadable"


@dataclasses.dataclass(frozen=True)
class RepairedBackup:
    """What became of one backup that was not as it should be.

    :param state: ``ok``, nothing is wrong with it any more; ``repaired``, all of it can be restored
        again; ``damaged``, some cannot; ``unreadable``, not even its head can be read.
    :param maps: chunk maps that were found elsewhere or made anew.
    :param blocks: blocks that were found elsewhere.
    :param moved: blocks and maps that were moved out of packs that are not as they should be.
    :param rewritten: whether its manifest was written anew.
    :param lost_bytes: of the volume, that cannot be restored; None where not even that is known.
    :param ranges: ``[offset, length]`` in bytes of the volume that cannot be restored.
    :param reasons: why, a sentence each.
    """

    backup_id: str
    state: str
    time_stamp: int | None = None
    volume_id: str | None = None
    volume_name: str | None = None
    project_id: str | None = None
    maps: int = 0
    blocks: int = 0
    moved: int = 0
    rewritten: bool = False
    lost_bytes: int | None = 0
    ranges: list[list[int]] = dataclasses.field(default_factory=list)
    reasons: list[str] = dataclasses.field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass
class RepairReport:
    """:param sound: how many backups there was nothing to do for.
    :param problems: what is wrong with no single backup, a sentence each; it is left as it is.
    """

    backups: list[RepairedBackup]
    sound: int = 0
    problems: list[str] = dataclasses.field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every backup can be restored now."""
        whole = all(backup.state in (OK, REPAIRED) for backup in self.backups)
        return whole and not self.problems


def repair(
    context: Context, url: str, *, dry_run: bool = False, progress: Listener | None = None
) -> RepairReport:
    """Repair the backups that the check of the structure, or a verification, finds wrong.

    Each of them is read whole. What it lacks is looked for by its id in all packs; what proves to
    be it is used. What is lost for good is recorded, so that the backup counts as damaged.

    :param dry_run: change and record nothing, and say what would be done.
    :raises errors.StoreError: the store failed or refuses; what was repaired by then is whole.
    :raises errors.BadRequest: the store cannot replace an object in one step.
    :raises errors.LeaseLost: this run was out of touch with the store for too long.
    """
    repository = context.open_repository(url)
    if not (dry_run or repository.store.capabilities.atomic_replace):
        raise errors.BadRequest(
            f"The store at {repository.store.url} cannot replace an object in one step, so that a"
            " repair that dies could lose a backup: copy the repository to another store and"
            " repair it there (a dry run says here what would be done)."
        )
    report = RepairReport([])
    shown = Progress("backups", progress)
    threads = context.conf.osbrick.workers
    with Lease(repository, "repair", needed=not dry_run) as lease:
        checker = RepositoryChecker(repository, threads=threads, progress=shown)
        problems = checker.run()
        report.problems = [problem.text for problem in problems if problem.backup is None]
        suspects = {problem.backup for problem in problems}
        conditions = verifications.conditions(repository)
        suspects |= {name for name, known in conditions.items() if known.damage}
        backups, unreadable = catalogue.survey(repository)
        for backup_id, reason in unreadable.items():
            told = RepairedBackup(backup_id, UNREADABLE, lost_bytes=None, reasons=[reason])
            report.backups.append(told)
        repairer = BackupRepairer(
            repository,
            lease,
            broken=checker.broken,
            sizes=checker.sizes,
            threads=threads,
            progress=shown,
            dry_run=dry_run,
        )
        todo = [backup for backup in backups if backup.id in suspects]
        report.sound = len(backups) - len(todo)
        done: dict[str, Repair] = {}
        while todo:
            spares = repairer.spares
            for backup in todo:
                try:
                    repaired = _repair(repository, repairer, backup, threads, shown)
                except errors.BackupMissing:
                    LOG.info("Backup %s was removed meanwhile.", backup.id)
                    continue
                if not dry_run:
                    _record(repository, repaired)
                    repaired = _added(done.get(backup.id), repaired)
                done[backup.id] = repaired
            # What a later one knew of broken packs may be what an earlier one lacks.
            todo = [backup for backup in todo if backup.id in done and done[backup.id].ranges]
            if repairer.spares == spares:
                break
        report.backups += [_told(repaired) for repaired in done.values()]
    return report


def _added(before: Repair | None, now: Repair) -> Repair:
    """What two attempts at one backup have done together."""
    if before is None:
        return now
    return dataclasses.replace(
        now,
        maps=before.maps + now.maps,
        blocks=before.blocks + now.blocks,
        moved=before.moved + now.moved,
        index=before.index or now.index,
        rewritten=before.rewritten or now.rewritten,
    )


def _repair(
    repository: Repository,
    repairer: BackupRepairer,
    backup: Backup,
    threads: int,
    progress: Progress,
) -> Repair:
    try:
        return repairer.run(backup)
    except errors.Damaged as error:
        LOG.warning("Backup %s is left as it is: %s", backup.id, error)
    # Its manifest is beyond repair: say what can still be restored with it.
    verifier = BackupVerifier(repository, [backup], threads=threads, progress=progress)
    for finding in verifier.run():
        return Repair(backup, ranges=finding.ranges, reasons=finding.reasons)
    raise errors.BackupMissing(f"There is no backup {backup.id}.")


def _record(repository: Repository, done: Repair) -> None:
    """Write down what is lost, or that nothing is: every block was read."""
    record(repository, Finding(done.backup, ranges=done.ranges, reasons=done.reasons))


def _told(done: Repair) -> RepairedBackup:
    backup = done.backup
    volume = backup.head["volume"]
    state = DAMAGED if done.ranges else REPAIRED if done.rewritten else OK
    return RepairedBackup(
        backup_id=backup.id,
        state=state,
        time_stamp=backup.time,
        volume_id=backup.volume_id,
        volume_name=volume.get("name"),
        project_id=volume.get("project_id"),
        maps=done.maps,
        blocks=done.blocks,
        moved=done.moved,
        rewritten=done.rewritten,
        lost_bytes=done.lost,
        ranges=[list(pair) for pair in done.ranges],
        reasons=list(done.reasons),
    )
