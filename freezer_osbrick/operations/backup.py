# SPDX-License-Identifier: Apache-2.0
"""Backing up volumes."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator, Mapping, Sequence

from oslo_log import log

from freezer_osbrick import errors, interruption
from freezer_osbrick.cloud import borrowing, kept, staging, volumes
from freezer_osbrick.cloud.ledger import Run
from freezer_osbrick.cloud.staging import FrozenVolume
from freezer_osbrick.cloud.volumes import VolumeRecord
from freezer_osbrick.device.hints import FrozenState
from freezer_osbrick.operations import choice, contents, mirror, parallel
from freezer_osbrick.operations.attach import attached
from freezer_osbrick.operations.choice import Selection
from freezer_osbrick.operations.contents import Contents
from freezer_osbrick.operations.context import Context
from freezer_osbrick.operations.copying import Copy, Hinted, Series, Shared
from freezer_osbrick.operations.hinting import Hinting, HintPolicy
from freezer_osbrick.operations.instants import Instants
from freezer_osbrick.operations.levels import Levels
from freezer_osbrick.operations.mirror import Side
from freezer_osbrick.operations.report import CopyReport, RunReport, VolumeReport
from freezer_osbrick.pipeline.progress import Listener, Progress
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository.repository import Repository

LOG = log.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class BackupRequest:
    """What to back up, and as what.

    :param volume_ids: these, or else what ``selection`` chooses.
    :param backup_name: Freezer's name for backups that belong together.
    :param hostname: Freezer's name of the host; with ``backup_name`` it names a series of backups.
    :param incremental: compare with the newest backup of the volume and store what is new.
    :param content: ``blocks``, or ``files`` of the volume's file systems.
    :param exclude: patterns of files that are left out, as in a ``.gitignore``.
    :param fallback_to_blocks: a volume without a file system is backed up as blocks.
    :param cold: a volume is detached from its server, backed up itself, and attached again.
    :param max_level, always_level, restart_always_level: as :class:`levels.Levels` has them.
    :param report_file: where the report is kept while the run goes on.
    :param hints: what may be left unread.
    """

    volume_ids: tuple[str, ...]
    backup_name: str
    hostname: str
    incremental: bool = False
    content: str = contents.BLOCKS
    exclude: tuple[str, ...] = ()
    fallback_to_blocks: bool = False
    cold: bool = False
    max_level: int | None = None
    always_level: int | None = None
    restart_always_level: float | None = None
    report_file: str | None = None
    selection: Selection = Selection()
    hints: HintPolicy = HintPolicy()

    @property
    def chosen(self) -> Selection:
        """The selection with the volumes that are named."""
        return dataclasses.replace(self.selection, volume_ids=self.volume_ids)

    @property
    def series(self) -> Series:
        levels = Levels(
            self.incremental, self.max_level, self.always_level, self.restart_always_level
        )
        return Series(self.backup_name, self.hostname, levels, "cold" if self.cold else "hot")


def backup(
    context: Context,
    url: str | Sequence[str],
    request: BackupRequest,
    progress: Listener | None = None,
) -> RunReport:
    """Back up the volumes, several at a time. A volume's own status never changes, unless the
    backup is cold.

    :param url: of the repository, which is made if there is none. Each of several gets every
        backup whole; one that fails makes the backups partial.
    :raises errors.OsbrickError: nothing was started. What happens to single volumes is in the
        report.
    """
    request.chosen.check()
    context.set_up()  # no repository is made for somebody without credentials
    chosen = choice.volumes_of(context.cloud, request.chosen)
    sides = mirror.open_sides(context, url, create=True)
    shared = {side.address: Shared() for side in sides}

    # A cold backup takes each volume as it is without its server.
    with Instants(context, [] if request.cold else chosen.groups) as instants:

        def one(volume: VolumeReport) -> None:
            _VolumeBackup(context, sides, request, shared, instants, volume, progress).run()

        return parallel.each(
            choice.begin(chosen, request.report_file, of_several=request.selection.of_several),
            one,
            parallel=context.conf.osbrick.parallel,
            listener=progress,
        )


def preview(context: Context, request: BackupRequest) -> RunReport:
    """What a backup would be about: its report before anything is begun.

    :raises errors.OsbrickError: as :func:`backup`.
    """
    return choice.begin(choice.volumes_of(context.cloud, request.chosen), path=None)


class _VolumeBackup:
    """One volume on its way into the repositories."""

    def __init__(
        self,
        context: Context,
        sides: Sequence[Side],
        request: BackupRequest,
        shared: Mapping[str, Shared],
        instants: Instants,
        report: VolumeReport,
        listener: Listener | None,
    ) -> None:
        self._context = context
        self._sides = sides
        self._request = request
        self._shared = shared
        self._report = report
        self._instants = instants
        self._group_snapshot_id: str | None = None
        self._snapshot: FrozenVolume | None = None
        self._state: FrozenState | None = None
        self._progress = Progress(report.volume_id, listener)

    def run(self) -> None:
        cloud = self._context.cloud
        record = volumes.capture(cloud, self._report.volume_id)
        self._tell(record)
        self._hinting = Hinting(self._context, self._request.hints, record)
        with self._context.ledger.start("backup") as run:
            self._progress.enter("snapshot")
            with self._still(run, record) as volume_id:
                try:
                    self._attach(run, volume_id, record, self._request.content)
                except errors.NoFileSystem as error:
                    if not self._request.fallback_to_blocks:
                        raise
                    self._note(f"It was backed up as blocks: {error}")
                    self._attach(run, volume_id, record, contents.BLOCKS)
        if self._hinting.wrong:
            self._keep_nothing(record)

    def _attach(self, run: Run, volume_id: str, record: VolumeRecord, content: str) -> None:
        """Store what is on the clone, or the volume itself. Where a file system was in use, its
        journal is replayed first: the clone is written to then, and is thrown away afterwards."""
        try:
            self._attach_as(run, volume_id, record, content, writable=False)
        except errors.JournalDirty as error:
            if self._request.cold:
                told = "A cold backup does not do that to a volume of yours: leave --cold out."
                errors.annotate(error, told)
                raise
            LOG.info("Volume %s: %s", record.id, error)
            self._attach_as(run, volume_id, record, content, writable=True)

    def _attach_as(
        self, run: Run, volume_id: str, record: VolumeRecord, content: str, *, writable: bool
    ) -> None:
        self._progress.enter("attach")
        with attached(
            self._context.cloud,
            self._context.host,
            run,
            volume_id,
            size_gib=record.size_gib,
            writable=writable,
        ) as device:
            patterns = self._request.exclude
            with contents.opened(device, record.id, content, patterns, repair=writable) as opened:
                self._store(opened, record, self._frozen_at)
            with interruption.shielded():  # what follows only takes down
                self._progress.enter("detach")

    @contextlib.contextmanager
    def _still(self, run: Run, record: VolumeRecord) -> Iterator[str]:
        """A volume that holds what the user's one does, and that nobody writes to."""
        cloud = self._context.cloud
        if not self._request.cold:
            with self._frozen(run, record) as clone_id:
                yield clone_id
            return
        with borrowing.borrowed(
            cloud,
            run,
            record.id,
            server=borrowing.server_of(cloud, record),
            size_gib=record.size_gib,
            tell=self._note,
        ) as volume_id:
            self._frozen_at = int(time.time())
            yield volume_id

    def _note(self, note: str) -> None:
        LOG.warning("%s", note)
        self._report.notes.append(note)

    @contextlib.contextmanager
    def _frozen(self, run: Run, record: VolumeRecord) -> Iterator[str]:
        """A clone of the volume as it was at one instant: its own, or its group's."""
        cloud, instants = self._context.cloud, self._instants
        note = instants.note(record.id)
        self._report.notes += [note] if note else []
        with instants.of(record) as instant:
            if instant is None:
                self._frozen_at = int(time.time())
                with staging.snapshot_of(cloud, run, record) as self._snapshot:
                    snapshot = self._snapshot.snapshot
                    self._state = FrozenState(record.id, snapshot.id)
                    with staging.clone_of(cloud, run, record, snapshot) as clone_id:
                        yield clone_id
                return
            self._frozen_at = instant.time
            self._group_snapshot_id = instant.group_snapshot_id
            self._state = FrozenState(record.id, instant.snapshot.id)
            with staging.clone_of(cloud, run, record, instant.snapshot) as clone_id:
                yield clone_id

    def _store(self, opened: Contents, record: VolumeRecord, frozen_at: int) -> None:
        """Write the backup to one repository after the other, all under one id.

        Each has a parent and keyed ids of its own, so that nothing but the reading could be
        shared; and side by side they would take the memory of as many volumes.
        """
        backup_id = os.urandom(form.OBJECT_ID_SIZE)
        hinted = Hinted(self._hinting, self._state)
        self._report.notes += self._hinting.look(
            opened.device,
            self._state,
            keepable=self._snapshot is not None,
            blocks=opened.kind == contents.BLOCKS,
        )

        def one(repository: Repository, report: CopyReport) -> None:
            shared = self._shared[report.repository]
            copy = Copy(
                *(self._context, repository, self._request.series, shared, opened, hinted),
                *(report, self._progress),
            )
            copy.store(backup_id, record, frozen_at, self._group_snapshot_id)
            if self._snapshot is not None:
                self._snapshot.keep = self._hinting.keep

        mirror.each(self._sides, self._report, one)
        self._report.backup_id = backup_id.hex()
        self._report.time_stamp = frozen_at
        self._report.content = opened.kind
        self._report.file_systems = list(opened.file_systems)
        self._report.notes += opened.notes

    def _keep_nothing(self, record: VolumeRecord) -> None:
        """What an earlier backup kept is of no use to a volume whose storage is not believed."""
        try:
            kept.remove_of(self._context.cloud, record.id)
        except errors.OsbrickError as error:
            self._note(f"What was kept for change hints stays: {error}")

    def _tell(self, record: VolumeRecord) -> None:
        report = self._report
        report.volume_name = record.name
        report.project_id = record.project_id
        report.volume_type = record.volume_type
        report.size_gib = record.size_gib
        if record.incomplete_restore:
            report.notes.append(
                f"The restore of backup {record.incomplete_restore} in place was broken off: the"
                " volume holds parts of two states, and so does this backup."
            )
