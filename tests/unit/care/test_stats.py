# SPDX-License-Identifier: Apache-2.0
"""What stats promises to free is what a deletion and a garbage collection free."""

from __future__ import annotations

import random

import pytest

from freezer_osbrick.operations.stats import stats
from freezer_osbrick.repository import catalogue
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository.collection import collect
from tests.unit.care.conftest import BLOCK, CHUNK, URL


@pytest.fixture
def made(shelf) -> dict[str, str]:
    """Two backups of one volume, one of a clone of it, one of something else."""
    content = bytearray(random.Random(1).randbytes(CHUNK * 6))
    first = shelf.backup(bytes(content), volume="v1", time=10)
    content[:BLOCK] = bytes(BLOCK)
    content[CHUNK : CHUNK + 3] = b"new"
    second = shelf.backup(bytes(content), volume="v1", time=20, parent=first)
    clone = shelf.backup(bytes(content), volume="v2", time=30, parent=second)
    other = shelf.backup(b"other" * CHUNK, volume="v3", time=40)
    return {"first": first, "second": second, "clone": clone, "other": other}


def stored(shelf) -> int:
    prefixes = (form.PACKS, form.MANIFESTS)
    return sum(len(data) for name, data in shelf.store.objects.items() if name.startswith(prefixes))


def delete(shelf, *backup_ids: str) -> int:
    """Delete backups and collect all garbage; what that gave back."""
    before = stored(shelf)
    for backup_id in backup_ids:
        catalogue.remove(shelf.repository, catalogue.find(shelf.repository, backup_id))
    collect(shelf.repository, grace=0)
    collect(shelf.repository, grace=0)
    return before - stored(shelf)


@pytest.mark.parametrize("name", ["first", "second", "clone", "other"])
def test_what_the_deletion_of_a_backup_frees(shelf, context, made, name) -> None:
    lines = stats(context, URL, by_backup=True)
    told = next(line for line in lines if line.backup_id == made[name])
    assert told.frees == delete(shelf, made[name]) > 0


@pytest.mark.parametrize("volume", ["v1", "v2", "v3"])
def test_what_the_deletion_of_a_volume_frees(shelf, context, made, volume) -> None:
    *lines, total = stats(context, URL, volume_id=volume)
    [told] = lines
    mine = [b.id for b in catalogue.backups(shelf.repository) if b.volume_id == volume]
    assert told.backups == len(mine)
    assert told.frees == delete(shelf, *mine)
    assert total.of == "total"


def test_the_amounts_add_up(shelf, context, made) -> None:
    *lines, total = stats(context, URL)
    assert [line.volume_id for line in lines] == ["v1", "v2", "v3"]
    v1, v2, v3 = lines
    assert v2.shared == v2.referenced and v2.unique == 0  # the clone stored nothing of its own
    assert v1.shared > 0 and v1.referenced == v1.shared + v1.unique
    assert v3.shared == 0 and v3.unique == v3.referenced
    assert total.stored == total.frees == stored(shelf)
    assert total.referenced == v1.referenced + v3.referenced
    assert total.unneeded == 0 and total.backups == 4
    assert total.size == 2 * CHUNK * 6 + 5 * CHUNK
    catalogue.remove(shelf.repository, catalogue.find(shelf.repository, made["other"]))
    assert stats(context, URL)[-1].unneeded == v3.unique


def test_nothing_at_all(context) -> None:
    [total] = stats(context, URL)
    assert (total.of, total.stored, total.backups) == ("total", 0, 0)


def test_an_unreadable_manifest_is_named(shelf, context, made, caplog) -> None:
    name = form.manifest_name(bytes.fromhex(made["second"]))
    data = bytearray(shelf.store.objects[name])
    data[60] ^= 1
    shelf.store.objects[name] = bytes(data)
    assert stats(context, URL)[-1].backups == 3
    assert made["second"] in caplog.text
