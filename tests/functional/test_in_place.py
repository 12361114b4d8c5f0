# SPDX-License-Identifier: Apache-2.0
"""Restores into the volume itself: whole, refused, or broken off and told so."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.functional.backup_host import MIB, BackupHost, Done, data_of

pytest.importorskip("freezer")

Restore = Callable[..., Done]
INCOMPLETE = "freezer_osbrick_incomplete"


@dataclasses.dataclass
class Scene:
    """A volume with a backup, and changed since.

    :ivar then: what was backed up, as a check sum.
    :ivar now: what the volume holds.
    """

    host: BackupHost
    volume_id: str
    backup_id: str
    then: str
    now: str

    @property
    def volume(self) -> dict[str, Any]:
        """What Cinder says of the volume."""
        return dict(self.host.bench.embedded.cinder("GET", f"/volumes/{self.volume_id}")["volume"])

    @property
    def content(self) -> str:
        return self.host.digest(self.volume_id)

    def is_as_it_was(self) -> bool:
        volume = self.volume
        return (volume["status"], volume["metadata"], self.content) == (
            "available",
            {"owner": "me"},
            self.now,
        )


@pytest.fixture
def scene(host: BackupHost) -> Iterator[Scene]:
    volume_id = host.bench.volume(1, name="data", metadata={"owner": "me"}).id
    host.write(volume_id, 100 * MIB, data_of(1, 192 * MIB))
    then = host.digest(volume_id)
    words = ("backup", volume_id, "--backup-name", "nightly", "-f", "json")
    (told,) = host.command(*words).rows
    host.write(volume_id, 108 * MIB, data_of(2, 160 * MIB))
    yield Scene(host, volume_id, told["backup_id"], then, host.digest(volume_id))
    assert host.leftovers() == {}
    host.drop(volume_id)


@pytest.fixture
def restore(scene: Scene) -> Restore:
    """Restores the volume in place with further options."""
    words = ("restore", scene.volume_id, "--in-place", "-f", "json")
    return lambda *more: scene.host.command(*words, *more)


def told(done: Done) -> dict[str, Any]:
    """What a successful run told of the volume."""
    return done.record if done.stdout.startswith("{") else dict(done.rows[0])


@pytest.mark.parametrize("program", ["freezer-agent", "freezer-osbrick"])
def test_only_what_differs_is_written(scene: Scene, restore: Restore, program: str) -> None:
    words = ("--in-place", "--verify")
    by_agent = program == "freezer-agent"
    run = told(
        scene.host.agent("restore", scene.volume_id, *words) if by_agent else restore("--verify")
    )
    assert (run["target"], run["verified"]) == ("in place", True)
    assert run["restored_volume_id"] == scene.volume_id
    assert 160 * MIB <= run["bytes_written"] <= 161 * MIB
    assert scene.content == scene.then
    assert (scene.volume["status"], scene.volume["metadata"]) == ("available", {"owner": "me"})
    assert told(restore())["bytes_written"] == 0


def test_with_the_metadata_of_the_backup(scene: Scene, restore: Restore) -> None:
    body = {"volume": {"name": "renamed", "metadata": {"owner": "you"}}}
    scene.host.bench.embedded.cinder("PUT", f"/volumes/{scene.volume_id}", body)
    assert told(restore("--meta-override", "--new-name", "back"))["notes"] == []
    volume = scene.volume
    assert (volume["name"], volume["metadata"]) == ("back", {"owner": "me"})
    assert scene.content == scene.then


def test_a_server_has_the_volume(scene: Scene, restore: Restore) -> None:
    server = scene.host.bench.embedded.pretend_server(scene.volume_id)
    failed = restore()
    assert f"attached to the server {server['server_id']}" in failed.stdout + failed.stderr
    assert failed.status > 0
    assert scene.volume["status"] == "in-use"
    scene.host.bench.embedded.release_server(scene.volume_id)
    assert scene.is_as_it_was()


def test_somebody_reserves_the_volume(scene: Scene, restore: Restore) -> None:
    cinder = scene.host.bench.embedded.cinder
    body = {"attachment": {"volume_uuid": scene.volume_id, "mode": "rw"}}
    made = cinder("POST", "/attachments", body)["attachment"]["id"]
    failed = restore()
    assert "in state 'reserved'" in failed.stdout + failed.stderr
    assert failed.status > 0
    cinder("DELETE", f"/attachments/{made}")
    assert scene.is_as_it_was()


def test_another_project(scene: Scene, host: BackupHost) -> None:
    words = ("restore", scene.volume_id, "--in-place", "-f", "json")
    failed = host.command(*words, project="other")
    assert failed.status == 1
    assert "does not exist" in json.loads(failed.stdout)[0]["reason"]
    assert scene.is_as_it_was()


def test_the_storage_does_not_attach_it(scene: Scene, restore: Restore) -> None:
    scene.host.bench.embedded.faults(initialize_connection={"error": "no path"})
    failed = restore()
    assert "refused to attach" in failed.stdout + failed.stderr
    scene.host.bench.embedded.clear_faults()
    assert scene.is_as_it_was()


# -- broken off ------------------------------------------------------------------------------------


def written(scene: Scene) -> Callable[[], bool]:
    """The condition that blocks were written to the volume."""
    path = scene.host.bench.file_of(scene.volume_id)
    before = os.stat(path).st_mtime_ns
    return lambda: os.stat(path).st_mtime_ns != before


MOMENTS: dict[str, Callable[[Scene], Callable[[], bool]]] = {
    "borrowed": lambda scene: scene.host.step("borrowing"),
    "reserving": lambda scene: scene.host.step("attaching"),
    "attached": lambda scene: scene.host.step("connected"),
    "half written": written,
    "all written": lambda scene: scene.host.step("disconnected"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed(scene: Scene, moment: str) -> None:
    host = scene.host
    condition = MOMENTS[moment](scene)
    words = ("restore", scene.volume_id, "--in-place", "--repository", "nightly")
    host.start("freezer-osbrick", *words).kill_when(condition)
    incomplete = scene.volume["metadata"].get(INCOMPLETE)
    assert incomplete in (None, scene.backup_id)
    assert incomplete or scene.content == scene.now
    rows = host.command("cleanup", "-f", "json").rows
    (volume,) = (row for row in rows if row["id"] == scene.volume_id)
    assert volume["state"] == "returned"
    assert ("parts of two states" in volume["reason"]) is bool(incomplete)
    assert host.leftovers() == {}
    assert scene.volume["status"] == "available"
    if not incomplete:
        assert scene.is_as_it_was()
    else:
        assert scene.volume["metadata"] == {"owner": "me", INCOMPLETE: scene.backup_id}
        # A backup made now says so.
        words = ("backup", scene.volume_id, "--incremental", "-f", "json")
        assert "parts of two states" in host.command(*words).rows[0]["notes"][0]
    words = ("restore", "--backup", scene.backup_id, "--in-place", "-f", "json")
    assert host.command(*words).rows[0]["state"] == "success"
    assert scene.content == scene.then
    assert scene.volume["metadata"] == {"owner": "me"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ended_in_order(scene: Scene, number: signal.Signals) -> None:
    host = scene.host
    words = ("restore", scene.volume_id, "--in-place", "--repository", "nightly")
    run = host.start("freezer-osbrick", *words)
    run.until(written(scene))
    run.send(number)
    done = run.wait()
    assert done.status == 128 + number
    assert "parts of two states" in done.stderr
    assert host.leftovers() == {}
    volume = scene.volume
    assert (volume["status"], volume["metadata"][INCOMPLETE]) == ("available", scene.backup_id)
