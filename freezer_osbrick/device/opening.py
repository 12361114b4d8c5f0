# SPDX-License-Identifier: Apache-2.0
"""From what os-brick connected to an opened volume."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from freezer_osbrick import errors
from freezer_osbrick.device.handle_device import HandleDevice
from freezer_osbrick.device.path_device import PathDevice
from freezer_osbrick.device.volume_device import Device


def open_device(
    device_info: Mapping[str, Any],
    *,
    size: int,
    writable: bool,
    connection_info: Mapping[str, Any] | None = None,
) -> Device:
    """Open what os-brick connected, after proving that it is the volume.

    :param device_info: what ``connect_volume`` returned; its ``path`` is a path or a Ceph image's
        handle.
    :param size: the volume's size in bytes, as Cinder says.
    :param connection_info: Cinder's connection, for the identities that it tells.
    :raises errors.IdentityError: it is something else; no byte was read or written.
    :raises errors.DeviceError: it cannot be opened.
    """
    path = device_info.get("path")
    if isinstance(path, bytes):
        path = path.decode()
    if isinstance(path, str) and path:
        return PathDevice(
            path,
            size=size,
            writable=writable,
            connection_info=connection_info or {},
            device_info=device_info,
        )
    if path is not None and hasattr(path, "rbd_image"):
        return HandleDevice(
            path, size=size, writable=writable, connection_info=connection_info or {}
        )
    raise errors.DeviceError("os-brick returned neither a path nor a Ceph image for the volume.")
