# SPDX-License-Identifier: Apache-2.0
"""Restoring backups of files."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator

from oslo_log import log

from freezer_osbrick import errors, interruption
from freezer_osbrick.device.volume_device import Device
from freezer_osbrick.filesystem.filling import Filled, Filling, differences
from freezer_osbrick.filesystem.stored import StoredFiles
from freezer_osbrick.operations import report as reports
from freezer_osbrick.operations.report import VolumeReport
from freezer_osbrick.pipeline.progress import Progress
from freezer_osbrick.pipeline.reading import BackupReader
from freezer_osbrick.repository.manifest import Manifest
from freezer_osbrick.repository.repository import Repository

LOG = log.getLogger(__name__)

_TOLD = 20  # problems that are named in one sentence


def into_volume(
    repository: Repository,
    manifest: Manifest,
    device: Device,
    *,
    existing: bool,
    report: VolumeReport,
    progress: Progress,
) -> None:
    """Restore the files of a backup into an attached volume.

    :param existing: it holds an older or newer state of the same files; else it is a new one.
    :param report: is told of what was written, and of what could not be restored.
    """
    with _filling(repository, manifest, progress) as filling:
        filled = filling.existing_volume(device) if existing else filling.new_volume(device)
    _tell(filled, report)


def into_folder(
    repository: Repository,
    manifest: Manifest,
    folder: str,
    *,
    report: VolumeReport,
    progress: Progress,
) -> None:
    """Restore the files of a backup into a folder of this host."""
    with _filling(repository, manifest, progress) as filling:
        filled = filling.folder(folder)
    _tell(filled, report)
    report.target = folder


def prove(repository: Repository, manifest: Manifest, device: Device, progress: Progress) -> None:
    """Read an attached volume and compare its files with those of the backup.

    :raises errors.DeviceError: they are not the same.
    """
    with BackupReader(repository, manifest) as reader:
        progress.enter("verify", manifest.size)
        stored = StoredFiles(manifest.head, reader.read)
        differing = list(itertools.islice(differences(stored, device, _step(progress)), _TOLD))
    if differing:
        raise errors.DeviceError(
            f"The restored volume does not hold what the backup holds: {'; '.join(differing)}."
        )


@contextlib.contextmanager
def _filling(repository: Repository, manifest: Manifest, progress: Progress) -> Iterator[Filling]:
    with BackupReader(repository, manifest) as reader:
        progress.enter("write", manifest.size)
        yield Filling(StoredFiles(manifest.head, reader.read), _step(progress))


def _step(progress: Progress) -> Callable[[int], None]:
    """Tells the progress, and ends the work when the run is to end."""

    def step(done: int) -> None:
        interruption.check()
        progress.advance(done)

    return step


def _tell(filled: Filled, report: VolumeReport) -> None:
    report.bytes_written = filled.written
    report.notes.append(
        f"{filled.made} files and folders were made, {filled.kept} were there already,"
        f" {filled.removed} were removed."
    )
    problems = filled.problems
    for problem in problems:
        LOG.warning("Volume %s: %s.", report.volume_id, problem)
    if problems:
        named = "; ".join(problems[:_TOLD])
        more = f"; and {len(problems) - _TOLD} more" if len(problems) > _TOLD else ""
        report.state = reports.PARTIAL
        report.reason = f"Not everything could be restored: {named}{more}."
