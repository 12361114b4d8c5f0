# SPDX-License-Identifier: Apache-2.0
"""What cleanup removes, what it keeps, and what it says."""

from __future__ import annotations

import pathlib
import time
from typing import Any

import pytest
from cinderclient import exceptions

from freezer_osbrick import errors
from freezer_osbrick.cloud import attachments, resources, volumes
from freezer_osbrick.cloud.ledger import Ledger, Run
from freezer_osbrick.cloud.tags import EXPIRES, MARK
from freezer_osbrick.cloud.volumes import VolumeRecord
from freezer_osbrick.operations.cleanup import cleanup, cleanup_own
from freezer_osbrick.operations.cleanup_report import CleanupReport
from tests.unit.cloud.fake_cinder import FakeCloud, Resource
from tests.unit.operations.fake_host import FakeHost


class Bench:
    def __init__(self, folder: pathlib.Path) -> None:
        self.cloud: Any = FakeCloud(delete_attempts=1)
        self.source = self.cloud.volume()
        self.host: Any = FakeHost(self.cloud.cinder.log, folder)
        self.ledger = Ledger(str(folder / "ledger"), "here")
        self.others = Ledger(str(folder / "others"), "there")

    def clean(self, **options: Any) -> CleanupReport:
        self.cloud.cinder.log.clear()
        return cleanup(self.cloud, self.host, self.ledger, **options)

    def staged(self, ledger: Ledger | None = None) -> tuple[Run, Resource, Resource]:
        """A run with a snapshot and a clone."""
        run = (ledger or self.ledger).start("backup")
        snapshot = resources.create(
            self.cloud,
            run,
            resources.SNAPSHOT,
            "a snapshot",
            lambda tags: self.cloud.cinder.volume_snapshots.create(self.source.id, metadata=tags),
            size_gib=1,
        )
        clone = resources.create(
            self.cloud,
            run,
            resources.VOLUME,
            "a clone",
            lambda tags: self.cloud.cinder.volumes.create(1, name="clone", metadata=tags),
            size_gib=1,
        )
        return run, snapshot, clone

    def attached(self, run: Run, volume: Resource) -> str:
        attachment_id = attachments.reserve(self.cloud, run, volume.id, writable=False)
        info = attachments.connection(self.cloud, volume.id, attachment_id, {}, writable=False)
        run.record("connecting", attachment_id=attachment_id, connection_info=info)
        run.record("connected", attachment_id=attachment_id, device_info={"path": "/dev/x"})
        return attachment_id

    @property
    def nothing_left(self) -> bool:
        cinder = self.cloud.cinder
        return (
            list(cinder.volumes.all) == [self.source.id]
            and not cinder.volume_snapshots.all
            and not cinder.attachments.all
            and not self.ledger.runs()
        )


@pytest.fixture
def bench(tmp_path: pathlib.Path, sleeps: Any) -> Bench:
    return Bench(tmp_path)


def states(report: CleanupReport) -> list[tuple[str, str]]:
    return [(item.state, item.kind) for item in report.items]


def test_nothing_to_do(bench: Bench) -> None:
    report = bench.clean()
    assert report.items == []
    assert report.ok


def test_in_the_order_of_detaching(bench: Bench) -> None:
    run, snapshot, clone = bench.staged()
    attachment_id = bench.attached(run, clone)
    run.end()
    report = bench.clean()
    assert bench.cloud.cinder.verbs() == [
        "disconnect host",
        "delete attachment",
        "delete volume",
        "delete snapshot",
    ]
    ((info, device_info, force),) = bench.host.disconnections
    assert (info["attachment_id"], device_info, force) == (attachment_id, {"path": "/dev/x"}, True)
    assert [(item.kind, item.id) for item in report.removed] == [
        ("attachment", attachment_id),
        ("volume", clone.id),
        ("snapshot", snapshot.id),
    ]
    assert report.to_dict()["items"][0]["run"] == run.id
    assert bench.nothing_left
    assert bench.clean().items == []


def test_a_living_run(bench: Bench) -> None:
    run, _, clone = bench.staged()
    bench.attached(run, clone)
    assert states(bench.clean()) == [("kept", "volume"), ("kept", "snapshot")]
    assert bench.cloud.cinder.verbs() == []
    run.end()


