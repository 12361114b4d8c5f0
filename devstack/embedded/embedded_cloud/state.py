# SPDX-License-Identifier: Apache-2.0
"""The state folder: where everything lies, and what has to stay the same between two ``up``s."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import random
import secrets
import shutil
import socket
from collections.abc import Iterator
from typing import Any

from .errors import CloudError

CHECKOUT = pathlib.Path(__file__).resolve().parents[3]
PROJECTS = ("demo", "other", "admin")
SERVICES = ("keystone", "cinder")
REGION = "RegionOne"
_PORTS = range(20000, 32000)  # below the ports that the kernel hands out by itself


def default_folder() -> pathlib.Path:
    """The state folder when none is named on the command line."""
    named = os.environ.get("EMBEDDED_CLOUD_STATE")
    return pathlib.Path(named) if named else CHECKOUT / ".embedded-cloud"


def default_venv() -> pathlib.Path:
    """The virtual environment when none is named on the command line."""
    named = os.environ.get("EMBEDDED_CLOUD_VENV")
    return pathlib.Path(named) if named else CHECKOUT / ".embedded-cloud" / "venv"


def write_atomically(path: pathlib.Path, text: str, mode: int = 0o644) -> None:
    """Replace a file so that a reader sees the old text or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.replace(temporary, path)


class State:
    """The paths and settings of one cloud.

    ``settings`` is the content of ``cloud.json``: ports, passwords, attach kind, pool kind, the
    environment in use. It holds passwords, so the file is readable by its owner only.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = pathlib.Path(folder).expanduser().absolute()
        self.settings_file = self.folder / "cloud.json"
        self.log = self.folder / "log"
        self.run = self.folder / "run"
        self.keystone = self.folder / "keystone"
        self.cinder = self.folder / "cinder"
        self.ceph = self.folder / "ceph"
        self.pool = self.folder / "pool"
        self.pool_image = self.folder / "pool.img"
        self.faults_file = self.folder / "faults.json"
        self.api_faults_file = self.folder / "api_faults.json"
        self.servers_file = self.folder / "servers.json"
        self.settings: dict[str, Any] = {}
        if self.settings_file.exists():
            self.load()

    # -- the settings

    def load(self) -> None:
        """Read ``cloud.json`` again."""
        try:
            self.settings = json.loads(self.settings_file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CloudError(f"{self.settings_file} cannot be read: {error}") from error

    def save(self) -> None:
        """Write ``cloud.json``."""
        text = json.dumps(self.settings, indent=2, sort_keys=True)
        write_atomically(self.settings_file, text + "\n", 0o600)

    def exists(self) -> bool:
        """Whether an ``up`` has ever begun here."""
        return bool(self.settings)

    def create(self) -> None:
        """Make the folders, and the passwords unless they are there."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for folder in (self.log, self.run, self.keystone, self.cinder, self.pool):
                folder.mkdir(exist_ok=True)
        except OSError as error:
            raise CloudError(f"the state folder cannot be made: {error}") from error
        for folder in (self.log, self.run, self.keystone, self.cinder):
            folder.chmod(0o700)
        passwords = self.settings.setdefault("passwords", {})
        for user in (*PROJECTS, "cinder"):
            passwords.setdefault(user, secrets.token_urlsafe(12))
        self.save()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second ``up`` or ``down`` of the same state out until this one is done."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "lock", "w", encoding="utf-8") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            if self.settings_file.exists():  # whoever had the lock may have written it
                self.load()
            yield

    def wipe(self) -> None:
        """Remove what an ``up`` made. A virtual environment inside the folder is kept."""
        for folder in (self.log, self.run, self.keystone, self.cinder, self.ceph, self.pool):
            if folder.is_mount():
                raise CloudError(f"{folder} is still mounted; nothing below it was removed")
            shutil.rmtree(folder, ignore_errors=True)
        files = [self.pool_image, self.faults_file, self.api_faults_file, self.servers_file]
        files += [self.openrc(project) for project in PROJECTS]
        for path in (*files, self.settings_file, self.folder / "lock"):
            path.unlink(missing_ok=True)
        self.settings = {}
        with contextlib.suppress(OSError):  # a virtual environment, or a stranger's file
            self.folder.rmdir()

    # -- ports and addresses

    def listener(self, service: str) -> socket.socket:
        """Bind the service's port: the one it had, or a free one when that is taken.

        The bound socket is handed to the service, so nobody can take the port in between.
        """
        ports = self.settings.setdefault("ports", {})
        candidates = [ports[service]] if service in ports else []
        candidates += random.sample(_PORTS, 200)
        for port in candidates:
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                listener.close()
                continue
            if ports.get(service) != port:
                ports[service] = port
                self.save()
            return listener
        raise CloudError("no free port was found on 127.0.0.1 between 20000 and 32000")

    @property
    def auth_url(self) -> str:
        """Keystone's address."""
        return f"http://127.0.0.1:{self._port('keystone')}/v3"

    @property
    def cinder_root(self) -> str:
        """The address that Cinder, the compute and the image stand-in share."""
        return f"http://127.0.0.1:{self._port('cinder')}"

    def _port(self, service: str) -> int:
        try:
            return int(self.settings["ports"][service])
        except KeyError:
            raise CloudError(f"there is no cloud in {self.folder}: bring it up first") from None

    # -- the users

    def openrc(self, project: str) -> pathlib.Path:
        """The file that a shell sources to act as the project's user."""
        return self.folder / f"{project}rc"

    def environment(self, project: str) -> dict[str, str]:
        """The ``OS_*`` variables with which a client acts as the project's user."""
        if project not in PROJECTS:
            raise CloudError(f"there is no project {project}; choose one of {', '.join(PROJECTS)}")
        return {
            "OS_AUTH_URL": self.auth_url,
            "OS_USERNAME": project,
            "OS_PASSWORD": self.settings["passwords"][project],
            "OS_PROJECT_NAME": project,
            "OS_USER_DOMAIN_NAME": "Default",
            "OS_USER_DOMAIN_ID": "default",
            "OS_PROJECT_DOMAIN_NAME": "Default",
            "OS_PROJECT_DOMAIN_ID": "default",
            "OS_IDENTITY_API_VERSION": "3",
            "OS_AUTH_VERSION": "3",
            "OS_REGION_NAME": REGION,
            "OS_VOLUME_API_VERSION": "3",
        }

    def write_openrc(self) -> None:
        """Write one openrc file a project, readable by its owner only."""
        for project in PROJECTS:
            lines = [f"export {k}={v}\n" for k, v in self.environment(project).items()]
            write_atomically(self.openrc(project), "".join(lines), 0o600)
