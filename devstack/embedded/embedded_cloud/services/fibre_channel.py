# SPDX-License-Identifier: Apache-2.0
"""Cinder's stock LVM driver with volumes shown over Fibre Channel, which it has no helper for.

The kernel target ``tcm_fc`` does it, by configfs. Its port (``fc/<WWPN>/tpgt_1``) has to be there;
a volume is a LUN of it while it is attached, seen by the initiators that it was attached for.
"""

from __future__ import annotations

import os
import pathlib
from typing import Any

from cinder import exception, interface, utils
from cinder.common import constants
from cinder.volume.drivers import lvm
from cinder.volume.targets import driver

_CONFIGFS = pathlib.Path("/sys/kernel/config/target")
_BACKSTORES = _CONFIGFS / "core" / "iblock_4000"  # a number that rtslib does not come to
_LARGEST_LUN = 255


class TcmFc(driver.Target):
    """The target helper."""

    protocol = storage_protocol = constants.FC
    SECONDARY_IP_SUPPORT = False

    def validate_connector(self, connector: dict[str, Any]) -> bool:
        """An initiator has to have ports."""
        if not connector.get("wwpns"):
            raise exception.InvalidConnectorException(missing="wwpns")
        return True

    def ensure_export(self, context: Any, volume: Any, volume_path: str) -> None:
        """Nothing to do: the kernel keeps what it has until it is told otherwise."""

    @utils.synchronized("tcm_fc", external=True)
    def create_export(self, context: Any, volume: Any, volume_path: str) -> dict[str, str]:
        """Make the volume a LUN, which nobody sees yet."""
        backstore = _BACKSTORES / volume.name
        if not backstore.exists():
            backstore.mkdir(parents=True)
            _write(backstore / "control", f"udev_path={volume_path}")
            _write(backstore / "enable", "1")
            _write(backstore / "wwn" / "vpd_unit_serial", volume.id)
        port = self._port()
        number = self._lun_of(backstore)
        if number is None:
            taken = {int(path.name.removeprefix("lun_")) for path in (port / "lun").glob("lun_*")}
            number = min(set(range(1, _LARGEST_LUN + 1)) - taken)
            lun = port / "lun" / f"lun_{number}"
            lun.mkdir()
            (lun / "volume").symlink_to(backstore)
        return {"location": str(number), "auth": ""}

    def initialize_connection(self, volume: Any, connector: dict[str, Any]) -> dict[str, Any]:
        """Let the initiators see the LUN."""
        port = self._port()
        number = int(volume.provider_location)
        initiators = self._initiators(connector)
        for initiator in initiators:
            seen = port / "acls" / _with_colons(initiator) / f"lun_{number}"
            if not seen.exists():
                seen.mkdir(parents=True)
                (seen / "lun").symlink_to(port / "lun" / f"lun_{number}")
        target = port.parent.name.replace(":", "")
        return {
            "driver_volume_type": "fibre_channel",
            "data": {
                "target_discovered": True,
                "target_lun": number,
                "target_wwn": [target],
                "volume_id": volume.id,
                "initiator_target_map": {initiator: [target] for initiator in initiators},
            },
        }

    def terminate_connection(self, volume: Any, connector: dict[str, Any], **kwargs: Any) -> None:
        """Let the initiators see it no more."""
        for initiator in self._initiators(connector):
            acl = self._port() / "acls" / _with_colons(initiator)
            _remove_lun(acl / f"lun_{volume.provider_location}")

    @utils.synchronized("tcm_fc", external=True)
    def remove_export(self, context: Any, volume: Any) -> None:
        """The volume is no LUN any more."""
        backstore = _BACKSTORES / volume.name
        if not backstore.exists():
            return
        number = self._lun_of(backstore)
        if number is not None:
            _remove_lun(self._port() / "lun" / f"lun_{number}")
        backstore.rmdir()

    @staticmethod
    def _port() -> pathlib.Path:
        (port,) = (_CONFIGFS / "fc").glob("*:*/tpgt_1")
        return port

    def _lun_of(self, backstore: pathlib.Path) -> int | None:
        for lun in (self._port() / "lun").glob("lun_*"):
            if any(os.path.realpath(link) == str(backstore) for link in _links(lun)):
                return int(lun.name.removeprefix("lun_"))
        return None

    def _initiators(self, connector: dict[str, Any]) -> list[str]:
        own = self._port().parent.name.replace(":", "")  # the target's port is one of the host's
        return [wwpn for wwpn in connector["wwpns"] if wwpn != own]


@interface.volumedriver
class LVMVolumeDriver(lvm.LVMVolumeDriver):
    """The stock driver; its target helper ``fake`` is ours."""

    @property
    def target_mapping(self) -> dict[str, str]:
        """The helpers by name, which the base class sets."""
        return {**self._helpers, "fake": f"{__name__}.{TcmFc.__name__}"}

    @target_mapping.setter
    def target_mapping(self, helpers: dict[str, str]) -> None:
        self._helpers = helpers


def _links(folder: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in folder.iterdir() if path.is_symlink()]


def _remove_lun(folder: pathlib.Path) -> None:
    if not folder.exists():
        return
    for link in _links(folder):
        link.unlink()
    folder.rmdir()


def _write(path: pathlib.Path, text: str) -> None:
    path.write_text(text, encoding="ascii")


def _with_colons(wwpn: str) -> str:
    return ":".join(wwpn[i : i + 2] for i in range(0, len(wwpn), 2))
