# SPDX-License-Identifier: Apache-2.0
"""Faults of the storage and of the way to it."""

from __future__ import annotations

import contextlib
import pathlib

from . import storage, volumes
from .shell import run, until, write

_SWAPPED = storage.TARGETS / "core" / "iblock_4001" / "swapped"


def cut(place: int) -> None:
    """Let nothing through on one of the two paths."""
    run("ip", "link", "set", storage.INTERFACES[place], "down")


def mend() -> None:
    """Let everything through again."""
    for interface, address in zip(storage.INTERFACES, storage.PATHS, strict=True):
        run("ip", "link", "set", interface, "up")
        run("ip", "address", "replace", f"{address}/24", "dev", interface)


def kill_iscsi_targets() -> None:
    """All iSCSI targets throw out who is connected and let nobody in."""
    for port in _iscsi_ports():
        write(port / "enable", "0")


def revive_iscsi_targets() -> None:
    """They serve again."""
    for port in _iscsi_ports():
        write(port / "enable", "1")


def drop_sessions() -> None:
    """The host's iSCSI sessions are logged out behind the back of whoever uses them."""
    run("iscsiadm", "-m", "session", "--logout", check=False)
    until(lambda: not list(pathlib.Path("/sys/class/iscsi_session").iterdir()), "logout")


def swap_iscsi_lun(volume_id: str) -> None:
    """The one iSCSI target that there is shows another volume under the same LUN.

    As when an array's LUN is given to another volume while a host still is connected to it.
    """
    _SWAPPED.mkdir(parents=True)
    path = volumes.path_of(volume_id)
    write(_SWAPPED / "control", f"udev_path={path}")
    write(_SWAPPED / "udev_path", path)  # for Cinder's helper, which lists all that there is
    write(_SWAPPED / "enable", "1")
    write(_SWAPPED / "wwn" / "vpd_unit_serial", volume_id)
    (port,) = _iscsi_ports()
    lun = port / "lun" / "lun_0"
    seen = next((port / "acls").glob("*/lun_0"))
    for folder in (seen, lun):
        for link in _links(folder):
            link.unlink()
    (lun / "swapped").symlink_to(_SWAPPED)
    (seen / "swapped").symlink_to(lun)


def forget_swap() -> None:
    """Remove what a swap has made, after its target is gone."""
    for path in (_SWAPPED, _SWAPPED.parent):
        with contextlib.suppress(FileNotFoundError):
            path.rmdir()


def _iscsi_ports() -> list[pathlib.Path]:
    return sorted((storage.TARGETS / "iscsi").glob("iqn.*/tpgt_1"))


def _links(folder: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in folder.iterdir() if path.is_symlink()]
