# SPDX-License-Identifier: Apache-2.0
"""Verifications: what reading the blocks of a backup has shown, one small object each time.

They are written once, so that a credential that may neither delete nor overwrite can add one.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from concurrent import futures

from oslo_log import log

from freezer_osbrick import errors
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository.repository import Repository

LOG = log.getLogger(__name__)

# Small objects: what counts is how many requests are under way.
_READERS = 8

_MOST = 1 << 20
_MOST_RANGES = 4096

_ID = f"([0-9a-f]{{{2 * form.OBJECT_ID_SIZE}}})"
_NAME = re.compile(f"{form.VERIFIED}{_ID}/{_ID}")


@dataclasses.dataclass(frozen=True)
class Verification:
    """What one reading of a backup has shown.

    :param backup: the backup's id, in hexadecimal.
    :param time: seconds on the store's clock.
    :param share: of its stored blocks that were read; 1.0 for all.
    :param ranges: ``(offset, length)`` in bytes of the volume that cannot be restored; the first of
        them where they are many.
    :param lost: bytes of the volume that cannot be restored.
    :param reason: why, one sentence; empty where nothing is damaged.
    :param number: larger than that of each that was known before: what counts as later, whatever
        the store's clock does.
    """

    backup: str
    time: float
    share: float
    ranges: tuple[tuple[int, int], ...] = ()
    lost: int = 0
    reason: str = ""
    number: int = 0

    @property
    def damaged(self) -> bool:
        return bool(self.reason)

    @property
    def whole(self) -> bool:
        """Whether every block was read."""
        return self.share >= 1


@dataclasses.dataclass(frozen=True)
class Condition:
    """What the verifications of a backup say together.

    :param verified: when it was last read whole and found undamaged; None for never.
    :param sampled: when it was last read, whole or in part, and nothing damaged was found.
    :param damage: what was found damaged and not found whole since.
    """

    verified: float | None = None
    sampled: float | None = None
    damage: Verification | None = None

    @property
    def word(self) -> str:
        """``damaged``, ``verified``, ``sampled`` or ``unverified``."""
        if self.damage:
            return "damaged"
        if self.verified is not None:
            return "verified"
        return "unverified" if self.sampled is None else "sampled"


def add(repository: Repository, verification: Verification) -> None:
    """Store a verification, as the latest of its backup; its number is set here."""
    known = read(repository, [verification.backup]).get(verification.backup, {}).values()
    number = max((one.number for one in known), default=0) + 1
    verification = dataclasses.replace(verification, number=number)
    object_id = os.urandom(form.OBJECT_ID_SIZE)
    sealer = repository.sealer
    document = dataclasses.asdict(verification)
    document["ranges"] = [list(pair) for pair in verification.ranges[:_MOST_RANGES]]
    data = form.compress(json.dumps(document).encode())
    kind, backup_id = form.KIND_VERIFICATION, bytes.fromhex(verification.backup)
    header = form.header(kind, sealer.code, repository.id, object_id)
    box = sealer.seal(kind, object_id, 0, data, backup_id)
    name = f"{form.VERIFIED}{verification.backup}/{object_id.hex()}"
    repository.store.put(name, [header, *box])


def read(
    repository: Repository, backup_ids: Collection[str] | None = None
) -> dict[str, dict[str, Verification]]:
    """All verifications: by the backup's id, the objects' names and what they say.

    :param backup_ids: only of these backups.
    """
    listed = [
        name
        for name in _names(repository, backup_ids)
        if backup_ids is None or name.group(1) in backup_ids
    ]
    found: dict[str, dict[str, Verification]] = defaultdict(dict)
    with futures.ThreadPoolExecutor(_READERS, thread_name_prefix="verification") as executor:
        several = executor.map(lambda name: _read(repository, name), listed)
        for name, verification in zip(listed, several, strict=True):
            if verification:
                found[verification.backup][name.group(0)] = verification
    return found


def conditions(
    repository: Repository, backup_ids: Collection[str] | None = None
) -> dict[str, Condition]:
    """The condition of each backup that was ever verified, by its id.

    :param backup_ids: only of these.
    """
    found = read(repository, backup_ids)
    return {backup_id: condition_of(several.values()) for backup_id, several in found.items()}


def condition(repository: Repository, backup_id: str) -> Condition:
    """The condition of one backup."""
    return conditions(repository, [backup_id]).get(backup_id, Condition())


def condition_of(verifications: Iterable[Verification]) -> Condition:
    """What verifications of one backup say together."""
    verified = sampled = None
    damage: Verification | None = None
    for verification in sorted(verifications, key=_order):
        if verification.damaged:
            damage = verification
            continue
        sampled = verification.time
        if verification.whole:
            verified = verification.time
            damage = None
    return Condition(verified, sampled, damage)


def superseded(verifications: Mapping[str, Verification]) -> list[str]:
    """The names of those without which the others of the backup say the same."""
    newest_first = sorted(verifications.items(), key=lambda item: _order(item[1]), reverse=True)
    dispensable = []
    told: set[tuple[bool, bool]] = set()
    whole = False
    for name, verification in newest_first:
        # Damage is damage; a sample without any takes nothing back, so that what is older counts.
        kind = (verification.damaged, verification.whole and not verification.damaged)
        if whole or kind in told:
            dispensable.append(name)
        whole = whole or verification.whole
        told.add(kind)
    return dispensable


def forget(repository: Repository, backup_id: str) -> None:
    """Delete what is recorded about a backup that is gone."""
    for info in list(repository.store.list(f"{form.VERIFIED}{backup_id}/")):
        repository.store.delete(info.name)


def tidy(repository: Repository, known: Mapping[str, Mapping[str, Verification]]) -> None:
    """Delete what is superseded, and what is recorded about backups that are gone.

    :param known: as :func:`read` returned it.
    """
    for backup_id, several in known.items():
        try:
            repository.store.stat(form.manifest_name(bytes.fromhex(backup_id)))
        except errors.ObjectMissing:
            forget(repository, backup_id)
            continue
        for name in superseded(several):
            repository.store.delete(name)


def _order(verification: Verification) -> tuple[int, float, bool]:
    """Of two at one time, the one that found damage counts as the later."""
    return verification.number, verification.time, verification.damaged


def _names(repository: Repository, backup_ids: Collection[str] | None) -> list[re.Match[str]]:
    """The names of verifications. One listing for many backups, one each for a few."""
    prefixes = [form.VERIFIED]
    if backup_ids is not None and len(backup_ids) <= _READERS:
        prefixes = [f"{form.VERIFIED}{backup_id}/" for backup_id in backup_ids]
    names = []
    for prefix in prefixes:
        for info in repository.store.list(prefix):
            match = _NAME.fullmatch(info.name)
            if match:
                names.append(match)
            else:
                LOG.warning("Object %s is no verification: passed over.", info.name)
    return names


def _read(repository: Repository, name: re.Match[str]) -> Verification | None:
    try:
        data = repository.store.get(name.group(0))
        return _parse(repository, name, data)
    except errors.ObjectMissing:
        return None  # its backup was removed just now
    except (errors.Damaged, errors.UnknownFormat) as error:
        LOG.warning("Verification %s is passed over: %s", name.group(0), error)
        return None


def _parse(repository: Repository, name: re.Match[str], data: bytes) -> Verification:
    kind, sealer = form.KIND_VERIFICATION, repository.sealer
    backup_id, object_id = (bytes.fromhex(text) for text in name.groups())
    form.check_header(data, kind, sealer.code, repository.id, object_id, name.group(0))
    box = memoryview(data)[form.HEADER.size :]
    text = form.decompress(sealer.open(kind, object_id, 0, box, backup_id), _MOST)
    try:
        document = json.loads(text)
        return Verification(
            backup=name.group(1),
            time=float(document["time"]),
            share=float(document["share"]),
            ranges=tuple((int(offset), int(length)) for offset, length in document["ranges"]),
            lost=int(document["lost"]),
            reason=str(document["reason"]),
            number=int(document.get("number", 0)),  # an early version gave none
        )
    except form.UNREADABLE_JSON as error:
        raise errors.Damaged(f"Its content cannot be read: {form.told(error)}.") from None
