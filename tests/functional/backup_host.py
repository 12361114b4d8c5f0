# SPDX-License-Identifier: Apache-2.0
"""A backup host with the real freezer-agent and freezer-osbrick, run as processes of their own."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from devstack.embedded.embedded_cloud.client import EmbeddedCloud
from tests.functional.workbench import CHECKOUT, Workbench

MIB = 1 << 20
GIB = 1 << 30
_PAUSE = 0.002  # seconds between two looks at a process: a moment to kill it at may be short

_OURS = ("freezer-osbrick", "freezer-agent", "privsep-helper")

SETTINGS = """\
[osbrick]
state_path = {state_path}
[cloud]
poll_interval = 0.2
[device]
my_ip = 127.0.0.1
[repository:nightly]
url = file://{repository}
"""


def _running() -> Iterator[tuple[str, bytes]]:
    """Command lines and environments of all processes that can be looked at."""
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            yield line, (folder / "environ").read_bytes()


@dataclasses.dataclass
class Done:
    """A process that ended.

    :ivar peak: the most memory it ever had resident, in bytes.
    """

    status: int
    stdout: str
    stderr: str
    peak: int

    @property
    def record(self) -> dict[str, Any]:
        """What the agent told of the one volume, after a success."""
        (volume,) = self.document["osbrick"]["volumes"]
        return dict(volume)

    @property
    def document(self) -> dict[str, Any]:
        """What the program printed as one JSON object, after a success."""
        assert self.status == 0, self.stderr
        return dict(json.loads(self.stdout))

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What the command printed with ``-f json``, after a success."""
        assert self.status == 0, self.stderr
        return list(json.loads(self.stdout))

    @property
    def error(self) -> str:
        """The one line that a person sees of a failure."""
        assert self.status > 0, self.stdout
        assert "Traceback" not in self.stdout + self.stderr
        lines = [line for line in self.stderr.splitlines() if line.strip()]
        told = [line for line in lines if line.startswith("Critical Error: ")] or lines[-1:]
        assert len(told) == 1, self.stderr
        return told[0].removeprefix("Critical Error: ")


