# SPDX-License-Identifier: Apache-2.0
"""Nova in memory: servers with volumes, moving those of the pretended Cinder."""

from __future__ import annotations

import json
import types
from collections.abc import Callable
from typing import Any

from keystoneauth1 import exceptions

from tests.unit.cloud.fake_cinder import FakeCloud


class FakeNova:
    """Stands for keystoneauth's adapter.

    :ivar servers: volume id: what Nova shows of it, by server id.
    :ivar fault: given the method, may raise before the work is done.
    :ivar lost: the same after it.
    """

    def __init__(self, cloud: FakeCloud) -> None:
        self.servers: dict[str, dict[str, dict[str, Any]]] = {}
        self.root: str | None = None
        self.fault: Callable[[str], None] = lambda method: None
        self.lost: Callable[[str], None] = lambda method: None
        self.free = "/dev/vdb"
        self.project_id = cloud.project_id
        self._cinder = cloud.cinder
        cloud.nova = self  # type: ignore[attr-defined]

    def hold(self, volume_id: str, server_id: str = "s1", **facts: Any) -> None:
        """Let a server have a volume."""
        shown = {"volumeId": volume_id, "device": self.free, **facts}
        self.servers.setdefault(server_id, {})[volume_id] = shown
        volume = self._cinder.volumes.all[volume_id]
        volume.status, volume.attachments = "in-use", [{"server_id": server_id}]

    def request(self, path: str, method: str) -> Any:
        words = path.strip("/").split("/")
        self._note(method)
        if words[1] not in self.servers:
            raise exceptions.NotFound(f"Instance {words[1]} could not be found.")
        held = self.servers[words[1]]
        if method == "DELETE":
            if held.pop(words[3], None) is None:
                raise exceptions.NotFound("volume_id not found")
            volume = self._cinder.volumes.all[words[3]]
            volume.status, volume.attachments = "available", []
            self.lost(method)
            return _response(None)
        if len(words) == 2:
            shown = {"tenant_id": self.project_id}
            if self.root:
                shown["OS-EXT-SRV-ATTR:root_device_name"] = self.root
            return _response({"server": shown})
        return _response({"volumeAttachments": list(held.values())})

    def post(self, path: str, json: Any) -> Any:
        self._note("POST")
        server_id = path.strip("/").split("/")[1]
        if server_id not in self.servers:
            raise exceptions.NotFound(f"Instance {server_id} could not be found.")
        asked = dict(json["volumeAttachment"])
        self.hold(asked.pop("volumeId"), server_id, **{**asked, "device": self.free})
        self.lost("POST")
        return _response(json)

    def _note(self, method: str) -> None:
        if method != "GET":
            self._cinder.log.append((method.lower(), "nova", ""))
        self.fault(method)


def _response(document: Any) -> Any:
    content = b"" if document is None else json.dumps(document).encode()
    return types.SimpleNamespace(content=content, json=lambda: document)
