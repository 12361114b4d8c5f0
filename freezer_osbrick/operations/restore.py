# SPDX-License-Identifier: Apache-2.0
"""Restoring volumes."""

from __future__ import annotations

import contextlib
import dataclasses

from freezer_osbrick import errors
from freezer_osbrick.cloud import staging, volumes
from freezer_osbrick.cloud.ledger import Run
from freezer_osbrick.cloud.volumes import VolumeRecord
from freezer_osbrick.operations import report as reports
from freezer_osbrick.operations.attach import attached
from freezer_osbrick.operations.catalogue import matching
from freezer_osbrick.operations.context import Context
from freezer_osbrick.operations.report import RunReport, VolumeReport
from freezer_osbrick.pipeline.progress import Listener, Progress
from freezer_osbrick.pipeline.restore import RestoreReader
from freezer_osbrick.repository import catalogue
from freezer_osbrick.repository.catalogue import Backup
from freezer_osbrick.repository.leases import Lease
from freezer_osbrick.repository.manifest import Manifest
from freezer_osbrick.repository.repository import Repository

GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class RestoreRequest:
    """Which backups to restore, and into what.

    :param volume_ids: of each the newest fitting backup is restored.
    :param backup_id: this backup (or its first characters) instead.
    :param before: only backups made then (seconds since the epoch) or earlier.
    :param volume_type, availability_zone: for new volumes, in place of the backed-up ones.
    :param new_name: of the restored volume.
    """

    volume_ids: tuple[str, ...] = ()
    backup_id: str | None = None
    backup_name: str | None = None
    hostname: str | None = None
    before: int | None = None
    volume_type: str | None = None
    availability_zone: str | None = None
    new_name: str | None = None


def restore(
    context: Context, url: str, request: RestoreRequest, progress: Listener | None = None
) -> RunReport:
    """Restore volumes, one after the other, each into a volume of its own.

    A volume that exists is not written to: the restored one is made of a snapshot of it, and only
    blocks that differ are written. One that is gone is made anew, with the metadata of the backup.

    :raises errors.OsbrickError: nothing was started. What happens to single volumes is in the
        report.
    """
    repository = context.open_repository(url)
    chosen = _choose(repository, request)

    def one(volume: VolumeReport) -> None:
        backup = chosen.get(volume.volume_id)
        if backup is None:
            raise errors.BackupMissing(f"{url} holds no such backup of volume {volume.volume_id}.")
        _VolumeRestore(context, repository, request, backup, volume, progress).run()

    return reports.each(request.volume_ids or tuple(chosen), one)


def _choose(repository: Repository, request: RestoreRequest) -> dict[str, Backup]:
    """The backup to restore of each volume."""
    if request.backup_id:
        backup = catalogue.find(repository, request.backup_id)
        return {backup.volume_id: backup}
    if not request.volume_ids:
        raise errors.BadRequest("Neither a volume nor a backup is named: nothing to restore.")
    fits = matching(request.volume_ids, request.backup_name, request.hostname)
    found = catalogue.backups(
        repository,
        lambda backup: fits(backup) and (request.before is None or backup.time <= request.before),
    )
    return {backup.volume_id: backup for backup in found}  # oldest first: the newest one stays


class _VolumeRestore:
    """One volume on its way back into the cloud."""

    def __init__(
        self,
        context: Context,
        repository: Repository,
        request: RestoreRequest,
        backup: Backup,
        report: VolumeReport,
        listener: Listener | None,
    ) -> None:
        self._context = context
        self._repository = repository
        self._request = request
        self._backup = backup
        self._report = report
        self._progress = Progress(report.volume_id, listener)

    def run(self) -> None:
        context = self._context
        record = VolumeRecord.from_dict(self._backup.head["volume"])
        self._tell(record)
        manifest = Manifest(self._repository, bytes.fromhex(self._backup.id))
        existing = self._existing(record.id)
        self._check(record, existing)
        with context.ledger.start("restore") as run:
            self._progress.enter("snapshot")
            with self._target(run, record, existing, manifest.size) as volume_id:
                with Lease(self._repository, "restore", needed=False):
                    self._fill(run, manifest, volume_id, existing)
                volumes.finish(
                    context.cloud, run, volume_id, existing or record, name=self._request.new_name
                )
                self._report.restored_volume_id = volume_id

    def _existing(self, volume_id: str) -> VolumeRecord | None:
        try:
            return volumes.capture(self._context.cloud, volume_id)
        except errors.ResourceMissing:
            return None

    def _check(self, record: VolumeRecord, existing: VolumeRecord | None) -> None:
        """Refuse what cannot end well, before anything is made."""
        if existing is None:
            self._report.target = "new"
            if record.encrypted:
                raise errors.BadRequest(
                    f"Volume {record.id} was encrypted by Cinder with a key of its own, which a "
                    "new volume does not get: what is restored there could never be opened."
                )
            return
        self._report.target = "clone"
        if existing.size_gib < record.size_gib:
            raise errors.BadRequest(
                f"Volume {existing.id} has {existing.size_gib} GiB now; the backup has"
                f" {record.size_gib} GiB and does not fit."
            )
        if self._request.volume_type or self._request.availability_zone:
            raise errors.BadRequest(
                f"Volume {existing.id} exists, so that it is restored into a clone of it, which has"
                " its type and zone: leave --volume-type and --availability-zone out."
            )

    def _target(
        self, run: Run, record: VolumeRecord, existing: VolumeRecord | None, size: int
    ) -> contextlib.AbstractContextManager[str]:
        """The volume to restore into; it is deleted again unless it gets finished."""
        cloud = self._context.cloud
        if existing:
            return staging.kept_clone(cloud, run, existing)
        return staging.new_volume(
            cloud,
            run,
            record,
            size_gib=-(-size // GIB),
            volume_type=self._request.volume_type,
            availability_zone=self._request.availability_zone,
        )

    def _fill(
        self, run: Run, manifest: Manifest, volume_id: str, existing: VolumeRecord | None
    ) -> None:
        context, report = self._context, self._report
        size_gib = existing.size_gib if existing else -(-manifest.size // GIB)
        self._progress.enter("attach")
        with attached(
            context.cloud, context.host, run, volume_id, size_gib=size_gib, writable=True
        ) as device:
            amounts = RestoreReader(
                self._repository,
                manifest,
                device,
                compare=existing is not None,
                threads=context.conf.osbrick.workers,
                progress=self._progress,
            ).run()
            self._progress.enter("detach")
        report.bytes_read = amounts.fetched
        report.bytes_reused = amounts.kept
        report.bytes_zero = amounts.zeroed
        report.bytes_written = amounts.written + amounts.zeroed

    def _tell(self, record: VolumeRecord) -> None:
        report = self._report
        report.volume_name = record.name
        report.project_id = record.project_id
        report.volume_type = record.volume_type
        report.size_gib = record.size_gib
        report.backup_id = self._backup.id
        report.level = self._backup.level
        report.time_stamp = self._backup.time
