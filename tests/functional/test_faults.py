# SPDX-License-Identifier: Apache-2.0
"""What Cinder does wrong, while the real freezer-agent backs up or restores: it ends well after
trying again, or with one clear sentence and a status; and nothing is left.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.functional.backup_host import MIB, BackupHost, data_of, date_of

pytest.importorskip("freezer")


@dataclasses.dataclass
class Scene:
    """A volume that is there and one that is gone, with a backup of each."""

    host: BackupHost
    there: str
    gone: str
    digests: dict[str, str]

    def of(self, kind: str) -> str:
        return {"there": self.there, "gone": self.gone}[kind]


@pytest.fixture(scope="module")
def scene(host: BackupHost) -> Scene:
    made = [host.bench.volume(1, name=name).id for name in ("there", "gone")]
    digests = {}
    for number, volume_id in enumerate(made):
        host.write(volume_id, 100 * MIB, data_of(number, 8 * MIB))
        digests[volume_id] = host.digest(volume_id)
        host.backup(volume_id)
    there, gone = made
    host.write(there, 100 * MIB, data_of(2, 4 * MIB))
    host.drop(gone)
    return Scene(host, there, gone, digests)


@contextlib.contextmanager
def faults(
    host: BackupHost,
    *,
    driver: dict[str, Any] | None = None,
    api: dict[str, Any] | None = None,
    quota: dict[str, int] | None = None,
) -> Iterator[None]:
    """Let the volume driver or the API fail, or set a quota, as long as the block runs."""
    cloud = host.bench.embedded
    cloud.faults(**(driver or {}))
    cloud.api_faults([api] if api else [])
    if quota:
        cloud.set_quota("demo", **quota)
    try:
        yield
    finally:
        cloud.clear_faults()
        if quota:
            cloud.reset_quota("demo")


def often(call: str, times: int) -> dict[str, Any]:
    return {"driver": {call: {"error": "disk full", "times": times}}}


def always(call: str) -> dict[str, Any]:
    return {"driver": {call: {"error": "disk full"}}}


def busy(call: str) -> dict[str, Any]:
    return {"driver": {call: {"busy": True, "times": 1}}}


def down(status: int) -> dict[str, Any]:
    return {"api": {"status": status, "seconds": 10}}


# Cinder itself tries to create a volume three times, on one backend after the other.
PASSING_AT_BACKUP = {
    "snapshot goes to error": often("create_snapshot", 1),
    "volume creation fails three times": often("create_volume_from_snapshot", 3),
    "deletion of the volume is refused": busy("delete_volume"),
    "deletion of the snapshot is refused": busy("delete_snapshot"),
    "500 for ten seconds": down(500),
    "503 for ten seconds": down(503),
}


@pytest.mark.parametrize("fault", PASSING_AT_BACKUP)
def test_a_backup_goes_on(scene: Scene, fault: str) -> None:
    host = scene.host
    began = time.monotonic()
    with faults(host, **PASSING_AT_BACKUP[fault]):
        told = host.backup(scene.there)
    assert told["backup_id"] in {backup["backup_id"] for backup in host.listed()}
    if "seconds" in fault:
        assert time.monotonic() - began >= 10
    assert host.leftovers() == {}


FINAL_AT_BACKUP = {
    "snapshot goes to error": (always("create_snapshot"), "snapshot .* 'error'"),
    "volume creation fails": (always("create_volume_from_snapshot"), "volume .* 'error'"),
    "attach refused": (always("initialize_connection"), "refused to attach"),
    "attach conflicts": (
        {"api": {"method": "POST", "path": "^/attachments$", "status": 409}},
        "Could not attach the volume",
    ),
    "quota of snapshots": ({"quota": {"snapshots": 0}}, "quota is used up: .*snapshot"),
    "quota of volumes": ({"quota": {"volumes": 1}}, "quota is used up: .*volume"),
    "quota of gigabytes": ({"quota": {"gigabytes": 1}}, "quota is used up: .*gigabytes"),
    "not allowed": (
        {"api": {"method": "POST", "path": "^/snapshots$", "status": 403}},
        "Could not create a snapshot",
    ),
}


@pytest.mark.parametrize("fault", FINAL_AT_BACKUP)
def test_a_backup_fails_in_one_sentence(scene: Scene, fault: str) -> None:
    host = scene.host
    before = host.listed()
    cause, words = FINAL_AT_BACKUP[fault]
    with faults(host, **cause):
        failed = host.agent("backup", scene.there)
    assert_told(failed.error, words)
    assert failed.stdout == ""
    assert host.listed() == before
    assert host.leftovers() == {}
    source = host.bench.embedded.cinder("GET", f"/volumes/{scene.there}")["volume"]
    assert source["status"] == "available"


PASSING_AT_RESTORE = {
    "there: snapshot goes to error": often("create_snapshot", 1),
    "there: volume creation fails three times": often("create_volume_from_snapshot", 3),
    "there: deletion of the snapshot is refused": busy("delete_snapshot"),
    "there: 500 for ten seconds": down(500),
    "there: 503 for ten seconds": down(503),
    "gone: volume creation fails three times": often("create_volume", 3),
}


@pytest.mark.parametrize("fault", PASSING_AT_RESTORE)
def test_a_restore_goes_on(scene: Scene, fault: str) -> None:
    host = scene.host
    volume_id = scene.of(fault.partition(":")[0])
    first = min(b["time_stamp"] for b in host.listed("--volume-id", volume_id))
    with faults(host, **PASSING_AT_RESTORE[fault]):
        told = host.restore(volume_id, "--restore-from-date", date_of(first))
    assert host.digest(told["restored_volume_id"]) == scene.digests[volume_id]
    assert host.leftovers() == {}
    host.drop(told["restored_volume_id"])


FINAL_AT_RESTORE = {
    "there: snapshot goes to error": (always("create_snapshot"), "snapshot .* 'error'"),
    "there: volume creation fails": (always("create_volume_from_snapshot"), "volume .* 'error'"),
    "there: attach refused": (always("initialize_connection"), "refused to attach"),
    "there: quota of snapshots": ({"quota": {"snapshots": 0}}, "quota is used up: .*snapshot"),
    "gone: volume creation fails": (always("create_volume"), "volume .* 'error'"),
    "gone: attach refused": (always("initialize_connection"), "refused to attach"),
    "gone: quota of volumes": ({"quota": {"volumes": 1}}, "quota is used up: .*volume"),
}


@pytest.mark.parametrize("fault", FINAL_AT_RESTORE)
def test_a_restore_fails_in_one_sentence(scene: Scene, fault: str) -> None:
    host = scene.host
    cause, words = FINAL_AT_RESTORE[fault]
    with faults(host, **cause):
        failed = host.agent("restore", scene.of(fault.partition(":")[0]))
    assert_told(failed.error, words)
    assert failed.stdout == ""
    assert host.leftovers() == {}


def assert_told(error: str, words: str) -> None:
    assert re.search(words, error), error
