# SPDX-License-Identifier: Apache-2.0
"""Answers the tests: a line of JSON each way, through a port whose other end the host has."""

from __future__ import annotations

import importlib
import json
import os
import threading
import time
import traceback
from typing import Any

_PORT = "/dev/virtio-ports/tests"
_ROOM = "tests.transports.inside"

_sending = threading.Lock()


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Call the function that a request names."""
    module, _, function = request["call"].partition(".")
    try:
        found = getattr(importlib.import_module(f"{_ROOM}.{module}"), function)
        result = found(*request["arguments"], **request["named"])
        return {"id": request["id"], "result": result}
    except Exception:
        return {"id": request["id"], "error": traceback.format_exc()}


def main() -> None:
    """Serve for ever."""
    while not os.path.exists(_PORT):
        time.sleep(0.05)
    port = os.open(_PORT, os.O_RDWR)
    unread = b""
    while True:
        part = os.read(port, 1 << 16)
        if not part:  # nobody is at the other end
            time.sleep(0.05)
            continue
        unread += part
        while b"\n" in unread:
            line, _, unread = unread.partition(b"\n")
            request = json.loads(line)
            threading.Thread(target=lambda asked=request: _send(port, answer(asked))).start()


def _send(port: int, reply: dict[str, Any]) -> None:
    data = json.dumps(reply).encode() + b"\n"
    with _sending:
        while data:
            data = data[os.write(port, data) :]


if __name__ == "__main__":
    main()
