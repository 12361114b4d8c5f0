# SPDX-License-Identifier: Apache-2.0
"""Where Cinder says a volume is, and which disks of this host are there.

Names that disks give themselves say which is which only to who was told a name; Cinder tells
targets and numbers of logical units. Here the kernel's own record of what it is connected to is
compared with them.
"""

from __future__ import annotations

import abc
import glob
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from freezer_osbrick.device import disks

_SCSI_ADDRESS = re.compile(r"/target[\d:]+/(\d+:\d+:\d+):(\d+)/block/")
_SESSION = re.compile(r"/(session\d+)/")

# What os-brick adds to a number where the storage addresses units in the flat way.
_FLAT = 16384


class Place(abc.ABC):
    """A volume's place in one kind of network."""

    def __init__(self, sysfs: str) -> None:
        self._sysfs = sysfs

    @abc.abstractmethod
    def holds(self, folder: str) -> bool:
        """Whether a disk is at the place."""

    @abc.abstractmethod
    def where(self, folder: str) -> str:
        """For people: where a disk is."""

    @abc.abstractmethod
    def remains(self) -> list[str]:
        """For people: what of this host is there still, and would not be if it had let go."""

    def disks(self) -> list[str]:
        """The disks at the place."""
        return [folder for folder in disks.all_block(self._sysfs) if self.holds(folder)]

    def _read(self, *path: str) -> str:
        return disks.attribute(os.path.join(self._sysfs, *path[:-1]), path[-1])


def told(connection_info: Mapping[str, Any], sysfs: str = disks.SYSFS) -> Place | None:
    """The place that Cinder's connection tells of; None where it is of another kind."""
    protocol = str(connection_info.get("driver_volume_type") or "").lower()
    kind = _KINDS.get(protocol)
    return kind(connection_info, sysfs) if kind else None


class ISCSI(Place):
    """Targets by their names, and the number of the unit."""

    def __init__(self, info: Mapping[str, Any], sysfs: str) -> None:
        super().__init__(sysfs)
        names = _list(info, "target_iqn", "target_iqns")
        numbers = _numbers(_list(info, "target_lun", "target_luns"))
        self._names = {str(name) for name in names}
        self._numbers = numbers

    def holds(self, folder: str) -> bool:
        found = _SCSI_ADDRESS.search(folder)
        return (
            found is not None
            and int(found[2]) in self._numbers
            and self._target(folder) in self._names
        )

    def where(self, folder: str) -> str:
        found = _SCSI_ADDRESS.search(folder)
        return f"unit {found[2] if found else '?'} of {self._target(folder) or 'no target'}"

    def remains(self) -> list[str]:
        left = [disks.name_of(folder) for folder in self.disks()]
        for path in glob.glob(os.path.join(self._sysfs, "class", "iscsi_session", "session*")):
            session = os.path.basename(path)
            if self._read("class", "iscsi_session", session, "targetname") in self._names and (
                not glob.glob(os.path.join(path, "device", "target*", "*:*:*:*", "block", "*"))
            ):
                left.append(f"an iSCSI {session} without disks")
        return left

    def _target(self, folder: str) -> str:
        session = _SESSION.search(folder)
        return self._read("class", "iscsi_session", session[1], "targetname") if session else ""


class FibreChannel(Place):
    """Ports of the storage by their names, and the number of the unit."""

    def __init__(self, info: Mapping[str, Any], sysfs: str) -> None:
        super().__init__(sysfs)
        ports = _list(info, "target_wwn", "target_wwns")
        numbers = _list(info, "target_lun", "target_luns")
        for targets in dict(info.get("initiator_target_map") or {}).values():
            ports += targets
        for pairs in dict(info.get("initiator_target_lun_map") or {}).values():
            ports += [port for port, _ in pairs]
            numbers += [number for _, number in pairs]
        self._ports = {_bare(port) for port in ports}
        self._numbers = _numbers(numbers)

    def holds(self, folder: str) -> bool:
        found = _SCSI_ADDRESS.search(folder)
        return (
            found is not None
            and int(found[2]) in self._numbers
            and self._port(found[1]) in self._ports
        )

    def where(self, folder: str) -> str:
        found = _SCSI_ADDRESS.search(folder)
        return f"unit {found[2]} of port {self._port(found[1])}" if found else "at no port"

    def remains(self) -> list[str]:
        return [disks.name_of(folder) for folder in self.disks()]

    def _port(self, target: str) -> str:
        return _bare(self._read("class", "fc_transport", f"target{target}", "port_name"))


