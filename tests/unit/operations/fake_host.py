# SPDX-License-Identifier: Apache-2.0
"""A host whose volumes are files in a folder."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from freezer_osbrick.device.host import Host

GIB = 1 << 30


class FakeHost:
    """Writes what it does into the log of the pretended Cinder, so that one order is seen."""

    name = "here"
    multipath = False
    describe = staticmethod(Host.describe)

    def __init__(self, log: list[tuple[str, str, str]], folder: pathlib.Path) -> None:
        self.log = log
        self.folder = folder
        self.fault: Callable[[str], None] = lambda verb: None
        self.disconnections: list[tuple[Any, Any, bool]] = []
        self.multipaths: list[bool | None] = []

    def connector_properties(self) -> dict[str, Any]:
        return {"host": self.name, "ip": "192.0.2.1"}

    def connect(self, connection_info: Mapping[str, Any], *, writable: bool) -> dict[str, Any]:
        self.log.append(("connect", "host", ""))
        self.fault("connect")
        path = self.folder / "volume"
        with open(path, "wb") as file:
            file.truncate(GIB)
        return {"type": "local", "path": str(path)}

    def disconnect(
        self,
        connection_info: Any,
        device_info: Any,
        *,
        multipath: bool | None = None,
        force: bool = False,
    ) -> None:
        self.log.append(("disconnect", "host", ""))
        self.disconnections.append((connection_info, device_info, force))
        self.multipaths.append(multipath)
        self.fault("disconnect")
