# SPDX-License-Identifier: Apache-2.0
"""A stand-in for Nova: servers that hold volumes and nothing else.

The servers are those of the servers file, which ``EmbeddedCloud.pretend_server`` writes. Volumes
are detached and attached as Nova does it: the answer comes at once, what Cinder has of it changes
later, and Cinder's attachments are made and deleted with the caller's token.
"""

from __future__ import annotations

import json
import pathlib
import string
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from oslo_log import log as logging

from .. import servers as servers_file
from ..errors import ApiError
from ..rest import Session
from ..state import State
from . import standins

LOG = logging.getLogger(__name__)

Answer = standins.Answer

# States in which Nova lets go of a volume; it does not of a server that is being built, say.
_DETACHABLE = ("ACTIVE", "PAUSED", "SUSPENDED", "SHUTOFF", "RESIZE", "SOFT_DELETED", "SHELVED")
_NAMES = [f"/dev/vd{letter}" for letter in string.ascii_lowercase[1:]]
_ROOT = "/dev/vda"
_PAUSE = 0.2  # seconds that a guest takes to notice


class Compute:
    """The pretended servers, each seen by its own project only. Stands behind authentication."""

    VERSIONS = [{"id": "v2.1", "status": "CURRENT", "version": "2.96", "min_version": "2.1"}]

    def __init__(self, path: str) -> None:
        self._state = State(pathlib.Path(path).parent)

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        request = _Request(
            self._state,
            environ["REQUEST_METHOD"],
            environ["embedded.path"].split("/")[1:],
            environ["wsgi.input"].read(length) if length else b"",
            environ.get("HTTP_X_AUTH_TOKEN", ""),
            environ.get("HTTP_X_PROJECT_ID", ""),
            "admin" in environ.get("HTTP_X_ROLES", "").split(","),
        )
        return standins.respond(request.answer(), start_response)


class _Request:
    def __init__(
        self,
        state: State,
        method: str,
        segments: list[str],
        body: bytes,
        token: str,
        project: str,
        is_admin: bool,
    ) -> None:
        self._state = state
        self._method = method
        self._segments = segments
        self._body = body
        self._is_admin = is_admin
        self._cinder = _Cinder(state, token, project)
        self._servers = {
            key: server
            for key, server in servers_file.read(state).items()
            if is_admin or server["project_id"] == project
        }

    def answer(self) -> Answer:
        segments = self._segments
        if self._method == "POST" and segments == ["os-server-external-events"]:
            return _events(self._body)
        if self._method == "GET" and segments in (["servers"], ["servers", "detail"]):
            listed = [self._show(key, server) for key, server in self._servers.items()]
            return "200 OK", {"servers": listed}
        if len(segments) < 2 or segments[0] != "servers" or segments[1] not in self._servers:
            return standins.NOT_FOUND
        server_id = segments[1]
        server = self._servers[server_id]
        if self._method == "GET" and len(segments) == 2:
            return "200 OK", {"server": self._show(server_id, server)}
        if len(segments) < 3 or segments[2] != "os-volume_attachments":
            return standins.NOT_FOUND
        return self._attachments(server_id, server, segments[3:])

    def _attachments(self, server_id: str, server: dict[str, Any], rest: list[str]) -> Answer:
        if not rest and self._method == "GET":
            listed = [_attachment(server_id, server, volume) for volume in server["volumes"]]
            return "200 OK", {"volumeAttachments": listed}
        if not rest and self._method == "POST":
            return self._attach(server_id, server, json.loads(self._body)["volumeAttachment"])
        if len(rest) != 1 or rest[0] not in server["volumes"]:
            return standins.NOT_FOUND
        if self._method == "GET":
            return "200 OK", {"volumeAttachment": _attachment(server_id, server, rest[0])}
        if self._method == "DELETE":
            return self._detach(server_id, server, rest[0])
        return standins.NOT_FOUND

    def _detach(self, server_id: str, server: dict[str, Any], volume_id: str) -> Answer:
        held = server["volumes"][volume_id]
        if held.get("name") == _ROOT:
            return _fault("403 Forbidden", "forbidden", "Cannot detach a root device volume")
        refusal = _refusal(server, "detach_volume", self._is_admin)
        if refusal:
            return refusal
        try:
            self._cinder.action(volume_id, "os-begin_detaching")
        except ApiError as error:
            return _fault("400 Bad Request", "badRequest", str(error))

        def work() -> None:
            if server.get("holds_on"):  # the guest does not give its device back
                self._cinder.action(volume_id, "os-roll_detaching")
                return
            # Cinder asks us first, and we have to have let go of the volume.
            with servers_file.changing(self._state) as known:
                known[server_id]["volumes"].pop(volume_id, None)
            self._cinder.request("DELETE", f"/attachments/{held['attachment_id']}")

        _later(work)
        return "202 Accepted", None

    def _attach(self, server_id: str, server: dict[str, Any], asked: dict[str, Any]) -> Answer:
        refusal = _refusal(server, "attach_volume", self._is_admin)
        if refusal:
            return refusal
        volume_id = asked["volumeId"]
        try:
            found = self._cinder.request("GET", f"/volumes/{volume_id}")["volume"]
            if found["status"] != "available":
                words = f"volume {volume_id} status must be 'available'. Currently in '{{}}'"
                return _fault("400 Bad Request", "badRequest", words.format(found["status"]))
            body = {"volume_uuid": volume_id, "instance_uuid": server_id, "mode": "rw"}
            made = self._cinder.request("POST", "/attachments", {"attachment": body})["attachment"]
        except ApiError as error:
            if error.status == 404:
                return standins.NOT_FOUND
            return _fault("400 Bad Request", "badRequest", str(error))
        with servers_file.changing(self._state) as known:
            volumes = known[server_id]["volumes"]
            taken = {volume.get("name") for volume in volumes.values()}
            # The device that is asked for counts for nothing, as with libvirt.
            name = next(name for name in _NAMES if name not in taken)
            volumes[volume_id] = {
                "attachment_id": made["id"],
                "device": "",
                "name": name,
                "tag": asked.get("tag"),
                "delete_on_termination": asked.get("delete_on_termination", False),
            }
            server["volumes"] = dict(volumes)

        address = f"/attachments/{made['id']}"

        def work() -> None:
            body = {"attachment": {"connector": {**servers_file.CONNECTOR, "mountpoint": name}}}
            try:
                updated = self._cinder.request("PUT", address, body)["attachment"]
                self._cinder.request("POST", f"{address}/action", {"os-complete": None})
            except ApiError:
                with servers_file.changing(self._state) as known:
                    del known[server_id]["volumes"][volume_id]
                self._cinder.request("DELETE", address)
                raise
            with servers_file.changing(self._state) as known:
                device = servers_file.device_of(updated["connection_info"])
                known[server_id]["volumes"][volume_id]["device"] = device

        _later(work)
        return "200 OK", {"volumeAttachment": _attachment(server_id, server, volume_id)}

    def _show(self, server_id: str, server: dict[str, Any]) -> dict[str, Any]:
        shown = {
            "id": server_id,
            "name": server["name"],
            "status": server.get("status", "ACTIVE"),
            "locked": server.get("locked", False),
            "tenant_id": server["project_id"],
            "metadata": server["metadata"],
            "addresses": {},
            "links": [],
            "OS-EXT-AZ:availability_zone": "nova",
            "OS-EXT-STS:task_state": None,
            "os-extended-volumes:volumes_attached": [
                {"id": volume, "delete_on_termination": held.get("delete_on_termination", False)}
                for volume, held in server["volumes"].items()
            ],
        }
        if self._is_admin:  # Nova's policy shows these to nobody else
            shown["OS-EXT-SRV-ATTR:root_device_name"] = _ROOT
            shown["OS-EXT-SRV-ATTR:host"] = servers_file.CONNECTOR["host"]
        return shown


