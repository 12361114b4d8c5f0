# SPDX-License-Identifier: Apache-2.0
"""Restoring volumes."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

from oslo_log import log

from freezer_osbrick import errors, interruption
from freezer_osbrick.cloud import kept, volumes
from freezer_osbrick.cloud.ledger import Run
from freezer_osbrick.cloud.volumes import VolumeRecord
from freezer_osbrick.device.volume_device import Device
from freezer_osbrick.operations import (
    choice,
    copies,
    file_restore,
    mirror,
    parallel,
    targets,
)
from freezer_osbrick.operations.attach import attached
from freezer_osbrick.operations.catalogue import matching
from freezer_osbrick.operations.choice import Choice, Selection
from freezer_osbrick.operations.contents import FILES, content_of
from freezer_osbrick.operations.context import Context
from freezer_osbrick.operations.copies import Copies
from freezer_osbrick.operations.mirror import Side
from freezer_osbrick.operations.report import PARTIAL, RunReport, VolumeReport
from freezer_osbrick.operations.targets import Target, TargetRequest
from freezer_osbrick.pipeline.progress import Listener, Progress
from freezer_osbrick.pipeline.readback import ReadBack
from freezer_osbrick.repository.catalogue import Backup
from freezer_osbrick.repository.manifest import Manifest
from freezer_osbrick.repository.repository import Repository

LOG = log.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class RestoreRequest(TargetRequest):
    """Which backups to restore, into what, and what becomes of the volumes that were there.

    :param volume_ids: of each the newest fitting backup is restored.
    :param selection: or else of each that it chooses among those in the repository.
    :param backup_id: this backup (or its first characters) instead.
    :param before: only backups made then (seconds since the epoch) or earlier.
    :param to_folder: restore files into this folder of this host and into no volume; those of
        several volumes into folders in it that have the volumes' ids.
    :param verify: read every restored volume back, after it was detached, and compare it.
    :param recreate_vol_on_error: a restore that fails on its volume is tried again with a new one;
        the broken one is removed.
    :param remove_old_vol: delete the volume that the restored one replaces, when that one was
        verified; never one that something is attached to.
    :param report_file: where the report is kept while the run goes on.
    """

    volume_ids: tuple[str, ...] = ()
    backup_id: str | None = None
    backup_name: str | None = None
    hostname: str | None = None
    before: int | None = None
    to_folder: str | None = None
    verify: bool = False
    recreate_vol_on_error: bool = False
    remove_old_vol: bool = False
    report_file: str | None = None
    selection: Selection = Selection()

    @property
    def chosen(self) -> Selection:
        """The selection with the volumes that are named."""
        return dataclasses.replace(self.selection, volume_ids=self.volume_ids)

    @property
    def of_several(self) -> bool:
        """Whether it is about more than one volume, or what is left of such a run."""
        return bool(self.selection) or self.selection.of_several or len(self.volume_ids) > 1


def restore(
    context: Context,
    url: str | Sequence[str],
    request: RestoreRequest,
    progress: Listener | None = None,
) -> RunReport:
    """Restore volumes, several at a time, each into a volume of its own.

    A volume that exists is not written to: the restored one is made of a snapshot of it, and only
    blocks that differ are written. One that is gone is made anew, with the metadata of the backup.
    ``targets`` has what the request may change of that.

    :param url: of the repository. Of several the first is read that has the backup; what its copy
        lacks is taken from the others.
    :raises errors.OsbrickError: nothing was started. What happens to single volumes is in the
        report.
    """
    _check(request)
    if not request.to_folder:
        context.set_up()
    sides = mirror.open_sides(context, url)
    wanted, chosen = _choose(context, sides, request)

    def one(volume: VolumeReport) -> None:
        _VolumeRestore(context, chosen[volume.volume_id], request, volume, progress).run()

    return parallel.each(
        choice.begin(wanted, request.report_file, of_several=request.of_several),
        one,
        parallel=context.conf.osbrick.parallel,
        listener=progress,
    )


def _check(request: RestoreRequest) -> None:
    """:raises errors.BadRequest: the request contradicts itself."""
    volume_wanted = {
        "--volume-type": request.volume_type,
        "--availability-zone": request.availability_zone,
        "--new-name": request.new_name,
        "--size": request.size_gib,
        "--in-place": request.in_place,
        "--meta-override": request.meta_override,
        "--verify": request.verify,
        "--recreate-vol-on-error": request.recreate_vol_on_error,
        "--remove-old-vol": request.remove_old_vol,
    }
    given = [option for option, value in volume_wanted.items() if value]
    if request.to_folder and given:
        raise errors.BadRequest(
            f"--to-folder makes no volume: {' and '.join(given)} would mean nothing beside it."
        )
    if request.in_place and request.remove_old_vol:
        raise errors.BadRequest(
            "With --in-place there is no old volume to remove: leave --remove-old-vol out."
        )


def preview(context: Context, url: str | Sequence[str], request: RestoreRequest) -> RunReport:
    """What a restore would be about: its report before anything is begun.

    :raises errors.OsbrickError: as :func:`restore`.
    """
    wanted, chosen = _choose(context, mirror.open_sides(context, url), request)
    report = choice.begin(wanted, path=None)
    for volume in report.volumes:
        found = chosen.get(volume.volume_id)
        volume.backup_id = found.backup.id if found else None
    return report


def _choose(
    context: Context, sides: Sequence[Side], request: RestoreRequest
) -> tuple[Choice, dict[str, Copies]]:
    """The volumes, and the backup to restore of each."""
    if request.backup_id:
        found = copies.find(sides, request.backup_id)
        record = VolumeRecord.from_dict(found.backup.head["volume"])
        return Choice([record]), {record.id: found}
    fits = matching(request.volume_ids, request.backup_name, request.hostname)

    def condition(backup: Backup) -> bool:
        return fits(backup) and (request.before is None or backup.time <= request.before)

    newest = copies.newest(sides, condition)
    where = " and ".join(side.address for side in sides)
    chosen = choice.backups_of(
        context,
        (found.backup for found in newest.values()),
        request.chosen,
        lacking=f"{where} {'hold' if len(sides) > 1 else 'holds'} no such backup of volume",
    )
    for group_id in request.selection.consistency_groups:
        ids = [record.id for record in chosen.volumes if record.group_id == group_id]
        _note_instants(group_id, [newest[volume_id] for volume_id in ids])
    return chosen, newest


def _note_instants(group_id: str, members: Sequence[Copies]) -> None:
    """Tell where the newest backups of a group were not made by one group snapshot: one of its
    volumes may have been backed up by itself since."""
    instants = {found.backup.head.get("instant") for found in members}
    if len(members) < 2 or (len(instants) == 1 and None not in instants):
        return
    for found in members:
        found.notes.append(
            f"The backups of the group {group_id} are not of one instant. If an earlier one is,"
            " --restore-from-date finds it."
        )


class _VolumeRestore:
    """One volume on its way back into the cloud."""

    def __init__(
        self,
        context: Context,
        found: Copies,
        request: RestoreRequest,
        report: VolumeReport,
        listener: Listener | None,
    ) -> None:
        self._context = context
        self._copies = found
        self._request = request
        self._backup = found.backup
        self._report = report
        self._report.notes = found.notes  # also those that are to come
        self._progress = Progress(report.volume_id, listener)

    def run(self) -> None:
        record = VolumeRecord.from_dict(self._backup.head["volume"])
        self._tell(record)
        self._content = content_of(self._backup.head)
        if self._request.to_folder:
            self._restore_to_folder(self._request.to_folder)
            return
        size = self._size_of_volume()
        existing = self._existing(record.id)
        target = self._choose_target(record, existing, self._request, size)
        if self._request.in_place:
            self._refuse_damaged()
        try:
            self._restore(target)
        except targets.OF_THE_VOLUME as error:
            if not self._request.recreate_vol_on_error:
                raise
            self._restore_anew(size, record, error)
        if existing is not None:
            with interruption.shielded():  # restored: not to be told otherwise
                self._settle(record, existing)

    def _restore_to_folder(self, folder: str) -> None:
        if self._content != FILES:
            raise errors.BadRequest(
                f"Backup {self._backup.id} holds blocks and not files: restore it to a volume, or "
                "take single files out of it with 'freezer-osbrick files restore'."
            )
        if self._request.of_several:
            folder = os.path.join(folder, self._backup.volume_id)

        def fill(repository: Repository, manifest: Manifest) -> None:
            file_restore.into_folder(
                repository, manifest, folder, report=self._report, progress=self._progress
            )

        self._copies.read(fill)
        self._report.repository = self._copies.used

    def _choose_target(
        self,
        record: VolumeRecord,
        existing: VolumeRecord | None,
        request: TargetRequest,
        size: int,
    ) -> Target:
        return targets.choose(record, existing, request, size, self._backup.id)

    def _existing(self, volume_id: str) -> VolumeRecord | None:
        try:
            return volumes.capture(self._context.cloud, volume_id)
        except errors.ResourceMissing:
            return None

    def _refuse_damaged(self) -> None:
        damage = self._copies.damage()
        if damage:
            raise errors.BadRequest(
                f"Backup {self._backup.id} was found damaged, and would replace what is whole:"
                f" restore it without --in-place. {damage.reason}"
            )

    def _restore(self, target: Target) -> None:
        cloud, report = self._context.cloud, self._report
        report.target = target.kind
        with self._context.ledger.start("restore") as run:
            self._progress.enter("snapshot")
            with target.volume(cloud, run) as volume_id:
                self._fill(run, volume_id, target)
                if self._request.verify or self._request.remove_old_vol:
                    self._prove(run, volume_id, target)
                target.finish(cloud, run, volume_id)
                report.restored_volume_id = volume_id

    def _restore_anew(self, size: int, record: VolumeRecord, first: Exception) -> None:
        """Once more, into a volume that has nothing to do with the one that failed."""
        LOG.warning("Volume %s: %s Trying again with a new volume.", record.id, first)
        try:
            request = dataclasses.replace(self._request, in_place=False)
            target = self._choose_target(record, None, request, size)
            self._restore(target)
        except errors.OsbrickError as error:
            errors.annotate(error, f"That was tried because of this: {first}")
            raise
        self._report.notes.append(f"It was restored into a new volume because of this: {first}")

    def _fill(self, run: Run, volume_id: str, target: Target) -> None:
        context = self._context
        self._progress.enter("attach")
        with attached(
            context.cloud, context.host, run, volume_id, size_gib=target.size_gib, writable=True
        ) as device:
            target.begin(context.cloud, volume_id)
            if self._content == FILES:
                self._fill_files(device, target)
            else:
                self._fill_blocks(device, target)
            self._progress.enter("detach")
        self._report.repository = self._copies.used

    def _fill_files(self, device: Device, target: Target) -> None:
        def fill(repository: Repository, manifest: Manifest) -> None:
            file_restore.into_volume(
                repository,
                manifest,
                device,
                existing=target.compare,
                report=self._report,
                progress=self._progress,
            )

        self._copies.read(fill)

    def _fill_blocks(self, device: Device, target: Target) -> None:
        report = self._report
        amounts = self._copies.restore(
            device,
            compare=target.compare,
            threads=self._context.budget,
            progress=self._progress,
        )
        report.bytes_read = amounts.fetched
        report.bytes_reused = amounts.kept
        report.bytes_zero = amounts.zeroed
        report.bytes_written = amounts.written + amounts.zeroed

    def _prove(self, run: Run, volume_id: str, target: Target) -> None:
        """Read back what the storage has, by an attachment of its own: nothing that this host may
        have kept of what it wrote is asked."""
        context = self._context
        self._progress.enter("attach")
        with attached(
            context.cloud, context.host, run, volume_id, size_gib=target.size_gib, writable=False
        ) as device:
            self._copies.read(
                lambda repository, manifest: self._compare(repository, manifest, device, target)
            )
            self._progress.enter("detach")
        self._report.verified = True

    def _compare(
        self, repository: Repository, manifest: Manifest, device: Device, target: Target
    ) -> None:
        if self._content == FILES:
            file_restore.prove(repository, manifest, device, self._progress)
            return
        ReadBack(
            repository,
            manifest,
            device,
            zeros_beyond=not target.compare,
            threads=self._context.budget,
            progress=self._progress,
        ).run()

    def _settle(self, record: VolumeRecord, existing: VolumeRecord) -> None:
        """What becomes of the volume that was there. The restore has succeeded whatever happens."""
        report, cloud = self._report, self._context.cloud
        if self._request.remove_old_vol and report.state == PARTIAL:
            report.notes.append(f"The old volume {existing.id} is kept: not all was restored.")
        elif self._request.remove_old_vol:
            try:
                volumes.remove_replaced(
                    cloud, existing.id, first=lambda: kept.remove_of(cloud, existing.id)
                )
            except errors.OsbrickError as error:
                report.notes.append(f"The old volume {existing.id} was not removed: {error}")
                LOG.warning("%s", report.notes[-1])
            else:
                report.removed_volume_id = existing.id
                return
        if self._request.meta_override:
            in_place = report.restored_volume_id == existing.id
            name = self._request.new_name if in_place else None
            for refusal in volumes.override(cloud, existing.id, record, name=name):
                report.notes.append(f"The volume {existing.id} keeps some metadata: {refusal}")
                LOG.warning("%s", report.notes[-1])

    def _tell(self, record: VolumeRecord) -> None:
        report = self._report
        report.volume_name = record.name
        report.project_id = record.project_id
        report.volume_type = record.volume_type
        report.size_gib = record.size_gib
        report.backup_id = self._backup.id
        report.level = self._backup.level
        report.time_stamp = self._backup.time

    def _size_of_volume(self) -> int:
        """Bytes of the volume that was backed up."""
        size = self._copies.size()
        if self._content == FILES:
            return int(self._backup.head["volume"]["size_gib"]) << 30
        return size