class Running:
    """A process that was started."""

    def __init__(self, line: list[str], env: dict[str, str], folder: pathlib.Path) -> None:
        number = len(list(folder.glob("*.out")))
        self._out = folder / f"{number}.out"
        self._err = folder / f"{number}.err"
        with open(self._out, "w") as out, open(self._err, "w") as err:
            self._process = subprocess.Popen(
                line, env=env, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )

    def wait(self) -> Done:
        peak = 0
        while self._process.poll() is None:
            peak = max(peak, self._peak())
            time.sleep(_PAUSE)
        stdout, stderr = self._out.read_text(), self._err.read_text()
        return Done(self._process.returncode, stdout, stderr, peak)

    def _peak(self) -> int:
        """Bytes of memory at the most, so far. Not of wait4: Linux lets that begin with what the
        parent had."""
        try:
            status = pathlib.Path(f"/proc/{self._process.pid}/status").read_text()
        except OSError:
            return 0
        found = re.search(r"VmHWM:\s*(\d+) kB", status)
        return int(found[1]) * 1024 if found else 0

    @property
    def processor_seconds(self) -> float:
        """That it and its children have used so far; it must live."""
        line = pathlib.Path(f"/proc/{self._process.pid}/stat").read_text()
        ticks = line.rpartition(")")[2].split()[
            11:15
        ]  # user and system, its own and its children's
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until the condition holds; the process must live then."""
        while not condition():
            ended = self._process.poll()
            assert ended is None, f"ended with {ended}: {self._err.read_text()}"
            time.sleep(_PAUSE)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Let it stand still, alive, for a while."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def send(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def kill_when(self, condition: Callable[[], object]) -> None:
        self.until(condition)
        self._process.kill()
        assert self._process.wait() == -9, "the moment had passed"


class BackupHost:
    """A home folder, a repository, a state folder; acts as the project ``demo``."""

    def __init__(self, bench: _Bench, folder: pathlib.Path) -> None:
        self.bench = bench
        self.folder = folder
        self.repository = folder / "backups"
        self.temporary = folder / "tmp"
        self.log_file = folder / "home" / ".freezer" / "freezer.log"
        self._home = folder / "home"
        self._output = folder / "output"
        for path in (self.temporary, self._output, self._home / ".config"):
            path.mkdir(parents=True)
        # Read by the command and by the agent.
        (self._home / ".config" / "freezer-osbrick.conf").write_text(
            SETTINGS.format(state_path=bench.state_path, repository=self.repository)
        )

    # -- programs

    def environment(self, project: str) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("OS_")}
        return {
            **kept,
            **self.bench.embedded.env(project),
            "HOME": str(self._home),
            "TMPDIR": str(self.temporary),
            "PYTHONWARNINGS": "ignore",
        }

    def start(self, program: str, *words: str, project: str = "demo", **more: str) -> Running:
        """Start a program of this Python environment.

        :param more: further variables of the environment.
        """
        path = pathlib.Path(sys.executable).with_name(program)
        if not path.exists():
            pytest.skip(f"{program} is not installed beside {sys.executable}")
        env = {**self.environment(project), **more}
        return Running([str(path), *words], env, self._output)

    def module(self, name: str, *words: str, project: str = "demo") -> Done:
        """A program of the tests' own, run as a module."""
        line = [sys.executable, "-m", name, *words]
        env = {**self.environment(project), "PYTHONPATH": str(CHECKOUT)}
        return Running(line, env, self._output).wait()

    def start_agent(
        self, action: str, volume_id: str, *options: str, project: str = "demo"
    ) -> Running:
        """Start freezer-agent with our engine, this host's repository and one volume."""
        return self.start(
            "freezer-agent",
            *("--action", action, "--engine", "osbrick", "--storage", "local"),
            *("--container", str(self.repository), "--backup-name", "nightly"),
            *("--single-volume-id", volume_id, "--metadata-out", "-", *options),
            project=project,
        )

    def agent(self, action: str, volume_id: str, *options: str, project: str = "demo") -> Done:
        return self.start_agent(action, volume_id, *options, project=project).wait()

    def backup(self, volume_id: str, *options: str) -> dict[str, Any]:
        """A backup by the agent that succeeds; what it told."""
        return self.agent("backup", volume_id, *options).record

    def restore(self, volume_id: str, *options: str) -> dict[str, Any]:
        """A restore by the agent that succeeds; what it told. The restored volume is the user's."""
        told = self.agent("restore", volume_id, *options).record
        self.bench.users_own(told["restored_volume_id"])
        return told

    def command(self, *words: str, project: str = "demo") -> Done:
        """freezer-osbrick, with this host's repository where the command takes one."""
        if words[0] != "cleanup":
            words = (*words, "--repository", "nightly")
        return self.start("freezer-osbrick", *words, project=project).wait()

    def listed(self, *words: str) -> list[dict[str, Any]]:
        """The backups of the repository, oldest first."""
        return self.command("list", "-f", "json", *words).rows

    def objects(self) -> set[str]:
        """The names of all files in the repository."""
        return {str(path) for path in self.repository.rglob("*") if path.is_file()}

    # -- what a run has done so far

    def journal(self) -> list[dict[str, Any]]:
        """The lines of the journals of runs that have not ended, or died."""
        lines = []
        for path in (self.bench.state_path / "ledger").glob("*.journal"):
            try:
                text = path.read_text()
            except FileNotFoundError:
                continue
            # The last line may be half written.
            lines += [json.loads(line) for line in text.split("\n")[:-1]]
        return lines

    def step(self, step: str, **facts: str) -> Callable[[], bool]:
        """The condition that a journal has such a line."""
        return lambda: any(
            line["step"] == step and facts.items() <= line.items() for line in self.journal()
        )

    def leftovers(self) -> dict[str, list[str]]:
        """What is there beside the user's volumes and the backups; empty if there is nothing."""
        left = self.bench.leftovers()
        mounts = pathlib.Path("/proc/self/mounts").read_text().splitlines()
        left["mounts"] = [line for line in mounts if str(self.folder) in line]
        left["temporary files"] = [str(path) for path in self.temporary.rglob("*")]
        ledger = self.bench.state_path / "ledger"
        if ledger.exists():
            left["ledger"] = [path.name for path in ledger.iterdir() if path.name != "id"]
        left["processes"] = self._processes()
        return {kind: items for kind, items in left.items() if items}

    def _processes(self) -> list[str]:
        """The commands that still run of those that were started here, their children included.

        A helper ends a moment after the process that it helped: they are waited for.
        """
        mark = f"TMPDIR={self.temporary}".encode()
        for _ in range(600):
            found = [line for line, environ in _running() if mark in environ.split(b"\0")]
            found = [line for line in found if any(name in line for name in _OURS)]
            if not found:
                return []
            time.sleep(1)
        return found

    # -- volumes

    def digest(self, volume_id: str) -> str:
        return digest(self.bench.file_of(volume_id))

    def write(self, volume_id: str, offset: int, data: bytes) -> None:
        """Change an available volume."""
        with open(self.bench.file_of(volume_id), "r+b") as file:
            file.seek(offset)
            file.write(data)

    def drop(self, volume_id: str) -> None:
        """Delete a volume of the user's before the test ends."""
        self.bench.embedded.delete_volume(volume_id)
        self.bench.forget(volume_id)


class _Bench(Workbench):
    def forget(self, volume_id: str) -> None:
        self._made.remove(volume_id)


@contextlib.contextmanager
def backup_host(cloud: EmbeddedCloud, folder: pathlib.Path) -> Iterator[BackupHost]:
    """A backup host; at the end its user's volumes are deleted, and nothing else may be there."""
    bench = _Bench(cloud, folder / "state")
    host = BackupHost(bench, folder)
    try:
        yield host
        left = host.leftovers()
        assert not left, left
    finally:
        bench.close()


def data_of(seed: int, size: int) -> bytes:
    """Bytes that no compression makes smaller."""
    return random.Random(seed).randbytes(size)


def digest(path: pathlib.Path) -> str:
    """A check sum of what a sparse file reads as, whichever of its zeros are holes."""
    found = hashlib.sha256(str(path.stat().st_size).encode())
    with open(path, "rb") as file:
        for offset in _blocks_with_data(file.fileno()):
            block = os.pread(file.fileno(), MIB, offset)
            if block.strip(b"\0"):
                found.update(offset.to_bytes(8, "little") + block)
    return found.hexdigest()


def _blocks_with_data(descriptor: int) -> Iterator[int]:
    """The offsets of the blocks of 1 MiB that are not all hole."""
    offset = 0
    while True:
        try:
            data = os.lseek(descriptor, offset, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole follows
            return
        offset = data // MIB * MIB
        yield offset
        offset += MIB


def date_of(time_stamp: int) -> str:
    """A time as ``--restore-from-date`` takes it."""
    moment = datetime.datetime.fromtimestamp(time_stamp, datetime.timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
