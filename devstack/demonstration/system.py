# SPDX-License-Identifier: Apache-2.0
"""Programs of the system: running them, and installing what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable

from .errors import DemoError

# program → Debian package; the second half is for root only, who has loop devices
PROGRAMS = {"mkfs.ext4": "e2fsprogs", "mkfs.xfs": "xfsprogs"}
PROGRAMS_OF_ROOT = {"mount": "mount", "losetup": "mount", "fsfreeze": "util-linux"}


def is_root() -> bool:
    return os.geteuid() == 0


def run(*command: str | os.PathLike[str]) -> str:
    """Run a program; returns what it printed.

    :raises DemoError: it failed, or is not there; with its last line.
    """
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise DemoError(f"{command[0]} cannot be run: {error.strerror}") from error
    if done.returncode:
        line = (done.stdout.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise DemoError(f"{' '.join(str(word) for word in command)} failed: {line}")
    return done.stdout


def provide_packages(say: Callable[[str], None]) -> None:
    """Make sure that the programs are there: root installs what is missing.

    :raises DemoError: they are missing, and only root could install them.
    """
    wanted = {**PROGRAMS, **(PROGRAMS_OF_ROOT if is_root() else {})}
    missing = sorted({package for program, package in wanted.items() if not shutil.which(program)})
    if not missing:
        return
    if not is_root():
        raise DemoError(f"these Debian packages are missing: apt-get install {' '.join(missing)}")
    say(f"installing Debian packages: {' '.join(missing)}")
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    run("apt-get", "update", "-qq")
    run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing)
