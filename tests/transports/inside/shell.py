# SPDX-License-Identifier: Apache-2.0
"""Commands of the guest."""

from __future__ import annotations

import pathlib
import socket
import subprocess
import time
from collections.abc import Callable
from typing import Any


def hostname() -> str:
    """The guest's name, which says that it answers."""
    return socket.gethostname()


def run(*command: str, check: bool = True) -> str:
    """Standard output of a command; it must succeed unless ``check`` says otherwise."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if check and done.returncode:
        told = (done.stdout + done.stderr).strip()
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {told}")
    return done.stdout


def script(text: str) -> list[Any]:
    """Exit status, output and errors of a script, for tests that want to look at something."""
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True)
    return [done.returncode, done.stdout, done.stderr]


def write(path: str | pathlib.Path, text: str) -> None:
    """Write an attribute of the kernel's, or a small file."""
    pathlib.Path(path).write_text(text)


def read(path: str | pathlib.Path) -> str:
    """An attribute of the kernel's; empty if it is not there."""
    try:
        return pathlib.Path(path).read_text().strip()
    except OSError:
        return ""


def until(condition: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """Wait for something to become true; returns it."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} did not happen within {seconds:.0f} s")
        time.sleep(0.3)  # a look is dear on an emulated processor
