# SPDX-License-Identifier: Apache-2.0
"""What the servers of the stores' tests run in: a virtual environment of their own."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

HERE = pathlib.Path(__file__).resolve().parent
CHECKOUT = HERE.parents[2]
REQUIREMENTS = HERE / "requirements.txt"
PATIENCE = 120.0  # seconds until a server that says nothing is given up


def folder() -> pathlib.Path:
    """Where the environment lies, for all runs of this checkout."""
    named = os.environ.get("FREEZER_OSBRICK_STORE_SERVERS")
    return pathlib.Path(named) if named else CHECKOUT / ".venv" / "store-servers"


def python() -> str:
    """The environment's Python; made if it is missing or its requirements changed.

    Skips the test where the packages cannot be had.
    """
    made = folder()
    made.mkdir(parents=True, exist_ok=True)
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()
    stamp = made / "stamp"
    interpreter = str(made / "venv" / "bin" / "python")
    with locked(made):
        if not stamp.exists() or stamp.read_text() != wanted:
            run([sys.executable, "-m", "venv", "--clear", str(made / "venv")], "the environment")
            run(
                [interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
                + ["-r", str(REQUIREMENTS)],
                "the packages of the test servers",
            )
            stamp.write_text(wanted)
    return interpreter


@contextlib.contextmanager
def locked(where: pathlib.Path) -> Iterator[None]:
    """One run at a time makes something in this folder."""
    with open(where / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(command: Sequence[str], what: str, **options: Any) -> None:
    """Run a command; skip the test where it fails."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )
    if done.returncode:
        last = (done.stdout.strip().splitlines() or ["no output"])[-1]
        pytest.skip(f"{what} cannot be installed: {last}")


@contextlib.contextmanager
def server(script: str, *arguments: str, log: pathlib.Path) -> Iterator[dict[str, Any]]:
    """A server of this folder; what it says of itself when it is ready.

    It ends with its standard input, so also when these tests are killed.
    """
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [python(), "-W", "ignore", str(HERE / script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
        )
    assert process.stdin is not None and process.stdout is not None
    try:
        ready, _, _ = select.select([process.stdout], [], [], PATIENCE)
        line = process.stdout.readline() if ready else b""
        assert line, f"{script} did not start: {log.read_text(errors='replace')[-2000:]}"
        yield json.loads(line)
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()
