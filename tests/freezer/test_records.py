# SPDX-License-Identifier: Apache-2.0
"""Records of backups in freezer-api: complete, and enough to restore from."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.freezer.client import Person
from tests.freezer.test_jobs import action_of
from tests.functional.backup_host import MIB, BackupHost, data_of, date_of

pytestmark = pytest.mark.usefixtures("scheduler")


@pytest.fixture(scope="module")
def volume_id(host: BackupHost) -> str:
    volume_id = host.bench.volume(1, name="data").id
    host.write(volume_id, 10 * MIB, data_of(1, 8 * MIB))
    return volume_id


@pytest.fixture(scope="module")
def record(host: BackupHost, person: Person, volume_id: str) -> dict[str, Any]:
    """The record of one backup, as it was then; the volume has changed since."""
    began = time.time()
    action = action_of(host, "backup", "kept %", single_volume_id=volume_id, incremental=True)
    assert person.run(action) == "success"
    (record,) = person.records("kept %")
    assert began - 1 <= record["backup_metadata"]["time_stamp"] <= time.time()
    return record


def test_a_record_is_complete(
    host: BackupHost, person: Person, volume_id: str, record: dict[str, Any]
) -> None:
    (listed,) = host.listed("--backup-name", "kept %")
    metadata = record["backup_metadata"]
    expected = {
        "action": "backup",
        "backup_name": "kept %",
        "backup_media": "cinderbrick",
        "cinderbrick_vol_id": volume_id,
        "container": str(host.repository),
        "curr_backup_level": 0,
        "encrypted": False,
        "engine_name": "osbrick",
        "hostname": listed["hostname"],
        "level": 0,
        "mode": "cinder",
        "storage": "local",
        "time_stamp": listed["time_stamp"],
    }
    assert {key: metadata[key] for key in expected} == expected
    (told,) = metadata["osbrick"]["volumes"]
    of_volume = {
        "volume_id": volume_id,
        "volume_name": "data",
        "project_id": host.bench.embedded.session("demo").project_id,
        "volume_type": "file",
        "size_gib": 1,
        "state": "success",
        "reason": None,
        "backup_id": listed["backup_id"],
        "bytes_read": 1 << 30,
        "bytes_reused": 0,
    }
    assert {key: told[key] for key in of_volume} == of_volume
    assert 8 * MIB <= told["bytes_stored"] < 9 * MIB
    assert told["seconds"] > 0
    # The job that made it is named, so that the same client can restore.
    assert person.api.jobs.get(metadata["job_id"])["client_id"] == person.client_id()


def test_a_restore_from_the_record_alone(
    host: BackupHost, person: Person, volume_id: str, record: dict[str, Any]
) -> None:
    digest = host.digest(volume_id)
    host.write(volume_id, 20 * MIB, data_of(2, MIB))
    later = action_of(host, "backup", "kept %", single_volume_id=volume_id, incremental=True)
    assert person.run(later) == "success"
    metadata = record["backup_metadata"]
    fields = ("engine_name", "mode", "storage", "container", "backup_name", "hostname")
    restore = {
        "action": "restore",
        **{field: metadata[field] for field in fields},
        "single_volume_id": metadata["osbrick"]["volumes"][0]["volume_id"],
        "restore_from_date": date_of(metadata["time_stamp"]),
    }
    before = volumes_of(host)
    assert person.run(restore) == "success"
    (restored,) = volumes_of(host) - before
    host.bench.users_own(restored)
    assert host.digest(restored) == digest != host.digest(volume_id)
    # A restore makes no record of a backup.
    assert len(person.records("kept %")) == 2
    assert host.leftovers() == {}


def volumes_of(host: BackupHost) -> set[str]:
    listed = host.bench.embedded.cinder("GET", "/volumes")["volumes"]
    return {volume["id"] for volume in listed}


def test_showing_and_deleting(host: BackupHost, person: Person, record: dict[str, Any]) -> None:
    """Deleting a record leaves the backup where it is: only retention removes that."""
    backups = person.api.backups
    assert backups.get(record["backup_id"]) == record
    backups.delete(record["backup_id"])
    assert backups.get(record["backup_id"]) is None
    assert record["backup_id"] not in {other["backup_id"] for other in backups.list(limit=100)}
    stored = record["backup_metadata"]["osbrick"]["volumes"][0]["backup_id"]
    assert stored in {backup["backup_id"] for backup in host.listed()}
