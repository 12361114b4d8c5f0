# SPDX-License-Identifier: Apache-2.0
"""The copies of one backup in several repositories, to be read as if they were one.

They are read in the order in which the repositories were given. What one copy lacks is taken from
the next.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeVar

from oslo_log import log

from freezer_osbrick import errors
from freezer_osbrick.device.volume_device import Device
from freezer_osbrick.operations import mirror
from freezer_osbrick.operations.mirror import Side
from freezer_osbrick.pipeline.progress import Progress
from freezer_osbrick.pipeline.restore import Amounts, RestoreReader, lost
from freezer_osbrick.pipeline.workers import Budget
from freezer_osbrick.repository import catalogue, ranges, verifications
from freezer_osbrick.repository.catalogue import Backup
from freezer_osbrick.repository.leases import Lease
from freezer_osbrick.repository.manifest import Manifest
from freezer_osbrick.repository.repository import Repository
from freezer_osbrick.repository.verifications import Verification

LOG = log.getLogger(__name__)

T = TypeVar("T")

# What is wrong with one repository only.
_OF_ONE_COPY = (errors.StoreError, errors.RepositoryError)


@dataclasses.dataclass(frozen=True)
class Copy:
    """A backup in the repository at an address."""

    address: str
    repository: Repository
    backup: Backup


class Copies:
    """:ivar notes: a sentence for each that could not be used."""

    def __init__(self, copies: Sequence[Copy], notes: Sequence[str], *, mirrored: bool) -> None:
        """:param mirrored: whether there are other repositories that could have had the backup."""
        self.notes = list(notes)
        self._copies = list(copies)
        self._mirrored = mirrored
        self._used: list[str] = []

    @property
    def backup(self) -> Backup:
        return self._copies[0].backup

    @property
    def used(self) -> str | None:
        """The repositories that the backup was restored from; None where there is only one."""
        return " and ".join(dict.fromkeys(self._used)) if self._mirrored else None

    def damage(self) -> Verification | None:
        """What a verification found wrong in the copy to be read first; a whole one goes first."""
        found = [
            verifications.condition(copy.repository, copy.backup.id).damage for copy in self._copies
        ]
        whole = [copy for copy, damage in zip(self._copies, found, strict=True) if not damage]
        self._copies.sort(key=lambda copy: copy not in whole)
        return None if whole else found[0]

    def size(self) -> int:
        """Bytes of the volume; copies that cannot be opened are put aside.

        :raises errors.OsbrickError: none can be opened.
        """
        found: list[int] = []
        first = self._try(lambda copy: found.append(_open(copy).size))
        del self._copies[:first]
        return found[0]

    def restore(
        self, device: Device, *, compare: bool, threads: int | Budget, progress: Progress
    ) -> Amounts:
        """Bring the device to the state of the backup.

        :param compare: as :class:`RestoreReader` has it.
        :raises errors.DamagedRanges: no copy has some of it; the rest was restored.
        :raises errors.OsbrickError: no copy can be read.
        """
        total = Amounts()
        lacking: list[tuple[int, int]] | None = None  # None: not known yet

        def one(copy: Copy) -> None:
            nonlocal lacking
            manifest = _open(copy)
            reader = RestoreReader(
                copy.repository,
                manifest,
                device,
                compare=compare or lacking is not None,
                only=lacking,
                threads=threads,
                progress=progress,
            )
            try:
                with Lease(copy.repository, "restore", needed=False):
                    reader.run()
                lacking = []
            except errors.DamagedRanges as error:
                found = error.ranges
                lacking = found if lacking is None else ranges.common(lacking, found)
                if lacking:
                    raise
            finally:
                total.add(reader.amounts)
                if reader.amounts.fetched or lacking == []:
                    self._used.append(copy.address)

        try:
            self._try(one)
        except errors.MirrorFailed as error:
            if not lacking:
                raise
            raise lost(self.backup.id, lacking, str(error)) from error
        return total

    def read(self, one: Callable[[Repository, Manifest], None]) -> None:
        """Let the first copy be read; where it cannot be, once more from the beginning with the
        next.

        :raises errors.OsbrickError: no copy can be read, or what ``one`` raised.
        """

        def under_lease(copy: Copy) -> None:
            with Lease(copy.repository, "restore", needed=False):
                one(copy.repository, _open(copy))
            self._used.append(copy.address)

        self._try(under_lease)

    def _try(self, one: Callable[[Copy], None]) -> int:
        """Go through the copies until one does not fail; the number of that one."""
        failed: dict[str, errors.OsbrickError] = {}
        for number, copy in enumerate(self._copies):
            try:
                one(copy)
            except _OF_ONE_COPY as error:
                if len(self._copies) == 1:
                    raise
                failed[copy.address] = error
            else:
                return number
            for following in self._copies[number + 1 : number + 2]:
                told = f"{failed[copy.address]} What is missing is taken from {following.address}."
                self.notes.append(f"{copy.address}: {told}")
                LOG.warning("%s", self.notes[-1])
        raise errors.MirrorFailed(
            f"No copy of backup {self.backup.id} can be read. {mirror.told(failed)}"
        )


def newest(sides: Sequence[Side], condition: catalogue.Condition) -> dict[str, Copies]:
    """Of each volume the newest backup that meets the condition, wherever it lies.

    :raises errors.OsbrickError: no repository can be read.
    """
    found, notes = _ask(sides, lambda repository: catalogue.backups(repository, condition))
    chosen: dict[str, Copy] = {}
    for side, backups in found:
        of_side = {backup.volume_id: backup for backup in backups}  # oldest first: the newest stays
        for volume_id, backup in of_side.items():
            if volume_id not in chosen or chosen[volume_id].backup.time < backup.time:
                assert side.repository is not None
                chosen[volume_id] = Copy(side.address, side.repository, backup)
    everything = [
        Copy(side.address, side.repository, backup)
        for side, backups in found
        for backup in backups
        if side.repository is not None
    ]
    return {
        volume_id: Copies(
            [copy for copy in everything if _same(copy.backup, first.backup)],
            notes,
            mirrored=len(sides) > 1,
        )
        for volume_id, first in chosen.items()
    }


def find(sides: Sequence[Side], id_or_prefix: str) -> Copies:
    """The backup with that id, or the one whose id begins so.

    :raises errors.BackupMissing: there is none.
    :raises errors.BadRequest: there are several.
    """

    def one(repository: Repository) -> Backup | None:
        try:
            return catalogue.find(repository, id_or_prefix)
        except errors.BackupMissing:
            if len(sides) == 1:
                raise
            return None

    found, notes = _ask(sides, one)
    copies = [
        Copy(side.address, side.repository, backup)
        for side, backup in found
        if backup and side.repository
    ]
    if not copies:
        where = " and ".join(side.address for side, _ in found)
        told = " ".join([f"There is no backup {id_or_prefix!r} in {where}.", *notes])
        raise errors.BackupMissing(told)
    if len({copy.backup.id for copy in copies}) > 1:
        raise errors.BadRequest(f"{len(copies)} backups begin with {id_or_prefix!r}: give more.")
    same = [copy for copy in copies if _same(copy.backup, copies[0].backup)]
    return Copies(same, notes, mirrored=len(sides) > 1)


def _ask(
    sides: Sequence[Side], question: Callable[[Repository], T]
) -> tuple[list[tuple[Side, T]], list[str]]:
    """What the repositories answer; and a sentence on each that cannot."""
    answers: list[tuple[Side, T]] = []
    failed: dict[str, errors.OsbrickError] = {}
    for side in sides:
        try:
            if side.repository is None:
                assert side.error is not None
                raise side.error
            answers.append((side, question(side.repository)))
        except _OF_ONE_COPY as error:
            if len(sides) == 1:
                raise
            failed[side.address] = error
    if not answers:
        raise errors.MirrorFailed(f"No repository can be read. {mirror.told(failed)}")
    return answers, [
        f"Whether {where} has a newer backup is not known: {error}"
        for where, error in failed.items()
    ]


def _same(one: Backup, other: Backup) -> bool:
    """Whether they are copies of one backup: an id may also be written by who means harm."""
    return (one.id, one.volume_id, one.time, one.size) == (
        other.id,
        other.volume_id,
        other.time,
        other.size,
    )


def _open(copy: Copy) -> Manifest:
    return Manifest(copy.repository, bytes.fromhex(copy.backup.id))