class _Cinder:
    """Cinder, with the token of whoever asked us."""

    def __init__(self, state: State, token: str, project: str) -> None:
        self._url = f"{state.cinder_root}/v3/{project}"
        self._session = Session.of_token(token)

    def request(self, method: str, path: str, body: Any = None) -> Any:
        return self._session.request(method, self._url + path, body)

    def action(self, volume_id: str, name: str) -> None:
        self.request("POST", f"/volumes/{volume_id}/action", {name: {}})


def _refusal(server: dict[str, Any], action: str, is_admin: bool) -> Answer | None:
    if server.get("locked") and not is_admin:
        return _fault("409 Conflict", "conflictingRequest", "Instance is locked")
    status = server.get("status", "ACTIVE")
    if status not in _DETACHABLE:
        words = f"Cannot '{action}' instance while it is in vm_state {status.lower()}"
        return _fault("409 Conflict", "conflictingRequest", words)
    return None


def _later(work: Callable[[], None]) -> None:
    def told() -> None:
        time.sleep(_PAUSE)
        try:
            work()
        except Exception:
            LOG.exception("The compute stand-in failed")

    threading.Thread(target=told, daemon=True).start()


def _fault(status: str, kind: str, message: str) -> Answer:
    return status, {kind: {"code": int(status.split()[0]), "message": message}}


def _attachment(server_id: str, server: dict[str, Any], volume_id: str) -> dict[str, Any]:
    held = server["volumes"][volume_id]
    return {
        "id": volume_id,
        "volumeId": volume_id,
        "serverId": server_id,
        "device": held.get("name") or _NAMES[0],
        "attachment_id": held["attachment_id"],
        "bdm_uuid": held["attachment_id"],
        "tag": held.get("tag"),
        "delete_on_termination": held.get("delete_on_termination", False),
    }


def _events(body: bytes) -> Answer:
    """Accept what Cinder tells about a volume of a server, such as its new size."""
    events = json.loads(body)["events"]
    return "200 OK", {"events": [{**e, "status": "completed", "code": 200} for e in events]}
