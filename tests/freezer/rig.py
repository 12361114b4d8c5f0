# SPDX-License-Identifier: Apache-2.0
"""Freezer's services beside the embedded cloud, as processes of their own.

The cloud's Keystone knows them: user ``freezer``, service ``backup``. A cloud with all of that in
its databases is kept as a snapshot, so that the next run need not make it again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from devstack.embedded import embedded_cloud
from devstack.embedded.embedded_cloud import seeding, virtualenv
from devstack.embedded.embedded_cloud.client import EmbeddedCloud
from tests.environments import Environment, locked

HERE = pathlib.Path(__file__).resolve().parent
SERVICES = Environment(HERE / "requirements.txt", "freezer-services", "FREEZER_OSBRICK_SERVICES")
_KEPT = ("cloud.json", "keystone", "cinder")  # what of a cloud a snapshot holds
_PATIENCE = 600.0  # seconds until a job that does not end is given up


# -- the cloud -------------------------------------------------------------------------------------


def bring_up(cloud: EmbeddedCloud) -> None:
    """Start a new cloud whose Keystone knows Freezer: from the snapshot where there is one."""
    SERVICES.folder.mkdir(parents=True, exist_ok=True)
    snapshot = SERVICES.folder / f"cloud-{_fingerprint()}.tar"
    with locked(SERVICES.folder):
        if not snapshot.exists():
            cloud.up()
            _seed(cloud)
            cloud.down()
            _save(cloud.state.folder, snapshot)
    if not cloud.state.settings:
        cloud.state.folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(snapshot) as archive:
            archive.extractall(cloud.state.folder, filter="data")
        cloud.state.load()
    cloud.up()


def _fingerprint() -> str:
    """Changes with all that makes the cloud's databases what they are."""
    found = hashlib.sha256(sys.version.encode())
    folder = pathlib.Path(embedded_cloud.__file__).parent
    for path in (virtualenv.REQUIREMENTS, pathlib.Path(__file__), *sorted(folder.rglob("*.py"))):
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def _seed(cloud: EmbeddedCloud) -> None:
    session = seeding.admin_session(cloud.state)
    keystone = seeding.Identity(session, cloud.state.auth_url)
    password = cloud.state.settings["passwords"].setdefault("freezer", os.urandom(12).hex())
    project = keystone.ensure("project", "service", domain_id="default")
    user = keystone.user("freezer", password)
    keystone.grant(project["id"], user["id"], "admin", "service")
    keystone.ensure("service", "freezer", type="backup")
    cloud.state.save()


def _save(folder: pathlib.Path, snapshot: pathlib.Path) -> None:
    settings = json.loads((folder / "cloud.json").read_text())
    for name in ("pool_kind", "reflink"):  # of a pool that the new cloud will make for itself
        settings.pop(name, None)
    (folder / "cloud.json").write_text(json.dumps(settings))
    part = snapshot.with_suffix(".part")
    with tarfile.open(part, "w") as archive:
        for name in _KEPT:
            archive.add(folder / name, name)
    part.chmod(0o600)  # it holds passwords
    part.rename(snapshot)


# -- freezer-api -----------------------------------------------------------------------------------


@contextlib.contextmanager
def freezer_api(cloud: EmbeddedCloud, folder: pathlib.Path, database: str) -> Iterator[str]:
    """A running freezer-api, in the cloud's catalogue; its address.

    :param database: its URL, an empty one or of an earlier freezer-api.
    """
    with SERVICES.server(
        HERE / "services" / "freezer_api_server.py",
        *(str(folder), cloud.state.auth_url, database),
        log=folder / "freezer-api.out",
        FREEZER_API_PASSWORD=cloud.state.settings["passwords"]["freezer"],
    ) as told:
        address = f"http://127.0.0.1:{told['port']}"
        keystone = seeding.Identity(seeding.admin_session(cloud.state), cloud.state.auth_url)
        # Bare: freezerclient puts the version behind it itself.
        keystone.endpoints(keystone.ensure("service", "freezer", type="backup")["id"], address)
        yield address


