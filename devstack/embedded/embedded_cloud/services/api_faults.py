# SPDX-License-Identifier: Apache-2.0
"""WSGI middleware that refuses or delays requests to Cinder's API on demand."""

from __future__ import annotations

import http
import json
import logging
import re
import time
from collections.abc import Callable, Iterable
from typing import Any

from .faultfile import FaultFile

LOG = logging.getLogger(__name__)
_PROJECT_PATH = re.compile(r"^/v3/(?P<project>[0-9a-f]{32})(?P<path>/.*)?$")
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class ApiFaults:
    """Applies the first fault of the file that matches the request.

    The file holds a list. A fault has ``method`` (default any), ``path`` (a regular expression,
    searched in the path behind ``/v3/<project id>``), ``project`` (an id, default any),
    ``status``, ``message``, ``retry_after`` (seconds, sent as a header), ``delay`` (seconds) and
    ``times`` or ``seconds``. One without ``status`` only delays.
    """

    def __init__(self, application: Application, path: str) -> None:
        self._application = application
        self._file = FaultFile(path)

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        fault = self._fault(environ)
        if fault is not None:
            LOG.info("fault for %s %s: %s", environ["REQUEST_METHOD"], environ["PATH_INFO"], fault)
            time.sleep(fault.get("delay", 0))
            if "status" in fault:
                return _refuse(fault, start_response)
        return self._application(environ, start_response)

    def _fault(self, environ: dict[str, Any]) -> dict[str, Any] | None:
        try:
            faults = self._file.read()
        except ValueError:
            LOG.exception("the file of API faults is no JSON")
            return None
        match = _PROJECT_PATH.match(environ["PATH_INFO"])
        if not faults or match is None:
            return None
        for number, fault in enumerate(faults):
            if (
                fault.get("method", environ["REQUEST_METHOD"]) == environ["REQUEST_METHOD"]
                and fault.get("project", match["project"]) == match["project"]
                and re.search(fault.get("path", ""), match["path"] or "")
                and self._file.strikes(number, fault)
            ):
                return dict(fault)
        return None


def _refuse(fault: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """Answer as Cinder would: its error document, and Retry-After where the fault names one."""
    status = http.HTTPStatus(fault["status"])
    message = fault.get("message", f"injected: {status.phrase}")
    kinds = {
        400: "badRequest",
        403: "forbidden",
        404: "itemNotFound",
        409: "conflictingRequest",
        413: "overLimit",
        503: "serviceUnavailable",
    }
    kind = kinds.get(status.value, "computeFault")
    body = json.dumps({kind: {"code": status.value, "message": message}}).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    if "retry_after" in fault:
        headers.append(("Retry-After", str(fault["retry_after"])))
    start_response(f"{status.value} {status.phrase}", headers)
    return [body]
