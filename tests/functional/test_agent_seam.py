# SPDX-License-Identifier: Apache-2.0
"""The unmodified freezer-agent and freezer-scheduler with our engine, on the embedded cloud."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from devstack.embedded.embedded_cloud.client import EmbeddedCloud
from tests.functional.workbench import CHECKOUT, Workbench

pytest.importorskip("freezer")

MIB = 1 << 20

# What the console scripts of Freezer do. The first line does what the .pth does where the package
# is installed, and nothing more there.
PROGRAM = """#!{python} -Wignore
import freezer_osbrick.agent.boot
import sys
from freezer.{module} import main
sys.exit(main())
"""


@dataclasses.dataclass
class Done:
    status: int
    stdout: str
    stderr: str

    @property
    def record(self) -> Any:
        """The metadata on standard output, after a success."""
        assert self.status == 0, self.stderr
        return json.loads(self.stdout)

    @property
    def error(self) -> str:
        """The one line that a person sees of a failure."""
        assert self.status == 1, self.stdout + self.stderr
        (line,) = [line for line in self.stderr.splitlines() if line.startswith("Critical Error: ")]
        assert "Traceback" not in self.stderr
        return line.removeprefix("Critical Error: ")


class Freezer:
    """A host with Freezer: its programs, its home folder, its local repository."""

    def __init__(self, folder: pathlib.Path, bench: Workbench) -> None:
        self.bench = bench
        self.folder = folder
        self.repository = folder / "backups"
        self.bin = folder / "bin"
        self.bin.mkdir()
        for name, module in (
            ("freezer-agent", "main"),
            ("freezer-scheduler", "scheduler.freezer_scheduler"),
        ):
            program = self.bin / name
            program.write_text(PROGRAM.format(python=sys.executable, module=module))
            program.chmod(0o755)
        settings = folder / ".freezer" / "freezer.conf"
        settings.parent.mkdir()
        settings.write_text(
            f"[osbrick]\nstate_path = {bench.state_path}\n"
            "[cloud]\npoll_interval = 0.2\n[device]\nmy_ip = 127.0.0.1\n"
        )

    def environment(self, project: str = "demo", **more: str) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("OS_")}
        return {
            **kept,
            **self.bench.embedded.env(project),
            "HOME": str(self.folder),
            "PATH": f"{self.bin}{os.pathsep}{kept['PATH']}",
            "PYTHONPATH": str(CHECKOUT),
            **more,
        }

    def agent(self, *arguments: str, project: str = "demo", **environment: str) -> Done:
        """One run of freezer-agent with our engine and the local repository."""
        process = self.start(*arguments, project=project, **environment)
        stdout, stderr = process.communicate()
        return Done(process.returncode, stdout, stderr)

    def start(
        self, *arguments: str, project: str = "demo", **environment: str
    ) -> subprocess.Popen[str]:
        """The same, still running."""
        return subprocess.Popen(
            [
                "freezer-agent",
                *("--engine", "osbrick", "--storage", "local"),
                *("--container", str(self.repository), "--metadata-out", "-", *arguments),
            ],
            env=self.environment(project, **environment),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def log(self) -> str:
        return (self.folder / ".freezer" / "freezer.log").read_text()


@pytest.fixture
def bench(cloud: EmbeddedCloud, tmp_path: pathlib.Path) -> Iterator[Workbench]:
    bench = Workbench(cloud, tmp_path / "state")
    yield bench
    bench.close()


@pytest.fixture
def freezer(bench: Workbench, tmp_path: pathlib.Path) -> Freezer:
    folder = tmp_path / "host"
    folder.mkdir()
    return Freezer(folder, bench)


@pytest.fixture
def volume(bench: Workbench) -> str:
    """A volume of 1 GiB with 8 MiB of random data in it."""
    record = bench.volume(1, name="data", metadata={"owner": "me"})
    write(bench, record.id, 100 * MIB, os.urandom(8 * MIB))
    return record.id


def write(bench: Workbench, volume_id: str, offset: int, data: bytes) -> None:
    with open(bench.file_of(volume_id), "r+b") as stream:
        stream.seek(offset)
        stream.write(data)


def content(bench: Workbench, volume_id: str) -> bytes:
    with open(bench.file_of(volume_id), "rb") as stream:
        stream.seek(96 * MIB)
        return stream.read(16 * MIB)


def test_backups_and_a_restore_through_the_agent(
    freezer: Freezer, bench: Workbench, volume: str
) -> None:
    words = ("--single-volume-id", volume, "--backup-name", "nightly", "--incremental")
    first = freezer.agent("--action", "backup", *words).record
    at_first = content(bench, volume)
    assert (first["curr_backup_level"], first["level"], first["backup_media"]) == (
        0,
        0,
        "cinderbrick",
    )
    (told,) = first["osbrick"]["volumes"]
    assert (told["volume_id"], told["volume_name"], told["state"]) == (volume, "data", "success")
    assert told["time_stamp"] == first["time_stamp"]
    assert told["bytes_read"] == 1 << 30

    write(bench, volume, 100 * MIB, os.urandom(MIB))
    at_second = content(bench, volume)
    second = freezer.agent("--action", "backup", *words).record
    assert (second["curr_backup_level"], second["level"]) == (1, 1)
    assert second["osbrick"]["volumes"][0]["bytes_new"] <= 2 * MIB
    assert bench.leftovers() == {}

    # The newest, by its name, into a volume beside the one that exists.
    newest = freezer.agent(
        "--action", "restore", "--single-volume-id", volume, "--backup-name", "nightly"
    ).record
    (restored,) = newest["restored_volume_ids"]
    bench.users_own(restored)
    assert restored != volume
    assert content(bench, restored) == at_second == content(bench, volume)

    # The first, by its date.
    date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(first["time_stamp"]))
    if second["time_stamp"] > first["time_stamp"]:
        older = freezer.agent(
            *("--action", "restore", "--single-volume-id", volume, "--restore-from-date", date),
            *("--new-name", "as it was"),
        ).record
        (restored,) = older["restored_volume_ids"]
        bench.users_own(restored)
        assert content(bench, restored) == at_first
        found = bench.embedded.cinder("GET", f"/volumes/{restored}")["volume"]
        assert found["name"] == "as it was"
    assert bench.leftovers() == {}


def test_info_and_removal_through_the_agent(freezer: Freezer, volume: str) -> None:
    words = ("--single-volume-id", volume)
    record = freezer.agent("--action", "backup", *words).record
    assert record["backup_name"] == f"freezer_cinder_{volume}"
    fields, rows = freezer.agent("--action", "info", *words).record
    listed = dict(zip(fields, rows[0], strict=True))
    assert (listed["Volume ID"], listed["Level"]) == (volume, 0)
    older = record["osbrick"]["volumes"][0]["backup_id"]
    assert listed["Backup ID"] == older
    newest = freezer.agent("--action", "backup", *words).record["osbrick"]["volumes"][0]

    kept = freezer.agent("--action", "admin", "--remove-older-than", "1", *words)
    assert (kept.status, kept.stdout) == (0, "")
    dry = freezer.agent("--action", "admin", "--remove-older-than", "0", "--dry-run", *words)
    assert [backup["backup_id"] for backup in dry.record["removed_backups"]] == [older]
    removed = freezer.agent("--action", "admin", "--remove-older-than", "0", *words).record
    assert removed == dry.record
    # A volume's newest backup never goes by its age, and the log says so.
    _, rows = freezer.agent("--action", "info", *words).record
    assert [dict(zip(fields, row, strict=True))["Backup ID"] for row in rows] == [
        newest["backup_id"]
    ]
    assert f"Backup {newest['backup_id']} of volume {volume} stays" in freezer.log()


def test_a_volume_by_its_name_and_dry_runs(freezer: Freezer, bench: Workbench, volume: str) -> None:
    dry = freezer.agent("--action", "backup", "--cinder-vol-name", "data", "--dry-run")
    assert (dry.status, dry.stdout) == (0, "")
    assert f"volume {volume} (data, 1 GiB) would be backed up" in freezer.log()
    assert not freezer.repository.exists()
    record = freezer.agent("--action", "backup", "--cinder-vol-name", "data").record
    assert record["cinderbrick_vol_id"] == volume
    missing = freezer.agent("--action", "backup", "--cinder-vol-name", "other")
    assert missing.error == "No volume has the name 'other'."
    assert bench.leftovers() == {}


def test_failures_are_one_sentence_and_leave_nothing(
    freezer: Freezer, bench: Workbench, volume: str
) -> None:
    nowhere = "11111111-2222-3333-4444-555555555555"
    missing = freezer.agent("--action", "backup", "--single-volume-id", nowhere)
    assert missing.error.startswith(f"Volume {nowhere}: ")
    other = freezer.agent("--action", "backup", "--single-volume-id", volume, project="other")
    assert other.error.startswith(f"Volume {volume}: ")
    denied = freezer.agent("--action", "backup", "--single-volume-id", volume, OS_PASSWORD="wrong")
    assert denied.status == 1
    assert denied.stderr.count("Critical Error: ") == 1
    bench.embedded.faults(create_snapshot={"error": "disk full", "times": 9})
    failed = freezer.agent("--action", "backup", "--single-volume-id", volume)
    assert failed.error.startswith(f"Volume {volume}: ")
    assert failed.stdout == ""
    bench.embedded.clear_faults()
    assert bench.leftovers() == {}


def test_a_trust_is_enough(freezer: Freezer, bench: Workbench, volume: str) -> None:
    """A centralised scheduler holds no password of the project, only a trust."""
    trust = make_trust(bench.embedded)
    run = freezer.agent(
        *("--action", "backup", "--single-volume-id", volume, "--os-trust-id", trust),
        project="other",
    )
    assert run.record["osbrick"]["volumes"][0]["state"] == "success"
    assert bench.leftovers() == {}


def test_an_abort_takes_down_what_was_set_up(
    freezer: Freezer, bench: Workbench, volume: str
) -> None:
    """The scheduler aborts with SIGTERM, and calls a job aborted whose agent died of it."""
    bench.embedded.faults(create_volume_from_snapshot={"delay": 5})
    agent = freezer.start("--action", "backup", "--single-volume-id", volume)
    try:
        wait_for(lambda: has_made_a_clone(bench))
    finally:
        agent.terminate()
        stdout, stderr = agent.communicate()
    assert agent.returncode == -signal.SIGTERM, stderr
    assert stdout == ""
    bench.embedded.clear_faults()
    assert bench.leftovers() == {}
    assert freezer.agent("--action", "info").stdout == ""


def test_a_job_of_the_scheduler(freezer: Freezer, bench: Workbench, volume: str) -> None:
    jobs = freezer.folder / "jobs"
    jobs.mkdir()
    action = {
        "action": "backup",
        "mode": "cinder",
        "engine_name": "cinder-osbrick",
        "storage": "local",
        "container": str(freezer.repository),
        "backup_name": "100 % nightly",
        "hostname": "web1",
        "single_volume_id": [volume],
        "incremental": True,
        "max_level": 7,
        "remove_older_than": False,
        "restore_from_host": "",
        "dst_file": None,
        "no_such_key": {"a": ["b"]},
    }
    job = {
        "job_id": "job1",
        "client_id": "vm",
        "description": "from disk",
        "job_schedule": {"event": "start"},
        "job_actions": [{"max_retries": 0, "max_retries_interval": 1, "freezer_action": action}],
    }
    (jobs / "job.conf").write_text(json.dumps(job))
    settings = freezer.folder / "scheduler.conf"
    settings.write_text(
        "[scheduler]\nno_api = True\nno_daemon = True\ninterval = 1\n"
        f"jobs_dir = {jobs}\n[DEFAULT]\nlog_file = {freezer.folder}/scheduler.log\n"
    )
    scheduler = subprocess.Popen(
        ["freezer-scheduler", "--config-file", str(settings), "start"],
        env=freezer.environment(),
        cwd=freezer.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        log = freezer.folder / "scheduler.log"
        wait_for(lambda: log.exists() and "backup returned success exit code" in log.read_text())
    finally:
        scheduler.kill()
        scheduler.wait()
    _, rows = freezer.agent("--action", "info").record
    assert [row[1:6] for row in rows] == [[volume, "data", "100 % nightly", "web1", 0]]
    assert "no_such_key is no option of this Freezer" in freezer.log()
    assert bench.leftovers() == {}


def has_made_a_clone(bench: Workbench) -> bool:
    """Whether a run's journal says that Cinder works on the volume of a snapshot."""
    lines = [
        json.loads(line)
        for path in (bench.state_path / "ledger").glob("*")
        if path.is_file()
        for line in path.read_text().splitlines()
        if line.startswith("{") and line.endswith("}")
    ]
    return any((line["step"], line.get("resource")) == ("created", "volume") for line in lines)


