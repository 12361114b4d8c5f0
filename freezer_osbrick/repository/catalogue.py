# SPDX-License-Identifier: Apache-2.0
"""The catalogue: which backups there are. The manifests themselves say it, nothing else."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from concurrent import futures

from oslo_log import log

from freezer_osbrick import errors
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository import verifications
from freezer_osbrick.repository.manifest_start import Head, read_head
from freezer_osbrick.repository.repository import Repository

LOG = log.getLogger(__name__)

# Heads are small: what counts is how many requests are under way.
_READERS = 8

_ID = re.compile(f"[0-9a-f]{{{2 * form.OBJECT_ID_SIZE}}}")

# What a head says, as far as everybody relies on it.
_FIELDS: dict[str, tuple[type, ...]] = {
    "name": (str, type(None)),
    "hostname": (str, type(None)),
    "time": (int, float),
    "finished": (int, float),
    "level": (int,),
    "size": (int,),
    "bytes": (dict,),
    "volume": (dict,),
}


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


def backups(
    repository: Repository,
    condition: Condition | None = None,
    known: dict[str, Backup] | None = None,
) -> list[Backup]:
    """The backups that meet the condition, oldest first.

    :param known: by their ids, backups that were read already and are not read again; the others
        are added.
    One whose manifest cannot be read is no backup: it is left out, and named in the log.
    """
    found, unreadable = survey(repository, known)
    for text, reason in unreadable.items():
        LOG.warning("Manifest %s is passed over: %s", text, reason)
    return [backup for backup in found if condition is None or condition(backup)]


def survey(
    repository: Repository, known: dict[str, Backup] | None = None
) -> tuple[list[Backup], dict[str, str]]:
    """All backups, oldest first; and the manifests that cannot be read: id and what is wrong.

    :param known: as for :func:`backups`.
    """
    known = {} if known is None else known
    present = _ids(repository)
    ids = [text for text in present if text not in known]
    with futures.ThreadPoolExecutor(_READERS, thread_name_prefix="head") as executor:
        found = list(executor.map(lambda text: _read(repository, text), ids))
    known.update({backup.id: backup for backup in found if isinstance(backup, Backup)})
    backups = [known[text] for text in present if text in known]
    backups.sort(key=lambda backup: (backup.time, backup.head["finished"], backup.id))
    unreadable = {
        text: str(error)
        for text, error in zip(ids, found, strict=True)
        if isinstance(error, Exception)
    }
    return backups, unreadable


def find(repository: Repository, id_or_prefix: str) -> Backup:
    """The backup with that id, or the one whose id begins so.

    :raises errors.BackupMissing: there is none.
    :raises errors.BadRequest: there are several.
    """
    prefix = id_or_prefix.strip().lower()
    matching = [text for text in _ids(repository) if prefix and text.startswith(prefix)]
    if not matching:
        raise errors.BackupMissing(
            f"There is no backup {id_or_prefix!r} in {repository.store.url}."
        )
    if len(matching) > 1:
        raise errors.BadRequest(f"{len(matching)} backups begin with {id_or_prefix!r}: give more.")
    return _from_head(matching[0], read_head(repository, bytes.fromhex(matching[0])))


def remove(repository: Repository, backup: Backup) -> None:
    """Take the backup out of the catalogue. What only it used is freed by garbage collection."""
    repository.store.delete(form.manifest_name(bytes.fromhex(backup.id)))
    verifications.forget(repository, backup.id)


def is_id(text: str) -> bool:
    """Whether a manifest may have this name."""
    return bool(_ID.fullmatch(text))


def _ids(repository: Repository) -> list[str]:
    """The ids of all manifests, in hexadecimal. Other objects among them are none of ours."""
    ids = []
    for info in repository.store.list(form.MANIFESTS):
        text = info.name.removeprefix(form.MANIFESTS)
        if is_id(text):
            ids.append(text)
        else:
            LOG.warning("Object %s is no manifest: passed over.", info.name)
    return ids


def _read(repository: Repository, text: str) -> Backup | Exception | None:
    try:
        return _from_head(text, read_head(repository, bytes.fromhex(text)))
    except errors.BackupMissing:
        return None  # deleted while we were listing
    except (errors.Damaged, errors.UnknownFormat) as error:
        return error


def _from_head(text: str, head: Head) -> Backup:
    try:
        for key, kinds in _FIELDS.items():
            if not isinstance(head[key], kinds) or isinstance(head[key], bool):
                raise TypeError(f"{key} is {head[key]!r}")
        if not isinstance(head["volume"]["id"], str):
            raise TypeError("the volume has no id")
        if not isinstance(head["bytes"]["stored"], int):
            raise TypeError("it does not say how many bytes were stored")
        return Backup(id=text, time=int(head["time"]), size=head["size"], head=head)
    except form.UNREADABLE_JSON as error:
        what = form.told(error)
        raise errors.Damaged(f"The head of backup {text} cannot be read: {what}.") from None
