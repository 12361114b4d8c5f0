# SPDX-License-Identifier: Apache-2.0
"""Volumes of a type that Cinder encrypts: restored where their key is, refused elsewhere."""

from __future__ import annotations

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
