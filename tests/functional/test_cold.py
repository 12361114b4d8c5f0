# SPDX-License-Identifier: Apache-2.0
"""Cold backups: the server gives its volume, and has it again whatever happens."""

from __future__ import annotations

import dataclasses
import json
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.functional.backup_host import MIB, BackupHost, Done, data_of

pytest.importorskip("freezer")

Backup = Callable[..., Done]


@dataclasses.dataclass
class Scene:
    """A volume of a server.

    :ivar digest: what the volume holds, as a check sum.
    """

    host: BackupHost
    volume_id: str
    server_id: str
    digest: str

    @property
    def volume(self) -> dict[str, Any]:
        """What Cinder says of the volume."""
        return dict(self.host.bench.embedded.cinder("GET", f"/volumes/{self.volume_id}")["volume"])

    def is_as_it_was(self) -> bool:
        """With its server, at the same device, without a trace of ours."""
        (attachment,) = self.volume["attachments"]
        held = self.host.bench.embedded.servers()[self.server_id]["volumes"][self.volume_id]
        return (
            self.volume["status"],
            self.volume["metadata"],
            attachment["server_id"],
            attachment["attachment_id"],
            held["name"],
        ) == ("in-use", {}, self.server_id, held["attachment_id"], "/dev/vdb")

    def restores(self) -> None:
        (told,) = self.host.command("restore", self.volume_id, "-f", "json").rows
        self.host.bench.users_own(told["restored_volume_id"])
        assert self.host.digest(told["restored_volume_id"]) == self.digest
        self.host.drop(told["restored_volume_id"])


@pytest.fixture
def scene(host: BackupHost) -> Iterator[Scene]:
    volume_id = host.bench.volume(1, name="data").id
    host.write(volume_id, 100 * MIB, data_of(1, 128 * MIB))
    server = host.bench.embedded.pretend_server(volume_id)
    yield Scene(host, volume_id, server["server_id"], host.digest(volume_id))
    assert host.leftovers() == {}
    if any(volume_id in each["volumes"] for each in host.bench.embedded.servers().values()):
        host.bench.embedded.release_server(volume_id)
    host.drop(volume_id)


@pytest.fixture
def backup(scene: Scene) -> Backup:
    """Backs the volume up cold."""
    return lambda: scene.host.command("backup", scene.volume_id, "--cold", "-f", "json")


def told(done: Done) -> dict[str, Any]:
    """What a successful run told of the volume."""
    return done.record if done.stdout.startswith("{") else dict(done.rows[0])


def refusal(done: Done) -> str:
    assert done.status > 0, done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("program", ["freezer-agent", "freezer-osbrick"])
def test_the_volume_of_a_server(scene: Scene, backup: Backup, program: str) -> None:
    scene.host.bench.embedded.set_quota("demo", snapshots=0)  # none is needed
    by_agent = program == "freezer-agent"
    try:
        run = told(scene.host.agent("backup", scene.volume_id, "--cold") if by_agent else backup())
    finally:
        scene.host.bench.embedded.reset_quota("demo")
    assert run["notes"] == []
    assert scene.is_as_it_was()
    shown = scene.host.command("show", run["backup_id"], "-f", "json").document
    assert shown["mode"] == "cold"
    scene.restores()


def test_another_projects_volume_by_an_administrator(scene: Scene, host: BackupHost) -> None:
    words = ("backup", scene.volume_id, "--cold", "-f", "json")
    (run,) = host.command(*words, project="admin").rows
    assert run["notes"] == []
    assert scene.is_as_it_was()
    scene.restores()


def test_a_volume_without_a_server(scene: Scene, backup: Backup) -> None:
    scene.host.bench.embedded.release_server(scene.volume_id)
    told(backup())
    volume = scene.volume
    assert (volume["status"], volume["metadata"]) == ("available", {})
    scene.restores()


def test_the_server_has_not_the_volume_meanwhile(scene: Scene) -> None:
    host = scene.host
    run = host.start_agent("backup", scene.volume_id, "--cold")
    run.until(host.step("connected"))
    with run.stopped():
        assert not host.bench.embedded.servers()[scene.server_id]["volumes"]
        listed = host.bench.embedded.cinder("GET", "/attachments/detail")["attachments"]
        (attachment,) = (each for each in listed if each["volume_id"] == scene.volume_id)
        assert attachment["instance"] is None
        assert scene.volume["metadata"]["freezer_osbrick"] == "borrowed"
    assert run.wait().status == 0
    assert scene.is_as_it_was()


def test_another_device_is_told(scene: Scene, backup: Backup) -> None:
    """The hypervisor takes the first free name, as libvirt does."""
    host, cloud = scene.host, scene.host.bench.embedded
    second = host.bench.volume(1).id
    cloud.pretend_server(second, server_id=scene.server_id)
    cloud.release_server(scene.volume_id)  # /dev/vdb is free, and the second is /dev/vdc
    run = host.command("backup", second, "--cold", "-f", "json").rows[0]
    (note,) = run["notes"]
    assert note.endswith("as /dev/vdb now; it was /dev/vdc.")
    cloud.release_server(second)
    host.drop(second)


