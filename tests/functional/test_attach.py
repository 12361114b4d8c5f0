# SPDX-License-Identifier: Apache-2.0
"""A volume frozen, attached, read, and everything of it removed again, on real Cinder."""

from __future__ import annotations

import os
import pathlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from devstack.embedded.embedded_cloud.client import EmbeddedCloud
from freezer_osbrick import errors
from freezer_osbrick.cloud import attachments, staging, volumes
from freezer_osbrick.cloud.volumes import VolumeRecord
from freezer_osbrick.operations.attach import attached
from tests.functional.workbench import Workbench
from tests.staged import frozen_clone

MIB = 1 << 20


@pytest.fixture
def bench(cloud: EmbeddedCloud, tmp_path: pathlib.Path) -> Iterator[Workbench]:
    bench = Workbench(cloud, tmp_path / "state")
    yield bench
    bench.close()


def back_up(bench: Workbench, record: VolumeRecord) -> bytes:
    """What a backup does to the cloud; returns the first 4 MiB."""
    buffer = bytearray(4 * MIB)
    with bench.frozen(record) as (_, device):
        device.readinto(0, memoryview(buffer))
    return bytes(buffer)


def write_as_server(device: str, data: bytes) -> None:
    descriptor = os.open(device, os.O_WRONLY)
    try:
        os.pwrite(descriptor, data, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Watch(threading.Thread):
    """Notes every status that a volume is seen with."""

    def __init__(self, embedded: EmbeddedCloud, volume_id: str) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self._embedded = embedded
        self._path = f"/volumes/{volume_id}"
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.02):
            self.seen.add(self._embedded.cinder("GET", self._path)["volume"]["status"])

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._ended.set()
        self.join()


def test_a_volume_in_use_is_read_and_never_changes_its_status(bench: Workbench) -> None:
    record = bench.volume()
    device = bench.embedded.pretend_server(record.id)["device"]
    data = os.urandom(4 * MIB)
    write_as_server(device, data)
    record = volumes.capture(bench.cloud, record.id)
    assert record.status == "in-use"
    assert len(record.attachments) == 1
    with Watch(bench.embedded, record.id) as watch:
        assert back_up(bench, record) == data
    assert watch.seen == {"in-use"}
    assert bench.leftovers() == {}


def test_the_clone_does_not_follow_the_volume(bench: Workbench) -> None:
    record = bench.volume()
    device = bench.embedded.pretend_server(record.id)["device"]
    write_as_server(device, b"before")
    buffer = bytearray(6)
    with (
        bench.ledger.start("backup") as run,
        frozen_clone(bench.cloud, run, record) as clone_id,
    ):
        write_as_server(device, b"behind")
        with attached(bench.cloud, bench.host, run, clone_id, size_gib=1, writable=False) as clone:
            clone.readinto(0, memoryview(buffer))
            with pytest.raises(errors.DeviceError, match="reading only"):
                clone.write(0, b"x")
            with pytest.raises(errors.DeviceError, match="reading only"):
                clone.zero(0, 1)
    assert buffer == b"before"
    assert bench.leftovers() == {}


def test_restored_into_a_kept_clone(bench: Workbench) -> None:
    record = bench.volume(name="data", description="of mine", metadata={"owner": "me"})
    with (
        bench.ledger.start("restore") as run,
        staging.kept_clone(bench.cloud, run, record) as clone_id,
    ):
        with attached(bench.cloud, bench.host, run, clone_id, size_gib=1, writable=True) as device:
            device.write(5 * MIB, b"restored" * 1000)
            device.zero(5 * MIB + 8, 7984)
            device.flush()
        volumes.finish(bench.cloud, run, clone_id, record, name="data again")
    bench.users_own(clone_id)
    restored = volumes.capture(bench.cloud, clone_id)
    assert (restored.name, restored.description) == ("data again", "of mine")
    assert restored.metadata == {"owner": "me"}
    assert bench.cloud.cinder.volumes.get(clone_id).metadata == {"owner": "me"}
    with open(bench.file_of(clone_id), "rb") as file:
        file.seek(5 * MIB)
        assert file.read(8000) == b"restored" + bytes(7984) + b"restored"
    assert bench.leftovers() == {}


