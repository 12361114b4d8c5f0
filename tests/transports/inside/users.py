# SPDX-License-Identifier: Apache-2.0
"""Our package in the guest, and the user who runs it without being root."""

from __future__ import annotations

import os
import pathlib
import shutil
import tarfile

from .shell import run

ENVIRONMENT = pathlib.Path("/opt/osbrick")
USER = "freezer"
REPOSITORY = "/srv/backups"
_DELIVERED = "/srv/delivered"
_RULES = pathlib.Path("/srv/code/etc/sudoers.d/freezer-osbrick")

_SETTINGS = """\
[osbrick]
state_path = {state_path}
[cloud]
poll_interval = 5
[device]
my_ip = 10.77.1.1
hostname = storage-guest
[repository:nightly]
url = file://{repository}
"""


def settle() -> None:
    """The users, their configuration and folders, and what the one who is not root may do."""
    _settle("root", "/root")
    run("useradd", "--create-home", "--groups", "disk", USER)
    _settle(USER, f"/home/{USER}")
    _allow()


def install() -> str:
    """Install the package that was delivered as a wheel; returns its version."""
    with tarfile.open("/dev/disk/by-id/virtio-delivery") as delivery:
        delivery.extractall(_DELIVERED)
    (wheel,) = pathlib.Path(_DELIVERED).glob("*.whl")
    pip = [str(ENVIRONMENT / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    quick = ("--disable-pip-version-check", "--no-compile", "--no-deps", "--no-index")
    run(*pip, *quick, str(wheel))
    return wheel.name.split("-")[1]


def home(user: str) -> str:
    """The user's home folder."""
    return "/root" if user == "root" else f"/home/{user}"


def state_path(user: str) -> str:
    """Where the user's runs keep their journals."""
    return f"{home(user)}/state"


def repository(user: str) -> str:
    """The folder of the user's backups."""
    return f"{REPOSITORY}-{user}"


def _settle(user: str, folder: str) -> None:
    """The user's configuration, the folders that it names."""
    settings = _SETTINGS.format(state_path=state_path(user), repository=repository(user))
    config = pathlib.Path(folder, ".config")
    config.mkdir(exist_ok=True)
    (config / "freezer-osbrick.conf").write_text(settings)
    for path in (state_path(user), repository(user)):
        os.makedirs(path, mode=0o700)
        shutil.chown(path, user, user)
    shutil.chown(config, user, user)
    shutil.chown(config / "freezer-osbrick.conf", user, user)


def _allow() -> None:
    """The rules for sudo that we ship, with the path of this installation, as the manual says."""
    rules = _RULES.read_text()
    shipped = "/usr/bin/privsep-helper"
    if shipped not in rules:
        raise RuntimeError(f"{_RULES} does not name {shipped}")
    target = pathlib.Path("/etc/sudoers.d/freezer-osbrick")
    target.write_text(rules.replace(shipped, str(ENVIRONMENT / "bin" / "privsep-helper")))
    target.chmod(0o440)
    run("visudo", "--check", "--quiet")
