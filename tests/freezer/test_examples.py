# SPDX-License-Identifier: Apache-2.0
"""The jobs in ``etc/jobs``: each is run, with what is written in capitals filled in."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from devstack.embedded.embedded_cloud.client import EmbeddedCloud
from tests.environments import CHECKOUT
from tests.freezer import rig
from tests.freezer.client import Person
from tests.functional.backup_host import MIB, BackupHost, data_of, date_of

pytestmark = pytest.mark.usefixtures("scheduler")
FOLDER = CHECKOUT / "etc" / "jobs"
EXAMPLES = sorted(path.name for path in FOLDER.glob("*.json"))


@pytest.fixture(scope="module")
def volume_id(host: BackupHost) -> str:
    volume_id = host.bench.volume(1, name="data").id
    host.write(volume_id, 10 * MIB, data_of(1, 4 * MIB))
    return volume_id


def run(host: BackupHost, person: Person, name: str, **filled: Any) -> str:
    """Start the job at once, with this host's repository; its result."""
    job = json.loads((FOLDER / name).read_text())
    job["client_id"] = filled.pop("client_id", None) or person.client_id()
    job["job_schedule"] = {}
    for entry in job["job_actions"]:
        entry["max_retries"] = 0
        entry["freezer_action"].update(
            {"storage": "local", "container": str(host.repository), **filled}
        )
    job_id = person.api.jobs.create(job)
    person.api.jobs.start_job(job_id)
    return person.result(job_id)


def test_one_volume_its_restore_and_the_removal_of_old_backups(
    host: BackupHost, person: Person, volume_id: str
) -> None:
    for level in (0, 1):
        result = run(host, person, "nightly-volume.json", single_volume_id=volume_id)
        assert result == "success"
        assert [backup["level"] for backup in host.listed()] == list(range(level + 1))
    first = host.listed()[0]
    before = volumes_of(host)
    moment = date_of(first["time_stamp"])
    filled = {"single_volume_id": volume_id, "restore_from_date": moment}
    assert run(host, person, "restore.json", **filled) == "success"
    (restored,) = volumes_of(host) - before
    host.bench.users_own(restored)
    assert host.digest(restored) == host.digest(volume_id)
    assert run(host, person, "remove-old.json") == "success"
    assert len(host.listed()) == 2  # none is 30 days old
    assert run(host, person, "remove-old.json", remove_older_than=0) == "success"
    assert len(host.listed()) == 1
    assert host.leftovers() == {}


def test_the_commands_of_the_readme(
    host: BackupHost, person: Person, volume_id: str, freezer_api: str, tmp_path: pathlib.Path
) -> None:
    """With nothing but freezerclient's own command."""

    def freezer(*words: str) -> Any:
        done = host.start("freezer", *words, OS_BACKUP_URL=freezer_api).wait()
        assert done.status == 0, done.stderr
        return json.loads(done.stdout) if "json" in words else done.stdout

    job = json.loads((FOLDER / "nightly-volume.json").read_text())
    client = person.client_id()  # once it is registered
    assert client in [row["Client ID"] for row in freezer("client-list", "-f", "json")]
    action = job["job_actions"][0]["freezer_action"]
    action.update(container=str(host.repository), backup_name="by hand", single_volume_id=volume_id)
    file = tmp_path / "job.json"
    file.write_text(json.dumps({**job, "client_id": client, "job_schedule": {}}))
    created = freezer("job-create", "--client", client, "--file", str(file), "-f", "json")
    job_id = created["Job ID"]
    freezer("job-start", job_id)
    assert person.result(job_id) == "success"
    assert volume_id in json.dumps(freezer("job-show", job_id, "-f", "json"))
    record_id = person.records("by hand")[0]["backup_id"]
    assert record_id in freezer("backup-list", "-f", "value")  # a date is no JSON to it
    assert volume_id in json.dumps(freezer("backup-show", record_id, "-f", "json"))
    freezer("backup-delete", record_id)
    assert person.records("by hand") == []
    assert len(host.listed("--backup-name", "by hand")) == 1


def volumes_of(host: BackupHost) -> set[str]:
    listed = host.bench.embedded.cinder("GET", "/volumes")["volumes"]
    return {volume["id"] for volume in listed}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_complete(name: str) -> None:
    """As freezer-api wants it, and named in the folder's README."""
    job = json.loads((FOLDER / name).read_text())
    assert set(job) == {"client_id", "description", "job_schedule", "job_actions"}
    for entry in job["job_actions"]:
        action = entry["freezer_action"]
        assert (action["engine_name"], action["mode"]) == ("osbrick", "cinder")
        assert {"action", "storage", "container", "backup_name"} <= set(action)
    assert f"``{name}``" in pathlib.Path(FOLDER / "README.rst").read_text()


def test_a_whole_project(host: BackupHost, person: Person, volume_id: str) -> None:
    second = host.bench.volume(1, name="second").id
    assert run(host, person, "whole-project.json") == "success"
    made = host.listed("--backup-name", "project")
    assert {backup["volume_id"] for backup in made} >= {volume_id, second}
    (record,) = person.records("project")
    told = record["backup_metadata"]["osbrick"]["volumes"]
    assert {volume["volume_id"] for volume in told} == {backup["volume_id"] for backup in made}
    assert host.leftovers() == {}


def test_a_group(host: BackupHost, person: Person, group: dict[str, Any]) -> None:
    result = run(host, person, "group.json", consistency_groups=[group["id"]])
    assert result == "success"
    made = host.listed("--backup-name", "group")
    assert {backup["volume_id"] for backup in made} == set(group["volumes"])


@pytest.fixture
def group(host: BackupHost) -> Iterator[dict[str, Any]]:
    """A group of two volumes."""
    cloud = host.bench.embedded
    kinds = {
        kind["name"]: kind["id"] for kind in cloud.cinder("GET", "/group_types")["group_types"]
    }
    types = {kind["name"]: kind["id"] for kind in cloud.cinder("GET", "/types")["volume_types"]}
    body = {"group_type": kinds["consistent"], "volume_types": [types["file"]], "name": "shop"}
    made = cloud.cinder("POST", "/groups", {"group": body})["group"]["id"]
    cloud.wait(f"/groups/{made}", "available")
    volumes = [
        cloud.create_volume(1, volume_type="file", group_id=made)["id"] for _number in range(2)
    ]
    yield {"id": made, "volumes": volumes}
    cloud.cinder("POST", f"/groups/{made}/action", {"delete": {"delete-volumes": True}})
    cloud.wait(f"/groups/{made}", "deleted")


def test_all_projects(
    cloud: EmbeddedCloud, host: BackupHost, freezer_api: str, volume_id: str, tmp_path: pathlib.Path
) -> None:
    """A centralised scheduler with an administrator's trust."""
    administrator = Person(cloud.env("admin"), freezer_api)
    environment = {
        **host.environment("admin"),
        "OS_USERNAME": "freezer",
        "OS_PASSWORD": cloud.state.settings["passwords"]["freezer"],
        "OS_PROJECT_NAME": "service",
    }
    others = cloud.create_volume(1, project="other")["id"]
    try:
        with rig.scheduler(tmp_path, environment, centralized_scheduler="True"):
            central = administrator.client_id(central=True)
            result = run(host, administrator, "all-projects.json", client_id=central)
        assert result == "success"
        made = host.listed("--backup-name", "everything")
        assert {backup["volume_id"] for backup in made} >= {volume_id, others}
    finally:
        cloud.delete_volume(others, project="other")
    assert host.leftovers() == {}
