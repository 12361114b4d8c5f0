# SPDX-License-Identifier: Apache-2.0
"""What Freezer is told about a run: the fields of its own records, and one entry a volume."""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from freezer_osbrick import errors

INFO_FIELDS = (
    "Backup ID",
    "Volume ID",
    "Volume Name",
    "Backup Name",
    "Hostname",
    "Level",
    "Time",
    "Size",
    "Stored",
)


class VolumeEntries(dict[str, Any]):
    """``{"volumes": [...]}``, which prints as one line a volume in Freezer's table for people."""

    def __str__(self) -> str:
        return "\n".join(_line(volume) for volume in self["volumes"])


def of_backup(
    stock: dict[str, Any],
    report: Any,
    places: Sequence[Any],
    *,
    incremental: bool,
    key_file: str | None,
) -> dict[str, Any]:
    """Freezer's own record, completed. Of several storages it names the first that has the backup:
    a restore made of the record finds it there.

    :param stock: what BackupJob.execute returned; its time and level are the engine's own
        already.
    :param places: the storages of the run.
    :param incremental: kept beside the levels, since Freezer refuses levels without it at a
        restore.
    :param key_file: path of the file whose secret seals the repository, on this host.
    """
    level = stock["curr_backup_level"]
    first = done(report)[0].repository
    words: Mapping[str, Any] = next((one.words for one in places if one.name == first), {})
    return {
        **stock,
        **words,
        "level": level,
        "incremental": incremental,
        "encrypted": bool(key_file),
        **({"encrypt_pass_file": key_file} if key_file else {}),
        "osbrick": _entries(report),
    }


def done(report: Any) -> list[Any]:
    """The volumes of a run that were backed up, wholly or in part; none where there was no run."""
    volumes = [] if report is None else report.volumes
    return [volume for volume in volumes if volume.state in ("success", "partial")]


def write(told: dict[str, Any], where: str | None) -> None:
    """As Freezer does for a job that succeeds.

    :param where: of ``--metadata-out``: a path, or ``-`` for standard output.
    """
    if where == "-":
        sys.stdout.write(json.dumps(told))
        sys.stdout.flush()
    elif where:
        with open(where, "w", encoding="utf-8") as stream:
            json.dump(told, stream)


def of_restore(report: Any, conf: Any) -> dict[str, Any]:
    """What was restored, and to which volumes.

    It has neither ``action`` nor ``backup_id``: the scheduler would take it for a backup and
    record it.
    """
    return {
        "engine_name": conf.engine_name,
        "storage": conf.storage,
        "container": conf.container,
        "restored_volume_ids": [
            volume.restored_volume_id for volume in report.volumes if volume.restored_volume_id
        ],
        "osbrick": _entries(report),
    }


def of_removal(removed: list[dict[str, Any]]) -> dict[str, Any]:
    """Empty where nothing was removed, as Freezer's own."""
    return {"removed_backups": removed} if removed else {}


def row(backup: Any) -> list[Any]:
    """The values of INFO_FIELDS. The time is one that ``--restore-from-date`` takes."""
    time = datetime.datetime.fromtimestamp(backup.time_stamp, datetime.timezone.utc)
    return [
        backup.backup_id,
        backup.volume_id,
        backup.volume_name,
        backup.backup_name,
        backup.hostname,
        backup.level,
        time.strftime("%Y-%m-%dT%H:%M:%SZ"),
        backup.size,
        backup.bytes_stored,
    ]


def failure(report: Any) -> errors.OsbrickError:
    """One sentence on the volumes of a run that failed."""
    failed = [v for v in report.volumes if v.state not in ("success", "excluded")]
    reasons = "; ".join(f"{volume.volume_id}: {volume.reason}" for volume in failed)
    if len(report.volumes) == 1:
        return errors.OsbrickError(f"Volume {reasons}")
    return errors.OsbrickError(f"{len(failed)} of {len(report.volumes)} volumes failed: {reasons}")


def _entries(report: Any) -> VolumeEntries:
    return VolumeEntries(volumes=[volume.to_dict() for volume in report.volumes])


def _line(volume: dict[str, Any]) -> str:
    told = (
        ("", "volume_id"),
        ("backup ", "backup_id"),
        ("level ", "level"),
        ("restored to ", "restored_volume_id"),
    )
    parts = [f"{word}{volume[key]}" for word, key in told if volume.get(key) not in (None, "")]
    return ", ".join(parts)
