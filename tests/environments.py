# SPDX-License-Identifier: Apache-2.0
"""Virtual environments for the servers of tests: made once of pinned requirements, then kept."""

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

CHECKOUT = pathlib.Path(__file__).resolve().parents[1]
PATIENCE = 120.0  # seconds until a server that says nothing is given up


class Environment:
    """One environment.

    :param requirements: the file of its packages.
    :param name: of its folder in ``.venv``.
    :param variable: of the environment; names another folder.
    """

    def __init__(self, requirements: pathlib.Path, name: str, variable: str) -> None:
        named = os.environ.get(variable)
        self._requirements = requirements
        self.folder = pathlib.Path(named) if named else CHECKOUT / ".venv" / name

    @property
    def fingerprint(self) -> str:
        """Changes with the packages and with Python."""
        return hashlib.sha256(self._requirements.read_bytes() + sys.version.encode()).hexdigest()

    def python(self) -> str:
        """Its Python; made if it is missing or its requirements changed.

        Skips the test where the packages cannot be had.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        stamp = self.folder / "stamp"
        interpreter = str(self.folder / "venv" / "bin" / "python")
        with locked(self.folder):
            if not stamp.exists() or stamp.read_text() != self.fingerprint:
                venv = str(self.folder / "venv")
                run([sys.executable, "-m", "venv", "--clear", venv], "the environment")
                run(
                    [interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
                    + ["-r", str(self._requirements)],
                    "the packages of the test servers",
                )
                stamp.write_text(self.fingerprint)
        return interpreter

    @contextlib.contextmanager
    def server(
        self, script: pathlib.Path, *arguments: str, log: pathlib.Path, **variables: str
    ) -> Iterator[dict[str, Any]]:
        """A server that runs this script; what it says of itself when it is ready.

        It ends with its standard input, so also when these tests are killed.

        :param variables: further ones of its environment.
        """
        with open(log, "wb") as output:
            process = subprocess.Popen(
                [self.python(), "-W", "ignore", str(script), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env={**os.environ, **variables},
            )
        assert process.stdin is not None and process.stdout is not None
        try:
            ready, _, _ = select.select([process.stdout], [], [], PATIENCE)
            line = process.stdout.readline() if ready else b""
            told = log.read_text(errors="replace")[-2000:]
            assert line, f"{script.name} did not start: {told}"
            yield json.loads(line)
        finally:
            process.stdin.close()
            process.wait()
            process.stdout.close()


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
