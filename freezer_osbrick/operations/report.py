# SPDX-License-Identifier: Apache-2.0
"""What a run tells of each volume."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable
from typing import Any

from freezer_osbrick import errors

SUCCESS = "success"
ERROR = "error"
PARTIAL = "partial"  # done, but for files or repositories that the report names
EXCLUDED = "excluded"  # left out by a filter or by its state; no failure
WAITING = "waiting"  # not done yet
INTERRUPTED = "interrupted"  # the run was ended before it was done


@dataclasses.dataclass
class CopyReport:
    """A backup in one of the repositories that it goes to. Fields as in :class:`VolumeReport`.

    :param repository: its address, as the caller gave it.
    """

    repository: str
    state: str = SUCCESS
    reason: str | None = None
    level: int | None = None
    bytes_read: int | None = None
    bytes_zero: int | None = None
    bytes_reused: int | None = None
    bytes_new: int | None = None
    bytes_stored: int | None = None
    hints: str | None = None
    blocks_audited: int | None = None
    notes: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class VolumeReport:
    """One volume of a run. Fields that do not apply are None.

    :param state: ``success``; ``waiting`` until it is done; ``partial``, ``error``,
        ``interrupted`` or ``excluded``, and then ``reason`` is one sentence.
    :param time_stamp: of the backup, in seconds since the epoch.
    :param bytes_read: from the volume (backup) or from the repository (restore).
    :param bytes_zero: of the volume, that are zeros.
    :param bytes_reused: of the volume, found in the parent (backup) or in place (restore).
    :param bytes_new: of the volume, stored by this backup, before compression.
    :param bytes_stored: put into the repository.
    :param hints: of a backup that builds on another, what became of the storage's word on what has
        changed since: ``used``; ``unfit``, ``wrong``, ``off`` or ``whole read``, and then a note
        says why.
    :param blocks_audited: that were read to prove that word.
    :param bytes_written: to the restored volume.
    :param target: of a restore: ``clone`` of the existing volume, ``new``, or
        ``in place``.
    :param verified: the restored volume was read back and compared.
    :param removed_volume_id: the volume that the restored one replaces, and that was deleted.
    :param content: of the backup: ``blocks`` or ``files``.
    :param file_systems: of a backup of files, a name each, such as ``ext4 on partition 1``.
    :param repository: of several, the one that the other fields tell of: the first that got the
        backup, or the one that was restored from.
    :param copies: of a backup, in each repository where there are several.
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
    hints: str | None = None
    blocks_audited: int | None = None
    bytes_written: int | None = None
    seconds: float | None = None
    restored_volume_id: str | None = None
    target: str | None = None
    verified: bool | None = None
    removed_volume_id: str | None = None
    content: str | None = None
    file_systems: list[str] = dataclasses.field(default_factory=list)
    repository: str | None = None
    copies: list[CopyReport] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass
class RunReport:
    """A run over one or several volumes.

    :param path: where it is kept while the run goes on, for whoever wants to know or to try the
        rest again; None for nowhere.
    :param of_several: whether there are several, or these are what was left of several.
    """

    volumes: list[VolumeReport]
    path: str | None = None
    of_several: bool = False

    @classmethod
    def of(
        cls, volume_ids: Iterable[str], path: str | None = None, *, of_several: bool = False
    ) -> RunReport:
        """A run that begins: all volumes are waiting."""
        waiting = [VolumeReport(volume_id, state=WAITING) for volume_id in volume_ids]
        return cls(waiting, path, of_several)

    @property
    def ok(self) -> bool:
        """Whether every volume succeeded that was not left out."""
        return all(volume.state in (SUCCESS, EXCLUDED) for volume in self.volumes)

    def to_dict(self) -> dict[str, Any]:
        volumes = [volume.to_dict() for volume in self.volumes]
        return {
            "ok": self.ok,
            "of_several": self.of_several or len(volumes) > 1,
            "volumes": volumes,
        }

    def keep(self) -> None:
        """Write it to its file, in one step, so that a crash leaves the one before.

        :raises errors.ConfigurationError: it cannot be written.
        """
        if self.path is None:
            return
        unfinished = f"{self.path}.new"
        try:
            with open(unfinished, "w", encoding="utf-8") as file:
                json.dump(self.to_dict(), file, indent=1)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, self.path)
        except OSError as error:
            raise errors.ConfigurationError(
                f"The report {self.path} cannot be written: {error.strerror}."
            ) from error


@dataclasses.dataclass(frozen=True)
class NotDone:
    """What a run did not finish.

    :param volume_ids: of the volumes.
    :param of_several: whether the run was about more than one volume.
    """

    volume_ids: tuple[str, ...]
    of_several: bool


def not_done(path: str) -> NotDone:
    """What a run did not finish.

    :param path: of the run's report: the file that it kept, or what ``-f json`` printed.
    :raises errors.BadRequest: it is no report, or everything in it is done.
    """
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
        facts = {"volumes": document} if isinstance(document, list) else document
        states = {str(volume["volume_id"]): volume["state"] for volume in facts["volumes"]}
        of_several = bool(facts.get("of_several", len(states) > 1))
    except OSError as error:
        raise errors.BadRequest(f"The report {path} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise errors.BadRequest(f"{path} is no report of a run.") from error
    found = tuple(
        volume_id for volume_id, state in states.items() if state not in (SUCCESS, EXCLUDED)
    )
    if not found:
        raise errors.BadRequest(f"All volumes of the report {path} are done: nothing to try again.")
    return NotDone(found, of_several)
