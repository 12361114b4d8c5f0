# SPDX-License-Identifier: Apache-2.0
"""What a restore may be asked to do besides, on real Cinder, by the agent and by the command."""

from __future__ import annotations

import dataclasses
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.functional.backup_host import GIB, MIB, BackupHost, Done, data_of

pytest.importorskip("freezer")

Restore = Callable[..., Done]


@dataclasses.dataclass
class Scene:
    """A volume with a backup, and changed since.

    :ivar then: what was backed up, as a check sum.
    :ivar now: what the volume holds.
    """

    host: BackupHost
    volume_id: str
    then: str
    now: str

    def volume(self, volume_id: str) -> dict[str, Any]:
        """What Cinder says of a volume."""
        return dict(self.host.bench.embedded.cinder("GET", f"/volumes/{volume_id}")["volume"])

    def told(self, done: Done) -> dict[str, Any]:
        """What a successful run told of the volume; the restored one is the user's."""
        document = done.document if done.stdout.startswith("{") else {}
        (told,) = document["osbrick"]["volumes"] if document else done.rows
        if told["restored_volume_id"] != self.volume_id:
            self.host.bench.users_own(told["restored_volume_id"])
        return dict(told)

    @property
    def exists(self) -> bool:
        volumes = self.host.bench.embedded.cinder("GET", "/volumes")["volumes"]
        return self.volume_id in {volume["id"] for volume in volumes}


@pytest.fixture
def scene(host: BackupHost) -> Iterator[Scene]:
    cinder = host.bench.embedded.cinder
    fields = {"name": "data", "description": "then", "metadata": {"tier": "gold"}}
    volume_id = host.bench.volume(1, **fields).id
    cinder("POST", f"/volumes/{volume_id}/action", {"os-set_bootable": {"bootable": True}})
    host.write(volume_id, 100 * MIB, data_of(1, 16 * MIB))
    then = host.digest(volume_id)
    host.backup(volume_id)
    host.write(volume_id, 108 * MIB, data_of(2, 16 * MIB))
    since = {"name": "renamed", "description": "since", "metadata": {"owner": "me"}}
    cinder("PUT", f"/volumes/{volume_id}", {"volume": since})
    cinder("POST", f"/volumes/{volume_id}/action", {"os-set_bootable": {"bootable": False}})
    image = {"os_distro": "debian"}
    cinder("POST", f"/volumes/{volume_id}/action", {"os-set_image_metadata": {"metadata": image}})
    scene = Scene(host, volume_id, then, host.digest(volume_id))
    yield scene
    assert host.leftovers() == {}
    if scene.exists:
        host.drop(volume_id)
    else:
        host.bench.forget(volume_id)


@pytest.fixture(params=["freezer-agent", "freezer-osbrick"])
def restore(request: pytest.FixtureRequest, scene: Scene) -> Restore:
    """Restores the volume with further options, by one of the two programs."""
    host, volume_id = scene.host, scene.volume_id
    if request.param == "freezer-agent":
        return lambda *words: host.agent("restore", volume_id, *words)
    return lambda *words: host.command("restore", volume_id, "-f", "json", *words)


def refusal(done: Done) -> str:
    """Why a run failed, told by whichever program."""
    assert done.status > 0, done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout + done.stderr


def properties(volume: dict[str, Any]) -> tuple[Any, ...]:
    image = volume.get("volume_image_metadata", {})
    return volume["name"], volume["description"], volume["metadata"], volume["bootable"], image


THEN = ("data", "then", {"tier": "gold"}, "true", {})
SINCE = ("renamed", "since", {"owner": "me"}, "false", {"os_distro": "debian"})


def test_metadata_of_today_without_being_asked(scene: Scene, restore: Restore) -> None:
    told = scene.told(restore())
    assert properties(scene.volume(told["restored_volume_id"])) == SINCE
    assert properties(scene.volume(scene.volume_id)) == SINCE


def test_metadata_of_the_backup(scene: Scene, restore: Restore) -> None:
    told = scene.told(restore("--meta-override", "--new-name", "again"))
    restored = scene.volume(told["restored_volume_id"])
    assert properties(restored) == ("again", *THEN[1:])
    assert properties(scene.volume(scene.volume_id)) == THEN
    assert told["notes"] == []
    assert scene.host.digest(told["restored_volume_id"]) == scene.then
    assert scene.host.digest(scene.volume_id) == scene.now


