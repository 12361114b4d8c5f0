# SPDX-License-Identifier: Apache-2.0
"""Ten volumes at once: side by side in Cinder, one that fails among nine, and an end half-way."""

from __future__ import annotations

import dataclasses
import json
import signal
from typing import Any

import pytest

from tests.functional.backup_host import MIB, BackupHost, Done, data_of

COUNT = 10


@dataclasses.dataclass
class Scene:
    """Ten volumes.

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
    return Scene(host, ids, {volume_id: host.digest(volume_id) for volume_id in ids})


def states(rows: list[dict[str, Any]]) -> dict[str, str]:
    return {row["volume_id"]: row["state"] for row in rows}


def at_work(host: BackupHost) -> int:
    """How many volumes are attached to this host now."""
    steps = [line["step"] for line in host.journal()]
    return steps.count("connected") - steps.count("disconnected")


def waiting_for_clones(host: BackupHost) -> int:
    """How many volumes wait for Cinder to make their clones now."""
    made = [line for line in host.journal() if line["step"] == "created"]
    clones = sum(line["resource"] == "volume" for line in made)
    return clones - sum(line["step"] == "attaching" for line in host.journal())


def test_all_ten_wait_for_cinder_together_and_restore(scene: Scene) -> None:
    """Each clone takes its time, and all ten are being made at one moment: ten take the time of one
    where they would take that of ten in turn."""
    host = scene.host
    host.bench.embedded.faults(create_volume_from_snapshot={"delay": 15})
    running = host.start(
        "freezer-osbrick", "backup", "-f", "json", "--repository", "nightly", *scene.ids
    )
    running.until(lambda: waiting_for_clones(host) == COUNT)
    done = running.wait()
    host.bench.embedded.clear_faults()
    assert states(done.rows) == dict.fromkeys(scene.ids, "success")
    scene.check_nothing_left()

    restored = scene.run("restore", *scene.ids).rows
    assert scene.adopt(restored) == scene.digests
    scene.check_nothing_left()
    scene.drop_restored(restored)


STAGES = {
    "snapshot": "create_snapshot",
    "clone": "create_volume_from_snapshot",
    "attach": "initialize_connection",
}


@pytest.mark.parametrize("stage", STAGES)
def test_one_of_ten_fails_and_is_tried_again(scene: Scene, stage: str, tmp_path: Any) -> None:
    host = scene.host
    broken = scene.ids[3]
    before = len(host.listed())
    report = str(tmp_path / "report.json")
    host.bench.embedded.faults(**{STAGES[stage]: {"error": "disk full", "of": broken}})
    failed = scene.run("backup", "--incremental", "--report-file", report, *scene.ids)
    assert failed.status == 1
    rows = json.loads(failed.stdout)
    assert states(rows) == {**dict.fromkeys(scene.ids, "success"), broken: "error"}
    (reason,) = [row["reason"] for row in rows if row["reason"]]
    assert broken in reason or "attach" in reason
    assert len(host.listed()) == before + COUNT - 1
    scene.check_nothing_left()

    host.bench.embedded.clear_faults()
    again = scene.run("backup", "--incremental", "--retry-failed", report).rows
    assert states(again) == {broken: "success"}
    assert len(host.listed()) == before + COUNT
    scene.check_nothing_left()


def test_one_of_ten_restores_fails_and_is_tried_again(scene: Scene, tmp_path: Any) -> None:
    host = scene.host
    broken = scene.ids[7]
    host.bench.embedded.faults(initialize_connection={"error": "disk full", "of": broken})
    failed = scene.run("restore", *scene.ids)
    assert failed.status == 1
    rows = json.loads(failed.stdout)
    assert states(rows) == {**dict.fromkeys(scene.ids, "success"), broken: "error"}
    held = scene.adopt(rows)
    assert held == {key: value for key, value in scene.digests.items() if key != broken}
    scene.check_nothing_left()
    scene.drop_restored(rows)

    host.bench.embedded.clear_faults()
    (tmp_path / "rows.json").write_text(failed.stdout)
    again = scene.run("restore", "--retry-failed", str(tmp_path / "rows.json")).rows
    assert scene.adopt(again) == {broken: scene.digests[broken]}
    scene.check_nothing_left()
    scene.drop_restored(again)


@pytest.mark.parametrize("verb", ["backup", "restore"])
@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_end_half_way_leaves_nothing(
    scene: Scene, verb: str, number: int, status: int, tmp_path: Any
) -> None:
    host = scene.host
    before = host.listed()
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
        assert len(host.listed()) == len(before) + finished
    scene.check_nothing_left()
    if verb == "restore":
        scene.drop_restored(rows)
