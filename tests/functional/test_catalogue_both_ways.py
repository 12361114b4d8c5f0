# SPDX-License-Identifier: Apache-2.0
"""freezer-agent and freezer-osbrick on one repository: what one stored, the other knows."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.functional.backup_host import MIB, BackupHost, data_of, date_of

pytest.importorskip("freezer")


@dataclasses.dataclass
class Scene:
    """A volume with three backups: by the agent, by the command, by the agent.

    :ivar told: what each run told.
    :ivar digests: what the volume held at each.
    """

    host: BackupHost
    volume_id: str
    told: list[dict[str, Any]]
    digests: list[str]

    def restores(self, told: dict[str, Any], digest: str) -> None:
        """That a restore, which is over, gave what was backed up."""
        restored = told["restored_volume_id"]
        assert self.host.digest(restored) == digest
        self.host.drop(restored)
        assert self.host.leftovers() == {}


@pytest.fixture(scope="module")
def scene(host: BackupHost) -> Iterator[Scene]:
    volume_id = host.bench.volume(1, name="data").id
    told, digests = [], []
    for number in range(3):
        host.write(volume_id, 300 * number * MIB, data_of(number, 4 * MIB))
        digests.append(host.digest(volume_id))
        if number == 1:
            words = ("--incremental", "--backup-name", "nightly", "-f", "json")
            (run,) = host.command("backup", volume_id, *words).rows
        else:
            run = host.backup(volume_id, "--incremental")
        told.append(run)
    yield Scene(host, volume_id, told, digests)
    host.drop(volume_id)


def test_one_list(scene: Scene) -> None:
    listed = scene.host.listed("--volume-id", scene.volume_id)
    assert [backup["backup_id"] for backup in listed] == [run["backup_id"] for run in scene.told]
    assert [backup["level"] for backup in listed] == [0, 1, 2]
    assert [backup["time_stamp"] for backup in listed] == [run["time_stamp"] for run in scene.told]
    assert {backup["backup_name"] for backup in listed} == {"nightly"}
    assert {backup["hostname"] for backup in listed} == {socket.gethostname()}
    # Only what changed was stored, whoever stored the backup before.
    assert [run["bytes_new"] for run in scene.told[1:]] == [4 * MIB, 4 * MIB]
    other = scene.host.listed("--project-id", "0" * 32)
    assert other == []


def test_each_is_shown(scene: Scene) -> None:
    for run in scene.told:
        done = scene.host.command("show", run["backup_id"][:12], "-f", "json")
        shown = done.document
        assert shown["backup_id"] == run["backup_id"]
        assert shown["level"] == run["level"]
        assert shown["volume"]["name"] == "data"
        assert shown["agent"].startswith("freezer-osbrick ")


def test_the_command_restores_what_the_agent_stored(scene: Scene) -> None:
    done = scene.host.command("restore", "--backup", scene.told[0]["backup_id"], "-f", "json")
    (told,) = done.rows
    scene.host.bench.users_own(told["restored_volume_id"])
    assert told["target"] == "clone"
    scene.restores(told, scene.digests[0])


def test_the_agent_restores_what_the_command_stored(scene: Scene) -> None:
    date = date_of(scene.told[1]["time_stamp"])
    told = scene.host.restore(scene.volume_id, "--restore-from-date", date)
    assert told["backup_id"] == scene.told[1]["backup_id"]
    scene.restores(told, scene.digests[1])


def test_a_date_between_two_backups_takes_the_older(scene: Scene) -> None:
    host = scene.host
    just_before = date_of(scene.told[1]["time_stamp"] - 1)
    words = ("--restore-from-date", just_before)
    told = host.restore(scene.volume_id, *words)
    assert told["backup_id"] == scene.told[0]["backup_id"]
    scene.restores(told, scene.digests[0])
    (told,) = host.command("restore", scene.volume_id, *words, "-f", "json").rows
    host.bench.users_own(told["restored_volume_id"])
    assert told["backup_id"] == scene.told[0]["backup_id"]
    scene.restores(told, scene.digests[0])


def test_a_date_before_all_backups(scene: Scene) -> None:
    host = scene.host
    words = ("--restore-from-date", date_of(scene.told[0]["time_stamp"] - 1))
    assert "holds no such backup" in host.agent("restore", scene.volume_id, *words).error
    by_command = host.command("restore", scene.volume_id, *words)
    assert by_command.status == 1
    assert "holds no such backup" in by_command.stdout + by_command.stderr
    assert host.leftovers() == {}


@pytest.mark.parametrize(
    ("options", "levels"),
    [
        (("--max-level", "2"), [0, 1, 2, 0]),
        (("--always-level", "1"), [0, 1, 1]),
        ((), [0, 1]),
    ],
    ids=["max level", "always level", "no limit"],
)
def test_levels_as_freezer_users_know_them(
    host: BackupHost, options: tuple[str, ...], levels: list[int]
) -> None:
    volume_id = host.bench.volume(1).id
    made = [host.backup(volume_id, "--incremental", *options) for _ in levels]
    assert [run["level"] for run in made] == levels
    listed = host.listed("--volume-id", volume_id)
    assert [backup["level"] for backup in listed] == levels
    host.drop(volume_id)
