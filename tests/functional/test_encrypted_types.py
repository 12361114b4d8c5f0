# SPDX-License-Identifier: Apache-2.0
"""Volumes of a type that Cinder encrypts: restored where their key is, refused elsewhere."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.functional.backup_host import MIB, BackupHost, data_of

pytest.importorskip("freezer")


@pytest.fixture(scope="module")
def sealed_type(host: BackupHost) -> Iterator[str]:
    """A volume type whose volumes have a key each."""
    cinder = host.bench.embedded.cinder
    body = {"volume_type": {"name": "sealed", "extra_specs": {"volume_backend_name": "file"}}}
    made = cinder("POST", "/types", body, "admin")["volume_type"]["id"]
    encryption = {
        "provider": "luks",
        "cipher": "aes-xts-plain64",
        "key_size": 256,
        "control_location": "front-end",
    }
    cinder("POST", f"/types/{made}/encryption", {"encryption": encryption}, "admin")
    yield "sealed"
    cinder("DELETE", f"/types/{made}", project="admin")


@pytest.fixture
def volume_id(host: BackupHost, sealed_type: str) -> str:
    """An encrypted volume with a backup, and changed since."""
    made = host.bench.volume(1, volume_type=sealed_type)
    assert made.encrypted
    host.write(made.id, 100 * MIB, data_of(1, 8 * MIB))  # what a server's dm-crypt would write
    return made.id


def volume(host: BackupHost, volume_id: str) -> dict[str, Any]:
    return dict(host.bench.embedded.cinder("GET", f"/volumes/{volume_id}")["volume"])


def test_into_a_clone_and_in_place(host: BackupHost, volume_id: str) -> None:
    then = host.digest(volume_id)
    host.backup(volume_id)
    host.write(volume_id, 104 * MIB, data_of(2, 8 * MIB))
    clone = host.restore(volume_id, "--verify")["restored_volume_id"]
    assert host.digest(clone) == then
    assert (volume(host, clone)["encrypted"], volume(host, clone)["volume_type"]) == (
        True,
        "sealed",
    )
    host.drop(clone)
    assert host.agent("restore", volume_id, "--in-place").record["target"] == "in place"
    assert host.digest(volume_id) == then
    assert host.leftovers() == {}
    host.drop(volume_id)


def test_never_decrypted(host: BackupHost, volume_id: str) -> None:
    """What is read is what the storage holds, by the device that Cinder names, and nothing else."""
    host.write(volume_id, 0, (b"LUKS\xba\xbe\0\2" + data_of(3, 8)).ljust(4096, b"\0"))
    then = host.digest(volume_id)
    running = host.start_agent("backup", volume_id)
    running.until(host.step("connected"))
    with running.stopped():
        steps = {line["step"]: line for line in host.journal()}
        assert steps["connecting"]["connection_info"]["encrypted"] is True
        told = steps["connecting"]["connection_info"]["device_path"]
        assert steps["connected"]["device_info"]["path"] == told
        names = pathlib.Path("/sys/block").glob("dm-*/dm/uuid")
        assert not [path for path in names if path.read_text().startswith("CRYPT-")]
        assert not list(pathlib.Path("/dev/disk/by-id").glob("os-brick*"))
    assert running.wait().record["state"] == "success"
    restored = host.restore(volume_id)["restored_volume_id"]
    assert host.digest(restored) == then
    assert "encrypted (LUKS)" in host.agent("backup", volume_id, "--content", "files").error
    assert host.leftovers() == {}
    host.drop(restored)
    host.drop(volume_id)


@pytest.mark.parametrize("words", [(), ("--volume-type", "file"), ("--recreate-vol-on-error",)])
def test_not_into_a_new_one(host: BackupHost, volume_id: str, words: tuple[str, ...]) -> None:
    host.backup(volume_id)
    host.drop(volume_id)
    failed = host.agent("restore", volume_id, *words)
    assert "could never be opened" in failed.error
    assert host.leftovers() == {}


def test_a_plain_volume_not_into_a_type_that_encrypts(host: BackupHost, sealed_type: str) -> None:
    plain = host.bench.volume(1).id
    host.backup(plain)
    host.drop(plain)
    failed = host.agent("restore", plain, "--volume-type", sealed_type)
    assert "could never be opened" in failed.error
    assert host.leftovers() == {}