def test_restored_into_a_new_volume(bench: Workbench) -> None:
    source = bench.volume(name="data", metadata={"owner": "me"})
    cinder = bench.cloud.cinder.volumes
    cinder.set_bootable(source.id, True)
    cinder.set_image_metadata(source.id, {"hw_disk_bus": "scsi"})
    record = volumes.capture(bench.cloud, source.id)
    assert record.bootable
    with (
        bench.ledger.start("restore") as run,
        staging.new_volume(bench.cloud, run, record) as volume_id,
    ):
        assert not volumes.capture(bench.cloud, volume_id).bootable
        volumes.finish(bench.cloud, run, volume_id, record)
    bench.users_own(volume_id)
    restored = volumes.capture(bench.cloud, volume_id)
    assert restored.bootable
    assert restored.image_metadata == {"hw_disk_bus": "scsi"}
    assert (restored.name, restored.metadata) == ("data", {"owner": "me"})
    assert bench.leftovers() == {}


def test_a_restore_that_fails_leaves_no_volume(bench: Workbench) -> None:
    record = bench.volume()
    for stage in (staging.kept_clone, staging.new_volume):
        with (
            pytest.raises(ZeroDivisionError),
            bench.ledger.start("restore") as run,
            stage(bench.cloud, run, record),
        ):
            raise ZeroDivisionError
    assert bench.leftovers() == {}


def test_a_type_or_zone_that_is_gone(bench: Workbench) -> None:
    record = bench.volume()
    with bench.ledger.start("restore") as run:
        for gone, option in (
            ({"volume_type": "gone"}, "--volume-type"),
            ({"availability_zone": "gone"}, "--availability-zone"),
        ):
            with (
                pytest.raises(errors.BadRequest, match=option),
                staging.new_volume(bench.cloud, run, record, **gone),
            ):
                pass
    assert bench.leftovers() == {}


def test_a_volume_that_is_not_there(bench: Workbench) -> None:
    with pytest.raises(errors.ResourceMissing, match="could not be found"):
        volumes.capture(bench.cloud, "00000000-0000-0000-0000-000000000000")


def test_another_project_sees_nothing(bench: Workbench) -> None:
    record = bench.volume()
    with pytest.raises(errors.ResourceMissing):
        volumes.capture(bench.as_project("other"), record.id)


def test_a_device_of_another_size_is_refused(bench: Workbench) -> None:
    record = bench.volume()
    with (
        pytest.raises(errors.IdentityError, match="this is not the volume"),
        bench.frozen(record, size_gib=2),
    ):
        raise AssertionError("the device was opened")
    assert bench.leftovers() == {}


def test_an_error_while_reading_leaves_nothing(bench: Workbench) -> None:
    record = bench.volume()
    with (
        pytest.raises(ZeroDivisionError),
        bench.frozen(record),
    ):
        raise ZeroDivisionError
    assert bench.leftovers() == {}


# -- faults ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "faults",
    [
        {"create_snapshot": {"error": "disk full", "times": 2}},
        # Cinder itself tries three times: ours begins where its tries end.
        {"create_volume_from_snapshot": {"error": "disk full", "times": 3}},
        {"delete_volume": {"busy": True, "times": 1}},
        {"delete_snapshot": {"busy": True, "times": 2}},
        {"terminate_connection": {"error": "not now", "times": 1}},
    ],
    ids=lambda faults: next(iter(faults)),
)
def test_faults_that_pass(bench: Workbench, faults: dict[str, Any]) -> None:
    record = bench.volume()
    bench.embedded.faults(**faults)
    assert back_up(bench, record) == bytes(4 * MIB)
    assert bench.leftovers() == {}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ("create_snapshot", errors.ResourceFailed, "snapshot .* 'error'"),
        ("create_volume_from_snapshot", errors.ResourceFailed, "volume .* 'error'"),
        ("initialize_connection", errors.ResourceFailed, "storage refused to attach"),
    ],
)
def test_faults_that_stay(
    bench: Workbench, call: str, error: type[Exception], message: str
) -> None:
    record = bench.volume()
    bench.embedded.faults(**{call: {"error": "disk full"}})
    began = time.monotonic()
    with pytest.raises(error, match=message) as caught:
        back_up(bench, record)
    assert "\n" not in str(caught.value)
    # Not the API was out of order: nothing was repeated for a minute.
    assert time.monotonic() - began < 60
    assert bench.leftovers() == {}


