# SPDX-License-Identifier: Apache-2.0
"""Connecting to Ceph, with a pretended cluster below os-brick's classes."""

from __future__ import annotations

import os
import pathlib
import tempfile
from typing import Any

import pytest
from oslo_config import cfg

from freezer_osbrick import errors
from freezer_osbrick.device import rbd
from freezer_osbrick.device.host import Host
from freezer_osbrick.device.opening import open_device
from tests.unit.device.conftest import SIZE, FakeImage

CONNECTION = {
    "driver_volume_type": "rbd",
    "name": "volumes/volume-1",
    "hosts": ["192.0.2.1", "[2001:db8::1]", "2001:db8::2"],
    "ports": ["6789", "6789", "3300"],
    "cluster_name": "ceph",
    "auth_enabled": True,
    "auth_username": "cinder",
}


class Cluster:
    """The modules rados and rbd in one."""

    class Error(Exception):
        pass

    def __init__(self) -> None:
        self.configuration = ""
        self.opened: list[tuple[str, bool]] = []
        self.refuses: str | None = None
        self.closed: list[str] = []

    # rados
    def Rados(self, rados_id: str, clustername: str, conffile: str) -> Cluster:
        assert (rados_id, clustername) == ("cinder", "ceph")
        self.configuration = pathlib.Path(conffile).read_text()
        return self

    def connect(self) -> None:
        if self.refuses == "connect":
            raise self.Error("permission denied")

    def open_ioctx(self, pool: str) -> Cluster:
        assert pool == "volumes"
        return self

    def close(self) -> None:
        self.closed.append("ioctx")

    def shutdown(self) -> None:
        self.closed.append("client")

    # rbd
    def Image(self, ioctx: Any, name: str, snapshot: Any, read_only: bool) -> FakeImage:
        if self.refuses == "open":
            raise self.Error("no such image")
        self.opened.append((name, read_only))
        image = FakeImage(bytes(SIZE), name)
        image.close = lambda: self.closed.append("image")  # type: ignore[attr-defined]
        image.require_not_closed = lambda: None  # type: ignore[attr-defined]
        return image


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    cluster = Cluster()
    monkeypatch.setattr(rbd.linuxrbd, "rados", cluster)
    monkeypatch.setattr(rbd.linuxrbd, "rbd", cluster)
    return cluster


@pytest.fixture
def host(conf: cfg.ConfigOpts, tmp_path: pathlib.Path) -> Host:
    keyring = tmp_path / "keyring"
    keyring.write_text("[client.cinder]\nkey = sesame\n")
    conf.set_override("ceph_keyring", str(keyring), "device")
    return Host(conf)


@pytest.mark.parametrize("writable", [False, True])
def test_image_opened_as_it_is_needed(cluster: Cluster, host: Host, writable: bool) -> None:
    info = host.connect(CONNECTION, writable=writable)
    assert cluster.opened == [("volume-1", not writable)]
    device = open_device(info, size=SIZE, writable=writable, connection_info=CONNECTION)
    assert device.size == SIZE
    device.close()
    host.disconnect(CONNECTION, info)
    assert cluster.closed == ["image", "ioctx", "client"]
    host.disconnect(CONNECTION, info)  # again: nothing more is closed
    assert cluster.closed == ["image", "ioctx", "client"]


def test_cluster_by_its_monitors_and_the_keyring_in_its_place(
    cluster: Cluster, host: Host, tmp_path: pathlib.Path
) -> None:
    host.connect(CONNECTION)
    assert cluster.configuration.splitlines() == [
        "[global]",
        "mon_host = 192.0.2.1:6789,[2001:db8::1]:6789,[2001:db8::2]:3300",
        f"keyring = {tmp_path / 'keyring'}",
    ]


def test_the_key_is_never_on_disk(
    cluster: Cluster, host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    os.mkdir(tmp_path / "tmp")
    open_files = len(os.listdir("/proc/self/fd"))
    host.connect({**CONNECTION, "keyring": "[client.cinder]\nkey = from Cinder"})
    assert cluster.configuration.endswith("[client.cinder]\nkey = from Cinder\n")
    assert os.listdir(tmp_path / "tmp") == []
    assert len(os.listdir("/proc/self/fd")) == open_files


def test_a_handle_that_died_with_its_process_needs_nothing(cluster: Cluster, host: Host) -> None:
    kept = host.describe(host.connect(CONNECTION))
    assert kept == {"type": "rbd"}
    host.disconnect(CONNECTION, kept)
    host.disconnect(CONNECTION, None)


@pytest.mark.parametrize(
    ("refuses", "message"),
    [("connect", "cluster cannot be reached"), ("open", "volumes/volume-1 cannot be opened")],
)
def test_what_ceph_refuses(cluster: Cluster, host: Host, refuses: str, message: str) -> None:
    cluster.refuses = refuses
    open_files = len(os.listdir("/proc/self/fd"))
    with pytest.raises(errors.DeviceError, match=message):
        host.connect(CONNECTION)
    assert cluster.closed[-1] == "client"
    assert len(os.listdir("/proc/self/fd")) == open_files


def test_a_keyring_that_is_not_there(cluster: Cluster, conf: cfg.ConfigOpts) -> None:
    with pytest.raises(errors.DeviceError, match="/etc/ceph/ceph.client.cinder.keyring.*ceph_keyr"):
        Host(conf).connect(CONNECTION)


def test_modules_that_are_not_there(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rbd.linuxrbd, "rbd", None)
    with pytest.raises(errors.DeviceError, match="python3-rbd"):
        host.connect(CONNECTION)
