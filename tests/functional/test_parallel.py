# SPDX-License-Identifier: Apache-2.0
"""Ten volumes at once: side by side in Cinder, one that fails among nine, and an end half-way."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import signal
import time
from typing import Any

import pytest

from tests.functional.backup_host import MIB, BackupHost, Done, data_of

COUNT = 10
_PAUSE = 0.05  # seconds between two looks at the journals of ten runs


@dataclasses.dataclass
class Scene:
    """Ten volumes with a backup each.

    :ivar ids: of the volumes.
    :ivar digests: what they hold.
    """

    host: BackupHost
    ids: list[str]
    digests: dict[str, str]

    def run(self, verb: str, *words: str) -> Done:
        return self.host.command(verb, "-f", "json", *words)

    def check_nothing_left(self) -> None:
        assert self.host.leftovers() == {}
        for volume_id in self.ids:
            volume = self.host.bench.embedded.cinder("GET", f"/volumes/{volume_id}")["volume"]
            assert volume["status"] == "available"

    def adopt(self, rows: list[dict[str, Any]]) -> dict[str, str]:
        """Make the restored volumes the user's; what they hold, by the volumes they stand for."""
        restored = {row["volume_id"]: row["restored_volume_id"] for row in rows}
        for volume_id in restored.values():
            if volume_id:
                self.host.bench.users_own(volume_id)
        return {source: self.host.digest(made) for source, made in restored.items() if made}

    def drop_restored(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            if row["restored_volume_id"]:
                self.host.drop(row["restored_volume_id"])


@pytest.fixture(scope="module")
def scene(host: BackupHost) -> Scene:
    ids = [host.bench.volume(1, name=f"data-{number}").id for number in range(COUNT)]
    for number, volume_id in enumerate(ids):
        host.write(volume_id, number * MIB, data_of(number, 16 * MIB))
    assert host.command("backup", *ids).status == 0
    return Scene(host, ids, {volume_id: host.digest(volume_id) for volume_id in ids})


def states(rows: list[dict[str, Any]]) -> dict[str, str]:
    return {row["volume_id"]: row["state"] for row in rows}


def at_work(host: BackupHost) -> int:
    """How many volumes are attached to this host now."""
    steps = [line["step"] for line in host.journal()]
    return steps.count("connected") - steps.count("disconnected")


def backup_count(host: BackupHost) -> int:
    """How many backups the repository has."""
    return len(os.listdir(host.repository / "manifests"))


def waiting_for_clones(host: BackupHost) -> int:
    """How many volumes wait for Cinder to make their clones now."""
    lines = host.journal()
    steps = [(line["step"], line.get("resource")) for line in lines]
    return steps.count(("creating", "volume")) - steps.count(("attaching", None))


def test_all_ten_wait_for_cinder_together_and_restore(scene: Scene) -> None:
    """Cinder takes its time for each clone. While any volume waits for one, at least three do so on
    the average: what all wait for together lasts no more than a third of what it would in turn."""
    host = scene.host
    waiting: list[int] = []

    def is_past() -> bool:
        time.sleep(_PAUSE)
        now = waiting_for_clones(host)
        waiting.extend([now] if now else [])
        return bool(waiting) and not now

    host.bench.embedded.faults(create_volume_from_snapshot={"delay": 10})
    running = host.start(
        "freezer-osbrick", "backup", "-f", "json", "--repository", "nightly", *scene.ids
    )
    running.until(is_past)
    done = running.wait()
    host.bench.embedded.clear_faults()
    assert states(done.rows) == dict.fromkeys(scene.ids, "success")
    assert max(waiting) == COUNT
    assert sum(waiting) / len(waiting) >= 3
    scene.check_nothing_left()

    restored = scene.run("restore", *scene.ids).rows
    assert scene.adopt(restored) == scene.digests
    scene.check_nothing_left()
    scene.drop_restored(restored)


# -- one of ten ------------------------------------------------------------------------------------

# What the storage does wrong: faults of the embedded cloud; and what the host does: see broken_run.
OF_THE_STORAGE: dict[str, dict[str, Any]] = {
    "snapshot": {"create_snapshot": {"error": "disk full"}},
    "clone": {"create_volume_from_snapshot": {"error": "disk full"}},
    "attach": {"initialize_connection": {"error": "disk full"}},
    "detach": {"terminate_connection": {"error": "out of order"}},
    "delete": {"delete_volume": {"busy": True}},
    "delete the snapshot": {"delete_snapshot": {"busy": True}},
}
# What is told of the volume, by the stage that fails.
CAUSES = {
    "snapshot": "a snapshot of volume {}.* state 'error'",
    "clone": "a volume from the snapshot of volume {}.* state 'error'",
    "attach": "storage refused to attach the volume",
    "connect": "could not be connected on this host: .*no path to the target",
    "read": "could not be read .*Input/output error",
    "write": "could not be written .*Input/output error",
    "fetch": "Input/output error",
    "store": "packs/.*: No space left on device",
    "commit": "manifests/.*: No space left on device",
    "disconnect": "This host still holds the volume .*no path to the target",
    "detach": "The attachment .* could not be removed",
    "delete": "The volume .* could not be removed",
    "delete the snapshot": "The snapshot .* could not be removed",
}
# The backup is complete, and something stays until the cause is gone.
OF_THE_TAKING_DOWN = ("disconnect", "detach", "delete", "delete the snapshot")


def with_one_broken(scene: Scene, stage: str, broken: str, verb: str, *words: str) -> Done:
    """A run over all ten of which one fails at a stage."""
    words = (verb, "-f", "json", "--repository", "nightly", *words, *scene.ids)
    if stage not in OF_THE_STORAGE:
        return scene.host.module("tests.functional.broken_run", stage, broken, *words)
    cloud = scene.host.bench.embedded
    cloud.faults(**{call: {**how, "of": broken} for call, how in OF_THE_STORAGE[stage].items()})
    try:
        return scene.host.start("freezer-osbrick", *words).wait()
    finally:
        cloud.clear_faults()


def check_failure(scene: Scene, stage: str, broken: str, failed: Done) -> list[dict[str, Any]]:
    """Nine are done, and one is named with the cause."""
    assert failed.status == 1, failed.stderr
    assert "Traceback" not in failed.stderr
    rows: list[dict[str, Any]] = json.loads(failed.stdout)
    assert states(rows) == {**dict.fromkeys(scene.ids, "success"), broken: "error"}
    (reason,) = [row["reason"] for row in rows if row["reason"]]
    assert re.search(CAUSES[stage].format(broken), reason, re.DOTALL), reason
    return rows


def clean_up(scene: Scene, stage: str) -> None:
    """Nothing is left; of a stage of the taking down, nothing after one cleanup."""
    if stage in OF_THE_TAKING_DOWN:
        assert scene.host.leftovers()
        assert scene.host.command("cleanup").status == 0
    scene.check_nothing_left()


@pytest.mark.parametrize("stage", [stage for stage in CAUSES if stage not in ("write", "fetch")])
def test_one_of_ten_fails_and_is_tried_again(
    scene: Scene, stage: str, tmp_path: pathlib.Path
) -> None:
    host = scene.host
    broken = scene.ids[1]
    host.write(broken, 0, os.urandom(MIB))  # there is something to store
    scene.digests[broken] = host.digest(broken)
    before = backup_count(host)
    report = str(tmp_path / "report.json")
    words = ("--incremental", "--report-file", report)
    check_failure(scene, stage, broken, with_one_broken(scene, stage, broken, "backup", *words))
    complete = COUNT if stage in OF_THE_TAKING_DOWN else COUNT - 1
    assert backup_count(host) == before + complete
    clean_up(scene, stage)

    again = scene.run("backup", "--incremental", "--retry-failed", report).rows
    assert states(again) == {broken: "success"}
    assert backup_count(host) == before + complete + 1
    scene.check_nothing_left()


@pytest.mark.parametrize("stage", ["clone", "attach", "connect", "fetch", "write", "disconnect"])
def test_one_of_ten_restores_fails_and_is_tried_again(
    scene: Scene, stage: str, tmp_path: pathlib.Path
) -> None:
    host = scene.host
    broken = scene.ids[-1]
    assert host.command("backup", "--incremental", *scene.ids).status == 0
    host.write(broken, 0, os.urandom(MIB))  # there is something to fetch
    failed = with_one_broken(scene, stage, broken, "restore")
    rows = check_failure(scene, stage, broken, failed)
    held = scene.adopt(rows)
    assert held == {key: value for key, value in scene.digests.items() if key != broken}
    clean_up(scene, stage)
    scene.drop_restored(rows)

    (tmp_path / "rows.json").write_text(failed.stdout)
    again = scene.run("restore", "--retry-failed", str(tmp_path / "rows.json")).rows
    assert scene.adopt(again) == {broken: scene.digests[broken]}
    scene.check_nothing_left()
    scene.drop_restored(again)
    scene.digests[broken] = host.digest(broken)


@pytest.mark.parametrize("verb", ["backup", "restore"])
@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_end_half_way_leaves_nothing(
    scene: Scene, verb: str, number: int, status: int, tmp_path: pathlib.Path
) -> None:
    host = scene.host
    before = backup_count(host)
    report = tmp_path / "report.json"
    host.bench.embedded.faults(create_volume_from_snapshot={"delay": 1})
    running = host.start(
        "freezer-osbrick",
        *(verb, "--repository", "nightly", "--report-file", str(report), *scene.ids),
    )
    running.until(lambda: at_work(host) >= 1)
    running.send(number)
    done = running.wait()
    host.bench.embedded.clear_faults()
    assert done.status == status, done.stderr
    assert "Traceback" not in done.stderr
    rows = json.loads(report.read_text())["volumes"]
    assert set(states(rows).values()) <= {"success", "interrupted"}
    if verb == "restore":
        scene.adopt(rows)
    else:
        finished = sum(row["state"] == "success" for row in rows)
        assert backup_count(host) == before + finished
    scene.check_nothing_left()
    if verb == "restore":
        scene.drop_restored(rows)
