# SPDX-License-Identifier: Apache-2.0
"""After a death at any step one cleanup leaves nothing, and it leaves everybody else alone."""

from __future__ import annotations

import pathlib
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from devstack.embedded.embedded_cloud.client import EmbeddedCloud
from freezer_osbrick.cloud import tags, volumes
from freezer_osbrick.operations.cleanup import cleanup
from freezer_osbrick.operations.cleanup_report import CleanupReport
from tests.functional.workbench import Workbench


@pytest.fixture
def bench(cloud: EmbeddedCloud, tmp_path: pathlib.Path) -> Iterator[Workbench]:
    bench = Workbench(cloud, tmp_path / "state")
    yield bench
    bench.close()


def clean(bench: Workbench, **options: Any) -> CleanupReport:
    return cleanup(bench.cloud, bench.host, bench.ledger, **options)


def states(report: CleanupReport) -> list[tuple[str, str]]:
    return [(item.state, item.kind) for item in report.items]


def start(bench: Workbench, *arguments: str, **keywords: Any) -> subprocess.Popen[str]:
    """A run that has attached its clone and lives until its standard input ends."""
    record = bench.volume()
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    child = bench.child(record.id, "backup", "after", "never", *arguments, **streams, **keywords)
    assert child.stdout is not None
    assert child.stdout.readline() == "attached\n"
    return child


def end(child: subprocess.Popen[str]) -> int:
    child.communicate("")
    return child.returncode


def elsewhere(bench: Workbench, lease: float) -> subprocess.Popen[str]:
    """A run of another host, with a ledger of its own."""
    return start(
        bench,
        "--hostname",
        "elsewhere",
        "--lease",
        str(lease),
        state_path=bench.state_path / "elsewhere",
    )


KEPT = [("kept", "volume"), ("kept", "snapshot")]


BACKUP_STEPS = [
    ("after", "creating", "1"),  # before Cinder is asked for the snapshot
    ("before", "created", "1"),  # it is there, and the journal does not know
    ("after", "created", "1"),
    ("before", "created", "2"),  # the same with the volume
    ("after", "attaching", "1"),
    ("before", "attached", "1"),  # the attachment is there, and the journal does not know
    ("after", "attached", "1"),
    ("after", "connecting", "1"),  # Cinder has exported it
    ("before", "connected", "1"),
    ("after", "connected", "1"),
    ("before", "disconnected", "1"),
    ("before", "detached", "1"),
    ("before", "removed", "1"),
    ("before", "removed", "2"),
]


@pytest.mark.parametrize(("when", "step", "count"), BACKUP_STEPS)
def test_a_backup_killed(bench: Workbench, when: str, step: str, count: str) -> None:
    record = bench.volume()
    child = bench.child(record.id, "backup", when, step, count)
    assert child.wait() == -signal.SIGKILL
    assert bench.leftovers()["journals"]
    assert not clean(bench).failed
    assert bench.leftovers() == {}
    assert volumes.capture(bench.cloud, record.id) == record


RESTORE_STEPS = [
    ("before", "created", "2"),
    ("after", "connected", "1"),
    ("before", "disconnected", "1"),
    ("after", "detached", "1"),
]


@pytest.mark.parametrize(("when", "step", "count"), RESTORE_STEPS)
def test_a_restore_killed(bench: Workbench, when: str, step: str, count: str) -> None:
    record = bench.volume()
    child = bench.child(record.id, "restore", when, step, count)
    assert child.wait() == -signal.SIGKILL
    assert not clean(bench).failed
    assert bench.leftovers() == {}


@pytest.mark.parametrize(("when", "step"), [("before", "finished"), ("after", "finished")])
def test_a_finished_restore_is_the_users(bench: Workbench, when: str, step: str) -> None:
    record = bench.volume(name="mine", metadata={"owner": "me"})
    child = bench.child(record.id, "restore", when, step)
    assert child.wait() == -signal.SIGKILL
    (restored,) = (line.split()[0] for line in bench.leftovers()["volumes"])
    report = clean(bench)
    assert states(report) == [("removed", "snapshot"), ("removed", "files")]
    bench.users_own(restored)
    assert volumes.capture(bench.cloud, restored).metadata == {"owner": "me"}
    assert bench.leftovers() == {}


def test_a_dry_run_tells_and_does_nothing(bench: Workbench) -> None:
    record = bench.volume()
    assert bench.child(record.id, "backup", "after", "connected").wait() == -signal.SIGKILL
    before = bench.leftovers()
    report = clean(bench, dry_run=True)
    expected = ["attachment", "volume", "snapshot", "files"]
    assert states(report) == [("would remove", kind) for kind in expected]
    assert bench.leftovers() == before
    assert states(clean(bench)) == [("removed", kind) for kind in expected]
    assert clean(bench).items == []


def test_a_living_run_is_left_alone(bench: Workbench) -> None:
    child = start(bench)
    before = bench.leftovers()
    assert states(clean(bench)) == KEPT
    assert states(clean(bench, host_gone=bench.host.name)) == KEPT
    assert bench.leftovers() == before
    assert end(child) == 0
    assert bench.leftovers() == {}


