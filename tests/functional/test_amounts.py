# SPDX-License-Identifier: Apache-2.0
"""How much is read, stored and held in memory, and how much a restored volume takes."""

from __future__ import annotations

import pathlib
import random

import pytest

from tests.functional.backup_host import GIB, MIB, BackupHost, Done, data_of

pytest.importorskip("freezer")

PAGE = 4096
MOST_MEMORY = 512 * MIB


def test_an_incremental_backup_stores_little(host: BackupHost) -> None:
    """2000 random writes of 4 KiB and 64 MiB of new data on a volume of 4 GiB."""
    volume_id = host.bench.volume(4, name="data").id
    # Writes into holes and zeros would be too easy: one GiB holds what cannot be compressed.
    for number in range(16):
        host.write(volume_id, number * 64 * MIB, data_of(number, MIB) * 64)
    full = host.backup(volume_id)
    assert full["bytes_read"] == 4 * GIB

    unchanged = host.backup(volume_id, "--incremental")
    assert unchanged["level"] == 1
    assert unchanged["bytes_read"] == 4 * GIB
    assert unchanged["bytes_new"] == 0
    assert unchanged["bytes_stored"] < MIB

    dice = random.Random(7)
    with open(host.bench.file_of(volume_id), "r+b") as file:
        for page in dice.sample(range(GIB // PAGE), 2000):
            file.seek(page * PAGE)
            file.write(dice.randbytes(PAGE))
    host.write(volume_id, 3 * GIB, data_of(99, 64 * MIB))
    before = taken(host.repository)
    changed = host.backup(volume_id, "--incremental")
    assert changed["level"] == 2
    assert changed["bytes_read"] == 4 * GIB
    assert 64 * MIB + 2000 * PAGE <= changed["bytes_stored"] < 200e6
    # What it tells is what it takes.
    assert changed["bytes_stored"] <= taken(host.repository) - before < 200e6

    told = host.restore(volume_id)
    assert host.digest(told["restored_volume_id"]) == host.digest(volume_id)
    host.drop(told["restored_volume_id"])
    host.drop(volume_id)


def test_ten_clones_are_stored_once(host: BackupHost) -> None:
    """Ten volumes made of one of 2 GiB, each changed a little, all backed up for the first time."""
    image = host.bench.volume(2, name="image").id
    for number in range(8):
        host.write(image, number * 256 * MIB, data_of(100 + number, 64 * MIB))
    clones = [host.bench.volume(2, source_volid=image).id for _ in range(10)]
    for number, clone in enumerate(clones):
        host.write(clone, number * 200 * MIB, data_of(200 + number, PAGE))
    before = taken(host.repository)
    backup = host.command("backup", *clones, "--backup-name", "nightly", "-f", "json")
    assert [row["state"] for row in backup.rows] == ["success"] * 10
    stored = taken(host.repository) - before
    once = 512 * MIB
    assert once < stored < 1.02 * once
    told = host.restore(clones[7])
    assert host.digest(told["restored_volume_id"]) == host.digest(clones[7])
    for volume_id in (told["restored_volume_id"], *clones, image):
        host.drop(volume_id)


def taken(folder: pathlib.Path) -> int:
    """The bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def allocated(path: pathlib.Path) -> int:
    """The bytes that a sparse file takes on disk."""
    return path.stat().st_blocks * 512


def test_a_large_sparse_volume_takes_little_memory_and_little_space(host: BackupHost) -> None:
    volume_id = host.bench.volume(64, name="large").id
    for number in range(64):
        host.write(volume_id, number * GIB + number * MIB, data_of(number, 2 * MIB))
    digest = host.digest(volume_id)

    backup = host.command("backup", volume_id, "-f", "json")
    (told,) = backup.rows
    assert told["bytes_read"] == 64 * GIB
    assert told["bytes_zero"] + told["bytes_new"] == 64 * GIB
    assert told["bytes_stored"] < 160 * MIB
    assert backup.peak < MOST_MEMORY

    onto = host.command("restore", volume_id, "-f", "json")
    check_restored(host, onto, digest)

    host.drop(volume_id)
    anew = host.command("restore", volume_id, "-f", "json")
    check_restored(host, anew, digest)


def check_restored(host: BackupHost, restored: Done, digest: str) -> None:
    (told,) = restored.rows
    new = told["restored_volume_id"]
    host.bench.users_own(new)
    assert restored.peak < MOST_MEMORY
    assert host.digest(new) == digest
    assert allocated(host.bench.file_of(new)) < 192 * MIB
    assert host.leftovers() == {}
    host.drop(new)
