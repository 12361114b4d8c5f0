# SPDX-License-Identifier: Apache-2.0
"""Volumes in a real Ceph, read and written through librbd."""

from __future__ import annotations

import glob
import importlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest
from os_brick.initiator import linuxrbd

from devstack.embedded.embedded_cloud.client import EmbeddedCloud
from freezer_osbrick import errors
from freezer_osbrick.cloud import staging, volumes
from freezer_osbrick.cloud.volumes import VolumeRecord
from freezer_osbrick.operations.attach import attached
from freezer_osbrick.operations.cleanup import cleanup
from tests.functional.workbench import Workbench

MIB = 1 << 20
GIB = 1 << 30
_DEBIAN = "/usr/lib/python3/dist-packages"

pytestmark = pytest.mark.skipif(shutil.which("ceph-mon") is None, reason="Ceph is not installed")


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    """A folder with Ceph's two modules, where this Python can load them and does not have them."""
    folder = tmp_path_factory.mktemp("modules")
    tag = f"cpython-{sys.version_info.major}{sys.version_info.minor}-*"
    for name in ("rados", "rbd"):
        found = glob.glob(f"{_DEBIAN}/{name}.{tag}.so")
        if not found:
            pytest.skip(f"there is no module {name} for this Python")
        (folder / os.path.basename(found[0])).symlink_to(found[0])
    before = linuxrbd.rados, linuxrbd.rbd
    sys.path.insert(0, str(folder))
    linuxrbd.rados = importlib.import_module("rados")
    linuxrbd.rbd = importlib.import_module("rbd")
    yield folder
    sys.path.remove(str(folder))
    linuxrbd.rados, linuxrbd.rbd = before


@pytest.fixture(scope="module")
def ceph_cloud(
    cloud: EmbeddedCloud, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedCloud]:
    own = EmbeddedCloud(tmp_path_factory.mktemp("ceph") / "state")
    try:
        own.up("--venv", cloud.status()["venv"], "--ceph")
        yield own
    finally:
        own.down(wipe=True)


@pytest.fixture
def bench(
    ceph_cloud: EmbeddedCloud, modules: pathlib.Path, tmp_path: pathlib.Path
) -> Iterator[Workbench]:
    bench = Workbench(ceph_cloud, tmp_path / "state")
    bench.use_ceph(ceph_cloud.status()["ceph_keyring"], modules)
    yield bench
    bench.close()
    assert images(ceph_cloud) == []


def images(cloud: EmbeddedCloud) -> list[str]:
    conf = cloud.status()["ceph_conf"]
    line = ["rbd", "-c", conf, "-n", "client.cinder", "ls", "volumes"]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout.split()


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
    with (
        bench.ledger.start("backup") as run,
        staging.frozen_clone(bench.cloud, run, record) as clone_id,
        attached(bench.cloud, bench.host, run, clone_id, size_gib=1, writable=False) as device,
    ):
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
        bench.ledger.start("backup") as run,
        staging.frozen_clone(bench.cloud, run, record) as clone_id,
        attached(bench.cloud, bench.host, run, clone_id, size_gib=1, writable=False),
    ):
        raise AssertionError("the volume was opened")
    assert bench.leftovers() == {}
