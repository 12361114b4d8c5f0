# SPDX-License-Identifier: Apache-2.0
"""A JSON file of faults that is read again at each call, with counters for those with an end."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Hashable
from typing import Any


class FaultFile:
    """The faults in a file. A change of the file starts all counters anew.

    A fault with ``times`` strikes that often, one with ``seconds`` that long from its first
    strike on, one with neither always.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._version: tuple[int, int, int] | None = None
        self._content: Any = None
        self._strikes: dict[Hashable, int] = {}
        self._since: dict[Hashable, float] = {}

    def read(self) -> Any:
        """The decoded content; None when there is no file. A broken file raises ValueError."""
        with self._lock:
            return self._read()

    def _read(self) -> Any:
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            self._version = self._content = None
            return None
        version = (status.st_mtime_ns, status.st_ino, status.st_size)
        if version != self._version:
            with open(self._path, encoding="utf-8") as stream:
                self._content = json.load(stream)
            self._version = version
            self._strikes.clear()
            self._since.clear()
        return self._content

    def strikes(self, key: Hashable, fault: dict[str, Any]) -> bool:
        """Whether the fault strikes now; if so, the strike is counted."""
        with self._lock:
            if "times" in fault and self._strikes.get(key, 0) >= fault["times"]:
                return False
            began = self._since.setdefault(key, time.monotonic())
            if "seconds" in fault and time.monotonic() - began > fault["seconds"]:
                return False
            self._strikes[key] = self._strikes.get(key, 0) + 1
            return True
