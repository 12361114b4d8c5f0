# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys
import threading
from typing import Any

import pytest
from oslo_config import cfg

from freezer_osbrick import errors
from freezer_osbrick.device import host, places, release
from freezer_osbrick.device.host import Host
from tests.unit.device.conftest import SIZE

CHECKOUT = pathlib.Path(__file__).resolve().parents[3]

PLAIN = """
import json, sys
from oslo_config import cfg
from freezer_osbrick import opts
from freezer_osbrick.device.host import Host
conf = cfg.ConfigOpts(); opts.register(conf); conf([], default_config_files=[])
conf.set_override("state_path", sys.argv[1], "osbrick")
"""
AGENT = """
import json, sys
from oslo_config import cfg
import os_brick.opts
from freezer_osbrick import opts
from freezer_osbrick.device.host import Host
conf = cfg.CONF; opts.register(conf); conf([], project="freezer", default_config_files=[])
conf.set_override("state_path", sys.argv[1], "osbrick")
"""
THREAD = """
import os, threading
host, done = Host(conf), threading.Event()
host.set_up()
before = set(sys.modules)
def work():
    host.connector_properties()
    host._connector("local", False)
    done.set()
threading.Thread(target=work).start()
done.wait()
print(json.dumps([name for name in set(sys.modules) - before if "threading" in name]), flush=True)
os._exit(0)
"""
REPORT = """
found = Host(conf).connector_properties()
print(json.dumps([found, cfg.CONF.os_brick.lock_path, cfg.CONF.oslo_concurrency.lock_path]))
"""


def in_a_new_process(script: str, state: pathlib.Path) -> Any:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(state)],
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("script", [PLAIN, AGENT], ids=["own configuration", "Freezer's"])
def test_os_brick_is_set_up_beside_any_configuration(script: str, tmp_path: pathlib.Path) -> None:
    properties, brick_locks, locks = in_a_new_process(script + REPORT, tmp_path)
    assert properties["host"] == os.uname().nodename
    assert properties["ip"]
    assert brick_locks == locks == str(tmp_path / "lock")
    assert (tmp_path / "lock").is_dir()


def test_other_threads_import_no_second_threading(tmp_path: pathlib.Path) -> None:
    """eventlet brings one, and whoever joins the thread that imports it waits for ever."""
    assert in_a_new_process(PLAIN + THREAD, tmp_path) == []


def test_lock_folder_shared_with_nova(tmp_path: pathlib.Path) -> None:
    script = AGENT + f"conf.set_override('lock_path', {str(tmp_path / 'nova')!r}, 'device')\n"
    _, brick_locks, _ = in_a_new_process(script + REPORT, tmp_path)
    assert brick_locks == str(tmp_path / "nova")


def test_name_and_address_as_configured(conf: cfg.ConfigOpts) -> None:
    conf.set_override("hostname", "backup-7", "device")
    conf.set_override("my_ip", "192.0.2.7", "device")
    conf.set_override("root_helper", "", "device")
    properties = Host(conf).connector_properties()
    assert (properties["host"], properties["ip"]) == ("backup-7", "192.0.2.7")


