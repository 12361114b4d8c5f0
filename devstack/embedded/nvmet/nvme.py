# SPDX-License-Identifier: Apache-2.0
"""The kernel's NVMe target in configfs: subsystems, their namespaces, and the ports they are on."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

_CONFIGFS = pathlib.Path("/sys/kernel/config/nvmet")

OnError = Callable[[str], None]


class CFSNotFound(Exception):
    """There is no such object."""


class _Node:
    """A folder of configfs, which exists; in mode ``create`` it is made."""

    def __init__(self, path: pathlib.Path, mode: str) -> None:
        if mode == "create":
            path.mkdir()
        elif not path.is_dir():
            raise CFSNotFound(f"{path} does not exist")
        self.path = str(path)

    def get_attr(self, group: str, name: str) -> str:
        """An attribute: ``device``, ``path`` is the file ``device_path``."""
        return pathlib.Path(self.path, f"{group}_{name}").read_text(encoding="ascii").strip()

    def set_attr(self, group: str, name: str, value: object) -> None:
        """Set an attribute."""
        pathlib.Path(self.path, f"{group}_{name}").write_text(str(value), encoding="ascii")

    def delete(self) -> None:
        """Remove the object."""
        os.rmdir(self.path)


class Root(_Node):
    """All of it."""

    def __init__(self) -> None:
        super().__init__(_CONFIGFS, "lookup")

    @property
    def subsystems(self) -> Iterator[Subsystem]:
        for name in os.listdir(os.path.join(self.path, "subsystems")):
            yield Subsystem(name)

    @property
    def ports(self) -> Iterator[Port]:
        for name in os.listdir(os.path.join(self.path, "ports")):
            yield Port(name)


class Subsystem(_Node):
    """What initiators connect to, by its NQN."""

    def __init__(self, nqn: str, mode: str = "lookup") -> None:
        super().__init__(_CONFIGFS / "subsystems" / nqn, mode)
        self.nqn = nqn

    @property
    def namespaces(self) -> Iterator[Namespace]:
        for name in os.listdir(os.path.join(self.path, "namespaces")):
            yield Namespace(self, name)

    @classmethod
    def setup(cls, section: dict[str, Any], err_func: OnError) -> None:
        """Make one with its namespaces; the section is of nvmetcli's configuration file."""
        subsystem = Subsystem(section["nqn"], "create")
        for name, value in section["attr"].items():
            subsystem.set_attr("attr", name, value)
        for namespace in section["namespaces"]:
            Namespace.setup(subsystem, namespace, err_func)

    def delete(self) -> None:
        for namespace in self.namespaces:
            namespace.delete()
        super().delete()


class Namespace(_Node):
    """A device of a subsystem."""

    MAX_NSID = 8192

    def __init__(self, subsystem: Subsystem, nsid: int | str, mode: str = "lookup") -> None:
        super().__init__(pathlib.Path(subsystem.path, "namespaces", str(nsid)), mode)
        self.subsystem = subsystem
        self.nsid = int(nsid)

    @classmethod
    def setup(cls, subsystem: Subsystem, section: dict[str, Any], err_func: OnError) -> None:
        """Make one; the section is of nvmetcli's configuration file."""
        namespace = Namespace(subsystem, section["nsid"], "create")
        try:
            for name, value in section["device"].items():
                namespace.set_attr("device", name, value)
            pathlib.Path(namespace.path, "enable").write_text(str(section["enable"]))
        except OSError as error:
            err_func(f"The namespace {namespace.path} cannot be set up: {error}")


class Port(_Node):
    """An address that subsystems are reached at."""

    def __init__(self, portid: int | str, mode: str = "lookup") -> None:
        super().__init__(_CONFIGFS / "ports" / str(portid), mode)
        self.portid = int(portid)

    @property
    def subsystems(self) -> list[str]:
        return os.listdir(os.path.join(self.path, "subsystems"))

    def add_subsystem(self, nqn: str) -> None:
        """Let a subsystem be reached here."""
        os.symlink(_CONFIGFS / "subsystems" / nqn, os.path.join(self.path, "subsystems", nqn))

    def remove_subsystem(self, nqn: str) -> None:
        """Let a subsystem be reached here no more; who is connected is thrown out."""
        os.unlink(os.path.join(self.path, "subsystems", nqn))

    @classmethod
    def setup(cls, root: Root, section: dict[str, Any], err_func: OnError) -> None:
        """Make one; the section is of nvmetcli's configuration file."""
        port = Port(section["portid"], "create")
        try:
            for name, value in section["addr"].items():
                port.set_attr("addr", name, value)
            for nqn in section["subsystems"]:
                port.add_subsystem(nqn)
        except OSError as error:
            err_func(f"The port {port.path} cannot be set up: {error}")


class Host(_Node):
    """An initiator that a subsystem admits."""

    def __init__(self, nqn: str, mode: str = "lookup") -> None:
        super().__init__(_CONFIGFS / "hosts" / nqn, mode)
        self.nqn = nqn


class Referral(_Node):
    """A hint of a port to another one."""

    def __init__(self, port: Port, name: str, mode: str = "lookup") -> None:
        super().__init__(pathlib.Path(port.path, "referrals", name), mode)
        self.port, self.name = port, name


class ANAGroup(_Node):
    """Namespaces of a port that have one state of access."""

    def __init__(self, port: Port, grpid: int | str, mode: str = "lookup") -> None:
        super().__init__(pathlib.Path(port.path, "ana_groups", str(grpid)), mode)
        self.port, self.grpid = port, int(grpid)