def wait_for(condition: Any, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def make_trust(cloud: EmbeddedCloud) -> str:
    """Let the user ``other`` act as ``demo`` in its project; returns the trust's id."""
    demo, demo_token = log_in(cloud, "demo")
    other, _ = log_in(cloud, "other")
    trust = {
        "trustor_user_id": demo["user"]["id"],
        "trustee_user_id": other["user"]["id"],
        "project_id": demo["project"]["id"],
        "impersonation": True,
        "roles": [{"id": role["id"]} for role in demo["roles"]],
    }
    url = cloud.env("demo")["OS_AUTH_URL"].rstrip("/") + "/OS-TRUST/trusts"
    answer, _ = post(url, {"trust": trust}, {"X-Auth-Token": demo_token})
    return str(answer["trust"]["id"])


def log_in(cloud: EmbeddedCloud, project: str) -> tuple[dict[str, Any], str]:
    """The token's facts and the token of the project's user."""
    env = cloud.env(project)
    domain = {"id": "default"}
    user = {"name": env["OS_USERNAME"], "password": env["OS_PASSWORD"], "domain": domain}
    request = {
        "auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": {"name": env["OS_PROJECT_NAME"], "domain": domain}},
        }
    }
    answer, headers = post(env["OS_AUTH_URL"].rstrip("/") + "/auth/tokens", request, {})
    return answer["token"], headers["X-Subject-Token"]


def post(url: str, body: dict[str, Any], headers: dict[str, str]) -> tuple[Any, Any]:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json", **headers}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer), answer.headers
