# SPDX-License-Identifier: Apache-2.0
"""The catalogue: which backups there are. The manifests themselves say it, nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent import futures

from oslo_log import log

from freezer_osbrick import errors
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository.manifest import Head, read_head
from freezer_osbrick.repository.repository import Repository

LOG = log.getLogger(__name__)

# Heads are small: what counts is how many requests are under way.
_READERS = 8


@dataclasses.dataclass(frozen=True)
class Backup:
    """A complete backup, as its manifest's head tells of it.

    :param time: seconds since the epoch, when the volume was frozen.
    :param size: bytes of the volume.
    """

    id: str
    time: int
    size: int
    head: Head

    @property
    def volume_id(self) -> str:
        return self.head["volume"]["id"]

    @property
    def level(self) -> int:
        return self.head["level"]


Condition = Callable[[Backup], bool]


def backups(repository: Repository, condition: Condition | None = None) -> list[Backup]:
    """The backups that meet the condition, oldest first.

    One whose manifest cannot be read is no backup: it is left out, and named in the log.
    """
    ids = [info.name.removeprefix(form.MANIFESTS) for info in repository.store.list(form.MANIFESTS)]
    with futures.ThreadPoolExecutor(_READERS, thread_name_prefix="head") as executor:
        found = list(executor.map(lambda text: _read(repository, text), ids))
    chosen = [backup for backup in found if backup and (condition is None or condition(backup))]
    return sorted(chosen, key=lambda backup: (backup.time, backup.head["finished"], backup.id))


def find(repository: Repository, id_or_prefix: str) -> Backup:
    """The backup with that id, or the one whose id begins so.

    :raises errors.BackupMissing: there is none.
    :raises errors.BadRequest: there are several.
    """
    prefix = id_or_prefix.strip().lower()
    names = [info.name for info in repository.store.list(form.MANIFESTS)]
    matching = [name for name in names if prefix and name.startswith(form.MANIFESTS + prefix)]
    if not matching:
        raise errors.BackupMissing(
            f"There is no backup {id_or_prefix!r} in {repository.store.url}."
        )
    if len(matching) > 1:
        raise errors.BadRequest(f"{len(matching)} backups begin with {id_or_prefix!r}: give more.")
    text = matching[0].removeprefix(form.MANIFESTS)
    return _from_head(text, read_head(repository, bytes.fromhex(text)))


def remove(repository: Repository, backup: Backup) -> None:
    """Take the backup out of the catalogue. What only it used is freed by garbage collection."""
    repository.store.delete(form.manifest_name(bytes.fromhex(backup.id)))


def _read(repository: Repository, text: str) -> Backup | None:
    try:
        backup_id = bytes.fromhex(text)
        return _from_head(text, read_head(repository, backup_id))
    except errors.BackupMissing:
        return None  # deleted while we were listing
    except (errors.Damaged, errors.UnknownFormat, ValueError) as error:
        LOG.warning("Manifest %s is passed over: %s", text, error)
        return None


def _from_head(text: str, head: Head) -> Backup:
    try:
        backup = Backup(id=text, time=int(head["time"]), size=int(head["size"]), head=head)
        _ = backup.volume_id, backup.level, head["finished"]
    except (KeyError, TypeError, ValueError) as error:
        raise errors.Damaged(f"The head of backup {text} lacks {error}.") from None
    return backup
