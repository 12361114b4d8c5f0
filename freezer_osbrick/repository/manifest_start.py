# SPDX-License-Identifier: Apache-2.0
"""The beginning of a manifest: its head, which is all that a listing needs, by one short read."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any, TypeVar

from freezer_osbrick import errors
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository.repository import Repository
from freezer_osbrick.store.base import Buffer

# Positions of the boxes, for their tags: head, index, then the segments.
HEAD, INDEX, FIRST_SEGMENT = 0, 1, 2

LENGTHS = struct.Struct("<II")  # of the head's and the index's box

_MOST_HEAD = 16 << 20
_FIRST_READ = 8 * 1024

T = TypeVar("T")
Head = dict[str, Any]


def read_head(repository: Repository, backup_id: bytes) -> Head:
    """Only the head of a manifest, by one short read.

    :raises errors.BackupMissing: there is no such backup.
    :raises errors.Damaged: it cannot be read.
    """
    return read_start(repository, backup_id)[0]


def read_start(repository: Repository, backup_id: bytes) -> tuple[Head, bytes, int, int]:
    """The head of a manifest, its object's id, and the lengths of the head's and the index's
    box.

    :raises errors.BackupMissing: there is no such backup.
    :raises errors.Damaged: it cannot be read.
    """
    return once_more(lambda: read_start_once(repository, backup_id))


def once_more(read: Callable[[], T]) -> T:
    """Read, and once more where that looks damaged: between two reads another manifest may have
    been put in the place of this one, so that what was read does not fit together."""
    try:
        return read()
    except errors.Damaged:
        return read()


def read_start_once(repository: Repository, backup_id: bytes) -> tuple[Head, bytes, int, int]:
    """As :func:`read_start`, for a caller that reads more, and all of it once more."""
    name = form.manifest_name(backup_id)
    try:
        return _parse_start(repository, backup_id, name)
    except errors.ObjectMissing:
        raise errors.BackupMissing(f"There is no backup {backup_id.hex()}.") from None


def _parse_start(
    repository: Repository, backup_id: bytes, name: str
) -> tuple[Head, bytes, int, int]:
    store = repository.store
    size = store.stat(name).size
    start = store.get(name, 0, min(size, _FIRST_READ))
    sealing = repository.sealer.code
    object_id = start[form.HEADER.size - form.OBJECT_ID_SIZE : form.HEADER.size]
    form.check_header(start, form.KIND_MANIFEST, sealing, repository.id, object_id, name)
    fixed = form.HEADER.size + LENGTHS.size
    if len(start) < fixed:
        raise errors.Damaged(f"Object {name} is too short.")
    head_length, index_length = LENGTHS.unpack_from(start, form.HEADER.size)
    if fixed + head_length + index_length > size:
        raise errors.Damaged(f"Object {name} is too short.")
    box = start[fixed : fixed + head_length]
    if len(box) < head_length:
        box = store.get(name, fixed, head_length)
    text = form.decompress(open_manifest_box(repository, name, object_id, HEAD, box), _MOST_HEAD)
    try:
        head = json.loads(text)
        if head["backup"] != backup_id.hex():
            raise ValueError("it is another backup's")
        if type(head["size"]) is not int or head["size"] < 0:
            raise ValueError("the volume's size is no number of bytes")
    except form.UNREADABLE_JSON as error:
        what = form.told(error)
        raise errors.Damaged(f"The head of object {name} cannot be read: {what}.") from None
    return head, object_id, head_length, index_length


def open_manifest_box(
    repository: Repository, name: str, object_id: bytes, position: int, box: bytes
) -> Buffer:
    """The data of one box of a manifest.

    :raises errors.Damaged: naming the manifest.
    """
    try:
        return repository.sealer.open(form.KIND_MANIFEST, object_id, position, memoryview(box))
    except errors.Damaged:
        raise errors.Damaged(f"Object {name} is damaged.") from None