def test_before_a_run_only_this_hosts_dead_ones_are_looked_at(bench: Bench) -> None:
    living, _, clone = bench.staged()
    other, _, _ = bench.staged(bench.others)
    other.release()
    bench.cloud.cinder.log.clear()
    report = cleanup_own(bench.cloud, bench.host, bench.ledger)
    assert (report.items, bench.cloud.cinder.log) == ([], [])
    living.release()
    report = cleanup_own(bench.cloud, bench.host, bench.ledger)
    assert states(report) == [("removed", "volume"), ("removed", "snapshot")]
    assert clone.id not in bench.cloud.cinder.volumes.all
    assert not bench.ledger.runs()
    assert len(bench.cloud.cinder.volumes.all) == 2


def test_an_attachment_that_was_never_connected(bench: Bench) -> None:
    """Killed before the journal knew of it: found by its volume, and nothing to disconnect."""
    run, _, clone = bench.staged()
    run.record("attaching", volume_id=clone.id, project_id="p1")
    bench.cloud.cinder.attachments.create(clone.id, None, "ro")
    run.end()
    assert bench.clean().ok
    assert bench.host.disconnections == []
    assert bench.nothing_left


def test_a_host_that_holds_on(bench: Bench) -> None:
    run, _, clone = bench.staged()
    bench.attached(run, clone)
    run.end()

    def fault(verb: str) -> None:
        raise errors.DeviceError("busy")

    bench.host.fault = fault
    report = bench.clean()
    # The attachment stays, so the volume stays; the snapshot need not.
    assert states(report) == [("failed", "attachment"), ("removed", "snapshot")]
    assert report.failed[0].reason == "busy"
    assert not report.ok
    assert "delete attachment" not in bench.cloud.cinder.verbs()
    bench.host.fault = lambda verb: None
    assert states(bench.clean()) == [("removed", "attachment"), ("removed", "volume")]
    assert bench.nothing_left


def test_what_cannot_be_deleted_is_tried_at_the_next_cleanup(bench: Bench) -> None:
    run, _, _ = bench.staged()
    run.end()

    def refuse(verb: str, resource: Any) -> None:
        if verb == "delete":
            raise exceptions.BadRequest(400, "it has snapshots")

    bench.cloud.cinder.volumes.fault = refuse
    report = bench.clean()
    assert states(report) == [("failed", "volume"), ("removed", "snapshot")]
    assert "it has snapshots" in report.failed[0].reason
    assert bench.ledger.runs() == [run.id]
    bench.cloud.cinder.volumes.fault = lambda verb, resource: None
    assert states(bench.clean()) == [("removed", "volume")]
    assert bench.nothing_left


def test_a_finished_restore(bench: Bench) -> None:
    """Killed after the tags were gone and before the journal said so."""
    run, _, clone = bench.staged()
    record = VolumeRecord(bench.source.id, "mine", "", 1, "available", metadata={"a": "b"})
    run.record, record_step = lambda *a, **k: None, run.record  # type: ignore[method-assign]
    volumes.finish(bench.cloud, run, clone.id, record)
    run.record = record_step  # type: ignore[method-assign]
    run.end()
    assert states(bench.clean()) == [("removed", "snapshot")]
    assert bench.cloud.cinder.volumes.all[clone.id].metadata == {"a": "b"}
    assert bench.ledger.runs() == []


def test_a_restore_that_finishes_while_cleanup_looks(bench: Bench) -> None:
    """Listed with its tags, and without them when it is looked at again."""
    run, snapshot, clone = bench.staged()
    listing = bench.cloud.cinder.volumes.list
    lists = []

    def finishing(**asked: Any) -> list[Resource]:
        found = listing(**asked)
        lists.append(found)
        if len(lists) == 1:
            clone_now = bench.cloud.cinder.volumes.all[clone.id]
            found = [Resource(**vars(clone_now))]
            clone_now.metadata = {}
            run.record("finished", id=clone.id)
            del bench.cloud.cinder.volume_snapshots.all[snapshot.id]
            run.record("removed", resource="snapshot", id=snapshot.id)
            run.end()
        return found

    bench.cloud.cinder.volumes.list = finishing
    assert bench.clean().items == []
    assert clone.id in bench.cloud.cinder.volumes.all


def test_what_strangers_made(bench: Bench) -> None:
    bench.cloud.volume(metadata=dict(MARK))
    bench.cloud.volume(metadata={"freezer_osbrick_run": "x"})
    assert bench.clean(host_gone="there").items == []
    assert len(bench.cloud.cinder.volumes.all) == 3


