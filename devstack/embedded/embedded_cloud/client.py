# SPDX-License-Identifier: Apache-2.0
"""The embedded cloud as a test sees it: its users, its faults, its pretended servers."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from typing import Any

from . import ceph, loop, servers
from .errors import ApiError, CloudError
from .process import Service
from .rest import Session, answers
from .state import PROJECTS, REGION, SERVICES, State, default_folder, write_atomically

_LAUNCHER = pathlib.Path(__file__).resolve().parents[1] / "cloud.py"
_FAILED = ("error", "error_deleting", "error_extending", "error_restoring")


class EmbeddedCloud:
    """A cloud in a state folder. Needs the standard library only, and any Python from 3.10 on."""

    def __init__(self, state: str | os.PathLike[str] | None = None) -> None:
        self.state = State(state if state is not None else default_folder())
        self._sessions: dict[str, Session] = {}

    # -- up, down, status

    def up(self, *arguments: str) -> None:
        """``cloud.py up``, with further arguments of the command; idempotent."""
        self._launch("up", *arguments)
        self.state.load()
        self._sessions.clear()

    def down(self, wipe: bool = False) -> None:
        """``cloud.py down``: stop all; with ``wipe`` remove the state as well."""
        self._launch("down", *(["--wipe"] if wipe else []))
        if wipe:
            self.state.settings = {}
            self._sessions.clear()

    def _launch(self, command: str, *arguments: str) -> None:
        line = [sys.executable, str(_LAUNCHER), command, "--state", str(self.state.folder)]
        done = subprocess.run(
            [*line, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise CloudError(f"cloud.py {command} failed: {done.stdout.strip()}")

    def status(self) -> dict[str, Any]:
        """All that ``cloud.py status --json`` prints; ``running`` says whether it answers."""
        state = self.state
        if not state.exists() or "ports" not in state.settings:
            return {"running": False, "state": str(state.folder)}
        settings = state.settings
        pids = {name: Service(state, name).pid() for name in SERVICES}
        cluster = ceph.Cluster(state)
        if "ceph" in settings:
            pids.update({name: Service(state, name).pid() for name in ("ceph-mon", "ceph-osd")})
        listening = answers(state.auth_url) and answers(state.cinder_root + "/healthcheck")
        return {
            "running": None not in pids.values() and listening,
            "state": str(state.folder),
            "venv": settings.get("venv"),
            "auth_url": state.auth_url,
            "cinder_url": state.cinder_root + "/v3",
            "compute_url": state.cinder_root + "/compute/v2.1",
            "region": REGION,
            "projects": {
                name: {
                    "username": name,
                    "password": settings["passwords"][name],
                    "project_name": name,
                    "project_id": settings.get("projects", {}).get(name),
                    "openrc": str(state.openrc(name)),
                }
                for name in PROJECTS
            },
            "pids": pids,
            "attach": settings.get("attach"),
            "backends": settings.get("backends"),
            "pool": str(state.pool),
            "pool_kind": settings.get("pool_kind"),
            "reflink": settings.get("reflink"),
            "faults": str(state.faults_file),
            "api_faults": str(state.api_faults_file),
            "servers": self.servers(),
            "loop_devices": self.loop_devices(),
            "log": str(state.log),
            "ceph_conf": str(cluster.conf) if "ceph" in settings else None,
            "ceph_keyring": str(cluster.keyring) if "ceph" in settings else None,
        }

    def env(self, project: str = "demo") -> dict[str, str]:
        """The ``OS_*`` variables of the project's user (``demo``, ``other`` or ``admin``)."""
        return self.state.environment(project)

    @property
    def pool(self) -> pathlib.Path:
        """The folder of the volumes' files: ``<pool>/volume-<id>``, ``<pool>/snapshot-<id>``."""
        return self.state.pool

    def loop_devices(self) -> dict[str, str]:
        """The loop devices that show files of the pool: device → file."""
        return loop.below(self.state.pool)

    # -- faults

    def faults(self, **driver_faults: dict[str, Any]) -> None:
        """Let calls of the volume driver fail or wait, in place of the faults set before.

        ``cloud.faults(create_snapshot={"error": "disk full", "times": 1})``: see the README.
        """
        write_atomically(self.state.faults_file, json.dumps(driver_faults))

    def api_faults(self, faults: Sequence[dict[str, Any]]) -> None:
        """Let requests to Cinder's API fail or wait, in place of the faults set before.

        ``cloud.api_faults([{"method": "POST", "path": "^/snapshots$", "status": 503}])``.
        """
        write_atomically(self.state.api_faults_file, json.dumps(list(faults)))

    def clear_faults(self) -> None:
        """End the faults of both kinds."""
        self.state.faults_file.unlink(missing_ok=True)
        self.state.api_faults_file.unlink(missing_ok=True)

    # -- Cinder

    def session(self, project: str = "demo") -> Session:
        """A session of the project's user."""
        if project not in self._sessions:
            env = self.env(project)
            session = Session(env["OS_AUTH_URL"], env["OS_USERNAME"], env["OS_PASSWORD"], project)
            session.authenticate()
            self._sessions[project] = session
        return self._sessions[project]

    def cinder(self, method: str, path: str, body: Any = None, project: str = "demo") -> Any:
        """A request to Cinder, ``path`` beginning behind the project: ``/volumes/detail``."""
        session = self.session(project)
        url = f"{self.state.cinder_root}/v3/{session.project_id}{path}"
        return session.request(method, url, body)

    def wait(self, path: str, wanted: str, project: str = "demo", seconds: float = 600) -> Any:
        """Wait until the object at ``path`` has the status; ``deleted`` means it is gone.

        Returns the object. An error status that is not wanted raises at once.
        """
        deadline = time.monotonic() + seconds
        pause = 0.05
        while True:
            asked = time.monotonic()
            try:
                (found,) = self.cinder("GET", path, project=project).values()
            except ApiError as error:
                if error.status == 404 and wanted == "deleted":
                    return None
                raise
            # Cinder says "deleted" of a group's snapshot a moment before it is gone.
            if found["status"] == wanted and wanted != "deleted":
                return found
            if found["status"] in _FAILED or time.monotonic() > deadline:
                raise CloudError(f"{path} is {found['status']}, not {wanted}")
            # Where an answer is dear, asking must not keep the cloud from what it is asked about.
            time.sleep(max(pause, 2 * (time.monotonic() - asked)))
            pause = min(1.3 * pause, 1.0)

    def create_volume(self, size: int = 1, project: str = "demo", **fields: Any) -> dict[str, Any]:
        """Make a volume of ``size`` GiB and wait until it is available."""
        body = {"volume": {"size": size, **fields}}
        made = self.cinder("POST", "/volumes", body, project)["volume"]
        return dict(self.wait(f"/volumes/{made['id']}", "available", project))

    def delete_volume(self, volume_id: str, project: str = "demo") -> None:
        """Delete a volume and wait until it is gone."""
        self.cinder("DELETE", f"/volumes/{volume_id}", project=project)
        self.wait(f"/volumes/{volume_id}", "deleted", project)

    def set_quota(self, project: str, **limits: int) -> None:
        """Set the project's quotas: ``volumes``, ``snapshots``, ``gigabytes``, ``groups`` …"""
        target = self.session(project).project_id
        self.cinder("PUT", f"/os-quota-sets/{target}", {"quota_set": limits}, "admin")

    def reset_quota(self, project: str) -> None:
        """Give the project the large default quotas again."""
        target = self.session(project).project_id
        self.cinder("DELETE", f"/os-quota-sets/{target}", project="admin")

    # -- pretended servers

    def servers(self) -> dict[str, Any]:
        """The pretended servers: id → name, project_id, volumes (id → attachment_id, device)."""
        return servers.read(self.state)

    def pretend_server(
        self,
        volume_id: str,
        project: str = "demo",
        server_id: str | None = None,
        metadata: dict[str, str] | None = None,
        name: str | None = None,
    ) -> dict[str, str]:
        """Attach the volume to a server that exists in the compute stand-in only.

        Returns ``server_id``, ``attachment_id`` and ``device``: the path at which the caller may
        write as that server's guest would (for a Ceph volume ``rbd:pool/image``). Several volumes
        may go to one ``server_id``.

        :param name: of the device in the guest: ``/dev/vda`` is its root disk. Default: the first
            free one behind it.
        """
        server_id = server_id or str(uuid.uuid4())
        reserved = self.cinder(
            "POST",
            "/attachments",
            {
                "attachment": {
                    "volume_uuid": volume_id,
                    "instance_uuid": server_id,
                    "mode": "rw",
                }
            },
            project,
        )["attachment"]
        held = servers.read(self.state).get(server_id, {}).get("volumes", {}).values()
        name = name or f"/dev/vd{'bcdefghijklmnopqrstuvwxyz'[len(held)]}"
        connector = {**servers.CONNECTOR, "mountpoint": name}
        address = f"/attachments/{reserved['id']}"
        try:
            made = self.cinder("PUT", address, {"attachment": {"connector": connector}}, project)
            self.cinder("POST", f"{address}/action", {"os-complete": None}, project)
        except CloudError:
            self.cinder("DELETE", address, project=project)
            raise
        device = servers.device_of(made["attachment"]["connection_info"])
        project_id = self.session(project).project_id
        with servers.changing(self.state) as known:
            server = known.setdefault(
                server_id,
                {
                    "name": f"server-{server_id[:8]}",
                    "project_id": project_id,
                    "metadata": metadata or {},
                    "volumes": {},
                },
            )
            server["volumes"][volume_id] = {
                "attachment_id": reserved["id"],
                "device": device,
                "name": name,
            }
        return {"server_id": server_id, "attachment_id": reserved["id"], "device": device}

    def set_server(self, server_id: str, **facts: Any) -> None:
        """Change a pretended server: ``status``, ``locked``, ``holds_on``."""
        with servers.changing(self.state) as known:
            known[server_id].update(facts)

    def delete_server(self, server_id: str) -> None:
        """End a pretended server that holds no volume."""
        with servers.changing(self.state) as known:
            if known[server_id]["volumes"]:
                raise CloudError(f"server {server_id} still holds volumes")
            del known[server_id]

    def release_server(self, volume_id: str) -> None:
        """Detach the volume from its pretended server; the last volume ends the server."""
        holders = [
            (server_id, server["project_id"], server["volumes"][volume_id])
            for server_id, server in self.servers().items()
            if volume_id in server["volumes"]
        ]
        if not holders:
            raise CloudError(f"volume {volume_id} is attached to no pretended server")
        projects = {number: name for name, number in self.state.settings["projects"].items()}
        for server_id, project_id, volume in holders:
            # Cinder asks the compute service first, which has to have let go of the volume
            with servers.changing(self.state) as known:
                del known[server_id]["volumes"][volume_id]
                if not known[server_id]["volumes"]:
                    del known[server_id]
            project = projects[project_id]
            try:
                self.cinder("DELETE", f"/attachments/{volume['attachment_id']}", project=project)
            except ApiError as error:
                if error.status != 404:
                    raise
