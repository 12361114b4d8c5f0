# SPDX-License-Identifier: Apache-2.0
"""Volumes of the user's: taken from their servers, and given back whatever happens."""

from __future__ import annotations

from typing import Any

import pytest
from keystoneauth1 import exceptions

from freezer_osbrick import errors
from freezer_osbrick.cloud import attachments, borrowing, volumes
from freezer_osbrick.cloud.ledger import Ledger
from freezer_osbrick.cloud.servers import ServerVolume
from freezer_osbrick.cloud.tags import BORROWED, INCOMPLETE, MARK, Tags
from tests.unit.cloud.fake_cinder import FakeCloud
from tests.unit.cloud.fake_nova import FakeNova

pytestmark = pytest.mark.usefixtures("sleeps")


class Bench:
    def __init__(self, cloud: FakeCloud, ledger: Ledger) -> None:
        self.cloud: Any = cloud
        self.ledger = ledger
        self.volume = cloud.volume(metadata={"owner": "me"})
        self.nova = FakeNova(cloud)
        self.notes: list[str] = []

    def hold(self, **facts: Any) -> ServerVolume:
        self.nova.hold(self.volume.id, **facts)
        server = self.server()
        assert server is not None
        return server

    def server(self) -> ServerVolume | None:
        record = volumes.capture(self.cloud, self.volume.id)
        return borrowing.server_of(self.cloud, record)

    def borrow(self, server: ServerVolume | None = None) -> Any:
        self.run = self.ledger.start("backup")
        return borrowing.borrowed(
            self.cloud,
            self.run,
            self.volume.id,
            server=server,
            size_gib=1,
            tell=self.notes.append,
        )

    def end(self) -> bool:
        """Whether nothing is left for a cleanup."""
        self.run.end()
        return not self.ledger.runs()

    @property
    def metadata(self) -> dict[str, str]:
        return dict(self.cloud.cinder.volumes.all[self.volume.id].metadata)

    @property
    def status(self) -> str:
        return str(self.cloud.cinder.volumes.all[self.volume.id].status)


@pytest.fixture
def bench(cloud: FakeCloud, ledger: Ledger) -> Bench:
    return Bench(cloud, ledger)


def test_tagged_as_long_as_it_is_borrowed(bench: Bench) -> None:
    with bench.borrow() as volume_id:
        assert volume_id == bench.volume.id
        found = Tags.of(bench.metadata, BORROWED)
        assert found is not None and found.run == bench.run.id
        assert Tags.of(bench.metadata, MARK) is None  # nobody takes it for one of ours
        assert [volume.id for volume in borrowing.lent(bench.cloud, {})] == [volume_id]
    assert bench.metadata == {"owner": "me"}
    assert bench.end()


def test_by_one_run_at_a_time(bench: Bench) -> None:
    with bench.borrow():
        first = bench.run
        with pytest.raises(errors.CloudRefused, match="A run on the host here"), bench.borrow():
            raise AssertionError("not reached")
        bench.run.end()
        assert bench.ledger.runs() == [first.id]
        assert borrowing.lent(bench.cloud, {})
        bench.run = first
    assert bench.end()


def test_what_says_that_it_is_borrowed_goes_first(bench: Bench) -> None:
    with bench.borrow():
        left: list[int] = []

        def fault(verb: str, volume: Any) -> None:
            left.append(len(borrowing.lent(bench.cloud, {})))

        removed = bench.cloud.cinder.volumes.delete_metadata

        def delete_metadata(volume_id: str, keys: list[str]) -> None:
            removed(volume_id, keys)
            fault("", None)

        bench.cloud.cinder.volumes.delete_metadata = delete_metadata
    assert left[0] == 0


def test_that_a_restore_is_incomplete_stays(bench: Bench) -> None:
    with bench.borrow() as volume_id:
        borrowing.tag(bench.cloud, volume_id, {INCOMPLETE: "b1"})
    assert bench.metadata == {"owner": "me", INCOMPLETE: "b1"}
    record = volumes.capture(bench.cloud, bench.volume.id)
    assert (record.metadata, record.incomplete_restore) == ({"owner": "me"}, "b1")


def test_an_attachment_of_others_is_refused_and_left_alone(bench: Bench) -> None:
    theirs = bench.cloud.cinder.attachments.create(bench.volume.id, None, "rw")["id"]
    with pytest.raises(errors.CloudRefused, match="attached to somebody else"), bench.borrow() as v:
        attachments.reserve(bench.cloud, bench.run, v, writable=True)
    assert list(bench.cloud.cinder.attachments.all) == [theirs]
    assert bench.end()


def test_an_attachment_that_comes_at_the_same_moment(bench: Bench) -> None:
    made = bench.cloud.cinder.attachments.create
    theirs: list[str] = []

    def create(volume_id: str, connector: Any, mode: str) -> Any:
        attachment = made(volume_id, connector, mode)
        other = bench.cloud.cinder.attachments.all[made(volume_id, None, "rw")["id"]]
        other.instance, other.status = "s9", "attached"
        theirs.append(other.id)
        return attachment

    bench.cloud.cinder.attachments.create = create
    with pytest.raises(errors.CloudRefused, match="somebody else: s9"), bench.borrow() as v:
        attachments.reserve(bench.cloud, bench.run, v, writable=True)
    assert list(bench.cloud.cinder.attachments.all) == theirs
    assert bench.end()


def test_a_reservation_that_a_signal_left(bench: Bench) -> None:
    def lost(verb: str) -> None:
        raise KeyboardInterrupt

    bench.cloud.cinder.attachments.lost = lost
    with pytest.raises(KeyboardInterrupt), bench.borrow() as volume_id:
        attachments.reserve(bench.cloud, bench.run, volume_id, writable=True)
    assert not bench.cloud.cinder.attachments.all
    assert bench.end()


