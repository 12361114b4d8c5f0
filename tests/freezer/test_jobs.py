# SPDX-License-Identifier: Apache-2.0
"""Jobs of the real freezer-scheduler, by freezer-api and from files."""

from __future__ import annotations

import json
import os
import pathlib
import signal
from typing import Any

import pytest

from devstack.embedded.embedded_cloud.client import EmbeddedCloud
from tests.freezer import rig
from tests.freezer.client import Person
from tests.functional.backup_host import MIB, BackupHost, data_of

pytestmark = pytest.mark.usefixtures("scheduler")


@pytest.fixture(scope="module")
def volume_id(host: BackupHost) -> str:
    volume_id = host.bench.volume(1, name="data").id
    host.write(volume_id, 10 * MIB, data_of(1, 8 * MIB))
    return volume_id


def action_of(host: BackupHost, verb: str, backup_name: str, **fields: Any) -> dict[str, Any]:
    """A freezer action of our engine in this host's repository."""
    return {
        "action": verb,
        "mode": "cinder",
        "engine_name": "osbrick",
        "storage": "local",
        "container": str(host.repository),
        "backup_name": backup_name,
        **fields,
    }


# What forms, people and older documents send, of every kind.
STRANGE = {
    "incremental": True,
    "max_level": 3,
    "remove_older_than": False,  # as a number it would be 0: remove all
    "remove_from_date": "",
    "no_such_key": {"a": ["b", {"c": None}]},
    "restore_from_host": "",
    "get_object": "",
    "dst_file": None,
    "encryption_password": "",
    "upload_limit": -1,
    "always_level": False,
    "log_file": "",
    "compression": "gzip",
    "dry_run": False,
    "max_retries_hint": 1.5,
}


def test_settings_of_every_kind_come_through(
    host: BackupHost, person: Person, volume_id: str
) -> None:
    name = "100 % of it, %(here)s"
    action = action_of(host, "backup", name, single_volume_id=[volume_id], **STRANGE)
    for level in (0, 1):
        assert person.run(action) == "success"
        listed = host.listed("--backup-name", name)
        assert [backup["level"] for backup in listed] == list(range(level + 1))
    # The scheduler is none the worse for what it read.
    assert host.leftovers() == {}


def test_old_backups_stay_where_removal_is_off(
    host: BackupHost, person: Person, volume_id: str
) -> None:
    """``"remove_older_than": false`` reached the agent as 0 days, and everything went."""
    for off in (False, "", None, "False"):
        action = action_of(
            host, "backup", "kept", single_volume_id=volume_id, remove_older_than=off
        )
        assert person.run(action) == "success"
    assert len(host.listed("--backup-name", "kept")) == 4
    # Where it is on it counts: all go but the newest.
    action = action_of(host, "backup", "kept", single_volume_id=volume_id, remove_older_than=0)
    assert person.run(action) == "success"
    assert len(host.listed("--backup-name", "kept")) == 1


def test_a_job_that_cannot_succeed_fails_in_one_sentence(
    host: BackupHost, person: Person, scheduler: rig.Scheduler
) -> None:
    nowhere = "11111111-2222-3333-4444-555555555555"
    action = action_of(host, "backup", "none", single_volume_id=nowhere)
    assert person.run(action) == "fail"
    assert f"Critical Error: Volume {nowhere}: " in scheduler.log()
    assert "Traceback" not in scheduler.log()
    assert person.records("none") == []


def test_a_removal(host: BackupHost, person: Person, volume_id: str) -> None:
    backup = action_of(host, "backup", "short-lived", single_volume_id=volume_id)
    assert person.run(backup, backup) == "success"
    assert len(host.listed("--backup-name", "short-lived")) == 2
    removal = action_of(host, "admin", "short-lived", remove_older_than=0)
    assert person.run(removal) == "success"
    (newest,) = host.listed("--backup-name", "short-lived")
    # What is removed from the repository is no longer offered for a restore.
    (record,) = person.records("short-lived")
    (told,) = record["backup_metadata"]["osbrick"]["volumes"]
    assert told["backup_id"] == newest["backup_id"]


def test_without_freezer_api(host: BackupHost, volume_id: str, tmp_path: pathlib.Path) -> None:
    """Jobs are files, a backup and then its restore in one of them."""
    job = {
        "job_id": "onejob",
        "client_id": "vm",
        "description": "from disk",
        "job_schedule": {"event": "start"},
        "job_actions": [
            {"max_retries": 0, "max_retries_interval": 1, "freezer_action": action}
            for action in (
                action_of(host, "backup", "by 50 %", single_volume_id=volume_id, **STRANGE),
                action_of(host, "restore", "by 50 %", single_volume_id=volume_id, new_name="new"),
            )
        ],
    }
    folder = host.folder / "scheduler-no-api"
    (folder / "jobs").mkdir(parents=True)
    (folder / "jobs" / "job.conf").write_text(json.dumps(job))
    with rig.scheduler(folder, host.environment("demo"), api=False) as running:
        rig.wait_for(lambda: "restore returned success exit code" in running.log())
    (restored,) = volumes_named(host, "new")
    assert host.digest(restored) == host.digest(volume_id)
    assert host.leftovers() == {}


