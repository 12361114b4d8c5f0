# SPDX-License-Identifier: Apache-2.0
"""A pretended sysfs, with disks that answer what they are told to."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable

import pytest

from freezer_osbrick.device import disks, inquiry
from freezer_osbrick.device.inquiry import Answer

GIB = 1 << 30


def page(*designators: tuple[int, int, bytes]) -> bytes:
    """A page 0x83 of designators: code set, association and type, value."""
    body = b"".join(
        bytes([code_set, kind, 0, len(value)]) + value for code_set, kind, value in designators
    )
    return bytes([0, 0x83]) + len(body).to_bytes(2, "big") + body


def naa(digits: str) -> bytes:
    return page((1, 3, bytes.fromhex(digits)))


class Sysfs:
    """Folders as the kernel has them, below a folder of a test's."""

    def __init__(self, root: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.answers: dict[str, Answer | OSError] = {}
        self._monkeypatch = monkeypatch
        (root / "dev" / "block").mkdir(parents=True)
        (root / "nodes").mkdir()
        monkeypatch.setattr(disks, "node_of", lambda folder: str(self.node(folder)))
        for kind in ("scsi", "nvme"):
            monkeypatch.setattr(inquiry, kind, self._answer)

    def node(self, folder: str | os.PathLike[str]) -> pathlib.Path:
        """A file in place of the device below /dev."""
        path = self.root / "nodes" / os.path.basename(folder)
        path.touch()
        return path

    def write(self, path: str, content: str | bytes) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode() + b"\n")

    def link(self, path: str, target: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.symlink_to(self.root / target)

    def scsi_disk(
        self, where: str, name: str, digits: str, *, size: int = GIB, cached: str | None = None
    ) -> str:
        """:param where: its folder below ``devices``, with host, target and so on.
        :param digits: its name, which it answers.
        :param cached: the name that the kernel knows it by, if that is another one.
        """
        folder = f"devices/{where}/block/{name}"
        known = naa(cached or digits)
        self.write(f"devices/{where}/vpd_pg83", known)
        self.write(f"devices/{where}/state", "running")
        (self.root / "bus" / "scsi").mkdir(parents=True, exist_ok=True)
        self.link(f"devices/{where}/subsystem", "bus/scsi")
        self.link(f"{folder}/device", f"devices/{where}")
        self.link(f"block/{name}", folder)
        self.answers[name] = Answer(frozenset({f"naa.{digits}"}), size)
        return str(self.root / folder)

    def session(self, number: int, target: str) -> str:
        """An iSCSI session; returns its folder, for disks."""
        folder = f"platform/host{number}/session{number}"
        self.write(f"devices/{folder}/iscsi_session/session{number}/targetname", target)
        self.link(
            f"class/iscsi_session/session{number}",
            f"devices/{folder}/iscsi_session/session{number}",
        )
        self.link(f"devices/{folder}/iscsi_session/session{number}/device", f"devices/{folder}")
        return folder

    def multipath(self, name: str, wwid: str, *paths: str) -> str:
        folder = f"devices/virtual/block/{name}"
        self.write(f"{folder}/dm/uuid", f"mpath-{wwid}")
        self.write(f"{folder}/dm/name", wwid)
        (self.root / folder / "slaves").mkdir()
        for path in paths:
            (self.root / folder / "slaves" / os.path.basename(path)).symlink_to(path)
        self.link(f"block/{name}", folder)
        return str(self.root / folder)

    def controller(self, name: str, nqn: str, address: str, port: str) -> str:
        folder = f"devices/virtual/nvme-fabrics/ctl/{name}"
        self.write(f"{folder}/subsysnqn", nqn)
        self.write(f"{folder}/address", f"traddr={address},trsvcid={port}")
        (self.root / "class" / "nvme").mkdir(parents=True, exist_ok=True)
        self.link(f"class/nvme/{name}", folder)
        self.link(f"{folder}/subsystem", "class/nvme")
        return folder

    def namespace(self, controller: str, name: str, number: int, **names: str) -> str:
        folder = f"{controller}/{name}"
        self.write(f"{folder}/nsid", str(number))
        for key, value in names.items():
            self.write(f"{folder}/{key}", value)
        self.link(f"{folder}/device", controller)
        self.link(f"block/{name}", folder)
        return str(self.root / folder)

    def is_device(self, folder: str) -> None:
        """Let this disk be what a plain file is taken for, which has the number 0:0."""
        link = self.root / "dev" / "block" / "0:0"
        link.unlink(missing_ok=True)
        link.symlink_to(folder)

    def _answer(self, descriptor: int) -> Answer:
        path = os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))
        answer = self.answers[path if path in self.answers else self.opened]
        if isinstance(answer, OSError):
            raise answer
        return answer

    #: The disk that a descriptor leads to which is not of one of the nodes.
    opened = ""


Make = Callable[[], Sysfs]
