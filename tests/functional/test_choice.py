# SPDX-License-Identifier: Apache-2.0
"""Which volumes: one, a list, a project's, a group's, all; for a member and an administrator; and a
group that is written to while it is backed up."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.functional.backup_host import MIB, BackupHost, data_of
from tests.functional.test_agent_backup import Background

# Seconds between two writes: locks are not fair, and the storage has to get a turn.
_PAUSE = 0.005
COUNT = 6
GROUP = 3
_OLDER_TYPE = "default_cgsnapshot_type"  # of consistency groups, by Cinder's own name


@dataclasses.dataclass
class Scene:
    """Two projects with six volumes each.

    :ivar group_id: of three volumes of the project demo, which a guest has.
    :ivar ids: of the volumes, by project.
    :ivar devices: at which the guest writes to the volumes of the group.
    """

    host: BackupHost
    group_id: str
    ids: dict[str, list[str]]
    devices: list[str]

    @property
    def members(self) -> list[str]:
        return self.ids["demo"][:GROUP]

    def check_nothing_left(self) -> None:
        """In no project: what an administrator makes lies in the administrator's."""
        cinder = self.host.bench.embedded.cinder
        known = {volume_id for ids in self.ids.values() for volume_id in ids}
        everything = "/{}/detail?all_tenants=1"
        volumes = cinder("GET", everything.format("volumes"), project="admin")["volumes"]
        assert {volume["id"] for volume in volumes} == known
        assert all(volume["status"] in ("available", "in-use") for volume in volumes)
        for kind in ("snapshots", "group_snapshots"):
            assert cinder("GET", everything.format(kind), project="admin")[kind] == []
        attachments = cinder("GET", "/attachments?all_tenants=1", project="admin")["attachments"]
        assert {attachment["volume_id"] for attachment in attachments} <= set(self.members)
        assert self.host.bench.ledger.runs() == []


@pytest.fixture(scope="module")
def scene(host: BackupHost) -> Iterator[Scene]:
    cloud = host.bench.embedded
    types = cloud.cinder("GET", "/group_types")["group_types"]
    (group_type,) = [each["id"] for each in types if each["name"] == "consistent"]
    types = cloud.cinder("GET", "/types")["volume_types"]
    (volume_type,) = [each["id"] for each in types if each["name"] == "file"]
    body = {"group": {"name": "db", "group_type": group_type, "volume_types": [volume_type]}}
    group_id = cloud.cinder("POST", "/groups", body)["group"]["id"]
    cloud.wait(f"/groups/{group_id}", "available")
    ids: dict[str, list[str]] = {"demo": [], "other": []}
    for number in range(COUNT):
        grouped = {"group_id": group_id, "volume_type": "file"} if number < GROUP else {}
        made = cloud.create_volume(1, name=f"db-{number}" if grouped else "web", **grouped)
        ids["demo"].append(made["id"])
        made = cloud.create_volume(1, "other", name="theirs", metadata={"tier": "gold"})
        ids["other"].append(made["id"])
    for volume_ids in ids.values():
        for number, volume_id in enumerate(volume_ids):
            host.write(volume_id, 64 * MIB, data_of(number, MIB))
    devices = [cloud.pretend_server(volume_id)["device"] for volume_id in ids["demo"][:GROUP]]
    yield Scene(host, group_id, ids, devices)
    for volume_id in ids["demo"][:GROUP]:
        cloud.release_server(volume_id)
    cloud.cinder("POST", f"/groups/{group_id}/action", {"delete": {"delete-volumes": True}})
    cloud.wait(f"/groups/{group_id}", "deleted")
    for project, volume_ids in ids.items():
        for volume_id in volume_ids[GROUP if project == "demo" else 0 :]:
            cloud.delete_volume(volume_id, project)


class Counter(Background):
    """Writes one number after the other to all volumes of the group, each to all in turn.

    The storage holds its writes up while it freezes the group.
    """

    def __init__(self, devices: list[str], hold: pathlib.Path) -> None:
        super().__init__(0.0)
        self._devices = devices
        self._hold = hold

    def once(self) -> None:
        for device in self._devices:
            with open(self._hold, "ab") as hold:
                fcntl.flock(hold, fcntl.LOCK_SH)
                descriptor = os.open(device, os.O_WRONLY)
                try:
                    os.pwrite(descriptor, self.times.to_bytes(8, "big"), 0)
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
            time.sleep(_PAUSE)


def counters(host: BackupHost, volume_ids: list[str]) -> list[int]:
    """The numbers that volumes hold."""
    found = []
    for volume_id in volume_ids:
        with open(host.bench.file_of(volume_id), "rb") as file:
            found.append(int.from_bytes(file.read(8), "big"))
    return found


