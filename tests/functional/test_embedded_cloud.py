# SPDX-License-Identifier: Apache-2.0
"""The embedded cloud itself: what the other functional tests rely on."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from devstack.embedded.embedded_cloud.client import EmbeddedCloud
from devstack.embedded.embedded_cloud.errors import ApiError, CloudError

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
LAUNCHER = CHECKOUT / "devstack" / "embedded" / "cloud.py"
MIB = 1 << 20
CONNECTOR = {
    "host": "backup-host",
    "ip": "127.0.0.1",
    "platform": "x86_64",
    "os_type": "linux",
    "multipath": False,
}
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def volume(cloud: EmbeddedCloud) -> Iterator[dict[str, Any]]:
    """A volume of demo's of 1 GiB."""
    made = cloud.create_volume(1, name=f"test-{uuid.uuid4().hex[:8]}")
    yield made
    cloud.clear_faults()
    cloud.delete_volume(made["id"])


def make_snapshot(cloud: EmbeddedCloud, volume_id: str) -> dict[str, Any]:
    body = {"snapshot": {"volume_id": volume_id, "force": True}}
    return cloud.cinder("POST", "/snapshots", body)["snapshot"]


def delete_snapshot(cloud: EmbeddedCloud, snapshot_id: str) -> None:
    cloud.cinder("DELETE", f"/snapshots/{snapshot_id}")
    cloud.wait(f"/snapshots/{snapshot_id}", "deleted")


def attach(cloud: EmbeddedCloud, volume_id: str, mode: str) -> dict[str, Any]:
    """Attach in two steps and without a server, as a backup host does."""
    body: dict[str, Any] = {"attachment": {"volume_uuid": volume_id, "mode": mode}}
    made = cloud.cinder("POST", "/attachments", body)["attachment"]
    body = {"attachment": {"connector": CONNECTOR}}
    made = cloud.cinder("PUT", f"/attachments/{made['id']}", body)["attachment"]
    cloud.cinder("POST", f"/attachments/{made['id']}/action", {"os-complete": None})
    return made


