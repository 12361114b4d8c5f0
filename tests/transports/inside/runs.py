# SPDX-License-Identifier: Apache-2.0
"""Runs of freezer-osbrick in the guest: started, watched, stopped, killed."""

from __future__ import annotations

import json
import os
import pathlib
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

from . import storage, users
from .shell import read

_PAUSE = 0.2  # seconds between two looks at a run: a look is dear on an emulated processor
_VOLUME = re.compile(r"/dev/(sd|dm-|nvme)")


class Run:
    """A process and what is seen of it from outside: its journal, and the device that it opens.

    :ivar seen: times since the epoch, by what happened.
    """

    def __init__(
        self, words: list[str], user: str, multipath: bool, project: str, plain: bool
    ) -> None:
        self._ledger = pathlib.Path(users.state_path(user), "ledger")
        self._before = set(self._journals())
        self._journal: Any = None
        self._output = [f"/run/osbrick-{time.monotonic_ns()}.{end}" for end in ("out", "err")]
        self.seen: dict[str, float] = {}
        self.entries: list[dict[str, Any]] = []
        self.device = ""
        self._sectors = 0
        self.began = time.time()
        variables = environment(user, multipath, project)
        self.pid = _launcher.start(words, user, variables, self._output, plain)
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def _journals(self) -> list[pathlib.Path]:
        return list(self._ledger.glob("*.journal"))

    def _watch(self) -> None:
        while True:
            ended = _has_ended(self.pid)
            self._look()
            if ended:
                self.seen["ended"] = time.time()
                return
            time.sleep(_PAUSE)

    def _look(self) -> None:
        if self._journal is None:
            new = [path for path in self._journals() if path not in self._before]
            if new:
                # Held open: a run that ends well removes it.
                self._journal = open(new[0], encoding="utf-8", errors="replace")  # noqa: SIM115
        if self._journal is not None:
            place = self._journal.tell()
            line = self._journal.readline()
            while line.endswith("\n"):
                entry = json.loads(line)
                self.entries.append(entry)
                self.seen.setdefault(entry["step"], entry["time"])
                place = self._journal.tell()
                line = self._journal.readline()
            self._journal.seek(place)
        self._look_at_device()

    def _look_at_device(self) -> None:
        opened = ""
        folder = f"/proc/{self.pid}/fd"
        try:
            for name in os.listdir(folder):
                path = os.readlink(f"{folder}/{name}")
                if _VOLUME.match(path):
                    opened = path.removesuffix(" (deleted)")
        except OSError:
            pass
        if opened and not self.device:
            self.device = opened
            self._sectors = self._moved()
            self.seen["opened"] = time.time()
        if opened:
            self.seen["closed"] = time.time()  # the last time that it was seen open

    def moved(self) -> int:
        """Bytes that the device has read and written since it was opened."""
        return (self._moved() - self._sectors) * 512 if self.device else 0

    def _moved(self) -> int:
        name = os.path.basename(self.device)
        disks = [pathlib.Path("/sys/class/block", name)]
        # Of an NVMe namespace that has several paths, the kernel counts by path.
        disks += disks[0].parent.glob(re.sub(r"^(nvme\d+)(n\d+)$", r"\1c*\2", name))
        fields = [read(disk / "stat").split() for disk in dict.fromkeys(disks)]
        return sum(int(counted[2]) + int(counted[6]) for counted in fields if counted)

    def result(self) -> dict[str, Any]:
        """What a run that has ended told, and when what happened, in seconds since its start."""
        self._watcher.join()
        status = _launcher.wait(self.pid)
        out, err = (pathlib.Path(path).read_text(errors="replace") for path in self._output)
        for path in self._output:
            os.unlink(path)
        return {
            "status": status,
            "stdout": out,
            "stderr": err,
            "device": self.device,
            "seen": {what: round(when - self.began, 3) for what, when in self.seen.items()},
            "entries": self.entries,
        }


class Launcher:
    """The process whose forks the runs are; started at the first of them."""

    def __init__(self) -> None:
        self._process: Any = None

    def start(
        self,
        words: list[str],
        user: str,
        variables: dict[str, str],
        output: list[str],
        plain: bool,
    ) -> int:
        """Start a run; returns its process id."""
        for path in output:
            pathlib.Path(path).touch()
        request = {
            "words": words,
            "user": user,
            "environment": variables,
            "folder": users.home(user),
            "streams": ["/dev/null", *output],
            "plain": plain,
        }
        return int(self._ask(request)["pid"])

    def warm(self) -> None:
        """Start it, if it does not run."""
        if self._process is None:
            script = pathlib.Path(__file__).with_name("launcher.py")
            self._process = subprocess.Popen(
                [str(users.ENVIRONMENT / "bin" / "python"), "-W", "ignore", str(script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            self._read()

    def wait(self, pid: int) -> int:
        """The exit status of a run that ended; below zero for a signal."""
        return int(self._ask({"wait": pid})["status"])

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        self.warm()
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the launcher ended with {self._process.wait()}")
        return dict(json.loads(line))


_launcher = Launcher()
_runs: dict[int, Run] = {}


def warm() -> None:
    """Import what the package needs, ahead of the package and of the first run."""
    _launcher.warm()


def environment(user: str, multipath: bool, project: str) -> dict[str, str]:
    """The variables of a run."""
    return {
        **storage.cloud().env(project),
        "HOME": users.home(user),
        "PATH": f"{users.ENVIRONMENT}/bin:{os.environ['PATH']}",
        "LANG": "C.UTF-8",
        "PYTHONWARNINGS": "ignore",
        "OS_DEVICE__USE_MULTIPATH": str(multipath),
        "OS_DEVICE__ENFORCE_MULTIPATH": str(multipath),
    }


def start(
    words: list[str],
    user: str = "root",
    multipath: bool = False,
    project: str = "demo",
    plain: bool = False,
) -> int:
    """Start freezer-osbrick; returns a number for the other functions.

    :param plain: as the installed program, with the time that its imports take.
    """
    run = Run(words, user, multipath, project, plain)
    _runs[run.pid] = run
    return run.pid


def finish(number: int) -> dict[str, Any]:
    """Wait for the end of a run: ``status``, ``stdout``, ``stderr``, ``seen``, ``entries``."""
    return _runs.pop(number).result()


def call(words: list[str], **how: Any) -> dict[str, Any]:
    """A run from its start to its end."""
    return finish(start(words, **how))


def until(number: int, step: str | None = None, moved: int = 0, seconds: float = 300) -> bool:
    """Wait until a step is in the journal, or the device is open and has moved so many bytes.

    False when the run ended before.
    """
    run = _runs[number]

    def reached() -> bool:
        if step is not None:
            return step in run.seen
        return bool(run.device) and run.moved() >= moved

    return _wait(run, reached, seconds)


def after(number: int, seconds: float) -> bool:
    """Wait until a run has had its journal for so long. False when the run ended before."""
    run = _runs[number]

    def reached() -> bool:
        return "start" in run.seen and time.time() >= run.seen["start"] + seconds

    return _wait(run, reached, 300)


def _wait(run: Run, reached: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not reached():
        if "ended" in run.seen:
            return False
        if time.monotonic() > deadline:
            raise RuntimeError(f"the run did not come so far; it was seen at {run.seen}")
        time.sleep(_PAUSE / 2)
    return True


def _has_ended(pid: int) -> bool:
    return read(f"/proc/{pid}/stat").rpartition(")")[2].split()[:1] in ([], ["Z"])


def send(number: int, name: str) -> None:
    """Send a signal: STOP, CONT, KILL."""
    os.kill(number, getattr(signal, f"SIG{name}"))
