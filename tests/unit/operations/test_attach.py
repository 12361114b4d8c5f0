# SPDX-License-Identifier: Apache-2.0
"""The order of attaching and detaching, whatever fails on the way."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
from cinderclient import exceptions

from freezer_osbrick import errors
from freezer_osbrick.cloud.ledger import Ledger
from freezer_osbrick.device.path_device import PathDevice
from freezer_osbrick.device.volume_device import Device
from freezer_osbrick.operations.attach import attached
from tests.unit.cloud.fake_cinder import FakeCloud, server_error
from tests.unit.operations.fake_host import FakeHost

UP = ["create attachment", "update attachment", "connect host", "complete attachment"]
DOWN = ["disconnect host", "delete attachment"]


class Bench:
    def __init__(self, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cloud = FakeCloud()
        self.volume = self.cloud.volume()
        self.log = self.cloud.cinder.log
        self.host = FakeHost(self.log, folder)
        self.ledger = Ledger(str(folder / "ledger"), "here")
        self.attachments = self.cloud.cinder.attachments
        for verb in ("flush", "close"):
            self._note(monkeypatch, verb)

    def _note(self, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
        original = getattr(PathDevice, f"_{verb}")

        def noting(device: Any) -> None:
            self.log.append((verb, "device", ""))
            self.host.fault(verb)
            original(device)

        monkeypatch.setattr(PathDevice, f"_{verb}", noting)

    def attach(self, *, writable: bool = False, size_gib: int = 1) -> None:
        with self.ledger.start("test") as run:
            self.run = run
            with attached(
                self.cloud,  # type: ignore[arg-type]
                self.host,  # type: ignore[arg-type]
                run,
                self.volume.id,
                size_gib=size_gib,
                writable=writable,
            ) as device:
                self.body(device)

    def body(self, device: Device) -> None:
        self.log.append(("body", "device", ""))

    def fails(self, where: str, error: Exception, times: int = 99) -> None:
        left = [error] * times

        def fault(verb: str) -> None:
            if verb == where and left:
                raise left.pop()

        self.host.fault = self.attachments.fault = fault

    @property
    def verbs(self) -> list[str]:
        return self.cloud.cinder.verbs()

    @property
    def clean(self) -> bool:
        return not self.attachments.all and not self.ledger.runs()


@pytest.fixture
def bench(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, sleeps: Any) -> Bench:
    return Bench(tmp_path, monkeypatch)


def test_read(bench: Bench) -> None:
    bench.attach()
    assert bench.verbs == [*UP, "body device", "close device", *DOWN]
    assert bench.clean


def test_written(bench: Bench) -> None:
    bench.attach(writable=True)
    assert bench.verbs == [*UP, "body device", "flush device", "close device", *DOWN]
    assert bench.clean


@pytest.mark.parametrize("writable", [False, True])
def test_with_the_mode_in_both_steps_and_no_server(bench: Bench, writable: bool) -> None:
    def body(device: Device) -> None:
        (attachment,) = bench.attachments.all.values()
        assert attachment.mode == ("rw" if writable else "ro")
        assert device.writable is writable

    bench.body = body  # type: ignore[method-assign]
    bench.attach(writable=writable)


def test_disconnected_with_what_was_saved(bench: Bench) -> None:
    def body(device: Device) -> None:
        (attachment,) = bench.run.outstanding.attachments.values()
        assert attachment.connection_info["device_path"] == f"/pool/{bench.volume.id}"
        assert attachment.device_info == {"type": "local", "path": device.name}

    bench.body = body  # type: ignore[method-assign]
    bench.attach()
    ((connection_info, device_info, force),) = bench.host.disconnections
    assert connection_info["device_path"] == f"/pool/{bench.volume.id}"
    assert device_info["type"] == "local"
    assert force is False


@pytest.mark.parametrize("writable", [False, True])
def test_another_volume_at_the_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, writable: bool
) -> None:
    """What was read is of no use, and what was written is no restore."""

    def body(device: Device) -> None:
        def refuse() -> None:
            raise errors.IdentityError("It is another one.")

        monkeypatch.setattr(device, "_prove", refuse)

    bench.body = body  # type: ignore[method-assign]
    with pytest.raises(errors.IdentityError):
        bench.attach(writable=writable)
    flush = ["flush device"] if writable else []
    assert bench.verbs == [*UP, *flush, "close device", *DOWN]
    assert bench.clean


@pytest.mark.parametrize("multipath", [False, True])
def test_paths_as_they_were_when_it_was_connected(bench: Bench, multipath: bool) -> None:
    def body(device: Device) -> None:
        (attachment,) = bench.run.outstanding.attachments.values()
        assert attachment.multipath is multipath
        bench.host.multipath = not multipath  # another setting since

    bench.host.multipath = multipath
    bench.body = body  # type: ignore[method-assign]
    bench.attach()
    assert bench.host.multipaths == [multipath]


@pytest.mark.parametrize("writable", [False, True])
def test_the_body_fails(bench: Bench, writable: bool) -> None:
    def body(device: Device) -> None:
        raise ZeroDivisionError

    bench.body = body  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        bench.attach(writable=writable)
    flush = ["flush device"] if writable else []
    assert bench.verbs == [*UP, *flush, "close device", *DOWN]
    assert bench.clean


@pytest.mark.parametrize(
    ("where", "error", "kind", "undone"),
    [
        ("create", exceptions.BadRequest(400, "busy"), errors.CloudRefused, []),
        (
            "update",
            exceptions.ClientException(500, "Unable to update attachment (no path)."),
            errors.ResourceFailed,
            ["delete attachment"],
        ),
        ("connect", errors.DeviceError("no path"), errors.DeviceError, DOWN),
        (
            "complete",
            exceptions.BadRequest(400, "gone"),
            errors.CloudRefused,
            ["close device", *DOWN],
        ),
    ],
)
def test_a_step_up_fails(
    bench: Bench, where: str, error: Exception, kind: type[Exception], undone: list[str]
) -> None:
    bench.fails(where, error)
    with pytest.raises(kind):
        bench.attach()
    done = [verb.split()[0] for verb in UP].index(where) + 1
    assert bench.verbs == [*UP[:done], *undone]
    assert bench.clean


def test_a_half_made_connection_is_thrown_away(bench: Bench) -> None:
    bench.fails("connect", errors.DeviceError("no path"))
    with pytest.raises(errors.DeviceError):
        bench.attach(writable=True)
    ((_, device_info, force),) = bench.host.disconnections
    assert (device_info, force) == (None, True)


def test_another_device_is_never_opened(bench: Bench) -> None:
    with pytest.raises(errors.IdentityError):
        bench.attach(size_gib=2)
    assert bench.verbs == [*UP[:3], *DOWN]
    assert bench.clean


def test_a_failed_flush_is_an_error_and_the_rest_goes_on(bench: Bench) -> None:
    bench.fails("flush", errors.DeviceError("not durable"))
    with pytest.raises(errors.DeviceError, match="not durable"):
        bench.attach(writable=True)
    assert bench.verbs[-4:] == ["flush device", "close device", *DOWN]
    assert bench.clean


def test_a_host_that_holds_on_to_a_written_volume(bench: Bench) -> None:
    bench.fails("disconnect", errors.DeviceError("busy"))
    with pytest.raises(errors.Leftovers, match="still holds the volume .* busy"):
        bench.attach(writable=True)
    # No force, which could lose what was written, and no deletion, which could expose another's.
    assert [force for _, _, force in bench.host.disconnections] == [False]
    assert "delete attachment" not in bench.verbs
    (left,) = bench.run.outstanding.attachments.values()
    assert left.connection_info is not None


def test_force_for_a_volume_that_was_only_read(bench: Bench) -> None:
    bench.fails("disconnect", errors.DeviceError("busy"), times=1)
    bench.attach()
    assert [force for _, _, force in bench.host.disconnections] == [False, True]
    assert bench.clean


def test_an_attachment_that_cannot_be_deleted_is_named(bench: Bench) -> None:
    bench.fails("delete", exceptions.BadRequest(400, "no"))
    with pytest.raises(errors.Leftovers, match="attachment .* could not be removed"):
        bench.attach()
    (left,) = bench.run.outstanding.attachments.values()
    assert left.connection_info is None  # the host has let go


def test_deleted_by_the_request_that_was_not_answered(bench: Bench) -> None:
    def fault(verb: str) -> None:
        if verb == "delete" and bench.attachments.all:
            bench.attachments.all.clear()
            raise server_error()

    bench.attachments.fault = fault
    bench.attach()
    assert bench.clean


def test_an_answer_that_got_lost_makes_no_second_attachment(bench: Bench) -> None:
    answers = [server_error()]

    def lost(verb: str) -> None:
        if answers:
            raise answers.pop()

    strangers = bench.attachments.create(bench.cloud.volume().id, None, "rw")["id"]
    bench.log.clear()
    bench.attachments.lost = lost
    bench.attach()
    assert bench.verbs.count("create attachment") == 1
    assert list(bench.attachments.all) == [strangers]


def test_no_answer_at_all_is_in_the_journal(bench: Bench) -> None:
    bench.fails("create", server_error())
    with pytest.raises(errors.CloudUnavailable):
        bench.attach()
    assert bench.run.outstanding.attaching == {bench.volume.id: "p1"}
    assert bench.ledger.runs() == [bench.run.id]
