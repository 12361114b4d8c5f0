# SPDX-License-Identifier: Apache-2.0
"""What Freezer's jobs do with our engine, and what they return."""

from __future__ import annotations

import json
import pathlib
import signal

import pytest

from tests.unit.agent import fake_operations
from tests.unit.agent.conftest import Agent
from tests.unit.agent.test_arguments import BACKUP, flags, ini

RECORD_FIELDS = {  # what freezer-api requires, and what its users read
    "action": "backup",
    "backup_media": "cinderbrick",
    "backup_name": "nightly",
    "container": "/backups",
    "curr_backup_level": fake_operations.LEVEL,
    "encrypted": False,
    "engine_name": "osbrick",
    "hostname": "web1",
    "incremental": True,
    "level": fake_operations.LEVEL,
    "mode": "cinder",
    "storage": "local",
    "time_stamp": fake_operations.BACKUP_TIME,
    "cinderbrick_vol_id": "v1",
}


def test_the_record_of_a_backup_is_complete(agent: Agent) -> None:
    run = agent("--metadata-out", "-", job={**BACKUP, "hostname": "web1", "incremental": True})
    assert {key: run.record[key] for key in RECORD_FIELDS} == RECORD_FIELDS
    assert "backup_id" not in run.record  # freezer-api gives its own
    assert run.record["osbrick"] == {"volumes": [fake_operations.volume("v1").to_dict()]}


def test_a_restore_job_made_of_a_record_works(agent: Agent) -> None:
    levels = {"incremental": True, "max_level": 5}
    made = agent("--metadata-out", "-", job={**BACKUP, "hostname": "web1", **levels}).record
    run = agent("--metadata-out", "-", job={**made, "action": "restore"})
    assert run.status == 0, run.stderr
    call = run.call("restore")
    assert (call["volume_ids"], call["backup_name"], call["hostname"]) == (
        ["v1"],
        "nightly",
        "web1",
    )


def test_the_record_of_a_restore_names_the_volumes_and_is_no_backup(agent: Agent) -> None:
    run = agent("--metadata-out", "-", job={**BACKUP, "action": "restore"})
    assert run.record["restored_volume_ids"] == ["new-volume"]
    assert run.record["osbrick"]["volumes"][0]["restored_volume_id"] == "new-volume"
    # The scheduler posts to freezer-api what has one of these keys.
    assert not {"action", "backup_id"} & set(run.record)
    assert "is restored to volume new-volume" in run.log


