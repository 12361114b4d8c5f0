# SPDX-License-Identifier: Apache-2.0
"""Cleanup gives back what dead runs had borrowed."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import pytest
from keystoneauth1 import exceptions

from freezer_osbrick.cloud import attachments, borrowing, servers, volumes
from freezer_osbrick.cloud.ledger import Ledger, Run
from freezer_osbrick.cloud.tags import BORROWED, EXPIRES, INCOMPLETE, Tags
from freezer_osbrick.operations.cleanup import cleanup
from freezer_osbrick.operations.cleanup_report import CleanupReport
from tests.unit.cloud.fake_cinder import FakeCloud
from tests.unit.cloud.fake_nova import FakeNova
from tests.unit.operations.fake_host import FakeHost


class Bench:
    """A volume of the server s1."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.cloud: Any = FakeCloud(delete_attempts=1)
        self.volume_id = self.cloud.volume(metadata={"owner": "me"}).id
        self.nova = FakeNova(self.cloud)
        self.nova.hold(self.volume_id)
        self.host: Any = FakeHost(self.cloud.cinder.log, folder)
        self.ledger = Ledger(str(folder / "ledger"), "here")
        self.others = Ledger(str(folder / "others"), "there")

    def died(self, ledger: Ledger | None = None, *, attached: bool = False) -> Run:
        """A run that had taken the volume from its server."""
        run = (ledger or self.ledger).start("backup")
        record = volumes.capture(self.cloud, self.volume_id)
        server = borrowing.server_of(self.cloud, record)
        tags = run.new_tags().to_metadata(BORROWED)
        run.record("borrowing", volume_id=self.volume_id, project_id="p1")
        if server:
            tags.update(borrowing.server_tags(server))
        borrowing.tag(self.cloud, self.volume_id, tags)
        if server:
            run.record("releasing", volume_id=self.volume_id, server=dataclasses.asdict(server))
            servers.detach(self.cloud, server, size_gib=1)
        if attached:
            made = attachments.reserve(self.cloud, run, self.volume_id, writable=False)
            info = attachments.connection(self.cloud, self.volume_id, made, {}, writable=False)
            run.record("connecting", attachment_id=made, connection_info=info)
            run.record("connected", attachment_id=made, device_info={"path": "/dev/x"})
        run.end()
        self.cloud.cinder.log.clear()
        return run

    def clean(self, **options: Any) -> CleanupReport:
        return cleanup(self.cloud, self.host, self.ledger, **options)

    @property
    def volume(self) -> Any:
        return self.cloud.cinder.volumes.all[self.volume_id]

    @property
    def is_as_it_was(self) -> bool:
        return (
            self.volume_id in self.nova.servers["s1"]
            and self.volume.metadata == {"owner": "me"}
            and not self.cloud.cinder.attachments.all
            and not self.ledger.runs()
        )


@pytest.fixture
def bench(tmp_path: pathlib.Path, sleeps: Any) -> Bench:
    return Bench(tmp_path)


def states(report: CleanupReport) -> list[tuple[str, str]]:
    return [(item.state, item.kind) for item in report.items]


def test_back_to_its_server(bench: Bench) -> None:
    bench.died(attached=True)
    report = bench.clean()
    assert states(report) == [("removed", "attachment"), ("returned", "volume")]
    assert report.items[-1].reason == "to the server s1"
    verbs = bench.cloud.cinder.verbs("host", "attachment", "nova")
    assert verbs == ["disconnect host", "delete attachment", "post nova"]
    assert bench.is_as_it_was
    assert bench.clean().items == []


def test_a_dry_run_tells(bench: Bench) -> None:
    bench.died(attached=True)
    expected = [("would remove", "attachment"), ("would return", "volume")]
    assert states(bench.clean(dry_run=True)) == expected
    assert bench.cloud.cinder.verbs() == []
    assert bench.clean().ok
    assert bench.is_as_it_was


def test_a_reservation_without_an_answer(bench: Bench) -> None:
    run = bench.died()
    dead = bench.ledger.adopt(run.id)
    assert dead is not None
    dead.record("attaching", volume_id=bench.volume_id, project_id="p1")
    dead.release()
    bench.cloud.cinder.attachments.create(bench.volume_id, None, "ro")
    assert bench.clean().ok
    assert bench.is_as_it_was


