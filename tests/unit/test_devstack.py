# SPDX-License-Identifier: Apache-2.0
"""DevStack's plug-in, run with DevStack's functions played by others: what it writes is read."""

from __future__ import annotations

import getpass
import os
import pathlib
import shutil
import stat
import subprocess
from typing import Any

import pytest

from freezer_osbrick import opts

ROOT = pathlib.Path(__file__).parents[2]

# What DevStack gives a plug-in: each function writes down how it was called.
DEVSTACK = r"""
set -eu
note() { echo "$*" >> "$CALLS"; }
enable_service() { ENABLED+=" $1"; }
is_service_enabled() {
    local service
    for service in "$@"; do [[ " $ENABLED " == *" $service "* ]] && return 0; done
    return 1
}
setup_develop() { note setup_develop "$@"; }
restart_apache_server() { note restart_apache_server; }
run_process() { note run_process "$@"; }
stop_process() { note stop_process "$@"; }
python_of_horizon() { note python "$@"; }
sudo() { "$@"; }
iniset() {
    grep -q "^\[$2\]" "$1" || printf '[%s]\n' "$2" >> "$1"
    sed -i "/^\[$2\]/a $3 = $4" "$1"
}
STACK_USER=$(id -un) REGION_NAME=RegionOne HOST_IP=127.0.0.1 ADMIN_PASSWORD='a % b'
KEYSTONE_SERVICE_URI=http://127.0.0.1/identity DEST=$FOLDER DATA_DIR=$FOLDER/data
HORIZON_DIR=$FOLDER/horizon PYTHON=python_of_horizon DEVSTACK_VENV=$FOLDER/venv
FREEZER_OSBRICK_DIR=$ROOT FREEZER_OSBRICK_CONF=$FOLDER/etc/freezer-osbrick/freezer-osbrick.conf
FREEZER_OSBRICK_SCHEDULER_CONF=$FOLDER/etc/freezer/scheduler-osbrick.conf
source "$ROOT/devstack/settings"
for phase in "stack pre-install" "stack install" "stack post-config" "stack extra" "$@"; do
    # shellcheck disable=SC2086
    source "$ROOT/devstack/plugin.sh" $phase
done
"""


def stack(folder: pathlib.Path, *phases: str, enabled: str = "horizon freezer-web-ui") -> list[str]:
    """Run the plug-in through these phases behind those of stack.sh; the calls to DevStack."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    calls = folder / "calls"
    (folder / "horizon" / "openstack_dashboard" / "local" / "enabled").mkdir(
        parents=True, exist_ok=True
    )
    env = {"FOLDER": str(folder), "ROOT": str(ROOT), "CALLS": str(calls), "ENABLED": enabled}
    subprocess.run(
        [bash, "-c", DEVSTACK, "stack.sh", *phases],
        env={**os.environ, **env},
        cwd=folder,
        check=True,
    )
    return calls.read_text().splitlines()


def test_everything_is_installed_and_started(tmp_path: pathlib.Path) -> None:
    calls = stack(tmp_path)
    assert calls[0] == f"setup_develop {ROOT} freezer,s3,swift,ssh,dashboard"
    manage = f"python {tmp_path}/horizon/manage.py"
    assert calls[1:4] == [
        f"{manage} collectstatic --noinput",
        f"{manage} compress --force",
        "restart_apache_server",
    ]
    conf = tmp_path / "etc" / "freezer" / "scheduler-osbrick.conf"
    assert calls[4].startswith("run_process freezer-osbrick ")
    assert calls[4].endswith(f"freezer-scheduler --config-file {conf} start  root")
    enabled = tmp_path / "horizon" / "openstack_dashboard" / "local" / "enabled"
    assert [path.name for path in enabled.iterdir()] == ["_5060_freezer_osbrick.py"]


def test_what_it_writes_is_read(tmp_path: pathlib.Path, monkeypatch: Any) -> None:
    stack(tmp_path)
    conf = opts.load([str(tmp_path / "etc" / "freezer-osbrick" / "freezer-osbrick.conf")])
    assert conf.osbrick.state_path == str(tmp_path / "data" / "freezer-osbrick")
    assert (conf.cloud.region_name, conf.device.my_ip) == ("RegionOne", "127.0.0.1")
    arguments = pytest.importorskip("freezer.scheduler.arguments")
    from oslo_config import cfg

    scheduler = tmp_path / "etc" / "freezer" / "scheduler-osbrick.conf"
    assert stat.S_IMODE(scheduler.stat().st_mode) == 0o600
    read = cfg.ConfigOpts()
    for group, options in arguments.list_opts():
        if group is not None:
            read.register_opts(options, group=group)
    read([], default_config_files=[str(scheduler)])
    assert read.scheduler.jobs_dir == str(tmp_path / "data" / "freezer-osbrick" / "jobs")
    assert pathlib.Path(read.scheduler.jobs_dir).owner() == getpass.getuser()
    given = read.service_auth
    assert (given.os_username, given.os_project_name) == ("demo", "demo")
    assert given.os_password == "a % b"
    assert given.os_auth_url == "http://127.0.0.1/identity/v3"


def test_without_the_web_interface(tmp_path: pathlib.Path) -> None:
    install, start = stack(tmp_path, enabled="horizon")
    assert install.endswith(" freezer,s3,swift,ssh")
    assert start.startswith("run_process ")


def test_unstack_and_clean_leave_nothing(tmp_path: pathlib.Path) -> None:
    calls = stack(tmp_path, "unstack", "clean")
    assert calls[-1] == "stop_process freezer-osbrick"
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "calls"]
    assert left == []
    assert not (tmp_path / "etc" / "freezer-osbrick").exists()


@pytest.mark.parametrize("name", ["plugin.sh", "settings"])
def test_shellcheck_has_nothing_to_say(name: str) -> None:
    done = subprocess.run(
        ["shellcheck", "-x", f"devstack/{name}"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
