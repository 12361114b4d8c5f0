# SPDX-License-Identifier: Apache-2.0
"""Runs of freezer-agent, unmodified, as a process of its own."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from embedded.embedded_cloud.client import EmbeddedCloud

from .errors import DemoError

_PAUSE = 0.05  # seconds between two looks at a run


class Run:
    """What a run of the agent told, and the seconds that its process took."""

    def __init__(self, record: dict[str, Any], seconds: float) -> None:
        self.volume: dict[str, Any] = record["osbrick"]["volumes"][0]
        self.seconds = seconds


class Agent:
    """freezer-agent of this Python environment, as the user of the project ``demo``.

    :param folder: for its repository and its state. Its log lies beside it, and stays.
    """

    def __init__(self, cloud: EmbeddedCloud, folder: pathlib.Path) -> None:
        self.program = pathlib.Path(sys.executable).with_name("freezer-agent")
        if not self.program.exists():
            raise DemoError(f"there is no freezer-agent beside {sys.executable}: use 'tox -e demo'")
        self.repository = folder / "backups"
        self.state = folder / "state"
        self.log = folder.with_name(f"{folder.name}-freezer-agent.log")
        self.log.unlink(missing_ok=True)
        self._folder = folder
        self._configuration = folder / "freezer-osbrick.conf"
        self._configuration.write_text(f"[osbrick]\nstate_path = {self.state}\n", encoding="utf-8")
        env = {key: value for key, value in os.environ.items() if not key.startswith("OS_")}
        # Freezer makes a folder in its user's home.
        self._env = {**env, **cloud.env("demo"), "HOME": str(folder), "PYTHONWARNINGS": "ignore"}

    def backup(
        self, volume_id: str, *, incremental: bool, meanwhile: Callable[[], None] = lambda: None
    ) -> Run:
        """Back a volume up; ``meanwhile`` is called again and again while the agent runs."""
        options = ["--incremental"] if incremental else []
        return self._run("backup", volume_id, options, meanwhile)

    def restore(self, volume_id: str, *, date: str | None = None) -> Run:
        """Restore the newest backup, or the newest one up to a date."""
        options = ["--restore-from-date", date] if date else []
        return self._run("restore", volume_id, options, lambda: None)

    def command(self, action: str, volume_id: str, options: list[str]) -> list[str]:
        """The command line, as a person would type it."""
        return [
            "freezer-agent",
            "--action",
            action,
            "--engine",
            "osbrick",
            "--storage",
            "local",
            "--container",
            str(self.repository),
            "--backup-name",
            "demo",
            "--single-volume-id",
            volume_id,
            *options,
        ]

    def _run(
        self, action: str, volume_id: str, options: list[str], meanwhile: Callable[[], None]
    ) -> Run:
        told = self._folder / "metadata.json"
        told.unlink(missing_ok=True)
        line = [
            str(self.program),
            *self.command(action, volume_id, options)[1:],
            "--metadata-out",
            str(told),
            "--log-file",
            str(self.log),
            "--config-file",
            str(self._configuration),
        ]
        began = time.monotonic()
        with open(self._folder / "freezer-agent.output", "w+", encoding="utf-8") as output:
            process = subprocess.Popen(
                line,
                env=self._env,
                cwd=self._folder,
                stdout=output,
                stdin=subprocess.DEVNULL,
                stderr=subprocess.STDOUT,
            )
            try:
                while process.poll() is None:
                    meanwhile()
                    time.sleep(_PAUSE)
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
            seconds = time.monotonic() - began
            if process.returncode:
                output.seek(0)
                said = (output.read().strip().splitlines() or ["it said nothing"])[-1]
                raise DemoError(
                    f"freezer-agent --action {action} ended with status {process.returncode}: "
                    f"{said} (its log: {self.log})"
                )
        return Run(json.loads(told.read_text(encoding="utf-8")), seconds)
