# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for Nova and Glance: what Cinder and Freezer ask of them, and no more.

Cinder asks Nova whether a server still uses a volume before a user may delete the attachment;
Freezer discovers both services before every job. The servers are those of the servers file, which
``EmbeddedCloud.pretend_server`` writes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
Answer = tuple[str, Any]
_NOT_FOUND: Answer = ("404 Not Found", {"itemNotFound": {"code": 404, "message": "not found"}})


def _respond(answer: Answer, start_response: Callable[..., Any]) -> list[bytes]:
    status, document = answer
    body = json.dumps(document).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response(status, headers)
    return [body]


class Discovery:
    """Version documents, open to all as OpenStack has them; the rest goes on to the service."""

    def __init__(self, prefix: str, versions: list[dict[str, Any]], service: Application) -> None:
        self._prefix, self._versions, self._service = prefix, versions, service

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        path = environ["PATH_INFO"].removeprefix(self._prefix).strip("/")
        root = f"http://{environ['HTTP_HOST']}{self._prefix}"
        versions = [
            {**version, "links": [{"rel": "self", "href": f"{root}/{segment}/"}]}
            for version in self._versions
            for segment in [
                version["id"].partition(".")[0] if self._prefix == "/image" else version["id"]
            ]
        ]
        if not path:
            status = "300 Multiple Choices" if self._prefix == "/image" else "200 OK"
            return _respond((status, {"versions": versions}), start_response)
        if path in ("v2.1", "v2"):
            return _respond(("200 OK", {"version": versions[0]}), start_response)
        return self._service({**environ, "embedded.path": path}, start_response)


class Compute:
    """The pretended servers, each seen by its own project only. Stands behind authentication."""

    VERSIONS = [{"id": "v2.1", "status": "CURRENT", "version": "2.96", "min_version": "2.1"}]

    def __init__(self, servers_file: str) -> None:
        self._servers_file = servers_file

    def _servers(self, project: str, is_admin: bool) -> dict[str, Any]:
        try:
            with open(self._servers_file, encoding="utf-8") as stream:
                servers = json.load(stream)
        except FileNotFoundError:
            return {}
        return {
            key: server
            for key, server in servers.items()
            if is_admin or server["project_id"] == project
        }

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        roles = environ.get("HTTP_X_ROLES", "").split(",")
        servers = self._servers(environ.get("HTTP_X_PROJECT_ID", ""), "admin" in roles)
        segments = environ["embedded.path"].split("/")[1:]
        if environ["REQUEST_METHOD"] == "POST" and segments == ["os-server-external-events"]:
            length = int(environ.get("CONTENT_LENGTH") or 0)
            return _respond(_events(environ["wsgi.input"].read(length)), start_response)
        if environ["REQUEST_METHOD"] != "GET":
            return _respond(_NOT_FOUND, start_response)
        return _respond(_lookup(servers, segments), start_response)


def _lookup(servers: dict[str, Any], segments: list[str]) -> Answer:
    """Answer a GET below ``/v2.1``."""
    if segments in (["servers"], ["servers", "detail"]):
        return "200 OK", {"servers": [_server(key, servers[key]) for key in servers]}
    if len(segments) < 2 or segments[0] != "servers" or segments[1] not in servers:
        return _NOT_FOUND
    server_id, server = segments[1], servers[segments[1]]
    if len(segments) == 2:
        return "200 OK", {"server": _server(server_id, server)}
    if segments[2] != "os-volume_attachments":
        return _NOT_FOUND
    if len(segments) == 3:
        listed = [_attachment(server_id, server, volume) for volume in server["volumes"]]
        return "200 OK", {"volumeAttachments": listed}
    if segments[3] not in server["volumes"]:
        return _NOT_FOUND
    return "200 OK", {"volumeAttachment": _attachment(server_id, server, segments[3])}


def _server(server_id: str, server: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": server_id,
        "name": server["name"],
        "status": "ACTIVE",
        "tenant_id": server["project_id"],
        "metadata": server["metadata"],
        "addresses": {},
        "links": [],
        "OS-EXT-AZ:availability_zone": "nova",
        "os-extended-volumes:volumes_attached": [
            {"id": volume, "delete_on_termination": False} for volume in server["volumes"]
        ],
    }


def _attachment(server_id: str, server: dict[str, Any], volume_id: str) -> dict[str, Any]:
    return {
        "id": volume_id,
        "volumeId": volume_id,
        "serverId": server_id,
        "device": "/dev/vdb",
        "attachment_id": server["volumes"][volume_id]["attachment_id"],
        "bdm_uuid": server["volumes"][volume_id]["attachment_id"],
        "tag": None,
        "delete_on_termination": False,
    }


def _events(body: bytes) -> Answer:
    """Accept what Cinder tells about a volume of a server, such as its new size."""
    events = json.loads(body)["events"]
    return "200 OK", {"events": [{**e, "status": "completed", "code": 200} for e in events]}


class Image:
    """An image service without images."""

    VERSIONS = [{"id": "v2.16", "status": "CURRENT"}]

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "GET" and environ["embedded.path"] == "v2/images":
            answer = ("200 OK", {"images": [], "first": "/v2/images", "schema": "/v2/schemas"})
            return _respond(answer, start_response)
        return _respond(_NOT_FOUND, start_response)


class Dispatcher:
    """One port for Cinder and the two stand-ins, by the first part of the path."""

    def __init__(self, cinder: Application, others: dict[str, Application]) -> None:
        self._cinder, self._others = cinder, others

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        first = "/" + environ["PATH_INFO"].lstrip("/").partition("/")[0]
        return self._others.get(first, self._cinder)(environ, start_response)
