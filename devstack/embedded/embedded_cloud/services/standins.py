# SPDX-License-Identifier: Apache-2.0
"""What stands beside Cinder on its port: a stand-in for Glance, and discovery for all.

Freezer discovers compute and image before every job. ``compute`` is the stand-in for Nova.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
Answer = tuple[str, Any]
NOT_FOUND: Answer = ("404 Not Found", {"itemNotFound": {"code": 404, "message": "not found"}})


def respond(answer: Answer, start_response: Callable[..., Any]) -> list[bytes]:
    """Send a status and a document; None for an answer without a body."""
    status, document = answer
    body = b"" if document is None else json.dumps(document).encode()
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
            return respond((status, {"versions": versions}), start_response)
        if path in ("v2.1", "v2"):
            return respond(("200 OK", {"version": versions[0]}), start_response)
        return self._service({**environ, "embedded.path": path}, start_response)


class Image:
    """An image service without images."""

    VERSIONS = [{"id": "v2.16", "status": "CURRENT"}]

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "GET" and environ["embedded.path"] == "v2/images":
            answer = ("200 OK", {"images": [], "first": "/v2/images", "schema": "/v2/schemas"})
            return respond(answer, start_response)
        return respond(NOT_FOUND, start_response)


class Dispatcher:
    """One port for Cinder and the stand-ins, by the first part of the path."""

    def __init__(self, cinder: Application, others: dict[str, Application]) -> None:
        self._cinder, self._others = cinder, others

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        first = "/" + environ["PATH_INFO"].lstrip("/").partition("/")[0]
        return self._others.get(first, self._cinder)(environ, start_response)
