# SPDX-License-Identifier: Apache-2.0
"""What is there beside the users' volumes: on the host, on the storage, in the cloud."""

from __future__ import annotations

import os
import pathlib
import time
from collections.abc import Iterable

from . import storage, users
from .shell import run

_CONFIGFS = pathlib.Path("/sys/kernel/config")
_PATIENCE = 30.0  # seconds


def all_of(volume_ids: Iterable[str]) -> dict[str, list[str]]:
    """Everything that a run leaves when it leaves something; empty if there is nothing.

    :param volume_ids: the users' volumes, in whichever project.
    """
    run("udevadm", "settle")
    found = {**_on_host(), **_on_storage(), **_in_cloud(set(volume_ids))}
    return {kind: things for kind, things in found.items() if things}


def _names(pattern: str, root: str = "/") -> list[str]:
    return sorted(str(path) for path in pathlib.Path(root).glob(pattern))


def _on_host() -> dict[str, list[str]]:
    links = [path for path in _names("disk/*/*", "/dev") if not os.path.exists(path)]
    return {
        "iscsi sessions": _names("sys/class/iscsi_session/*"),
        "iscsi nodes": _names("etc/iscsi/nodes/*"),
        "multipath maps": [
            line
            for line in run("dmsetup", "ls", "--target", "multipath").splitlines()
            if not line.startswith("No devices")
        ],
        "scsi devices": _names("sys/block/sd*"),
        "nvme controllers": _names("sys/class/nvme/*"),
        "dangling links": links,
        "helpers": _helpers(),
        "journals": [
            path
            for user in ("root", users.USER)
            for path in _names("ledger/*.journal", users.state_path(user))
        ],
        "temporary files": _names("tmp/*"),
    }


def _helpers() -> list[str]:
    """Those of os-brick that do not end: one needs a moment to see that its run has ended."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        found = run("pgrep", "-fa", "privsep-helper", check=False).splitlines()
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.5)


def _on_storage() -> dict[str, list[str]]:
    return {
        "iscsi targets": _names("target/iscsi/iqn.*", str(_CONFIGFS)),
        "nvme subsystems": _names("nvmet/subsystems/*", str(_CONFIGFS)),
        "fc luns": _names("target/fc/*/tpgt_1/lun/lun_*", str(_CONFIGFS)),
    }


def _in_cloud(kept: set[str]) -> dict[str, list[str]]:
    cinder = storage.cloud().cinder
    everywhere = "?all_tenants=1"

    def listed(path: str) -> list[dict[str, str]]:
        (found,) = cinder("GET", f"/{path}{everywhere}", project="admin").values()
        return list(found)

    return {
        "volumes": [
            f"{volume['id']} {volume['status']}"
            for volume in listed("volumes/detail")
            if volume["id"] not in kept
        ],
        "snapshots": [f"{found['id']} {found['status']}" for found in listed("snapshots/detail")],
        "attachments": [found["id"] for found in listed("attachments")],
    }
