# SPDX-License-Identifier: Apache-2.0
"""A service that outlives the launcher, and is never mistaken for another process."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence

from .errors import CloudError
from .state import State, write_atomically

LISTENER_VARIABLE = "EMBEDDED_CLOUD_LISTENER"


def _boot_id() -> str:
    return pathlib.Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _start_time(pid: int) -> str | None:
    """When the process started, in the kernel's ticks; None when it is gone or a zombie."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


class Service:
    """One service by name. Its pid file also holds the start time of the process and the boot's
    identity, so that a recycled pid is neither believed nor killed."""

    def __init__(self, state: State, name: str) -> None:
        self.name = name
        self._record = state.run / f"{name}.json"
        self._output = state.log / f"{name}.out"
        self._folder = state.folder

    def pid(self) -> int | None:
        """The pid of the running service, or None."""
        try:
            record = json.loads(self._record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if record["boot"] != _boot_id() or _start_time(record["pid"]) != record["start"]:
            return None
        return int(record["pid"])

    def start(
        self,
        command: Sequence[str],
        environment: dict[str, str] | None = None,
        listener: socket.socket | None = None,
    ) -> None:
        """Start the service in a session of its own; its output goes to ``log/<name>.out``."""
        variables = dict(os.environ, **(environment or {}))
        inherited: list[int] = []
        if listener is not None:
            variables[LISTENER_VARIABLE] = str(listener.fileno())
            inherited.append(listener.fileno())
        with open(self._output, "wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env=variables,
                pass_fds=inherited,
                start_new_session=True,
            )
        record = {"pid": process.pid, "start": _start_time(process.pid), "boot": _boot_id()}
        write_atomically(self._record, json.dumps(record))

    def wait(self, ready: Callable[[], bool], what: str, seconds: float = 600) -> None:
        """Wait until ``ready`` says so; fail with the last lines of the service's output."""
        deadline = time.monotonic() + seconds
        pause = 0.1
        while not ready():
            if self.pid() is None:
                raise CloudError(f"{what} ended while it was starting; {self.last_lines()}")
            if time.monotonic() > deadline:
                raise CloudError(
                    f"{what} did not answer within {seconds:.0f} s; {self.last_lines()}"
                )
            time.sleep(pause)
            pause = min(1.1 * pause, 1.0)

    def last_lines(self, count: int = 15) -> str:
        """The end of the service's output, for an error message."""
        with contextlib.suppress(OSError):
            lines = self._output.read_text(encoding="utf-8", errors="replace").splitlines()
            if lines:
                return f"the last lines of {self._output}:\n" + "\n".join(lines[-count:])
        return f"{self._output} is empty"

    def stop(self, seconds: float = 10) -> bool:
        """Terminate the service and its children; True when it had been running."""
        pid = self.pid()
        if pid is not None:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, number)
                deadline = time.monotonic() + seconds
                while self.pid() is not None and time.monotonic() < deadline:
                    time.sleep(0.05)
                if self.pid() is None:
                    break
            else:
                raise CloudError(f"{self.name} (pid {pid}) does not end")
        self._record.unlink(missing_ok=True)
        return pid is not None