def test_an_attachment_of_others_stays(bench: Bench) -> None:
    bench.died()
    made = bench.cloud.cinder.attachments.create(bench.volume_id, None, "rw")["id"]
    bench.clean()
    assert list(bench.cloud.cinder.attachments.all) == [made]


def test_no_tags_yet(bench: Bench) -> None:
    run = bench.ledger.start("backup")
    run.record("borrowing", volume_id=bench.volume_id, project_id="p1")
    run.end()
    assert states(bench.clean()) == [("returned", "volume")]
    assert bench.is_as_it_was


def test_a_volume_that_is_gone(bench: Bench) -> None:
    bench.died()
    del bench.cloud.cinder.volumes.all[bench.volume_id]
    assert bench.clean().items == []
    assert not bench.ledger.runs()


def test_a_server_that_does_not_take_it(bench: Bench) -> None:
    bench.died()

    def fault(method: str) -> None:
        if method == "POST":
            raise exceptions.Conflict("Instance is locked")

    bench.nova.fault = fault
    (item,) = bench.clean().failed
    assert "Instance is locked" in item.reason
    assert Tags.of(bench.volume.metadata, BORROWED)
    bench.nova.fault = lambda method: None
    assert bench.clean().ok
    assert bench.is_as_it_was


def test_a_restore_in_place_that_was_broken_off(bench: Bench) -> None:
    bench.nova.servers["s1"].clear()
    bench.volume.status, bench.volume.attachments = "available", []
    bench.died(attached=True)
    borrowing.tag(bench.cloud, bench.volume_id, {INCOMPLETE: "b1"})
    report = bench.clean()
    assert states(report) == [("removed", "attachment"), ("returned", "volume")]
    assert "backup b1 in place was broken off" in report.items[-1].reason
    assert "post nova" not in bench.cloud.cinder.verbs()
    assert bench.volume.metadata == {"owner": "me", INCOMPLETE: "b1"}
    assert not bench.ledger.runs()


# -- of another host -------------------------------------------------------------------------------


def test_while_the_other_hosts_lease_lasts(bench: Bench) -> None:
    bench.died(bench.others)
    (item,) = bench.clean().kept
    assert "its run on the host there holds it until" in item.reason
    assert bench.cloud.cinder.verbs() == []


def test_when_its_lease_is_over(bench: Bench) -> None:
    bench.died(bench.others)
    bench.volume.metadata[EXPIRES] = "1"
    assert states(bench.clean()) == [("returned", "volume")]
    assert bench.is_as_it_was


def test_what_the_other_host_holds(bench: Bench) -> None:
    bench.died(bench.others, attached=True)
    bench.volume.metadata[EXPIRES] = "1"
    (item,) = bench.clean().kept
    assert "--host there" in item.reason
    assert not bench.nova.servers["s1"]
    assert bench.clean(host_gone="there").ok
    assert bench.host.disconnections == []
    assert bench.is_as_it_was


def test_tags_lead_no_volume_into_another_projects_server(bench: Bench) -> None:
    """Any user can write tags, and an administrator may clean up."""
    bench.died(bench.others)
    bench.volume.metadata[EXPIRES] = "1"
    bench.nova.project_id = "p2"
    (item,) = bench.clean().failed
    assert "belong to different projects" in item.reason
    assert "post nova" not in bench.cloud.cinder.verbs()


def test_a_server_that_is_gone_meanwhile(bench: Bench) -> None:
    bench.died(bench.others)
    bench.volume.metadata[EXPIRES] = "1"
    bench.nova.servers.clear()
    (item,) = bench.clean().items
    assert (item.state, item.reason) == ("returned", "nothing is attached to it")
    assert bench.volume.metadata == {"owner": "me"}


def test_a_living_run(bench: Bench) -> None:
    run = bench.ledger.start("backup")
    with borrowing.borrowed(bench.cloud, run, bench.volume_id, size_gib=1):
        (item,) = bench.clean().kept
        assert (item.id, item.reason) == (bench.volume_id, "its run is alive")
    run.end()


def test_a_borrowed_volume_is_never_deleted(bench: Bench) -> None:
    """Not even one whose tags somebody made look like those of ours."""
    run = bench.died()
    bench.clean()
    bench.volume.metadata.update(run.new_tags().to_metadata(BORROWED))
    bench.clean()
    assert bench.volume_id in bench.cloud.cinder.volumes.all
