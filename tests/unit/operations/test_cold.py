# SPDX-License-Identifier: Apache-2.0
"""A cold backup: of the volume itself, between its server's having it and having it again."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from freezer_osbrick import errors
from freezer_osbrick.operations import contents
from freezer_osbrick.operations.backup import BackupRequest, backup
from freezer_osbrick.operations.report import VolumeReport
from freezer_osbrick.repository import catalogue
from tests.unit.cloud.fake_nova import FakeNova
from tests.unit.operations.restoring import NEW, Bench


class ColdBench(Bench):
    def __init__(self, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(folder, monkeypatch)
        self.nova = FakeNova(self.cloud)

    def cold(self, **request: Any) -> VolumeReport:
        asked = BackupRequest(
            volume_ids=(self.volume.id,),
            backup_name="nightly",
            hostname="here",
            cold=True,
            **request,
        )
        (told,) = backup(self.context(), "memory:", asked).volumes
        return told

    @property
    def is_as_it_was(self) -> bool:
        return self.now(self.volume.id).metadata == {"tier": "gold"} and self.nothing_left


@pytest.fixture
def bench(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, sleeps: Any) -> ColdBench:
    return ColdBench(tmp_path, monkeypatch)


def test_in_this_order(bench: ColdBench) -> None:
    bench.nova.hold(bench.volume.id)
    told = bench.cold()
    assert (told.state, told.notes) == ("success", [])
    assert bench.cloud.cinder.verbs("nova", "attachment", "host", "snapshot") == [
        "delete nova",
        "create attachment",
        "update attachment",
        "connect host",
        "complete attachment",
        "disconnect host",
        "delete attachment",
        "post nova",
    ]
    assert bench.is_as_it_was
    found = catalogue.find(bench.repository, str(told.backup_id))
    assert found.head["mode"] == "cold"
    bench.contents[bench.volume.id][:] = bytes(len(NEW))
    restored = bench.restore(backup_name="nightly").restored_volume_id
    assert bench.contents[str(restored)] == NEW


def test_without_a_server(bench: ColdBench) -> None:
    assert bench.cold().state == "success"
    assert bench.cloud.cinder.verbs("nova", "snapshot") == []
    assert bench.is_as_it_was


def test_the_device_is_not_written(bench: ColdBench) -> None:
    modes: list[str] = []

    def broken(volume_id: str, verb: str) -> None:
        modes.extend(made.mode for made in bench.cloud.cinder.attachments.all.values())

    bench.broken = broken
    bench.cold()
    assert modes == ["ro"]


def test_no_journal_is_replayed_on_a_volume_of_the_users(
    bench: ColdBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[str] = []

    def opened(*_arguments: Any, **_options: Any) -> Any:
        modes.extend(made.mode for made in bench.cloud.cinder.attachments.all.values())
        raise errors.JournalDirty("Its journal has to be replayed.")

    monkeypatch.setattr(contents, "opened", opened)
    assert str(bench.cold(content="files").reason).endswith("leave --cold out.")
    assert modes == ["ro"]
    assert bench.is_as_it_was


def test_back_to_the_server_when_the_device_fails(bench: ColdBench) -> None:
    bench.nova.hold(bench.volume.id)

    def broken(volume_id: str, verb: str) -> None:
        raise errors.DeviceError("The disk is broken.")

    bench.broken = broken
    assert bench.cold().reason == "The disk is broken."
    assert bench.volume.id in bench.nova.servers["s1"]
    assert bench.is_as_it_was


def test_refused_before_anything_is_done(bench: ColdBench) -> None:
    bench.nova.hold(bench.volume.id)
    bench.nova.root = "/dev/vdb"
    assert "root disk" in str(bench.cold().reason)
    assert bench.cloud.cinder.verbs() == []


def test_what_the_owner_should_know(bench: ColdBench) -> None:
    bench.nova.hold(bench.volume.id)
    bench.nova.free = "/dev/vdc"
    (note,) = bench.cold().notes
    assert "as /dev/vdc now" in note


def test_a_mixed_volume_is_told(bench: ColdBench) -> None:
    bench.now(bench.volume.id).metadata["freezer_osbrick_incomplete"] = "b1"
    (note,) = bench.cold().notes
    assert "restore of backup b1 in place was broken off" in note
    assert "freezer_osbrick_incomplete" in bench.now(bench.volume.id).metadata