@pytest.mark.parametrize("gone", [None, "elsewhere"])
def test_another_ledgers_run_while_its_lease_lasts(bench: Bench, gone: str | None) -> None:
    run, _, _ = bench.staged(bench.others)
    run.end()
    report = bench.clean(host_gone=gone)
    assert states(report) == [("kept", "volume"), ("kept", "snapshot")]
    assert "the host there holds it until" in report.kept[0].reason
    assert report.kept[0].host == "there"
    assert report.ok


def expire(bench: Bench, *made: Resource) -> None:
    for resource in made:
        for manager in (bench.cloud.cinder.volumes, bench.cloud.cinder.volume_snapshots):
            if resource.id in manager.all:
                manager.all[resource.id].metadata[EXPIRES] = str(int(time.time()) - 1)


def test_another_ledgers_run_whose_lease_is_over(bench: Bench) -> None:
    run, *made = bench.staged(bench.others)
    run.end()
    expire(bench, *made)
    assert states(bench.clean()) == [("removed", "volume"), ("removed", "snapshot")]
    assert bench.nothing_left


def test_nobody_else_disconnects(bench: Bench) -> None:
    run, snapshot, clone = bench.staged(bench.others)
    bench.attached(run, clone)
    run.end()
    expire(bench, snapshot, clone)
    report = bench.clean()
    assert states(report) == [("kept", "attachment"), ("removed", "snapshot")]
    assert "--host there" in report.kept[0].reason
    assert bench.cloud.cinder.attachments.all
    gone = bench.clean(host_gone="there")
    assert states(gone) == [("removed", "attachment"), ("removed", "volume")]
    assert bench.host.disconnections == []


def test_a_journal_that_is_gone(bench: Bench) -> None:
    """Cinder's own record of the connection serves."""
    run, _, clone = bench.staged()
    bench.attached(run, clone)
    run.outstanding.resources.clear()
    run.outstanding.attachments.clear()
    run.end()  # it removes its journal
    assert bench.ledger.runs() == []
    assert bench.clean().ok
    ((info, device_info, _),) = bench.host.disconnections
    assert info["driver_volume_type"] == "local"
    assert device_info is None
    assert bench.nothing_left


def test_a_dry_run(bench: Bench) -> None:
    run, _, clone = bench.staged()
    bench.attached(run, clone)
    pathlib.Path(run.scratch(), "file").write_text("x")
    run.end()
    report = bench.clean(dry_run=True)
    kinds = ["attachment", "volume", "snapshot", "files"]
    assert states(report) == [("would remove", kind) for kind in kinds]
    assert len(report.removed) == 4
    assert bench.cloud.cinder.verbs() == []
    assert states(bench.clean()) == [("removed", kind) for kind in kinds]
    assert bench.nothing_left


def test_another_projects_things_are_named_and_their_journal_stays(bench: Bench) -> None:
    run, snapshot, clone = bench.staged()
    attachment_id = bench.attached(run, clone)
    run.end()
    cinder = bench.cloud.cinder
    hidden = (cinder.volumes.all, cinder.volume_snapshots.all)
    cinder.volumes.all, cinder.volume_snapshots.all = {}, {}
    bench.cloud.project_id = "p2"
    report = bench.clean()
    assert {item.id for item in report.kept} == {attachment_id, clone.id, snapshot.id}
    assert all("project p1" in item.reason for item in report.kept)
    assert bench.ledger.runs() == [run.id]
    cinder.volumes.all, cinder.volume_snapshots.all = hidden
    bench.cloud.project_id = "p1"
    assert bench.clean().ok
    assert bench.nothing_left


def test_requests_that_made_nothing_are_forgotten(bench: Bench) -> None:
    run = bench.ledger.start("backup")
    run.record("creating", resource="volume", token="t", project_id="p1")
    run.record("attaching", volume_id="v1", project_id="p1")
    run.end()
    assert bench.ledger.runs() == [run.id]
    assert bench.clean().items == []
    assert bench.ledger.runs() == []


def test_a_cloud_that_does_not_answer(bench: Bench) -> None:
    run, _, _ = bench.staged()
    run.end()

    def fault(**asked: Any) -> None:
        raise exceptions.Forbidden(403, "no")

    bench.cloud.cinder.volumes.list = fault
    with pytest.raises(errors.CloudAccessDenied):
        bench.clean()
    assert bench.ledger.runs() == [run.id]
