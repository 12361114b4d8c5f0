# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).parents[3]
CREDENTIALS = {
    "OS_AUTH_URL": "http://127.0.0.1:1/v3",  # nothing answers there
    "OS_USERNAME": "someone",
    "OS_PASSWORD": "secret",
    "OS_PROJECT_NAME": "project",
    "OS_USER_DOMAIN_ID": "default",
    "OS_PROJECT_DOMAIN_ID": "default",
}


@dataclasses.dataclass
class Run:
    """One run of the agent: what it said, and what it asked the operations for."""

    status: int
    stdout: str
    stderr: str
    log: str
    calls: list[dict[str, Any]]

    def call(self, verb: str) -> dict[str, Any]:
        """The one call of that verb."""
        (found,) = [call for call in self.calls if call["verb"] == verb]
        return found

    @property
    def record(self) -> Any:
        return json.loads(self.stdout)

    @property
    def error(self) -> str:
        """What follows Freezer's "Critical Error: ", having checked that nothing was begun."""
        assert self.status == 1, self.stderr
        lines = [line for line in self.stderr.splitlines() if line.startswith("Critical Error: ")]
        assert len(lines) == 1, self.stderr
        return lines[0].removeprefix("Critical Error: ")


Agent = Callable[..., Run]


def clean_environment(home: pathlib.Path) -> dict[str, str]:
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("OS_", "FREEZER"))
    }
    return {**kept, "HOME": str(home), "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="session")
def agent_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    pytest.importorskip("freezer")
    home = tmp_path_factory.mktemp("home")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.unit.agent.agent_server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=clean_environment(home),
    )
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.stdin.close()
    process.wait()


@pytest.fixture
def agent(agent_server: subprocess.Popen[str], tmp_path: pathlib.Path) -> Agent:
    """Runs the hooked freezer-agent: ``agent("--action", "info", job={…}, ini="…", env={…})``.

    ``job`` is written by the scheduler's own class, ``ini`` as it is.
    """

    def ask(request: dict[str, Any]) -> int:
        assert agent_server.stdin is not None and agent_server.stdout is not None
        agent_server.stdin.write(json.dumps(request) + "\n")
        agent_server.stdin.flush()
        return int(agent_server.stdout.readline())

    def run(
        *argv: str,
        job: dict[str, Any] | None = None,
        ini: str | None = None,
        env: dict[str, str] | None = None,
    ) -> Run:
        folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        arguments = list(argv)
        if job is not None or ini is not None:
            path = folder / "job.conf"
            if job is None:
                path.write_text(str(ini))
            else:
                assert ask({"action": job, "path": str(path)}) == 0
            arguments += ["--config", str(path)]
        calls = folder / "calls"
        request = {
            "argv": arguments,
            "env": {
                **CREDENTIALS,
                "HOME": str(folder),
                "FAKE_CALLS": str(calls),
                **(env or {}),
            },
            "stdout": str(folder / "stdout"),
            "stderr": str(folder / "stderr"),
        }
        status = ask(request)
        log = folder / ".freezer" / "freezer.log"
        return Run(
            status,
            (folder / "stdout").read_text(),
            (folder / "stderr").read_text(),
            log.read_text() if log.exists() else "",
            [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else [],
        )

    return run