def states(rows: list[dict[str, Any]]) -> dict[str, str]:
    return {row["volume_id"]: row["state"] for row in rows}


def of_one_instant(found: list[int]) -> bool:
    """Each number was written to the volumes in turn: the later ones may be one behind."""
    return found == sorted(found, reverse=True) and found[0] - found[-1] <= 1


def test_a_group_is_of_one_instant(scene: Scene) -> None:
    host = scene.host
    hold = host.bench.embedded.pool / ".hold"
    with Counter(scene.devices, hold) as counter:
        rows = host.command("backup", "--consistency-groups", scene.group_id, "-f", "json").rows
    assert counter.times > 0
    assert states(rows) == dict.fromkeys(scene.members, "success")
    assert len({row["time_stamp"] for row in rows}) == 1
    scene.check_nothing_left()

    restored = host.command("restore", "--consistency-groups", scene.group_id, "-f", "json").rows
    assert states(restored) == dict.fromkeys(scene.members, "success")
    assert [row["notes"] for row in restored] == [[]] * GROUP
    by_source = {row["volume_id"]: row["restored_volume_id"] for row in restored}
    images = [by_source[volume_id] for volume_id in scene.members]
    found = counters(host, images)
    for volume_id in images:
        host.bench.embedded.delete_volume(volume_id)
    assert of_one_instant(found), found
    assert found[0] > 0
    shown = host.command("show", rows[0]["backup_id"], "-f", "json").document
    assert shown["volume"]["group_id"] == scene.group_id
    scene.check_nothing_left()


@pytest.fixture
def older_group(scene: Scene) -> Iterator[tuple[str, list[str]]]:
    """A consistency group of the API before that of generic groups, and its two volumes."""
    cloud = scene.host.bench.embedded
    types = cloud.cinder("GET", "/group_types", project="admin")["group_types"]
    if _OLDER_TYPE not in [each["name"] for each in types]:
        body = {"group_type": {"name": _OLDER_TYPE}}
        made = cloud.cinder("POST", "/group_types", body, "admin")["group_type"]
        specs = {"group_specs": {"consistent_group_snapshot_enabled": "<is> True"}}
        cloud.cinder("POST", f"/group_types/{made['id']}/group_specs", specs, "admin")
    types = cloud.cinder("GET", "/types")["volume_types"]
    (volume_type,) = [each["id"] for each in types if each["name"] == "file"]
    wanted = {"consistencygroup": {"name": "older", "volume_types": volume_type}}
    group_id = cloud.cinder("POST", "/consistencygroups", wanted)["consistencygroup"]["id"]
    cloud.wait(f"/consistencygroups/{group_id}", "available")
    fields = {"consistencygroup_id": group_id, "volume_type": "file"}
    ids = [cloud.create_volume(1, **fields)["id"] for _ in range(2)]
    for number, volume_id in enumerate(ids):
        scene.host.write(volume_id, 64 * MIB, data_of(100 + number, MIB))
    yield group_id, ids
    cloud.cinder(
        "POST", f"/consistencygroups/{group_id}/delete", {"consistencygroup": {"force": True}}
    )
    cloud.wait(f"/consistencygroups/{group_id}", "deleted")


def test_several_groups_and_the_older_kind(
    scene: Scene, older_group: tuple[str, list[str]]
) -> None:
    """From an ini file, as a list between commas; the volumes of each group have one time."""
    pytest.importorskip("freezer")
    host, (older, ids) = scene.host, older_group
    ini = host.folder / "groups.ini"
    ini.write_text(
        "[default]\nengine_name = osbrick\nstorage = local\nbackup_name = groups\n"
        f"container = {host.repository}\nmetadata_out = -\n"
        f"consistency_groups = {scene.group_id},{older}\n"
    )
    words = ("freezer-agent", "--config", str(ini), "--action")
    volumes = host.start(*words, "backup").wait().document["osbrick"]["volumes"]
    assert states(volumes) == dict.fromkeys([*scene.members, *ids], "success")
    times = {volume["volume_id"]: volume["time_stamp"] for volume in volumes}
    for group in (scene.members, ids):
        assert len({times[volume_id] for volume_id in group}) == 1
    shown = host.command("show", volumes[-1]["backup_id"], "-f", "json").document
    assert shown["instant"]

    # One is backed up by itself: the newest backups of its group are not of one instant any more.
    assert host.command("backup", ids[0], "--backup-name", "groups").status == 0
    rows = host.start(*words, "restore").wait().document["osbrick"]["volumes"]
    assert states(rows) == dict.fromkeys([*scene.members, *ids], "success")
    for row in rows:
        told = [note for note in row["notes"] if "are not of one instant" in note]
        assert bool(told) is (row["volume_id"] in ids)
        if row["volume_id"] in ids:
            assert host.digest(row["restored_volume_id"]) == host.digest(row["volume_id"])
        host.bench.embedded.delete_volume(row["restored_volume_id"])
    assert host.bench.ledger.runs() == []
    for kind in ("snapshots", "group_snapshots", "cgsnapshots"):
        assert host.bench.embedded.cinder("GET", f"/{kind}/detail")[kind] == []