def test_what_cannot_be_deleted_is_named_and_found_again(bench: Workbench) -> None:
    record = bench.volume()
    bench.conf.set_override("delete_attempts", 2, "cloud")
    bench.embedded.faults(delete_volume={"busy": True})
    with pytest.raises(errors.Leftovers, match="volume .* could not be removed") as caught:
        back_up(bench, record)
    left = bench.leftovers()
    assert left.keys() == {"volumes", "journals"}
    assert left["volumes"][0].split()[0] in str(caught.value)
    bench.embedded.clear_faults()
    from freezer_osbrick.operations.cleanup import cleanup

    report = cleanup(bench.cloud, bench.host, bench.ledger)
    assert [(item.state, item.kind) for item in report.items] == [("removed", "volume")]
    assert bench.leftovers() == {}


@pytest.mark.parametrize("status", [500, 503])
def test_an_api_out_of_order_for_ten_seconds(bench: Workbench, status: int) -> None:
    record = bench.volume()
    assert bench.cloud.microversion >= (3, 44)
    began = time.monotonic()
    bench.embedded.api_faults([{"status": status, "seconds": 10}])
    assert back_up(bench, record) == bytes(4 * MIB)
    assert time.monotonic() - began >= 10
    assert bench.leftovers() == {}


def test_each_request_survives_server_errors(bench: Workbench) -> None:
    record = bench.volume()
    requests = [
        ("POST", "^/snapshots$"),
        ("POST", "^/volumes$"),
        ("POST", "^/attachments$"),
        ("PUT", "^/attachments/"),
        ("POST", "^/attachments/.*/action$"),
        ("DELETE", "^/attachments/"),
        ("DELETE", "^/volumes/"),
        ("DELETE", "^/snapshots/"),
        ("GET", "^/volumes/"),
        ("GET", "^/snapshots/"),
    ]
    bench.embedded.api_faults(
        [
            {"method": method, "path": path, "status": status, "times": 1}
            for status in (500, 503)
            for method, path in requests
        ]
    )
    assert back_up(bench, record) == bytes(4 * MIB)
    assert bench.leftovers() == {}


def test_an_api_that_never_answers_well(bench: Workbench) -> None:
    record = bench.volume()
    bench.conf.set_override("api_retries", 1, "cloud")
    impatient = bench.as_project("demo")
    bench.embedded.api_faults([{"method": "POST", "path": "^/snapshots$", "status": 503}])
    with (
        pytest.raises(errors.CloudUnavailable, match="create a snapshot"),
        bench.ledger.start("backup") as run,
        frozen_clone(impatient, run, record),
    ):
        raise AssertionError("there is no clone")
    # Whether the request made something is not known: the journal stays until cleanup has looked.
    assert bench.leftovers().keys() == {"journals"}
    from freezer_osbrick.operations.cleanup import cleanup

    assert cleanup(bench.cloud, bench.host, bench.ledger).items == []
    assert bench.leftovers() == {}


@pytest.mark.parametrize(
    ("limits", "quota"),
    [({"snapshots": 0}, "snapshot"), ({"volumes": 1}, "volume"), ({"gigabytes": 1}, "gigabytes")],
)
def test_a_quota_is_named(bench: Workbench, limits: dict[str, int], quota: str) -> None:
    record = bench.volume()
    bench.embedded.set_quota("demo", **limits)
    try:
        with pytest.raises(errors.QuotaExceeded, match=f"quota is used up.*(?i:{quota})"):
            back_up(bench, record)
    finally:
        bench.embedded.reset_quota("demo")
    assert bench.leftovers() == {}


def test_access_denied_is_no_server_error(bench: Workbench) -> None:
    record = bench.volume()
    bench.embedded.api_faults([{"method": "POST", "path": "^/snapshots$", "status": 403}])
    with pytest.raises(errors.CloudAccessDenied):
        back_up(bench, record)
    assert bench.leftovers() == {}


def test_a_host_that_does_not_let_go_keeps_the_attachment(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = bench.volume()
    bench.conf.set_override("delete_attempts", 1, "cloud")

    def stuck(*arguments: Any, **keywords: Any) -> None:
        raise errors.DeviceError("the device is busy")

    monkeypatch.setattr(bench.host, "disconnect", stuck)
    with pytest.raises(errors.Leftovers, match="still holds the volume"):
        back_up(bench, record)
    left = bench.leftovers()
    assert len(left["attachments"]) == len(left["volumes"]) == 1
    volume_id = left["volumes"][0].split()[0]
    assert len(attachments.of_volume(bench.cloud, volume_id)) == 1
    monkeypatch.undo()
    from freezer_osbrick.operations.cleanup import cleanup

    assert cleanup(bench.cloud, bench.host, bench.ledger).ok
    assert bench.leftovers() == {}