def test_a_file_needs_no_rights(
    conf: cfg.ConfigOpts, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """A plain user without sudo: no program is started, and the file is connected."""
    conf.set_override("root_helper", "", "device")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    def refuse(*arguments: Any, **keywords: Any) -> None:
        raise AssertionError(f"started: {arguments}")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    plain = Host(conf)
    assert "initiator" not in plain.connector_properties()
    path = tmp_path / "volume"
    path.write_bytes(bytes(SIZE))
    connection_info = {"driver_volume_type": "local", "device_path": str(path)}
    device_info = plain.connect(connection_info)
    assert device_info["path"] == str(path)
    plain.disconnect(connection_info, device_info)


@pytest.mark.parametrize(
    ("euid", "configured", "allowed", "expected"),
    [
        (0, None, 1, ""),
        (0, "doas", 1, ""),
        (1000, "doas", 1, "doas"),
        (1000, "", 0, None),
        (1000, None, 0, "sudo"),
        (1000, None, 1, None),
    ],
)
def test_root_helper(
    monkeypatch: pytest.MonkeyPatch,
    euid: int,
    configured: str | None,
    allowed: int,
    expected: str | None,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: euid)
    monkeypatch.setattr(host.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(
        host.subprocess,
        "run",
        lambda command, **keywords: subprocess.CompletedProcess(command, allowed),
    )
    assert host._find_root_helper(configured) == expected


def test_sudo_is_asked_for_what_os_brick_will_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """Rules that allow for these arguments only, as ours do, are enough."""
    rules = (CHECKOUT / "etc/sudoers.d/freezer-osbrick").read_text()
    (shipped,) = re.findall(r"/usr/bin/privsep-helper (\^.*\$)$", rules, re.MULTILINE)
    asked = []

    def ask(command: list[str], **keywords: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(host.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(host.tempfile, "gettempdir", lambda: "/tmp")
    monkeypatch.setattr(host.subprocess, "run", ask)
    host._find_root_helper(None)
    assert asked[0][:3] == ["/usr/bin/sudo", "-n", "-l"]
    assert re.fullmatch(shipped, " ".join(asked[0][4:]))


class FakeConnector:
    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.calls: list[Any] = []

    def connect_volume(self, connection_info: dict[str, Any]) -> dict[str, Any]:
        if self.error:
            raise self.error
        self.connected = connection_info
        return {"type": "block", "path": "/dev/sdx"}

    def disconnect_volume(self, *arguments: Any, **keywords: Any) -> None:
        if self.error:
            raise self.error
        self.calls.append((arguments, keywords))


def with_connector(
    monkeypatch: pytest.MonkeyPatch, this: Host, connector: FakeConnector
) -> list[bool]:
    """Have a host use this connector; returns with what setting for multipath it was wanted."""
    wanted: list[bool] = []

    def make(protocol: str, multipath: bool) -> FakeConnector:
        wanted.append(multipath)
        return connector

    monkeypatch.setattr(this, "_connector", make)
    monkeypatch.setattr(release, "_PATIENCE", 0.0)
    monkeypatch.setattr(release, "_PAUSE", 0.0)
    return wanted


INFO = {"driver_volume_type": "iscsi", "target_iqn": "iqn.1", "target_lun": 1}


def test_disconnects_with_what_was_saved(
    conf: cfg.ConfigOpts, monkeypatch: pytest.MonkeyPatch
) -> None:
    connector = FakeConnector()
    this = Host(conf)
    with_connector(monkeypatch, this, connector)
    device_info = this.connect(INFO)
    assert device_info == {"type": "block", "path": "/dev/sdx", "traces": {}}
    this.disconnect(INFO, device_info, force=True)
    this.disconnect(INFO, None)
    bare = {"type": "block", "path": "/dev/sdx"}
    # What fails by force matters where something is left, and only there.
    assert connector.calls == [
        ((INFO, bare), {"force": True, "ignore_errors": True}),
        ((INFO, None), {"force": False, "ignore_errors": False}),
    ]


def test_several_paths_as_configured_and_as_kept(
    conf: cfg.ConfigOpts, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf.set_override("use_multipath", True, "device")
    conf.set_override("enforce_multipath", True, "device")
    this = Host(conf)
    connector = FakeConnector()
    wanted = with_connector(monkeypatch, this, connector)
    device_info = this.connect(INFO)
    assert connector.connected["enforce_multipath"] is True
    conf.set_override("use_multipath", False, "device")
    this.disconnect(INFO, device_info, multipath=True)
    this.disconnect(INFO, device_info)
    assert wanted == [True, True, False]
    # What Cinder hands back counts more than what is configured now.
    this.connect({**INFO, "enforce_multipath": False})
    assert connector.connected["enforce_multipath"] is False


def test_what_is_encrypted_is_never_prepared_for_decryption(
    conf: cfg.ConfigOpts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """os-brick links the device of such a volume to where dm-crypt is to be put upon it."""
    this = Host(conf)
    connector = FakeConnector()
    with_connector(monkeypatch, this, connector)
    sealed = {**INFO, "encrypted": True}
    this.disconnect(sealed, this.connect(sealed))
    assert "encrypted" not in connector.connected
    (((info, _), _),) = connector.calls
    assert "encrypted" not in info
    assert sealed["encrypted"]  # as it stands in the journal
    assert not [name for name in sys.modules if name.startswith("os_brick.encryptors.")]


@pytest.mark.parametrize("force", [False, True])
def test_what_is_left_is_named(
    conf: cfg.ConfigOpts, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, force: bool
) -> None:
    this = Host(conf)
    with_connector(monkeypatch, this, FakeConnector())
    (tmp_path / "sdx").mkdir()
    (tmp_path / "sdx" / "diskseq").write_text("7")
    device_info = {"path": "/dev/sdx", "traces": {str(tmp_path / "sdx"): "diskseq 7"}}
    with pytest.raises(errors.DeviceError, match="there is still on this host: sdx"):
        this.disconnect(INFO, device_info, force=force)
    (tmp_path / "sdx" / "diskseq").write_text("8")  # the next disk of that name
    this.disconnect(INFO, device_info, force=force)


def test_errors_by_force_are_no_errors_where_nothing_is_left(
    conf: cfg.ConfigOpts, monkeypatch: pytest.MonkeyPatch
) -> None:
    this = Host(conf)
    with_connector(monkeypatch, this, FakeConnector(RuntimeError("flushing failed")))
    with pytest.raises(errors.DeviceError, match="flushing failed"):
        this.disconnect(INFO, {"path": "/dev/sdx"})
    this.disconnect(INFO, {"path": "/dev/sdx"}, force=True)


def test_the_namespace_of_a_dead_process_is_looked_for(
    conf: cfg.ConfigOpts, monkeypatch: pytest.MonkeyPatch
) -> None:
    this = Host(conf)
    connector = FakeConnector()
    with_connector(monkeypatch, this, connector)
    info = {"driver_volume_type": "nvmeof", "target_nqn": "nqn.1", "portals": [["::1", "1", "tcp"]]}
    monkeypatch.setattr(places.NVMe, "disks", lambda place: ["/sys/devices/x/nvme4n1"])
    this.disconnect(info, None, force=True)
    ((_, device_info), _) = connector.calls.pop()
    assert device_info == {"type": "block", "path": "/dev/nvme4n1"}
    monkeypatch.setattr(places.NVMe, "disks", lambda place: [])
    monkeypatch.setattr(places.NVMe, "idle_controllers", lambda place: ["nvme4"])
    commands: list[list[str]] = []
    monkeypatch.setattr(connector, "run_nvme_cli", commands.append, raising=False)
    this.disconnect(info, None, force=True)
    assert commands == [["disconnect", "-d", "/dev/nvme4"]]


def test_errors_of_os_brick_are_told_without_secrets(
    conf: cfg.ConfigOpts, monkeypatch: pytest.MonkeyPatch
) -> None:
    this = Host(conf)
    error = RuntimeError("login failed:\n {'auth_password': 'sesame'}")
    with_connector(monkeypatch, this, FakeConnector(error))
    for call in (this.connect, lambda info: this.disconnect(info, None)):
        with pytest.raises(errors.DeviceError, match="login failed") as caught:
            call({"driver_volume_type": "iscsi"})
        assert "sesame" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_what_cannot_be_connected(conf: cfg.ConfigOpts) -> None:
    this = Host(conf)
    with pytest.raises(errors.DeviceError, match="did not say how"):
        this.connect({})
    with pytest.raises(errors.DeviceError, match="nfs shares"):
        this.connect({"driver_volume_type": "nfs"})
    with pytest.raises(errors.DeviceError, match="(?i)invalid.*protocol"):
        this.connect({"driver_volume_type": "carrier pigeon"})


def test_a_journal_gets_no_handle() -> None:
    info = {"type": "rbd", "path": threading.Lock(), "conf": None, "multipath_id": "3600"}
    kept = Host.describe(info)
    assert kept == {"type": "rbd", "conf": None, "multipath_id": "3600"}
    json.dumps(kept)
