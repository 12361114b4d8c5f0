# SPDX-License-Identifier: Apache-2.0
"""The file of pretended servers, which the compute stand-in reads at each request."""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from typing import Any

from .errors import ApiError
from .rest import Session
from .state import State, write_atomically

# id → {"name", "project_id", "metadata", "volumes": {id → {"attachment_id", "device", "name"}}}:
# the device is this machine's, the name is the guest's. Besides, where it is not as usual:
# "status", "locked", "holds_on" (the guest gives no device back).
Servers = dict[str, Any]

# The host that the pretended servers run on.
CONNECTOR = {
    "host": "embedded-compute",
    "ip": "127.0.0.1",
    "platform": "x86_64",
    "os_type": "linux",
    "multipath": False,
}


def read(state: State) -> Servers:
    """All pretended servers of the cloud."""
    try:
        return dict(json.loads(state.servers_file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}


@contextlib.contextmanager
def changing(state: State) -> Iterator[Servers]:
    """Yields the servers to be changed in place; they are written at the end, one at a time."""
    with open(state.run / "servers.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        servers = read(state)
        yield servers
        write_atomically(state.servers_file, json.dumps(servers, indent=2))


def device_of(connection_info: dict[str, Any]) -> str:
    """Where the guest's device is on this machine; ``rbd:pool/image`` for one of Ceph's."""
    return connection_info.get("device_path") or f"rbd:{connection_info['name']}"


def refresh(state: State, admin: Session) -> None:
    """After a start: loop devices may have other numbers, and attachments may be gone."""
    if not read(state):
        return
    url = f"{state.cinder_root}/v3/{admin.project_id}/attachments"
    with changing(state) as servers:
        for server_id, server in list(servers.items()):
            for volume_id, volume in list(server["volumes"].items()):
                try:
                    found = admin.request("GET", f"{url}/{volume['attachment_id']}")["attachment"]
                except ApiError as error:
                    if error.status != 404:
                        raise
                    del server["volumes"][volume_id]
                else:
                    volume["device"] = device_of(found["connection_info"])
            if not server["volumes"]:
                del servers[server_id]
