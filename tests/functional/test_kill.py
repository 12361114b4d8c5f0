# SPDX-License-Identifier: Apache-2.0
"""``kill -9`` of freezer-agent at any moment: one cleanup, and the older backups restore."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable

import pytest

from tests.functional.backup_host import MIB, BackupHost, data_of, date_of

pytest.importorskip("freezer")

Condition = Callable[[], object]


@dataclasses.dataclass
class Scene:
    """A volume with one backup, and changed since.

    :ivar first: what was backed up, as a check sum.
    :ivar now: what the volume holds.
    """

    host: BackupHost
    volume_id: str
    first: str
    now: str
    backups: list[str]
    date: str

    def check(self) -> None:
        """After a run was killed: one cleanup removes what it left."""
        host = self.host
        assert host.leftovers()
        assert host.command("cleanup").status == 0
        self.check_whole()

    def check_whole(self) -> None:
        """Nothing is left over, and no backup suffered."""
        host = self.host
        assert host.leftovers() == {}
        volume = host.bench.embedded.cinder("GET", f"/volumes/{self.volume_id}")["volume"]
        assert volume["status"] == "available"
        assert host.digest(self.volume_id) == self.now
        assert {backup["backup_id"] for backup in host.listed()} >= set(self.backups)
        self.restores("--restore-from-date", self.date, expected=self.first)

    def restores(self, *options: str, expected: str) -> None:
        told = self.host.restore(self.volume_id, *options)
        assert self.host.digest(told["restored_volume_id"]) == expected
        self.host.drop(told["restored_volume_id"])


@pytest.fixture(scope="module")
def scene(host: BackupHost) -> Scene:
    volume_id = host.bench.volume(1, name="data").id
    host.write(volume_id, 0, data_of(1, 96 * MIB))
    first = host.digest(volume_id)
    told = host.backup(volume_id)
    host.write(volume_id, 0, data_of(2, 64 * MIB))
    host.write(volume_id, 500 * MIB, data_of(3, 64 * MIB))
    date = date_of(told["time_stamp"])
    return Scene(host, volume_id, first, host.digest(volume_id), [told["backup_id"]], date)


def half_read(host: BackupHost) -> Condition:
    """The condition that blocks have come into the repository, and nothing more than blocks."""
    before = host.objects()
    return lambda: host.objects() - before


def says(host: BackupHost, word: str) -> Condition:
    """The condition that the agent tells so in its log from now on."""
    begin = host.log_file.stat().st_size

    def condition() -> bool:
        with open(host.log_file, "rb") as log:
            log.seek(begin)
            return word.encode() in log.read()

    return condition


BACKUP_MOMENTS: dict[str, Callable[[BackupHost], Condition]] = {
    "snapshot made": lambda host: host.step("created", resource="snapshot"),
    "clone made": lambda host: host.step("created", resource="volume"),
    "attached": lambda host: host.step("connected"),
    "half read": half_read,
    "all read": lambda host: says(host, ": commit"),
}


@pytest.mark.parametrize("moment", BACKUP_MOMENTS)
def test_a_killed_backup(scene: Scene, moment: str) -> None:
    host = scene.host
    condition = BACKUP_MOMENTS[moment](host)
    host.start_agent("backup", scene.volume_id).kill_when(condition)
    scene.check()
    listed = [backup["backup_id"] for backup in host.listed()]
    if moment == "all read" and listed != scene.backups:
        # It was just complete: then it is a backup as any other.
        (new,) = set(listed) - set(scene.backups)
        assert listed == [*scene.backups, new]
        scene.restores(expected=scene.now)
        scene.backups.append(new)
    assert listed == scene.backups


def test_a_backup_killed_when_it_was_complete(scene: Scene) -> None:
    """It was about to take down what it had set up."""
    host = scene.host
    host.start_agent("backup", scene.volume_id).kill_when(host.step("disconnected"))
    scene.check()
    listed = [backup["backup_id"] for backup in host.listed()]
    assert listed[:-1] == scene.backups
    scene.restores(expected=scene.now)
    scene.backups.append(listed[-1])


def test_an_incremental_backup_after_a_killed_one(scene: Scene) -> None:
    """What the killed one stored is not counted upon: the next one is whole."""
    host = scene.host
    host.write(scene.volume_id, 700 * MIB, data_of(4, 32 * MIB))
    scene.now = host.digest(scene.volume_id)
    condition = half_read(host)
    host.start_agent("backup", scene.volume_id, "--incremental").kill_when(condition)
    assert host.leftovers()
    # No cleanup in between: the agent's next run removes what the dead one left.
    told = host.backup(scene.volume_id, "--incremental")
    scene.backups.append(told["backup_id"])
    assert told["bytes_new"] >= 32 * MIB
    scene.check_whole()
    scene.restores(expected=scene.now)


def clone_is_written(host: BackupHost) -> Condition:
    """The condition that blocks were written to the volume that is restored into."""
    since: dict[str, int] = {}

    def condition() -> bool:
        if not host.step("connected")():
            return False
        (clone,) = (
            line["id"]
            for line in host.journal()
            if line["step"] == "created" and line["resource"] == "volume"
        )
        changed = os.stat(host.bench.file_of(clone)).st_mtime_ns
        return since.setdefault(clone, changed) != changed

    return condition


RESTORE_MOMENTS: dict[str, Callable[[BackupHost], Condition]] = {
    "snapshot made": lambda host: host.step("created", resource="snapshot"),
    "clone made": lambda host: host.step("created", resource="volume"),
    "attached": lambda host: host.step("connected"),
    "half written": clone_is_written,
    "all written": lambda host: host.step("disconnected"),
}


@pytest.mark.parametrize("moment", RESTORE_MOMENTS)
def test_a_killed_restore(scene: Scene, moment: str) -> None:
    host = scene.host
    condition = RESTORE_MOMENTS[moment](host)
    words = ("restore", scene.volume_id, "--restore-from-date", scene.date)
    host.start_agent(*words).kill_when(condition)
    scene.check()
    assert [backup["backup_id"] for backup in host.listed()] == scene.backups


def test_cleanup_leaves_a_living_run_alone(scene: Scene) -> None:
    """Beside the remains of a dead run, which it removes."""
    host = scene.host
    living = host.start_agent("backup", scene.volume_id)
    living.until(host.step("connected"))
    with living.stopped():
        alive = made_by(host)
        host.start_agent("backup", scene.volume_id).kill_when(lambda: attached_clones(host) == 2)
        dead = made_by(host) - alive
        report = host.command("cleanup", "-f", "json").rows
    states = {item["id"]: item["state"] for item in report}
    assert len(dead) == 2 and {states.pop(resource) for resource in dead} == {"removed"}
    assert len(alive) == 2 and {states[resource] for resource in alive} == {"kept"}
    told = living.wait().record
    scene.backups.append(told["backup_id"])
    assert host.leftovers() == {}
    scene.restores(expected=scene.now)


def made_by(host: BackupHost) -> set[str]:
    """The snapshots and volumes in the journals."""
    return {line["id"] for line in host.journal() if line["step"] == "created"}


def attached_clones(host: BackupHost) -> int:
    return sum(line["step"] == "connected" for line in host.journal())
