# SPDX-License-Identifier: Apache-2.0
"""The backup of a volume in one repository: chosen a parent for, written and committed."""

from __future__ import annotations

import dataclasses
import importlib.metadata

from oslo_log import log

from freezer_osbrick import errors
from freezer_osbrick.cloud.volumes import VolumeRecord
from freezer_osbrick.device.hints import FrozenState
from freezer_osbrick.operations import contents
from freezer_osbrick.operations.contents import Contents, Laid
from freezer_osbrick.operations.context import Context
from freezer_osbrick.operations.families import Families
from freezer_osbrick.operations.hinting import Decision, Hinting
from freezer_osbrick.operations.levels import Levels
from freezer_osbrick.operations.planning import Plan, plan
from freezer_osbrick.operations.report import PARTIAL, CopyReport
from freezer_osbrick.pipeline.backup import Amounts, BackupWriter
from freezer_osbrick.pipeline.progress import Progress
from freezer_osbrick.repository import catalogue, verifications
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository.catalogue import Backup
from freezer_osbrick.repository.leases import Lease
from freezer_osbrick.repository.manifest import Manifest
from freezer_osbrick.repository.manifest_start import Head
from freezer_osbrick.repository.repository import Repository

LOG = log.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Series:
    """Which backups the new one belongs to, and what of it does not depend on the volume.

    :param backup_name, hostname: Freezer's; together they name the series.
    :param mode: ``hot`` or ``cold``.
    """

    backup_name: str
    hostname: str
    levels: Levels
    mode: str


@dataclasses.dataclass(frozen=True)
class Shared:
    """What the volumes of a run share, in one repository.

    :param heads: of backups that were read already.
    """

    families: Families = dataclasses.field(default_factory=Families)
    heads: dict[str, Backup] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Hinted:
    """
    :param state: what the attached volume shows; None for a volume that is read itself.
    """

    hinting: Hinting
    state: FrozenState | None


class Copy:
    """The backup of a volume in one repository."""

    def __init__(
        self,
        context: Context,
        repository: Repository,
        series: Series,
        shared: Shared,
        opened: Contents,
        hinted: Hinted,
        report: CopyReport,
        progress: Progress,
    ) -> None:
        self._context = context
        self._repository = repository
        self._series = series
        self._shared = shared
        self._contents = opened
        self._hinted = hinted
        self._report = report
        self._progress = progress
        self._instant: str | None = None

    def store(
        self, backup_id: bytes, record: VolumeRecord, frozen_at: int, instant: str | None = None
    ) -> None:
        """:param instant: id of the group snapshot that the volume was in, if it was in one."""
        self._instant = instant
        with Lease(self._repository, "backup") as lease:
            self._store_under(lease, backup_id, record, frozen_at)

    def _store_under(
        self, lease: Lease, backup_id: bytes, record: VolumeRecord, frozen_at: int
    ) -> None:
        with self._shared.families.turn(record, lambda: self._plan(record, frozen_at)) as chosen:
            self._store_by(chosen, lease, backup_id, record, frozen_at)

    def _store_by(
        self, chosen: Plan, lease: Lease, backup_id: bytes, record: VolumeRecord, frozen_at: int
    ) -> None:
        try:
            self._write(lease, backup_id, record, frozen_at, chosen)
        except (errors.Damaged, errors.BackupMissing) as error:
            if chosen.parent is None:
                raise
            # Damaged, or removed while it was in use. What the parent lacks must not be missing in
            # its successors too.
            self._report.notes.append(
                f"A full backup was made, because backup {chosen.parent.id} cannot be read: {error}"
            )
            LOG.warning("Volume %s: %s", record.id, self._report.notes[-1])
            self._write(lease, backup_id, record, frozen_at, Plan(level=0, parent=None))

    def _plan(self, record: VolumeRecord, now: int) -> Plan:
        kind = self._contents.kind
        usable = catalogue.backups(
            self._repository,
            lambda backup: backup.head.get("content", contents.BLOCKS) == kind,
            known=self._shared.heads,
        )
        while True:
            chosen = plan(
                usable,
                record,
                self._series.levels,
                backup_name=self._series.backup_name,
                hostname=self._series.hostname,
                now=now,
            )
            parent = chosen.parent
            if not parent or not verifications.condition(self._repository, parent.id).damage:
                return chosen
            # What it lacks must not be missing in its successors too.
            note = f"Backup {parent.id} was found damaged: this one does not build on it."
            if note not in self._report.notes:
                self._report.notes.append(note)
            usable.remove(parent)

    def _write(
        self,
        lease: Lease,
        backup_id: bytes,
        record: VolumeRecord,
        frozen_at: int,
        plan: Plan,
    ) -> None:
        settings = self._context.conf.osbrick
        parent = None
        if plan.parent:
            parent = Manifest(self._repository, bytes.fromhex(plan.parent.id))
            if parent.packs.keys() & lease.doomed:
                # Garbage collection may delete them at any time, unless it sees the parent first.
                parent = None
        head = self._head(backup_id, record, frozen_at, plan)

        def complete() -> None:
            self._contents.prove()
            head.update(self._contents.facts())
            lease.confirm()

        self._progress.enter("look")
        with self._contents.laid_out(self._repository, parent) as laid:
            decision = self._decide(laid, parent, backup_id)
            head.update(decision.facts)
            writer = BackupWriter(
                self._repository,
                backup_id,
                laid.device,
                parent=parent,
                hints=decision.hints,
                read=decision.read,
                threads=self._context.budget,
                compression_level=settings.compression_level,
                progress=self._progress,
            )
            amounts = writer.run(head, before_commit=complete)
        name = form.manifest_name(backup_id)
        lease.prove_commit(lambda: self._repository.store.delete(name))
        self._tell_stored(plan, amounts)
        self._tell_unread(record.id)

    def _decide(self, laid: Laid, parent: Manifest | None, backup_id: bytes) -> Decision:
        """What need not be read."""
        if laid.hints is not None:
            return Decision(laid.hints)
        return self._hinted.hinting.decide(
            *(self._repository, parent, laid.device, self._hinted.state),
            *(self._report, backup_id.hex()),
        )

    def _head(self, backup_id: bytes, record: VolumeRecord, frozen_at: int, plan: Plan) -> Head:
        return {
            "backup": backup_id.hex(),
            "name": self._series.backup_name,
            "hostname": self._series.hostname,
            "time": frozen_at,
            "level": plan.level,
            "parent": plan.parent.id if plan.parent else None,
            "mode": self._series.mode,
            "content": self._contents.kind,
            "instant": self._instant,
            "agent": f"freezer-osbrick {_version()}",
            "volume": record.to_dict(),
        }

    def _tell_stored(self, plan: Plan, amounts: Amounts) -> None:
        report = self._report
        report.level = plan.level
        report.bytes_read = amounts.read
        report.bytes_zero = amounts.zeros
        report.bytes_reused = amounts.reused
        report.bytes_new = amounts.new
        report.bytes_stored = amounts.stored

    def _tell_unread(self, volume_id: str) -> None:
        unread = self._contents.unread()
        for one in unread:
            LOG.warning("Volume %s: %r: %s.", volume_id, one.path, one.reason)
        if unread:
            self._report.state = PARTIAL
            self._report.reason = contents.told(unread)


def _version() -> str:
    try:
        return importlib.metadata.version("freezer-osbrick")
    except importlib.metadata.PackageNotFoundError:
        return "from a checkout"