def test_a_larger_volume_read_back(scene: Scene, restore: Restore) -> None:
    told = scene.told(restore("--size", "2", "--verify"))
    restored = told["restored_volume_id"]
    assert (told["target"], told["verified"]) == ("clone", True)
    assert scene.volume(restored)["size"] == 2
    with open(scene.host.bench.file_of(restored), "rb") as file:
        assert os.pread(file.fileno(), 16 * MIB, 100 * MIB) == data_of(1, 16 * MIB)
        assert not any(os.pread(file.fileno(), MIB, GIB))


def test_the_old_volume_goes(scene: Scene, restore: Restore) -> None:
    told = scene.told(restore("--remove-old-vol", "--yes"))
    assert (told["verified"], told["removed_volume_id"]) == (True, scene.volume_id)
    assert not scene.exists
    assert scene.host.digest(told["restored_volume_id"]) == scene.then


def test_not_unasked(scene: Scene, restore: Restore) -> None:
    assert "needs --yes" in refusal(restore("--remove-old-vol"))
    assert scene.exists


def test_not_one_with_a_server(scene: Scene, restore: Restore) -> None:
    server = scene.host.bench.embedded.pretend_server(scene.volume_id)
    told = scene.told(restore("--remove-old-vol", "--yes"))
    assert told["removed_volume_id"] is None
    assert f"attached to the server {server['server_id']}" in told["notes"][0]
    assert scene.volume(scene.volume_id)["status"] == "in-use"
    scene.host.bench.embedded.release_server(scene.volume_id)


def test_not_one_with_a_snapshot(scene: Scene, restore: Restore) -> None:
    cinder = scene.host.bench.embedded.cinder
    body = {"snapshot": {"volume_id": scene.volume_id}}
    snapshot = cinder("POST", "/snapshots", body)["snapshot"]["id"]
    scene.host.bench.embedded.wait(f"/snapshots/{snapshot}", "available")
    told = scene.told(restore("--remove-old-vol", "--yes"))
    assert told["removed_volume_id"] is None
    assert "have snapshots" in told["notes"][0]
    assert scene.exists
    cinder("DELETE", f"/snapshots/{snapshot}")
    scene.host.bench.embedded.wait(f"/snapshots/{snapshot}", "deleted")


def test_a_clone_that_fails_is_replaced(scene: Scene, restore: Restore) -> None:
    scene.host.bench.embedded.faults(create_volume_from_snapshot={"error": "disk full"})
    told = scene.told(restore("--recreate-vol-on-error"))
    assert (told["target"], told["state"]) == ("new", "success")
    assert "restored into a new volume because of this" in told["notes"][0]
    assert properties(scene.volume(told["restored_volume_id"])) == THEN
    assert scene.host.digest(told["restored_volume_id"]) == scene.then


def test_an_attachment_that_fails_once(scene: Scene, restore: Restore) -> None:
    """The clone was made; it is the broken one and is removed."""
    before = len(scene.host.bench.embedded.cinder("GET", "/volumes")["volumes"])
    fault = {"error": "no path", "times": 1}
    scene.host.bench.embedded.faults(initialize_connection=fault)
    told = scene.told(restore("--recreate-vol-on-error"))
    assert told["target"] == "new"
    assert scene.host.digest(told["restored_volume_id"]) == scene.then
    assert len(scene.host.bench.embedded.cinder("GET", "/volumes")["volumes"]) == before + 1


def test_a_smaller_volume_is_refused(scene: Scene, host: BackupHost) -> None:
    host.bench.embedded.cinder(
        "POST", f"/volumes/{scene.volume_id}/action", {"os-extend": {"new_size": 2}}
    )
    host.bench.embedded.wait(f"/volumes/{scene.volume_id}", "available")
    failed = host.command("restore", scene.volume_id, "--size", "1")
    assert "cannot be smaller" in refusal(failed)
    host.backup(scene.volume_id)
    host.drop(scene.volume_id)
    for done in (
        host.command("restore", scene.volume_id, "--size", "1"),
        host.agent("restore", scene.volume_id, "--size", "1"),
    ):
        assert "does not fit into the 1 GiB" in refusal(done)
    host.bench.users_own(scene.volume_id)  # for the fixture, which forgets it


def test_a_person_is_asked(scene: Scene, host: BackupHost) -> None:
    """On a terminal; whoever says no keeps the volume."""
    ours, theirs = pty.openpty()
    program = os.path.join(os.path.dirname(sys.executable), "freezer-osbrick")
    words = [program, "restore", scene.volume_id, "--remove-old-vol", "--repository", "nightly"]
    os.write(ours, b"no\n")
    done = subprocess.run(
        words,
        env=host.environment("demo"),
        stdin=theirs,
        capture_output=True,
        text=True,
        check=False,
    )
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 2
    assert re.search(r"Go on\? \[yes/NO\].*Nothing was done", done.stderr, re.DOTALL)
    assert scene.exists
