# SPDX-License-Identifier: Apache-2.0
"""The cloud's own virtual environment, made of the pinned requirements beside this package."""

from __future__ import annotations

import fcntl
import importlib.metadata
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable

from .errors import CloudError

REQUIREMENTS = pathlib.Path(__file__).resolve().parents[1] / "requirements.txt"
OLDEST_PYTHON = (3, 11)  # Cinder 29 asks for it


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    """The requirements: normalised name → version."""
    found = {}
    for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines():
        line = line.partition("#")[0].strip()
        if line:
            name, _, version = line.partition("==")
            found[_normal(name)] = version
    return found


def site_packages(venv: pathlib.Path) -> pathlib.Path | None:
    """The folder of the environment's packages, or None when there is no environment."""
    return next(iter(sorted(venv.glob("lib/python3*/site-packages"))), None)


def missing(venv: pathlib.Path) -> list[str]:
    """The requirements that the environment does not fulfil, as ``name==version``."""
    folder = site_packages(venv)
    installed = {}
    if folder is not None and (venv / "bin" / "python").exists():
        for distribution in importlib.metadata.distributions(path=[str(folder)]):
            installed[_normal(distribution.metadata["Name"])] = distribution.version
    return [
        f"{name}=={version}" for name, version in pins().items() if installed.get(name) != version
    ]


def ensure(venv: pathlib.Path, say: Callable[[str], None]) -> pathlib.Path:
    """Make the environment, or complete it; returns its Python.

    Several clouds may share one environment: a lock lets one of them fill it.
    """
    python = venv / "bin" / "python"
    if not missing(venv):
        return python
    venv.parent.mkdir(parents=True, exist_ok=True)
    with open(venv.with_name(venv.name + ".lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if missing(venv):
            if not python.exists():
                say(f"making the cloud's environment in {venv}")
                _create(venv)
            say(f"installing {len(missing(venv))} packages into it (a minute or two)")
            _run(
                [
                    str(python),
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    "--disable-pip-version-check",
                    "-r",
                    str(REQUIREMENTS),
                ],
                "the cloud's packages cannot be installed",
            )
    return python


def _create(venv: pathlib.Path) -> None:
    if sys.version_info < OLDEST_PYTHON:
        raise CloudError("the embedded cloud needs Python 3.11 or newer, as Cinder 29 does")
    try:
        _run([sys.executable, "-m", "venv", str(venv)], "the environment cannot be made")
        return
    except CloudError as error:  # Debian's python3 without its python3-venv package
        reason = error
    shutil.rmtree(venv, ignore_errors=True)
    virtualenv = shutil.which("virtualenv")
    if virtualenv is None:
        raise CloudError(f"{reason}\nOn Debian: apt-get install python3-venv")
    _run([virtualenv, "--quiet", "-p", sys.executable, str(venv)], "the environment cannot be made")


def _run(command: list[str], failure: str) -> None:
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        tail = "\n".join(done.stdout.strip().splitlines()[-6:])
        raise CloudError(f"{failure}: {tail}")
