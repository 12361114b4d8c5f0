# SPDX-License-Identifier: Apache-2.0
"""Connecting to a volume in Ceph.

os-brick's own RBD connector is not used: it writes the user's key into a file below /tmp, which a
crash leaves there, and opens every image for writing. os-brick's parts below it are: client,
image, handle.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from os_brick.initiator import linuxrbd

from freezer_osbrick import errors


def available() -> bool:
    """Whether Ceph's Python modules are installed."""
    return linuxrbd.rbd is not None and linuxrbd.rados is not None


class RBDConnector:
    """Connects by librbd, without root and without leaving anything on disk.

    :param keyring: path of the user's keyring file; None for where Ceph keeps it.
    """

    def __init__(self, keyring: str | None = None) -> None:
        self._keyring = keyring

    def connect_volume(
        self, connection_info: Mapping[str, Any], *, writable: bool
    ) -> dict[str, Any]:
        """Open the image; the ``path`` of the result is its handle.

        :raises errors.DeviceError: no modules, no key, no cluster or no image.
        """
        if not available():
            raise errors.DeviceError(
                "The volume lies in Ceph, and Ceph's Python modules are not installed here "
                "(packages python3-rados and python3-rbd)."
            )
        user = connection_info["auth_username"]
        cluster = str(connection_info["cluster_name"])
        pool, _, name = connection_info["name"].partition("/")
        configuration = os.memfd_create("ceph.conf", os.MFD_CLOEXEC)
        try:
            os.write(configuration, self._configuration(connection_info, cluster, user).encode())
            client = linuxrbd.RBDClient(
                user,
                pool,
                conffile=f"/proc/self/fd/{configuration}",
                rbd_cluster_name=cluster,
            )
        except errors.DeviceError:
            raise
        except Exception as error:
            raise errors.DeviceError(f"The Ceph cluster cannot be reached: {error}") from error
        finally:
            os.close(configuration)  # read once, when the client is made
        try:
            # Closes the client itself when it fails.
            image = linuxrbd.RBDVolume(client, name, read_only=not writable)
        except Exception as error:
            raise errors.DeviceError(
                f"The Ceph image {pool}/{name} cannot be opened: {error}"
            ) from error
        metadata = linuxrbd.RBDImageMetadata(image, pool, user, None)
        return {"type": "rbd", "path": linuxrbd.RBDVolumeIOWrapper(metadata)}

    def disconnect_volume(self, device_info: Mapping[str, Any]) -> None:
        """Close image and cluster connection. A handle that died with its process needs nothing."""
        handle = device_info.get("path")
        if handle is not None and hasattr(handle, "rbd_image"):
            handle.close()

    def _configuration(self, connection_info: Mapping[str, Any], cluster: str, user: str) -> str:
        monitors = ",".join(
            f"{host if ':' not in host or host.startswith('[') else f'[{host}]'}:{port}"
            for host, port in zip(connection_info["hosts"], connection_info["ports"], strict=False)
        )
        lines = ["[global]", f"mon_host = {monitors}"]
        if connection_info.get("keyring"):  # cinderlib and old clouds send it
            return "\n".join([*lines, str(connection_info["keyring"]), ""])
        keyring = self._keyring or f"/etc/ceph/{cluster}.client.{user}.keyring"
        if connection_info.get("auth_enabled", True) and not os.access(keyring, os.R_OK):
            raise errors.DeviceError(
                f"The volume lies in Ceph, and the keyring {keyring} cannot be read. "
                "Name another with ceph_keyring in the [device] group."
            )
        return "\n".join([*lines, f"keyring = {keyring}", ""])
