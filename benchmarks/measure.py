# SPDX-License-Identifier: Apache-2.0
"""What a command costs as a whole process."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import subprocess
import time
from collections.abc import Mapping, Sequence


class Failed(Exception):
    """A command did not end well."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """
    :param wall: seconds until the command had ended and what it wrote was durable.
    :param cpu: seconds, user and system, of the process and all that it started and waited for.
    :param memory: bytes of the largest resident set among these processes.
    """

    wall: float
    cpu: float
    memory: int


def run(
    command: Sequence[str | os.PathLike[str]],
    *,
    log: pathlib.Path,
    written: pathlib.Path,
    environment: Mapping[str, str] | None = None,
    folder: pathlib.Path | None = None,
) -> Cost:
    """Run a command and measure it.

    :param log: gets what it prints.
    :param written: file or folder that it writes to. What of it is not durable when the command
        ends is synced and the time counted: some programs sync, others leave it to the kernel.
    :raises Failed: it ended with a status other than 0.
    """
    begun_at = time.time()
    begun = time.monotonic()
    with open(log, "ab") as out:
        out.write(f"\n$ {' '.join(map(str, command))}\n".encode())
        out.flush()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            cwd=folder,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    _sync(written, begun_at - 1)
    wall = time.monotonic() - begun
    if process.returncode:
        told = log.read_text(errors="replace").strip().splitlines()[-1:]
        raise Failed(f"exit status {process.returncode}: {' '.join(told)}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def stored(folder: pathlib.Path) -> int:
    """Bytes of all files in a folder, or of one file."""
    return sum(path.stat().st_size for path in _files(folder))


def warm(path: pathlib.Path) -> None:
    """Bring a file into the page cache."""
    buffer = bytearray(1 << 22)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def _sync(path: pathlib.Path, since: float) -> None:
    for file in _files(path):
        if file.stat().st_mtime >= since:
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _files(path: pathlib.Path) -> list[pathlib.Path]:
    if path.is_file():
        return [path]
    return [file for file in path.rglob("*") if file.is_file() and not file.is_symlink()]
