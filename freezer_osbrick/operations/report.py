# SPDX-License-Identifier: Apache-2.0
"""What a run tells of each volume."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

from oslo_log import log

from freezer_osbrick import errors

LOG = log.getLogger(__name__)

SUCCESS = "success"
ERROR = "error"
PARTIAL = "partial"  # done, but for files that the report names


@dataclasses.dataclass
class VolumeReport:
    """One volume of a run. Fields that do not apply are None.

    :param state: ``success``; ``partial`` or ``error``, and then ``reason`` is one sentence.
    :param time_stamp: of the backup, in seconds since the epoch.
    :param bytes_read: from the volume (backup) or from the repository (restore).
    :param bytes_zero: of the volume, that are zeros.
    :param bytes_reused: of the volume, found in the parent (backup) or in place (restore).
    :param bytes_new: of the volume, stored by this backup, before compression.
    :param bytes_stored: put into the repository.
    :param bytes_written: to the restored volume.
    :param target: of a restore: ``clone`` of the existing volume, ``new``, or
        ``in place``.
    :param verified: the restored volume was read back and compared.
    :param removed_volume_id: the volume that the restored one replaces, and that was deleted.
    :param content: of the backup: ``blocks`` or ``files``.
    :param notes: what else its owner should know, a sentence each.
    """

    volume_id: str
    volume_name: str | None = None
    project_id: str | None = None
    volume_type: str | None = None
    size_gib: int | None = None
    state: str = SUCCESS
    reason: str | None = None
    backup_id: str | None = None
    level: int | None = None
    time_stamp: int | None = None
    bytes_read: int | None = None
    bytes_zero: int | None = None
    bytes_reused: int | None = None
    bytes_new: int | None = None
    bytes_stored: int | None = None
    bytes_written: int | None = None
    seconds: float | None = None
    restored_volume_id: str | None = None
    target: str | None = None
    verified: bool | None = None
    removed_volume_id: str | None = None
    content: str | None = None
    notes: list[str] = dataclasses.field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass
class RunReport:
    """A run over one or several volumes."""

    volumes: list[VolumeReport]

    @property
    def ok(self) -> bool:
        """Whether every volume succeeded."""
        return all(volume.state == SUCCESS for volume in self.volumes)

    def to_dict(self) -> dict[str, Any]:
        return {"ok": self.ok, "volumes": [volume.to_dict() for volume in self.volumes]}


def each(volume_ids: tuple[str, ...], one: Callable[[VolumeReport], None]) -> RunReport:
    """Do the same with every volume; one that fails does not keep the others from it."""
    report = RunReport([VolumeReport(volume_id) for volume_id in volume_ids])
    for volume in report.volumes:
        with _told(volume):
            one(volume)
    return report


@contextlib.contextmanager
def _told(volume: VolumeReport) -> Iterator[None]:
    """Put time and failure into the volume's report."""
    began = time.monotonic()
    try:
        yield
    except errors.OsbrickError as error:
        volume.state = ERROR
        volume.reason = str(error)
        LOG.error("Volume %s: %s", volume.volume_id, volume.reason)
    finally:
        volume.seconds = round(time.monotonic() - began, 3)