# -- servers ---------------------------------------------------------------------------------------


def test_its_server_gives_it_and_gets_it_back(bench: Bench) -> None:
    server = bench.hold(tag="data", delete_on_termination=True)
    with bench.borrow(server):
        assert bench.status == "available"
        assert bench.run.outstanding.released
        assert borrowing.server_in_tags(bench.volume.id, bench.metadata) == server
    assert bench.server() == server
    assert (bench.notes, bench.metadata) == ([], {"owner": "me"})
    assert bench.end()


@pytest.mark.parametrize(
    "server",
    [
        ServerVolume("s1", "v1"),
        ServerVolume("s1", "v1", "/dev/vdb", None, False),
        ServerVolume("s1", "v1", "/dev/vdb", "data", True),
    ],
)
def test_tags_tell_another_host_how_it_was(server: ServerVolume) -> None:
    assert borrowing.server_in_tags("v1", borrowing.server_tags(server)) == server
    assert borrowing.server_in_tags("v1", {"owner": "me"}) is None


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_given_back_whatever_happens(bench: Bench, error: type[BaseException]) -> None:
    server = bench.hold()
    with pytest.raises(error), bench.borrow(server):
        raise error
    assert bench.server() == server
    assert bench.end()


def test_a_server_that_does_not_give_it(bench: Bench) -> None:
    server = bench.hold()

    def fault(method: str) -> None:
        if method == "DELETE":
            raise exceptions.Forbidden("Cannot detach a root device volume")

    bench.nova.fault = fault
    with pytest.raises(errors.CloudAccessDenied, match="root device"), bench.borrow(server):
        raise AssertionError("not reached")
    assert bench.server() == server
    assert bench.metadata == {"owner": "me"}
    assert bench.end()


@pytest.mark.parametrize("method", ["DELETE", "POST"])
def test_an_answer_that_got_lost(bench: Bench, method: str) -> None:
    server = bench.hold()
    left = [exceptions.ConnectFailure("reset")]

    def lost(this: str) -> None:
        if this == method and left:
            raise left.pop()

    bench.nova.lost = lost
    with bench.borrow(server):
        pass
    assert bench.server() == server
    assert bench.end()


def test_a_busy_server_is_asked_again(bench: Bench) -> None:
    server = bench.hold()
    left = [exceptions.Conflict("Cannot attach while it is in task_state rebooting")] * 3

    def fault(method: str) -> None:
        if method == "POST" and left:
            raise left.pop()

    bench.nova.fault = fault
    with bench.borrow(server):
        pass
    assert bench.server() == server
    assert bench.end()


def test_a_server_that_never_takes_it(bench: Bench) -> None:
    server = bench.hold()

    def fault(method: str) -> None:
        if method == "POST":
            raise exceptions.Conflict("Instance is locked")

    bench.nova.fault = fault
    with pytest.raises(errors.Leftovers, match="'freezer-osbrick cleanup' tries again"):  # noqa: SIM117
        with bench.borrow(server):
            pass
    assert Tags.of(bench.metadata, BORROWED)
    assert borrowing.server_in_tags(bench.volume.id, bench.metadata) == server
    assert not bench.end()


def test_a_server_that_is_gone(bench: Bench) -> None:
    server = bench.hold()
    with bench.borrow(server):
        bench.nova.servers.clear()
    (note,) = bench.notes
    assert "stays detached" in note
    assert bench.metadata == {"owner": "me"}
    assert bench.end()


def test_another_device_is_told(bench: Bench) -> None:
    server = bench.hold()
    with bench.borrow(server):
        bench.nova.free = "/dev/vdc"
    assert bench.notes[0].endswith("as /dev/vdc now; it was /dev/vdb.")


def test_a_volume_that_this_host_holds_goes_to_nobody(bench: Bench) -> None:
    server = bench.hold()
    with pytest.raises(errors.Leftovers, match="this host still holds it"):  # noqa: SIM117
        with bench.borrow(server) as volume_id:
            made = attachments.reserve(bench.cloud, bench.run, volume_id, writable=False)
            bench.run.record("connecting", attachment_id=made, connection_info={"a": 1})
    assert "post nova" not in bench.cloud.cinder.verbs()
    assert Tags.of(bench.metadata, BORROWED)
    assert not bench.end()


def test_a_volume_without_a_server(bench: Bench) -> None:
    assert bench.server() is None


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"status": "error"}, "in state 'error'"),
        ({"attachments": [{"server_id": "s1"}, {"server_id": "s2"}]}, "2 servers have it"),
        ({"attachments": [{"server_id": None}]}, "attached to a host, and to no server"),
        ({"attachments": []}, "attached to a host, and to no server"),
        ({"attachments": [{"server_id": "s2"}]}, "server s2 is hidden"),
    ],
)
def test_what_cannot_be_had(bench: Bench, facts: dict[str, Any], words: str) -> None:
    bench.hold()
    vars(bench.cloud.cinder.volumes.all[bench.volume.id]).update(facts)
    with pytest.raises(errors.BadRequest, match=words):
        bench.server()


def test_a_root_disk(bench: Bench) -> None:
    bench.hold()
    bench.nova.root = "/dev/vdb"
    with pytest.raises(errors.BadRequest, match="root disk of the server s1"):
        bench.server()


def test_a_server_that_knows_nothing_of_it(bench: Bench) -> None:
    bench.hold()
    bench.nova.servers["s1"].clear()
    with pytest.raises(errors.BadRequest, match="Nova does not know"):
        bench.server()