def write_at(path: str, offset: int, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(descriptor, data, offset)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def beginning(path: str | os.PathLike[str]) -> bytes:
    """The first 16 MiB, which is where the tests write."""
    with open(path, "rb") as stream:
        return stream.read(16 * MIB)


def test_status_says_what_a_program_needs(cloud: EmbeddedCloud) -> None:
    done = subprocess.run(
        [sys.executable, LAUNCHER, "status", "--json", "--state", cloud.state.folder],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    status = json.loads(done.stdout)
    assert status["running"] is True
    assert set(status["projects"]) == {"demo", "other", "admin"}
    assert status["projects"]["demo"]["project_id"] == cloud.session("demo").project_id
    assert all(pathlib.Path(f"/proc/{pid}").exists() for pid in status["pids"].values())
    assert cloud.state.settings_file.stat().st_mode & 0o077 == 0
    assert cloud.state.openrc("demo").stat().st_mode & 0o077 == 0


def test_openrc_holds_the_same_as_env(cloud: EmbeddedCloud) -> None:
    script = f". {cloud.state.openrc('demo')} && env -0"
    done = subprocess.run(["sh", "-c", script], stdout=subprocess.PIPE, text=True, check=True)
    sourced = dict(line.split("=", 1) for line in done.stdout.split("\0") if "=" in line)
    assert cloud.env("demo").items() <= sourced.items()


def test_a_second_up_leaves_the_services_alone(cloud: EmbeddedCloud) -> None:
    before = cloud.status()["pids"]
    cloud.up()
    assert cloud.status()["pids"] == before


def test_projects_do_not_see_each_other(cloud: EmbeddedCloud, volume: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as refusal:
        cloud.cinder("GET", f"/volumes/{volume['id']}", project="other")
    assert refusal.value.status == 404
    listed = cloud.cinder("GET", "/volumes", project="other")["volumes"]
    assert volume["id"] not in [each["id"] for each in listed]
    with pytest.raises(ApiError) as refusal:
        cloud.cinder("POST", "/types", {"volume_type": {"name": "mine"}})
    assert refusal.value.status == 403
    # a member's all_tenants is not refused, but goes unheard
    listed = cloud.cinder("GET", "/volumes?all_tenants=1", project="other")["volumes"]
    assert volume["id"] not in [each["id"] for each in listed]
    listed = cloud.cinder("GET", "/volumes?all_tenants=1", project="admin")["volumes"]
    assert volume["id"] in [each["id"] for each in listed]


def test_attachments_show_the_volume(cloud: EmbeddedCloud, volume: dict[str, Any]) -> None:
    attachment = attach(cloud, volume["id"], "rw")
    info = attachment["connection_info"]
    assert info["driver_volume_type"] == "local"
    data = os.urandom(MIB)
    write_at(info["device_path"], 5 * MIB, data)
    with open(cloud.pool / f"volume-{volume['id']}", "rb") as stream:
        stream.seek(5 * MIB)
        assert stream.read(MIB) == data
    assert cloud.wait(f"/volumes/{volume['id']}", "in-use")
    cloud.cinder("DELETE", f"/attachments/{attachment['id']}")
    cloud.wait(f"/volumes/{volume['id']}", "available")
    assert f"volume-{volume['id']}" not in " ".join(cloud.loop_devices().values())


def test_a_read_only_loop_device_refuses_writes(
    cloud: EmbeddedCloud, volume: dict[str, Any]
) -> None:
    if cloud.status()["attach"] != "loop":
        pytest.skip("a file path cannot refuse writes")
    attachment = attach(cloud, volume["id"], "ro")
    device = attachment["connection_info"]["device_path"]
    with pytest.raises(OSError, match="Operation not permitted|Read-only"):
        write_at(device, 0, b"x" * 4096)
    cloud.cinder("DELETE", f"/attachments/{attachment['id']}")


def test_a_snapshot_of_an_attached_volume_is_of_its_moment(
    cloud: EmbeddedCloud, volume: dict[str, Any]
) -> None:
    guest = cloud.pretend_server(volume["id"])
    write_at(guest["device"], 0, os.urandom(8 * MIB))
    source = cloud.pool / f"volume-{volume['id']}"
    before = beginning(source)
    snapshot = make_snapshot(cloud, volume["id"])
    cloud.wait(f"/snapshots/{snapshot['id']}", "available")
    write_at(guest["device"], 0, os.urandom(8 * MIB))
    clone = cloud.create_volume(1, snapshot_id=snapshot["id"])
    assert beginning(cloud.pool / f"volume-{clone['id']}") == before
    assert beginning(source) != before
    assert cloud.cinder("GET", f"/volumes/{volume['id']}")["volume"]["status"] == "in-use"
    cloud.delete_volume(clone["id"])
    delete_snapshot(cloud, snapshot["id"])
    assert not (cloud.pool / f"snapshot-{snapshot['id']}").exists()
    cloud.release_server(volume["id"])


def test_snapshots_share_their_blocks(cloud: EmbeddedCloud, volume: dict[str, Any]) -> None:
    if not cloud.status()["reflink"]:
        pytest.skip("the pool's file system cannot reflink")
    path = cloud.pool / f"volume-{volume['id']}"
    write_at(os.fspath(path), 0, os.urandom(64 * MIB))
    os.sync()
    free = os.statvfs(cloud.pool).f_bavail
    snapshot = make_snapshot(cloud, volume["id"])
    cloud.wait(f"/snapshots/{snapshot['id']}", "available")
    os.sync()
    status = os.statvfs(cloud.pool)
    assert (free - status.f_bavail) * status.f_frsize < 8 * MIB
    delete_snapshot(cloud, snapshot["id"])


def test_a_group_is_snapshot_together(cloud: EmbeddedCloud) -> None:
    types = cloud.cinder("GET", "/group_types")["group_types"]
    (group_type,) = [each["id"] for each in types if each["name"] == "consistent"]
    (volume_type,) = [
        each["id"]
        for each in cloud.cinder("GET", "/types")["volume_types"]
        if each["name"] == "file"
    ]
    body: dict[str, Any] = {"group": {"group_type": group_type, "volume_types": [volume_type]}}
    group = cloud.cinder("POST", "/groups", body)["group"]
    cloud.wait(f"/groups/{group['id']}", "available")
    members = [cloud.create_volume(1, group_id=group["id"], volume_type="file") for _ in "ab"]
    body = {"group_snapshot": {"group_id": group["id"], "name": "together"}}
    taken = cloud.cinder("POST", "/group_snapshots", body)["group_snapshot"]
    cloud.wait(f"/group_snapshots/{taken['id']}", "available")
    snapshots = [
        each
        for each in cloud.cinder("GET", "/snapshots/detail")["snapshots"]
        if each["group_snapshot_id"] == taken["id"]
    ]
    assert {each["volume_id"] for each in snapshots} == {each["id"] for each in members}
    cloud.cinder("DELETE", f"/group_snapshots/{taken['id']}")
    cloud.wait(f"/group_snapshots/{taken['id']}", "deleted")
    cloud.cinder("POST", f"/groups/{group['id']}/action", {"delete": {"delete-volumes": True}})
    cloud.wait(f"/groups/{group['id']}", "deleted")
    for member in members:
        assert not (cloud.pool / f"volume-{member['id']}").exists()


def test_members_set_image_metadata(cloud: EmbeddedCloud, volume: dict[str, Any]) -> None:
    body = {"os-set_image_metadata": {"metadata": {"os_distro": "debian"}}}
    cloud.cinder("POST", f"/volumes/{volume['id']}/action", body)
    found = cloud.cinder("GET", f"/volumes/{volume['id']}")["volume"]
    assert found["volume_image_metadata"] == {"os_distro": "debian"}


# -- pretended servers


def test_a_pretended_server_is_one_to_cinder_and_its_own_project_only(
    cloud: EmbeddedCloud, volume: dict[str, Any]
) -> None:
    guest = cloud.pretend_server(volume["id"], metadata={"backup": "nightly"})
    found = cloud.cinder("GET", f"/volumes/{volume['id']}")["volume"]
    assert found["status"] == "in-use"
    assert found["attachments"][0]["server_id"] == guest["server_id"]
    compute = f"{cloud.status()['compute_url']}/servers"
    server = cloud.session().request("GET", f"{compute}/{guest['server_id']}")["server"]
    assert server["metadata"] == {"backup": "nightly"}
    listed = cloud.session("other").request("GET", f"{compute}/detail")["servers"]
    assert guest["server_id"] not in [each["id"] for each in listed]
    with pytest.raises(ApiError) as refusal:  # Nova says that the server still uses it
        cloud.cinder("DELETE", f"/attachments/{guest['attachment_id']}")
    assert refusal.value.status == 409
    cloud.release_server(volume["id"])
    cloud.wait(f"/volumes/{volume['id']}", "available")
    with pytest.raises(ApiError) as refusal:
        cloud.session().request("GET", f"{compute}/{guest['server_id']}")
    assert refusal.value.status == 404
    with pytest.raises(CloudError, match="no pretended server"):
        cloud.release_server(volume["id"])


def test_a_used_volume_can_grow(cloud: EmbeddedCloud, volume: dict[str, Any]) -> None:
    guest = cloud.pretend_server(volume["id"])
    cloud.cinder("POST", f"/volumes/{volume['id']}/action", {"os-extend": {"new_size": 2}})
    assert cloud.wait(f"/volumes/{volume['id']}", "in-use")["size"] == 2
    with open(guest["device"], "rb") as device:
        assert device.seek(0, os.SEEK_END) == 2048 * MIB
    cloud.release_server(volume["id"])


# -- faults and quotas


def test_driver_faults_strike_as_often_as_asked(
    cloud: EmbeddedCloud, volume: dict[str, Any]
) -> None:
    for _ in range(2):  # writing the file again starts the counter again
        cloud.faults(create_snapshot={"error": "no space", "times": 1})
        snapshot = make_snapshot(cloud, volume["id"])
        with pytest.raises(CloudError, match="is error"):
            cloud.wait(f"/snapshots/{snapshot['id']}", "available")
        delete_snapshot(cloud, snapshot["id"])
    snapshot = make_snapshot(cloud, volume["id"])
    cloud.wait(f"/snapshots/{snapshot['id']}", "available")
    cloud.faults(delete_snapshot={"busy": True, "times": 1})
    cloud.cinder("DELETE", f"/snapshots/{snapshot['id']}")
    cloud.wait(f"/snapshots/{snapshot['id']}", "available")
    delete_snapshot(cloud, snapshot["id"])


def test_a_failed_create_is_tried_three_times(cloud: EmbeddedCloud) -> None:
    cloud.faults(create_volume={"error": "disk full", "times": 2})
    cloud.delete_volume(cloud.create_volume(1)["id"])
    cloud.faults(create_volume={"error": "disk full", "times": 3})
    made = cloud.cinder("POST", "/volumes", {"volume": {"size": 1}})["volume"]
    with pytest.raises(CloudError, match="is error"):
        cloud.wait(f"/volumes/{made['id']}", "available")
    cloud.delete_volume(made["id"])


def test_a_refused_attachment_can_be_deleted(cloud: EmbeddedCloud, volume: dict[str, Any]) -> None:
    cloud.faults(initialize_connection={"error": "no path"})
    with pytest.raises(ApiError) as refusal:
        cloud.pretend_server(volume["id"])
    assert refusal.value.status == 500
    cloud.wait(f"/volumes/{volume['id']}", "available")
    left = cloud.cinder("GET", f"/attachments?volume_id={volume['id']}")["attachments"]
    assert left == []


def test_a_delay_holds_a_call_up(cloud: EmbeddedCloud, volume: dict[str, Any]) -> None:
    cloud.faults(create_snapshot={"delay": 1})
    began = time.monotonic()
    snapshot = make_snapshot(cloud, volume["id"])
    cloud.wait(f"/snapshots/{snapshot['id']}", "available")
    assert time.monotonic() - began >= 1
    delete_snapshot(cloud, snapshot["id"])


def test_api_faults_by_method_path_project_and_count(
    cloud: EmbeddedCloud, volume: dict[str, Any]
) -> None:
    address = f"/volumes/{volume['id']}"
    cloud.api_faults(
        [
            {
                "method": "GET",
                "path": "^/volumes/[^/]+$",
                "status": 503,
                "retry_after": 2,
                "times": 2,
                "project": cloud.session("demo").project_id,
            },
            {"path": "^/snapshots", "status": 413, "message": "no more snapshots"},
        ]
    )
    cloud.cinder("GET", "/volumes")  # another path
    with pytest.raises(ApiError, match="404"):  # another project
        cloud.cinder("GET", address, project="other")
    for _ in range(2):
        with pytest.raises(ApiError, match="503"):
            cloud.cinder("GET", address)
    assert cloud.cinder("GET", address)["volume"]["id"] == volume["id"]
    with pytest.raises(ApiError, match="413: no more snapshots"):
        make_snapshot(cloud, volume["id"])


def test_api_faults_by_time(cloud: EmbeddedCloud) -> None:
    cloud.api_faults([{"path": "^/volumes$", "status": 500, "seconds": 1}])
    began = time.monotonic()
    with pytest.raises(ApiError, match="500"):
        cloud.cinder("GET", "/volumes")
    while True:
        try:
            cloud.cinder("GET", "/volumes")
            break
        except ApiError as error:
            assert error.status == 500
            time.sleep(0.05)
    assert time.monotonic() - began >= 1


def test_quotas_are_cinders_own(cloud: EmbeddedCloud) -> None:
    used = cloud.cinder("GET", "/os-quota-sets/" + cloud.session().project_id + "?usage=True")
    limit = used["quota_set"]["gigabytes"]["in_use"] + 1
    cloud.set_quota("demo", gigabytes=limit)
    try:
        with pytest.raises(ApiError, match="exceeds allowed gigabytes quota") as refusal:
            cloud.cinder("POST", "/volumes", {"volume": {"size": 2}})
        assert refusal.value.status == 413
    finally:
        cloud.reset_quota("demo")
    cloud.delete_volume(cloud.create_volume(2)["id"])


# -- Freezer

FREEZER_JOB = """
from freezer.common import config
config.config(["--action", "info", "--log-file", "{log}"])
from freezer import job

class Conf(dict):
    def __getattr__(self, name):
        return self.get(name)

made = job.InfoJob(Conf(action="info", mode="cinder"), None)
assert "{volume}" in [volume.id for volume in made.cinder.volumes()]
assert "{server}" in [server.id for server in made.nova.servers()]
assert list(made.glance.images()) == []
"""


def test_the_unmodified_freezer_finds_its_way(
    cloud: EmbeddedCloud, volume: dict[str, Any], tmp_path: pathlib.Path
) -> None:
    """Job.__init__ authenticates and discovers Nova, Cinder and Glance for every job."""
    pytest.importorskip("freezer")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OS_")}
    environment.update(cloud.env("demo"))
    server = cloud.pretend_server(volume["id"])["server_id"]
    script = FREEZER_JOB.format(log=tmp_path / "freezer.log", volume=volume["id"], server=server)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    cloud.release_server(volume["id"])
    assert done.returncode == 0, done.stdout


# -- its life: these bring up clouds of their own


@pytest.fixture
def own_cloud(cloud: EmbeddedCloud, tmp_path: pathlib.Path) -> Iterator[EmbeddedCloud]:
    """A second cloud beside the shared one, in the same environment."""
    own = EmbeddedCloud(tmp_path / "state")
    own.up("--venv", cloud.status()["venv"])
    yield own
    own.down(wipe=True)


def test_a_cloud_survives_kill_and_restart_and_leaves_nothing(
    cloud: EmbeddedCloud, own_cloud: EmbeddedCloud
) -> None:
    venv = cloud.status()["venv"]
    volume = own_cloud.create_volume(1)
    guest = own_cloud.pretend_server(volume["id"])
    data = os.urandom(MIB)
    write_at(guest["device"], MIB, data)
    own_cloud.faults(create_volume={"delay": 600})
    stuck = own_cloud.cinder("POST", "/volumes", {"volume": {"size": 1}})["volume"]
    time.sleep(0.5)
    for pid in own_cloud.status()["pids"].values():
        os.kill(pid, signal.SIGKILL)
    own_cloud.clear_faults()
    own_cloud.up("--venv", venv)
    assert own_cloud.status()["running"]
    with pytest.raises(CloudError, match="is error"):  # Cinder's own recovery
        own_cloud.wait(f"/volumes/{stuck['id']}", "available")

    own_cloud.down()
    assert not own_cloud.status()["running"]
    assert own_cloud.loop_devices() == {}
    own_cloud.up("--venv", venv)
    own_cloud.wait(f"/volumes/{volume['id']}", "in-use")
    ((server_id, server),) = own_cloud.servers().items()
    assert server_id == guest["server_id"]
    with open(server["volumes"][volume["id"]]["device"], "rb") as device:
        device.seek(MIB)
        assert device.read(MIB) == data

    pids = own_cloud.status()["pids"].values()
    own_cloud.down(wipe=True)
    assert not own_cloud.state.folder.exists()
    assert own_cloud.loop_devices() == {}
    assert str(own_cloud.state.folder) not in pathlib.Path("/proc/self/mounts").read_text()
    assert not [pid for pid in pids if pathlib.Path(f"/proc/{pid}/root").exists()]


@as_root
def test_down_ends_file_systems_that_a_guest_left_mounted(
    own_cloud: EmbeddedCloud, tmp_path: pathlib.Path
) -> None:
    if own_cloud.status()["attach"] != "loop":
        pytest.skip("no loop devices here")
    volume = own_cloud.create_volume(1)
    guest = own_cloud.pretend_server(volume["id"])
    subprocess.run(["mkfs.ext4", "-q", guest["device"]], check=True)
    (tmp_path / "guest").mkdir()
    subprocess.run(["mount", guest["device"], tmp_path / "guest"], check=True)
    own_cloud.down()
    assert not (tmp_path / "guest").is_mount()


def test_failures_are_one_sentence(tmp_path: pathlib.Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, os.fspath(LAUNCHER), *arguments, "--state", os.fspath(tmp_path)]
        return subprocess.run(
            line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )

    done = run("pretend-server", str(uuid.uuid4()))
    assert (done.returncode, done.stdout) == (
        1,
        f"cloud.py: there is no cloud in {tmp_path}: bring it up first\n",
    )
    assert run("status").returncode == 3
    (tmp_path / "cloud.json").write_text("{")
    done = run("status")
    assert done.returncode == 1 and "cannot be read" in done.stdout
    assert "Traceback" not in done.stdout


@as_root
def test_a_plain_user_has_a_cloud_of_files(cloud: EmbeddedCloud) -> None:
    nobody: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []}
    venv_python = pathlib.Path(cloud.status()["venv"], "bin", "python")

    def run(program: str | os.PathLike[str], *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [os.fspath(program), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            cwd="/",
            **nobody,
        )

    try:
        for program in (sys.executable, venv_python):
            assert run(program, "-c", f"open({os.fspath(LAUNCHER)!r})").returncode == 0
    except (OSError, AssertionError):
        pytest.skip("a plain user may not read the checkout or the environments here")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="embedded-cloud-"))
    os.chown(folder, 65534, 65534)
    common = ("-B", os.fspath(LAUNCHER))
    state = ("--state", os.fspath(folder / "state"))
    try:
        done = run(
            sys.executable, *common, "up", "--venv", os.fspath(venv_python.parents[1]), *state
        )
        assert done.returncode == 0, done.stdout
        assert "attached as file paths" in done.stdout
        own = EmbeddedCloud(folder / "state")
        volume = own.create_volume(1)
        guest = own.pretend_server(volume["id"])
        assert guest["device"] == os.fspath(own.pool / f"volume-{volume['id']}")
        own.release_server(volume["id"])
        done = run(
            sys.executable,
            *common,
            "up",
            "--attach",
            "loop",
            *state,
            "--venv",
            os.fspath(venv_python.parents[1]),
        )
        assert done.returncode == 1 and "only root can attach loop devices" in done.stdout
    finally:
        done = run(sys.executable, *common, "down", "--wipe", *state)
    assert done.returncode == 0, done.stdout
    assert list(folder.iterdir()) == []
    folder.rmdir()
