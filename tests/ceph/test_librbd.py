# SPDX-License-Identifier: Apache-2.0
"""Volumes in a real Ceph, read and written through librbd."""

from __future__ import annotations

import glob
import os
import signal
import tempfile

import pytest
from os_brick.initiator import linuxrbd

from freezer_osbrick import errors
from freezer_osbrick.cloud import staging, volumes
from freezer_osbrick.cloud.volumes import VolumeRecord
from freezer_osbrick.operations.attach import attached
from freezer_osbrick.operations.cleanup import cleanup
from tests.functional.workbench import Workbench

MIB = 1 << 20
GIB = 1 << 30


def temporary_files() -> set[str]:
    return set(glob.glob(os.path.join(tempfile.gettempdir(), "brickrbd_*")))


def filled(bench: Workbench, **pieces: bytes) -> VolumeRecord:
    """A volume of the user's that holds pieces at offsets: ``at_4096=b"…"``."""
    empty = bench.volume(volume_type="rbd")
    with (
        bench.ledger.start("restore") as run,
        staging.kept_clone(bench.cloud, run, empty) as clone_id,
    ):
        with attached(bench.cloud, bench.host, run, clone_id, size_gib=1, writable=True) as device:
            for name, piece in pieces.items():
                device.write(int(name.removeprefix("at_")), piece)
        volumes.finish(bench.cloud, run, clone_id, empty)
    bench.users_own(clone_id)
    return volumes.capture(bench.cloud, clone_id)


def test_written_frozen_and_read(bench: Workbench) -> None:
    data = os.urandom(4 * MIB)
    files = temporary_files()
    record = filled(bench, at_0=data, at_700000000=data)
    buffer = memoryview(bytearray(8 * MIB))
    with bench.frozen(record) as (clone_id, device):
        assert device.name == f"volume-{clone_id}"
        assert device.size == GIB
        device.readinto(0, buffer[: 4 * MIB])
        device.readinto(700000000, buffer[4 * MIB :])
        assert temporary_files() == files  # no key lies on disk, at no time
        with pytest.raises(errors.DeviceError, match="reading only"):
            device.write(0, b"x")
        with pytest.raises(linuxrbd.rbd.ReadOnlyImage):
            device._image.write(b"x", 0)  # type: ignore[attr-defined]
    assert buffer == data * 2
    assert bench.leftovers() == {}


def test_zeros_hide_what_the_parent_holds(bench: Workbench) -> None:
    """The clone reads through to the snapshot wherever it has no data of its own."""
    record = filled(bench, at_0=b"\xff" * (12 * MIB))
    ranges = [(100, 1), (4096, 4096), (1 * MIB + 7, 5 * MIB), (8 * MIB, 4 * MIB)]
    expected = bytearray(b"\xff" * (12 * MIB))
    found = bytearray(12 * MIB)
    with (
        bench.ledger.start("restore") as run,
        staging.kept_clone(bench.cloud, run, record) as clone_id,
        attached(bench.cloud, bench.host, run, clone_id, size_gib=1, writable=True) as device,
    ):
        for offset, length in ranges:
            device.zero(offset, length)
            expected[offset : offset + length] = bytes(length)
        device.flush()
        device.readinto(0, memoryview(found))
    assert found == expected
    assert bench.leftovers() == {}


def test_killed_while_it_is_connected(bench: Workbench) -> None:
    """The cluster takes a dead client for alive for half a minute."""
    record = filled(bench, at_0=b"x")
    files = temporary_files()
    child = bench.child(record.id, "restore", "after", "connected")
    assert child.wait() == -signal.SIGKILL
    assert temporary_files() == files
    assert not cleanup(bench.cloud, bench.host, bench.ledger).failed
    assert bench.leftovers() == {}


def test_a_key_that_is_not_there(bench: Workbench) -> None:
    record = bench.volume(volume_type="rbd")
    bench.conf.set_override("ceph_keyring", "/nowhere", "device")
    with (
        pytest.raises(errors.DeviceError, match="keyring /nowhere cannot be read"),
        bench.frozen(record),
    ):
        raise AssertionError("the volume was opened")
    assert bench.leftovers() == {}
