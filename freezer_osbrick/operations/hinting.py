# SPDX-License-Identifier: Apache-2.0
"""What of a volume need not be read: who says so, whether that is believed, and what is told of it.

A storage that was told a mark of the state that was backed up last names what has changed since.
Its word is proved by a sample; one lie, and the volume is read whole, now and until an operator
lets the storage's word count again.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from oslo_log import log

from freezer_osbrick import errors
from freezer_osbrick.cloud import kept
from freezer_osbrick.cloud.volumes import VolumeRecord
from freezer_osbrick.device.hints import NO_HINTS, FrozenState, Hints, Mark
from freezer_osbrick.device.volume_device import Device
from freezer_osbrick.operations.context import Context
from freezer_osbrick.operations.report import CopyReport
from freezer_osbrick.pipeline.audit import audit
from freezer_osbrick.repository.manifest import Manifest
from freezer_osbrick.repository.manifest_start import Head
from freezer_osbrick.repository.repository import Repository

LOG = log.getLogger(__name__)

# What became of the storage's word on changes, in reports and heads.
USED = "used"
UNFIT = "unfit"  # the storage cannot tell what has changed since the parent
WRONG = "wrong"  # the sample found a lie just now
OFF = "off"  # an earlier one did
WHOLE = "whole read"  # it was time to read everything


@dataclasses.dataclass(frozen=True)
class HintPolicy:
    """What is asked for. None: as configured.

    :param use: False: everything is read, even what is known to be empty.
    :param keep: leave the snapshot on the volume, for the next backup.
    :param audit: the share of the blocks that need not be read that is read all the same.
    :param full_read_every: each so many backups one reads everything; 0 for never.
    """

    use: bool = True
    keep: bool | None = None
    audit: float | None = None
    full_read_every: int | None = None


@dataclasses.dataclass(frozen=True)
class Decision:
    """
    :param hints: what is not read.
    :param read: bytes that were read to prove them.
    :param facts: for the head of the manifest.
    """

    hints: Hints
    read: int = 0
    facts: Head = dataclasses.field(default_factory=dict)


class Hinting:
    """Decides for one volume of a run; its repositories have parents, and so decisions, of their
    own."""

    def __init__(self, context: Context, policy: HintPolicy, record: VolumeRecord) -> None:
        settings = context.conf.osbrick
        self._context = context
        self._record = record
        self._use = policy.use
        self._share = policy.audit or settings.audit
        every = policy.full_read_every
        self._every: int = settings.full_read_every if every is None else every
        self._wanted = bool(settings.keep_snapshot if policy.keep is None else policy.keep)
        self._distrusted_by = record.hints_wrong
        self._mark: Mark | None = None

    @property
    def wrong(self) -> bool:
        """Whether the storage was caught lying, in this run or an earlier one."""
        return bool(self._distrusted_by)

    @property
    def keep(self) -> bool:
        """Whether the snapshot is to stay, when a backup with its mark is stored."""
        return self._mark is not None and not self.wrong

    def look(
        self, device: Device, state: FrozenState | None, *, keepable: bool, blocks: bool
    ) -> list[str]:
        """Look at the volume before it is backed up; returns what its owner should know.

        :param state: the snapshot that the device shows; None for a volume that is read itself.
        :param keepable: the snapshot can stay without anything else.
        :param blocks: it is a backup of blocks.
        """
        if not self._wanted or self._distrusted_by:
            return []
        if not blocks:
            return ["Change hints are for backups of blocks: no snapshot is kept."]
        if state is None:
            return ["A cold backup makes no snapshot, so none is kept for change hints."]
        if not keepable:
            return ["The snapshot of a group goes as a whole: none is kept for change hints."]
        try:
            self._mark = device.mark(state)
        except errors.HintsUnfit as error:
            return [f"No snapshot is kept for change hints: {error}"]
        if self._mark is None:
            return ["The volume's storage does not tell what changes: no snapshot is kept for it."]
        return []

    def decide(
        self,
        repository: Repository,
        parent: Manifest | None,
        device: Device,
        state: FrozenState | None,
        report: CopyReport,
        backup_id: str,
    ) -> Decision:
        """What of the device need not be read, proved by a sample.

        :param report: told what became of the hints.
        :raises errors.Damaged: the parent cannot be read.
        """
        word, hints = self._hints(parent, device, state, report)
        read = 0
        if device.hearsay and (hints.zeros or hints.unchanged):
            found = audit(
                *(repository, device, parent, hints, self._share), threads=self._context.budget
            )
            read = found.read
            report.blocks_audited = found.blocks
            if found.lies:
                word, hints = WRONG, NO_HINTS
                self._distrust(found.lies, report, backup_id)
        report.hints = word
        facts: Head = {"hints": {"word": word, "audited": report.blocks_audited}}
        if word == USED and parent is not None:
            facts["hints"]["in_a_row"] = _in_a_row(parent) + 1
        if self.keep:
            facts["mark"] = dict(self._mark or {})
        return Decision(hints, read, facts)

    def _hints(
        self,
        parent: Manifest | None,
        device: Device,
        state: FrozenState | None,
        report: CopyReport,
    ) -> tuple[str | None, Hints]:
        if not self._use:
            return None, NO_HINTS
        if self._distrusted_by:
            _note(
                report,
                f"The whole volume was read: backup {self._distrusted_by} found the change hints of"
                " its storage wrong. 'freezer-osbrick hints trust' lets them count again.",
            )
            return OFF, NO_HINTS
        if parent is None:
            return None, Hints(zeros=device.unallocated())
        known = parent.head.get("mark")
        if known is None and not self._wanted:
            return None, Hints(zeros=device.unallocated())
        if self._every and _in_a_row(parent) + 1 >= self._every:
            _note(report, f"The whole volume was read, as every {self._every}. time.")
            return WHOLE, NO_HINTS
        try:
            return USED, Hints(unchanged=self._unchanged(parent, known, device, state))
        except errors.HintsUnfit as error:
            _note(
                report, f"There are no change hints since backup {parent.head['backup']}: {error}"
            )
            return UNFIT, Hints(zeros=device.unallocated())

    def _unchanged(
        self, parent: Manifest, known: Any, device: Device, state: FrozenState | None
    ) -> Any:
        if parent.head["volume"]["id"] != self._record.id:
            raise errors.HintsUnfit("It is a backup of another volume.")
        if not isinstance(known, dict):
            raise errors.HintsUnfit("No snapshot was kept for it.")
        if state is None:
            raise errors.HintsUnfit("A cold backup has no snapshot to compare.")
        if parent.size != device.size:
            raise errors.HintsUnfit("The volume was resized since.")
        return device.unchanged(state, known)

    def _distrust(
        self, lies: tuple[tuple[int, int], ...], report: CopyReport, backup_id: str
    ) -> None:
        self._distrusted_by = backup_id
        where = ", ".join(f"{offset}+{length}" for offset, length in lies[:8])
        more = " and more" if len(lies) > 8 else ""
        _note(
            report,
            "The change hints of the volume's storage are WRONG: what it said was unchanged holds"
            f" something else than the backup before (bytes {where}{more}). The whole volume was"
            " read, and hints are off for it until 'freezer-osbrick hints trust' says otherwise.",
        )
        try:
            kept.distrust(self._context.cloud, self._record.id, backup_id)
        except errors.CloudError as error:
            _note(report, f"That could not be recorded with the volume: {error}")


def _in_a_row(parent: Manifest) -> int:
    """How many backups up to this one did not read everything, one after the other."""
    facts = parent.head.get("hints")
    count = facts.get("in_a_row") if isinstance(facts, dict) else None
    return count if isinstance(count, int) else 0


def _note(report: CopyReport, note: str) -> None:
    LOG.warning("%s", note)
    report.notes.append(note)