def test_all_volumes_of_the_project(scene: Scene) -> None:
    """By the agent; what is there is backed up, and all of it is restored."""
    pytest.importorskip("freezer")
    host = scene.host
    done = host.start(
        *("freezer-agent", "--action", "backup", "--engine", "osbrick", "--storage", "local"),
        *("--container", str(host.repository), "--backup-name", "project", "--metadata-out", "-"),
        "--all-tenant-volumes",
    ).wait()
    volumes = done.document["osbrick"]["volumes"]
    assert states(volumes) == dict.fromkeys(scene.ids["demo"], "success")
    scene.check_nothing_left()

    words = ("restore", "--all-tenant-volumes", "--backup-name", "project", "-f", "json")
    rows = host.command(*words).rows
    assert states(rows) == dict.fromkeys(scene.ids["demo"], "success")
    for row in rows:
        restored, source = row["restored_volume_id"], row["volume_id"]
        if source not in scene.members:
            assert host.digest(restored) == host.digest(source)
        host.bench.embedded.delete_volume(restored)
    scene.check_nothing_left()


def test_all_volumes_of_all_projects(scene: Scene) -> None:
    host = scene.host
    words = ("backup", "--all-tenants", "--backup-name", "cloud", "-f", "json")
    rows = host.command(*words, project="admin").rows
    everything = [*scene.ids["demo"], *scene.ids["other"]]
    assert states(rows) == dict.fromkeys(everything, "success")
    projects = host.bench.embedded.state.settings["projects"]
    owners = {row["volume_id"]: row["project_id"] for row in rows}
    assert {owners[volume_id] for volume_id in scene.ids["other"]} == {projects["other"]}
    scene.check_nothing_left()

    words = ("restore", "--all-tenants", "--only-metadata", "tier=gold", "-f", "json")
    rows = host.command(*words, project="admin").rows
    assert {key for key, state in states(rows).items() if state == "success"} == set(
        scene.ids["other"]
    )
    for row in rows:
        if row["state"] == "success":
            assert host.digest(row["restored_volume_id"]) == host.digest(row["volume_id"])
            host.bench.embedded.delete_volume(row["restored_volume_id"], "admin")
    scene.check_nothing_left()


def test_a_project_for_an_administrator_and_filters(scene: Scene) -> None:
    host = scene.host
    projects = host.bench.embedded.state.settings["projects"]
    words = ("backup", "--project-id", projects["demo"], "--only-name", "db-*", "-f", "json")
    rows = host.command(*words, project="admin").rows
    assert {key for key, state in states(rows).items() if state == "success"} == set(scene.members)
    reasons = {row["reason"] for row in rows if row["state"] == "excluded"}
    assert reasons == {"Its name 'web' does not match 'db-*'."}
    scene.check_nothing_left()


def test_what_a_member_is_refused(scene: Scene) -> None:
    host = scene.host
    projects = host.bench.embedded.state.settings["projects"]
    for words, sentence in (
        (("--all-tenants",), "need an administrator's credentials"),
        (("--project-id", projects["other"]), "is not yours"),
        (("--only-name", "nothing", "--all-tenant-volumes"), "There is nothing to back up"),
    ):
        assert sentence in host.command("backup", *words).error
    failed = host.command("backup", scene.ids["other"][0], "-f", "json")
    assert failed.status == 1
    assert "could not be found" in failed.stdout
    refused = host.command("backup", "--consistency-groups", scene.group_id, project="other")
    assert "could not be found" in refused.error
    scene.check_nothing_left()


def test_a_killed_run_leaves_a_group_snapshot_that_cleanup_removes(scene: Scene) -> None:
    host = scene.host
    running = host.start(
        *("freezer-osbrick", "backup", "--consistency-groups", scene.group_id),
        *("--repository", "nightly"),
    )
    running.kill_when(host.step("connected"))
    found = host.bench.embedded.cinder("GET", "/group_snapshots")["group_snapshots"]
    assert len(found) == 1
    assert host.command("cleanup").status == 0
    scene.check_nothing_left()