class NVMe(Place):
    """Subsystems by their names, portals, and what tells the namespace."""

    def __init__(self, info: Mapping[str, Any], sysfs: str) -> None:
        super().__init__(sysfs)
        self._subsystems: set[str] = set()
        self._portals: set[tuple[str, str]] = set()
        # Each namespace by whichever of the names it has; numbers only where no name is told.
        self._names: set[str] = set()
        self._numbers: set[str] = set()
        for target in info.get("volume_replicas") or [info]:
            self._add(target)

    def _add(self, target: Mapping[str, Any]) -> None:
        self._subsystems.add(str(target.get("target_nqn") or target.get("nqn") or ""))
        for address, port, *_ in target.get("portals") or [
            (target.get("target_portal"), target.get("target_port"))
        ]:
            self._portals.add((str(address), str(port)))
        names = {_bare(target[key]) for key in ("vol_uuid", "volume_nguid") if target.get(key)}
        self._names |= names
        if not names and target.get("ns_id"):
            self._numbers.add(str(target["ns_id"]))

    def holds(self, folder: str) -> bool:
        return (
            disks.kind(folder) == "nvme"
            and disks.attribute(folder, "device/subsysnqn") in self._subsystems
            and self._is_ours(folder)
        )

    def _is_ours(self, folder: str) -> bool:
        if self._names:
            names = {_bare(disks.attribute(folder, name)) for name in ("uuid", "nguid")}
            return bool(names & self._names)
        return not self._numbers or disks.attribute(folder, "nsid") in self._numbers

    def where(self, folder: str) -> str:
        return (
            f"namespace {disks.attribute(folder, 'nsid') or '?'} of"
            f" {disks.attribute(folder, 'device/subsysnqn') or 'no subsystem'}"
        )

    def remains(self) -> list[str]:
        """A subsystem with namespaces of others keeps ours until Cinder takes it away."""
        left = []
        for controller in self.controllers():
            namespaces = self._namespaces(controller)
            if all(self._is_ours(path) for path in namespaces):
                told = "with the volume" if namespaces else "without namespaces"
                left.append(f"the NVMe controller {controller} {told}")
        return left

    def idle_controllers(self) -> list[str]:
        """Names of controllers that have no namespace at all."""
        return [name for name in self.controllers() if not self._namespaces(name)]

    def controllers(self) -> list[str]:
        """Names of this host's connections to the portals that were told."""
        found = []
        for path in glob.glob(os.path.join(self._sysfs, "class", "nvme", "nvme*")):
            name = os.path.basename(path)
            if self._read("class", "nvme", name, "subsysnqn") not in self._subsystems:
                continue
            address = self._read("class", "nvme", name, "address")
            parts = dict(part.split("=", 1) for part in address.split(",") if "=" in part)
            if (parts.get("traddr"), parts.get("trsvcid")) in self._portals:
                found.append(name)
        return sorted(found)

    def _namespaces(self, controller: str) -> list[str]:
        return glob.glob(os.path.join(self._sysfs, "class", "nvme", controller, "nvme*n*"))


_KINDS: dict[str, type[ISCSI] | type[FibreChannel] | type[NVMe]] = {
    "iscsi": ISCSI,
    "iser": ISCSI,
    "fibre_channel": FibreChannel,
    "nvmeof": NVMe,
    "nvme": NVMe,
}


def _list(info: Mapping[str, Any], *keys: str) -> list[Any]:
    """The values of keys that hold one or several."""
    found: list[Any] = []
    for key in keys:
        value = info.get(key)
        if value is not None:
            found += value if isinstance(value, list | tuple) else [value]
    return found


def _numbers(told: Iterable[Any]) -> set[int]:
    numbers = {int(number) for number in told}
    return numbers | {number + _FLAT for number in numbers}


def _bare(name: Any) -> str:
    """A name in hexadecimal digits and nothing else."""
    return re.sub(r"[^0-9a-f]", "", str(name).lower().removeprefix("0x"))