def test_ctrl_c_leaves_nothing_to_clean_up(bench: Workbench) -> None:
    child = start(bench, stderr=subprocess.DEVNULL)
    child.send_signal(signal.SIGINT)
    child.wait()
    end(child)
    assert bench.leftovers() == {}


def test_strangers_are_left_alone(bench: Workbench) -> None:
    """Volumes without our tags, and with tags that are not whole."""
    bench.volume(name="freezer-osbrick backup of something")
    bench.volume(metadata={**tags.MARK, tags.RUN: "0" * 32})
    assert clean(bench).items == []
    assert clean(bench, host_gone="").items == []
    assert bench.leftovers() == {}


def test_tags_that_name_a_path_reach_no_file(bench: Workbench) -> None:
    """Any user can write tags: they must not lead the administrator's cleanup astray."""
    made = tags.Tags("../../etc/passwd", "backup", "elsewhere", "x", 2**40, "y")
    bench.volume(metadata=made.to_metadata())
    (item,) = clean(bench).items
    assert (item.state, item.kind) == ("kept", "volume")


def test_another_hosts_run_while_it_lives_and_its_lease_lasts(bench: Workbench) -> None:
    child = elsewhere(bench, lease=4)  # renewed every second
    time.sleep(6)
    report = clean(bench)
    assert states(report) == KEPT
    assert "its run on the host elsewhere holds it until" in report.items[0].reason
    assert end(child) == 0
    assert bench.leftovers() == {}


def test_a_host_that_is_gone(bench: Workbench) -> None:
    child = elsewhere(bench, lease=3600)
    child.kill()
    end(child)
    assert states(clean(bench)) == KEPT
    assert states(clean(bench, host_gone="somewhere")) == KEPT
    expected = [("removed", kind) for kind in ("attachment", "volume", "snapshot")]
    assert states(clean(bench, host_gone="elsewhere")) == expected
    assert bench.leftovers() == {}


def test_only_the_other_host_can_disconnect(bench: Workbench) -> None:
    """Its lease is over, but the volume may still be connected there."""
    child = elsewhere(bench, lease=2)
    child.kill()
    end(child)
    time.sleep(3)
    report = clean(bench)
    assert ("kept", "attachment") in states(report)
    assert "--host elsewhere" in report.kept[0].reason
    assert bench.leftovers().keys() >= {"volumes", "attachments"}
    assert clean(bench, host_gone="elsewhere").ok
    assert bench.leftovers() == {}


def test_what_is_not_attached_anybody_removes_when_the_lease_is_over(bench: Workbench) -> None:
    record = bench.volume()
    child = bench.child(
        record.id,
        "backup",
        "after",
        "attaching",
        "--hostname",
        "elsewhere",
        "--lease",
        "2",
        state_path=bench.state_path / "elsewhere",
    )
    assert child.wait() == -signal.SIGKILL
    time.sleep(3)
    assert states(clean(bench)) == [("removed", "volume"), ("removed", "snapshot")]
    assert bench.leftovers() == {}


def test_a_journal_that_somebody_removed(bench: Workbench) -> None:
    record = bench.volume()
    assert bench.child(record.id, "backup", "after", "connected").wait() == -signal.SIGKILL
    for path in (bench.state_path / "ledger").glob("*.journal"):
        path.unlink()
    assert not clean(bench).failed
    assert bench.leftovers() == {}


def test_an_administrator_cleans_up_for_everybody(bench: Workbench) -> None:
    record = bench.volume()
    assert bench.child(record.id, "backup", "after", "connected").wait() == -signal.SIGKILL
    other = cleanup(bench.as_project("other"), bench.host, bench.ledger)
    assert {item.kind for item in other.kept} == {"volume", "snapshot", "attachment"}
    assert "clean up with its credentials" in other.kept[0].reason
    assert states(other)[-1] == ("removed", "files")  # they are this host's, and not the project's
    assert bench.leftovers().keys() >= {"volumes", "snapshots", "attachments", "journals"}
    assert not cleanup(bench.as_project("admin"), bench.host, bench.ledger).failed
    assert bench.leftovers() == {}


def test_what_only_an_administrator_can_delete(bench: Workbench) -> None:
    """A deletion that failed within the storage: Cinder lets no member try again."""
    record = bench.volume()
    bench.conf.set_override("delete_attempts", 2, "cloud")
    bench.embedded.faults(
        delete_volume={"error": "broken", "times": 1},
        delete_snapshot={"error": "broken", "times": 1},
    )
    child = bench.child(record.id, "backup", "before", "removed", "9")
    assert child.wait() == 1
    bench.embedded.clear_faults()
    failed = clean(bench).failed
    assert [item.kind for item in failed] == ["volume", "snapshot"]
    assert all("only an administrator" in item.reason for item in failed)
    assert not cleanup(bench.as_project("admin"), bench.host, bench.ledger).failed
    assert bench.leftovers() == {}
