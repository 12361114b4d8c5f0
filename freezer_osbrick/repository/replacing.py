# SPDX-License-Identifier: Apache-2.0
"""Putting a backup's manifest in the place of the one that it was made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Protocol

from freezer_osbrick import errors
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository.leases import Lease
from freezer_osbrick.repository.manifest import ManifestWriter, new_spool
from freezer_osbrick.repository.manifest_start import Head
from freezer_osbrick.repository.repository import Repository

_AT_ONCE = 8 << 20


class Source(Protocol):
    """What the new manifest was made of."""

    backup_id: bytes
    object_id: bytes
    head: Head


def replace(
    repository: Repository,
    source: Source,
    writer: ManifestWriter,
    sizes: dict[bytes, int],
    lease: Lease,
) -> None:
    """Store the manifest that the writer has collected.

    The present one is put back where the lease turns out to be lost: what the new one refers to may
    be gone then.

    :param sizes: bytes of the packs that it may use, by id.
    :raises errors.BackupMissing: the backup was removed, or somebody else has written its manifest
        anew; nothing was changed.
    :raises errors.LeaseLost: nothing is changed.
    """
    name = form.manifest_name(source.backup_id)
    with new_spool() as present:
        _copy(repository, name, source, present)
        writer.store(dict(source.head), sizes, replace=True)
        lease.prove_commit(lambda: repository.store.put(name, _pieces(present), replace=True))


def _copy(repository: Repository, name: str, source: Source, spool: IO[bytes]) -> None:
    store = repository.store
    try:
        size = store.stat(name).size
        for offset in range(0, size, _AT_ONCE):
            spool.write(store.get(name, offset, min(_AT_ONCE, size - offset)))
        header = store.get(name, 0, form.HEADER.size)
    except errors.ObjectMissing:
        raise errors.BackupMissing(f"There is no backup {source.backup_id.hex()}.") from None
    if not header.endswith(source.object_id):
        raise errors.BackupMissing(
            f"Backup {source.backup_id.hex()} was stored anew just now: try again."
        )


def _pieces(spool: IO[bytes]) -> Iterator[bytes]:
    spool.seek(0)
    while piece := spool.read(_AT_ONCE):
        yield piece