def test_the_record_goes_to_a_file_too(agent: Agent, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "record.json"
    run = agent("--metadata-out", str(path), job=BACKUP)
    assert run.stdout == ""
    assert json.loads(path.read_text())["osbrick"]["volumes"][0]["volume_id"] == "v1"


def test_standard_output_carries_nothing_but_the_record(agent: Agent) -> None:
    for action in ("backup", "restore"):
        run = agent(
            "--metadata-out", "-", job={**BACKUP, "action": action}, env={"FAKE_PRINT": "noise"}
        )
        assert run.record["engine_name"] == "osbrick"
        assert "noise" in run.stderr


def test_people_get_a_table_with_a_line_a_volume(agent: Agent) -> None:
    run = agent(*flags(BACKUP))
    assert f" v1, backup {'b' * 32}, level 3 " in run.stdout


def test_progress_is_logged(agent: Agent) -> None:
    log = agent(job=BACKUP).log
    assert "Volume v1: snapshot\n" in log
    assert log.count("Volume v1: read, 1024 of 2048 MiB") == 1  # a line a tenth


@pytest.mark.parametrize("action", ["backup", "restore"])
def test_a_failed_volume_is_one_error_and_no_record(agent: Agent, action: str) -> None:
    run = agent(
        "--metadata-out",
        "-",
        job={**BACKUP, "action": action},
        env={"FAKE_FAIL": "The snapshot went to an error state."},
    )
    assert run.error == "Volume v1: The snapshot went to an error state."
    assert run.stdout == ""


SECTIONS = "".join(
    ini({"storage": kind, "container": f"/{name}", **more}, f"storage:{name}")
    for name, kind, more in (
        ("a", "local", {}),
        ("b", "ssh", {"ssh_host": "h", "ssh_username": "u"}),
    )
)


def test_a_backup_that_one_storage_lacks_is_recorded_and_fails(agent: Agent) -> None:
    faults = {"FAKE_FAIL_AT": "storage:a", "FAKE_FAIL": "It is in storage:b only."}
    run = agent("--metadata-out", "-", ini=ini(BACKUP) + SECTIONS, env=faults)
    assert run.error == "Volume v1: It is in storage:b only."
    assert [copy["state"] for copy in run.record["osbrick"]["volumes"][0]["copies"]] == [
        "error",
        "success",
    ]
    # A restore made of the record asks the storage that has the backup.
    where = ("storage", "container", "ssh_host", "ssh_username")
    assert [run.record[key] for key in where] == ["ssh", "/b", "h", "u"]


def test_the_partial_record_goes_to_a_file_too(agent: Agent, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "record.json"
    faults = {"FAKE_FAIL_AT": "storage:b", "FAKE_FAIL": "Gone."}
    run = agent("--metadata-out", str(path), ini=ini(BACKUP) + SECTIONS, env=faults)
    assert (run.status, run.stdout) == (1, "")
    assert json.loads(path.read_text())["container"] == "/a"


def test_nothing_is_removed_after_a_partial_backup(agent: Agent) -> None:
    faults = {"FAKE_FAIL_AT": "storage:b", "FAKE_FAIL": "Gone."}
    settings = {**BACKUP, "remove_older_than": 1}
    run = agent(ini=ini(settings) + SECTIONS, env=faults)
    assert [call["verb"] for call in run.calls] == ["open", "backup"]


def test_info_and_removal_ask_every_storage(agent: Agent) -> None:
    run = agent(ini=ini({**BACKUP, "action": "info"}) + SECTIONS)
    assert [call["url"] for call in run.calls[1:]] == ["storage:a", "storage:b"]
    assert run.stdout.count(fake_operations.BACKUP_ID) == 2
    assert " storage:b " in run.stdout
    removal = {**BACKUP, "action": "admin", "remove_older_than": 1}
    run = agent("--metadata-out", "-", ini=ini(removal) + SECTIONS)
    assert len(run.record["removed_backups"]) == 2


def test_a_storage_that_cannot_be_asked_is_named(agent: Agent) -> None:
    faults = {"FAKE_FAIL_AT": "storage:a", "FAKE_FAIL": "It is gone."}
    run = agent(ini=ini({**BACKUP, "action": "info"}) + SECTIONS, env=faults)
    assert run.status == 0
    assert "storage:a: It is gone." in run.stderr
    assert run.stdout.count(fake_operations.BACKUP_ID) == 1
    removal = {**BACKUP, "action": "admin", "remove_older_than": 1}
    run = agent(ini=ini(removal) + SECTIONS, env=faults)
    assert run.error == "storage:a: It is gone."
    assert run.calls[-1]["url"] == "storage:b"


def test_the_default_name_holds_the_volume(agent: Agent) -> None:
    settings = {k: v for k, v in BACKUP.items() if k != "backup_name"}
    run = agent("--metadata-out", "-", job=settings)
    assert run.call("backup")["backup_name"] == "freezer_cinder_v1"
    assert run.record["backup_name"] == "freezer_cinder_v1"


def test_a_restore_without_name_and_host_takes_the_volumes_newest_backup(agent: Agent) -> None:
    settings = {k: v for k, v in BACKUP.items() if k != "backup_name"}
    call = agent(job={**settings, "action": "restore"}).call("restore")
    assert (call["backup_name"], call["hostname"], call["before"]) == (None, None, None)


# -- removal and info ----------------------------------------------------------------------------


def test_admin_removes_through_the_operations(agent: Agent) -> None:
    run = agent(
        "--metadata-out",
        "-",
        job={
            **BACKUP,
            "action": "admin",
            "hostname": "web1",
            "remove_before_date": "2026-11-20T10:00:00",
        },
    )
    assert run.call("remove") == {
        "verb": "remove",
        "url": "/backups",
        "backup_name": "nightly",
        "hostname": "web1",
        "before": 1795168800,
        "dry_run": False,
        "volume_id": "v1",
    }
    assert run.record["removed_backups"] == [fake_operations.SUMMARY.to_dict()]
    assert not {"action", "backup_id", "deleted_freezer_backup_ids"} & set(run.record)


def test_admin_never_reaches_freezers_storage(agent: Agent, tmp_path: pathlib.Path) -> None:
    # Where Freezer's own engines would keep the backups of this name.
    kept = tmp_path / "c" / "metadata" / "osbrick" / "web1_nightly" / "1"
    kept.mkdir(parents=True)
    run = agent(
        job={
            **BACKUP,
            "container": str(tmp_path / "c"),
            "action": "admin",
            "hostname": "web1",
            "remove_older_than": 0,
        }
    )
    assert run.status == 0, run.stderr
    assert kept.exists()


def test_admin_without_a_date_is_refused(agent: Agent) -> None:
    assert "Specify removal date" in agent(job={**BACKUP, "action": "admin"}).error


def test_admin_without_name_and_volume_is_refused(agent: Agent) -> None:
    keep = {k: v for k, v in BACKUP.items() if k not in ("backup_name", "single_volume_id")}
    run = agent(job={**keep, "action": "admin", "remove_older_than": 1})
    assert "--backup-name" in run.error
    assert run.calls == []


def test_a_backup_followed_by_removal(agent: Agent) -> None:
    run = agent("--metadata-out", "-", job={**BACKUP, "remove_older_than": 30})
    assert [call["verb"] for call in run.calls] == ["open", "backup", "open", "remove"]
    assert run.record["action"] == "backup"


def test_info_lists_backups(agent: Agent) -> None:
    run = agent("--metadata-out", "-", job={**BACKUP, "action": "info"})
    fields, rows = run.record
    assert dict(zip(fields, rows[0], strict=True)) == {
        "Backup ID": fake_operations.BACKUP_ID,
        "Volume ID": "v1",
        "Volume Name": "data",
        "Backup Name": "nightly",
        "Hostname": "web1",
        "Level": 3,
        "Time": "2020-09-13T12:26:40Z",
        "Size": 2**30,
        "Stored": 1000,
    }
    call = run.call("list")
    assert (call["volume_id"], call["backup_name"], call["hostname"]) == ("v1", "nightly", None)


def test_info_prints_a_table_for_people(agent: Agent) -> None:
    assert " 2020-09-13T12:26:40Z " in agent(*flags({**BACKUP, "action": "info"})).stdout


# -- dry runs ------------------------------------------------------------------------------------

VOLUMES = {"FAKE_VOLUMES": json.dumps({"v1": "data", "v2": "twin", "v3": "twin"})}


def test_a_dry_backup_looks_at_the_volume_and_makes_no_record(
    agent: Agent, tmp_path: pathlib.Path
) -> None:
    container = tmp_path / "c"
    run = agent(
        "--metadata-out",
        "-",
        job={**BACKUP, "container": str(container), "dry_run": True},
        env=VOLUMES,
    )
    assert run.status == 0, run.stderr
    assert ([call["verb"] for call in run.calls], run.stdout) == (["open"], "")
    assert "volume v1 (data, 1 GiB) would be backed up" in run.log
    assert "volume v2 would be left out: Its state is 'error'." in run.log
    assert not container.exists()


def test_a_dry_restore_names_the_backup(agent: Agent) -> None:
    run = agent("--metadata-out", "-", job={**BACKUP, "action": "restore", "dry_run": True})
    assert [call["verb"] for call in run.calls] == ["open"]
    assert f"backup {'b' * 32} of volume v1 would be restored" in run.log
    assert run.stdout == ""


def test_a_dry_restore_of_nothing_fails(agent: Agent) -> None:
    job = {**BACKUP, "action": "restore", "dry_run": True, "restore_from_date": "2001-01-01"}
    assert agent(job=job).error == "Volume v1 would be left out: There is no such backup."


def test_a_dry_removal_is_passed_on(agent: Agent) -> None:
    run = agent(job={**BACKUP, "action": "admin", "remove_older_than": 1, "dry_run": True})
    assert run.call("remove")["dry_run"] is True


# -- the cloud -----------------------------------------------------------------------------------


def by_name(name: str) -> dict[str, str]:
    settings = {k: v for k, v in BACKUP.items() if k != "single_volume_id"}
    return {**settings, "cinder_vol_name": name}


def test_a_volume_by_its_name(agent: Agent) -> None:
    run = agent("--metadata-out", "-", job=by_name("data"), env=VOLUMES)
    assert run.call("backup")["volume_ids"] == ["v1"]
    assert run.record["cinderbrick_vol_id"] == "v1"


def test_a_name_of_no_volume(agent: Agent) -> None:
    assert agent(job=by_name("other"), env=VOLUMES).error == "No volume has the name 'other'."


def test_a_name_of_two_volumes(agent: Agent) -> None:
    run = agent(job=by_name("twin"), env=VOLUMES)
    assert run.error == (
        "2 volumes have the name 'twin': give --single-volume-id with one of v2, v3."
    )


def test_a_name_and_an_id_are_refused(agent: Agent) -> None:
    assert "not by both" in agent(job={**BACKUP, "cinder_vol_name": "data"}).error


def test_neither_glance_nor_nova_is_discovered(agent: Agent) -> None:
    # Nothing answers at OS_AUTH_URL: any discovery would fail.
    assert agent(job=BACKUP).status == 0


def test_the_session_is_freezers_with_its_trust_and_region(agent: Agent) -> None:
    environment = {"OS_REGION_NAME": "east", "OS_ENDPOINT_TYPE": "internalURL"}
    call = agent(job={**BACKUP, "os_trust_id": "t1"}, env=environment).call("open")
    assert (call["trust_id"], call["region_name"], call["interface"]) == ("t1", "east", "internal")
    assert call["timeout"] == 300


def test_certificates_are_checked_where_an_authority_is_named(agent: Agent) -> None:
    trusting = agent(job=BACKUP, env={"OS_CACERT": "/etc/ca.pem"})
    assert trusting.call("open")["verify"] == "/etc/ca.pem"
    insecure = agent(job=BACKUP, env={"OS_CACERT": "/etc/ca.pem", "OS_INSECURE": "True"})
    assert insecure.call("open")["verify"] is False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_in_order_and_is_seen_by_the_scheduler(
    agent: Agent, number: signal.Signals
) -> None:
    run = agent("--metadata-out", "-", job=BACKUP, env={"FAKE_KILL": str(int(number))})
    assert run.status == -number
    assert run.calls[-1]["verb"] == "taken down"
    assert run.stdout == ""