@contextlib.contextmanager
def mariadb(folder: pathlib.Path) -> Iterator[str]:
    """An empty database of a MariaDB server of its own; its URL."""
    data, socket = folder / "data", folder / "socket"
    data.mkdir(parents=True)
    owner = ["--user=root"] if os.geteuid() == 0 else []
    with open(folder / "mariadb.out", "wb") as output:
        common = ["--no-defaults", f"--datadir={data}", *owner]
        subprocess.run(
            ["mariadb-install-db", *common, "--auth-root-authentication-method=normal"],
            check=True,
            stdout=output,
            stderr=output,
        )
        server = subprocess.Popen(
            [shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin") or "mariadbd"]
            + [*common, "--skip-networking", f"--socket={socket}"]
            + [f"--pid-file={folder / 'pid'}", "--character-set-server=utf8mb4"],
            stdout=output,
            stderr=output,
        )
    try:
        query = ["mariadb", "--no-defaults", f"--socket={socket}", "--user=root", "--execute"]
        wait_for(lambda: not subprocess.run([*query, "select 1"], capture_output=True).returncode)
        subprocess.run([*query, "create database freezer"], check=True)
        yield f"mysql+pymysql://root@localhost/freezer?unix_socket={socket}"
    finally:
        server.terminate()
        server.wait()


# -- images and servers ----------------------------------------------------------------------------

# Service, its type, and the path of its stand-in.
_IMAGES = (
    ("glance", "image", "/image"),
    ("nova", "compute", "/compute/v2.1"),
    ("neutron", "network", "/network"),
)


@contextlib.contextmanager
def images(cloud: EmbeddedCloud, folder: pathlib.Path) -> Iterator[dict[str, Any]]:
    """An image and a server of one, for as long; their ids, and ``port``."""
    session = seeding.admin_session(cloud.state)
    keystone = seeding.Identity(session, cloud.state.auth_url)
    script = HERE / "services" / "images_server.py"
    with SERVICES.server(script, log=folder / "images.out") as told:
        ids = {name: keystone.ensure("service", name, type=kind)["id"] for name, kind, _ in _IMAGES}
        for name, _, path in _IMAGES:
            keystone.endpoints(ids[name], f"http://127.0.0.1:{told['port']}{path}")
        try:
            yield told
        finally:
            session.request("DELETE", f"{cloud.state.auth_url}/services/{ids.pop('neutron')}")
            for name, _, path in _IMAGES:
                if name in ids:
                    keystone.endpoints(ids[name], cloud.state.cinder_root + path)


# -- Horizon ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def horizon(
    cloud: EmbeddedCloud, folder: pathlib.Path, *, with_plugin: bool = True
) -> Iterator[str]:
    """A running Horizon with freezer-web-ui; its address."""
    with SERVICES.server(
        HERE / "services" / "horizon_server.py",
        *(str(folder), cloud.state.auth_url, *([] if with_plugin else ["--without-plugin"])),
        log=folder / "horizon.out",
    ) as told:
        yield f"http://127.0.0.1:{told['port']}"


# -- freezer-scheduler -----------------------------------------------------------------------------


class Scheduler:
    """A freezer-scheduler that was started.

    :ivar jobs: its folder of jobs.
    :ivar log_file: what it and its agents' standard error say.
    """

    def __init__(self, process: subprocess.Popen[bytes], folder: pathlib.Path) -> None:
        self.process = process
        self.jobs = folder / "jobs"
        self.log_file = folder / "scheduler.log"

    def log(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    def agents(self) -> list[int]:
        """The process ids of the agents that it runs."""
        found = pathlib.Path(f"/proc/{self.process.pid}/task")
        children = " ".join(path.read_text() for path in found.glob("*/children"))
        return [int(pid) for pid in children.split()]


@contextlib.contextmanager
def scheduler(
    folder: pathlib.Path, environment: dict[str, str], *, api: bool = True, **options: str
) -> Iterator[Scheduler]:
    """A freezer-scheduler that looks for jobs every second.

    :param environment: of it and its agents.
    :param options: further ones of ``[scheduler]``.
    """
    (folder / "jobs").mkdir(parents=True, exist_ok=True)
    given = {"no_daemon": "True", "interval": "1", "jobs_dir": str(folder / "jobs"), **options}
    if not api:
        given["no_api"] = "True"
    lines = [f"{name} = {value}" for name, value in given.items()]
    settings = folder / "scheduler.conf"
    settings.write_text(
        "\n".join(["[scheduler]", *lines, "[DEFAULT]", f"log_file = {folder}/scheduler.log", ""])
    )
    program = pathlib.Path(sys.executable).with_name("freezer-scheduler")
    with open(folder / "scheduler.out", "ab") as output:
        process = subprocess.Popen(
            [program, "--config-file", settings, "start"],
            env={**environment, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    running = Scheduler(process, folder)
    try:
        yield running
    finally:
        agents = running.agents()
        process.kill()
        process.wait()
        for pid in agents:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)


def wait_for(condition: Callable[[], Any], seconds: float = _PATIENCE) -> Any:
    """Wait until the condition gives something true; returns that."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.2)
    return found