def volumes_named(host: BackupHost, name: str) -> list[str]:
    """The project's volumes of that name, which are its own from then on."""
    listed = host.bench.embedded.cinder("GET", f"/volumes?name={name}")["volumes"]
    for volume in listed:
        host.bench.users_own(volume["id"])
    return [volume["id"] for volume in listed]


def test_a_job_repeats_by_its_schedule(
    host: BackupHost, person: Person, scheduler: rig.Scheduler, volume_id: str
) -> None:
    """Every few seconds here, every night there: incremental ones, and then a full one again."""
    action = action_of(
        host, "backup", "repeated", single_volume_id=volume_id, incremental=True, max_level=1
    )
    schedule = {"schedule_interval": "2 seconds", "schedule_start_date": "2026-01-05T01:30:00Z"}
    job_id = person.add_job(action, job_schedule=schedule)
    person.api.jobs.start_job(job_id)

    def levels() -> list[int]:
        return [record["backup_metadata"]["level"] for record in person.records("repeated")]

    rig.wait_for(lambda: len(levels()) >= 3)
    # Not stopped: that event is lost where the scheduler is about to say that the job runs.
    person.api.jobs.delete(job_id)
    assert levels()[:3] == [0, 1, 0]
    rig.wait_for(lambda: f"REMOVE job {job_id}" in scheduler.log() and not scheduler.agents())
    assert host.leftovers() == {}


# -- jobs that are interrupted ---------------------------------------------------------------------


def test_an_agent_killed_in_a_job(
    host: BackupHost, person: Person, scheduler: rig.Scheduler, volume_id: str
) -> None:
    """The job fails; the next run takes away what was left, and succeeds."""
    action = action_of(host, "backup", "killed", single_volume_id=volume_id)
    host.bench.embedded.faults(create_volume_from_snapshot={"delay": 5})
    job_id = person.add_job(action)
    person.api.jobs.start_job(job_id)
    rig.wait_for(host.step("created", resource="volume"))
    (agent,) = scheduler.agents()
    os.kill(agent, signal.SIGKILL)
    assert person.result(job_id) == "fail"
    assert host.leftovers()
    assert person.records("killed") == []
    host.bench.embedded.clear_faults()
    assert person.run(action) == "success"
    assert len(person.records("killed")) == 1
    assert host.leftovers() == {}


def test_an_aborted_job(host: BackupHost, person: Person, volume_id: str) -> None:
    action = action_of(host, "backup", "aborted", single_volume_id=volume_id)
    host.bench.embedded.faults(create_volume_from_snapshot={"delay": 5})
    job_id = person.add_job(action)
    person.api.jobs.start_job(job_id)
    rig.wait_for(host.step("created", resource="volume"))
    person.api.jobs.abort_job(job_id)
    assert person.result(job_id) == "aborted"
    # The job is aborted as soon as it is told to be; the agent takes down what it set up.
    rig.wait_for(lambda: host.leftovers() == {})
    assert person.records("aborted") == []
    assert host.listed("--backup-name", "aborted") == []


# -- a scheduler for all projects ------------------------------------------------------------------


def test_a_centralised_scheduler_works_by_a_trust(
    cloud: EmbeddedCloud, host: BackupHost, person: Person, volume_id: str, tmp_path: pathlib.Path
) -> None:
    """It holds no password of the project; freezer-api has asked Keystone for a trust."""
    environment = {
        **host.environment("admin"),
        "OS_USERNAME": "freezer",
        "OS_PASSWORD": cloud.state.settings["passwords"]["freezer"],
        "OS_PROJECT_NAME": "service",
    }
    with rig.scheduler(tmp_path, environment, centralized_scheduler="True"):
        action = action_of(host, "backup", "by trust", single_volume_id=volume_id)
        job_id = person.add_job(action, client_id=person.client_id(central=True))
        person.api.jobs.start_job(job_id)
        assert person.result(job_id) == "success"
    assert person.api.jobs.get(job_id)["user_credentials"]["trust_id"]
    (record,) = person.records("by trust")
    (told,) = record["backup_metadata"]["osbrick"]["volumes"]
    assert (told["volume_id"], told["state"]) == (volume_id, "success")
    assert host.leftovers() == {}