# -- refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("project", ["demo", "admin"])
def test_the_root_disk(host: BackupHost, project: str) -> None:
    """Nova tells only an administrator which it is, and refuses to detach it for everybody."""
    volume_id = host.bench.volume(1).id
    server = host.bench.embedded.pretend_server(volume_id, name="/dev/vda")
    failed = host.command("backup", volume_id, "--cold", project=project)
    assert "root d" in refusal(failed)
    held = host.bench.embedded.servers()[server["server_id"]]["volumes"]
    assert held[volume_id]["attachment_id"] == server["attachment_id"]
    assert host.leftovers() == {}
    host.bench.embedded.release_server(volume_id)
    host.drop(volume_id)


def test_another_projects_volume(scene: Scene, host: BackupHost) -> None:
    failed = host.command("backup", scene.volume_id, "--cold", project="other")
    assert "could not be found" in refusal(failed)
    assert scene.is_as_it_was()


@pytest.mark.parametrize(
    ("facts", "words"),
    [({"locked": True}, "is locked"), ({"status": "BUILD"}, "vm_state build")],
)
def test_a_server_that_nova_lets_nobody_change(
    scene: Scene, backup: Backup, facts: dict[str, Any], words: str
) -> None:
    scene.host.bench.embedded.set_server(scene.server_id, **facts)
    assert words in refusal(backup())
    assert scene.is_as_it_was()


def test_a_guest_that_holds_on(scene: Scene, backup: Backup) -> None:
    scene.host.bench.embedded.set_server(scene.server_id, holds_on=True)
    assert "in state 'in-use'" in refusal(backup())
    assert scene.is_as_it_was()


# -- whatever happens ------------------------------------------------------------------------------


def test_the_storage_does_not_attach_it_here(scene: Scene, backup: Backup) -> None:
    scene.host.bench.embedded.faults(initialize_connection={"error": "no path", "times": 1})
    assert "refused to attach" in refusal(backup())
    assert scene.is_as_it_was()


def test_nor_there_again(scene: Scene, backup: Backup) -> None:
    """Not even to its server: that is told, and cleanup does it later."""
    scene.host.bench.embedded.faults(initialize_connection={"error": "no path"})
    assert "has not got its volume" in refusal(backup())
    assert scene.host.leftovers().keys() == {"journals", "ledger"}
    failed = scene.host.command("cleanup", "-f", "json")
    assert failed.status == 1
    (item,) = json.loads(failed.stdout)
    assert (item["state"], item["id"]) == ("failed", scene.volume_id)
    assert "has not got its volume" in item["reason"]
    scene.host.bench.embedded.clear_faults()
    assert scene.host.command("cleanup").status == 0
    assert scene.is_as_it_was()


def test_the_server_is_gone(scene: Scene) -> None:
    host = scene.host
    run = host.start_agent("backup", scene.volume_id, "--cold")
    run.until(host.step("connected"))
    with run.stopped():
        host.bench.embedded.delete_server(scene.server_id)
    (note,) = run.wait().record["notes"]
    assert "stays detached" in note
    volume = scene.volume
    assert (volume["status"], volume["metadata"]) == ("available", {})


MOMENTS: dict[str, Callable[[Scene], Callable[[], object]]] = {
    "borrowed": lambda scene: scene.host.step("borrowing"),
    "releasing": lambda scene: scene.host.step("releasing"),
    "released": lambda scene: (
        lambda: not scene.host.bench.embedded.servers()[scene.server_id]["volumes"]
    ),
    "reserving": lambda scene: scene.host.step("attaching"),
    "attached": lambda scene: scene.host.step("connected"),
    "disconnected": lambda scene: scene.host.step("disconnected"),
    "detached": lambda scene: scene.host.step("detached"),
    "reattached": lambda scene: scene.host.step("reattached"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed(scene: Scene, moment: str) -> None:
    host = scene.host
    words = ("backup", scene.volume_id, "--cold", "--repository", "nightly")
    host.start("freezer-osbrick", *words).kill_when(MOMENTS[moment](scene))
    rows = host.command("cleanup", "-f", "json").rows
    (volume,) = (row for row in rows if row["id"] == scene.volume_id)
    assert volume["state"] == "returned"
    assert scene.is_as_it_was()
    assert host.leftovers() == {}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", ["releasing", "connected"])
def test_ended_in_order(scene: Scene, number: signal.Signals, moment: str) -> None:
    words = ("backup", scene.volume_id, "--cold", "--repository", "nightly")
    run = scene.host.start("freezer-osbrick", *words)
    run.until(scene.host.step(moment))
    run.send(number)
    assert run.wait().status == 128 + number
    assert scene.is_as_it_was()
