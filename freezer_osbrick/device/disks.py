# SPDX-License-Identifier: Apache-2.0
"""The disks of this host as sysfs shows them. A disk is known here by its folder there."""

from __future__ import annotations

import glob
import os

SYSFS = "/sys"

_MULTIPATH = "mpath-"


def folder_of(descriptor: int, sysfs: str = SYSFS) -> str:
    """The folder of an opened block device."""
    number = os.fstat(descriptor).st_rdev
    return folder_by_number(f"{os.major(number)}:{os.minor(number)}", sysfs)


def folder_by_number(number: str, sysfs: str = SYSFS) -> str:
    """:param number: of the device, as ``major:minor``."""
    return os.path.realpath(os.path.join(sysfs, "dev", "block", number))


def name_of(folder: str) -> str:
    """The kernel's name of the disk: sda, dm-0, nvme0n1."""
    return os.path.basename(folder)


def node_of(folder: str) -> str:
    """The path below /dev."""
    return "/dev/" + name_of(folder).replace("!", "/")


def attribute(folder: str, name: str) -> str:
    """What a file of the folder holds; empty where there is none."""
    return content(folder, name).decode("ascii", "replace").strip()


def content(folder: str, name: str) -> bytes:
    try:
        with open(os.path.join(folder, name), "rb") as file:
            return file.read()
    except OSError:
        return b""


def kind(folder: str) -> str:
    """The kind of the disk: ``scsi``, ``nvme``, ``multipath``, ``raid``, or empty."""
    if attribute(folder, "dm/uuid").startswith(_MULTIPATH):
        return "multipath"
    if os.path.isdir(os.path.join(folder, "md")):
        return "raid"
    subsystem = os.path.basename(os.path.realpath(os.path.join(folder, "device", "subsystem")))
    return {"scsi": "scsi", "nvme": "nvme", "nvme-subsystem": "nvme"}.get(subsystem, "")


def below(folder: str) -> list[str]:
    """What identity is proved of: the disks that a multipath device or a RAID of replicas stands
    on, or the disk itself."""
    if kind(folder) not in ("multipath", "raid"):
        return [folder]
    return sorted(os.path.realpath(path) for path in glob.glob(os.path.join(folder, "slaves", "*")))


def holders(folder: str) -> list[str]:
    """Names of what the kernel has put upon the disk or a partition of it: ``dm-3 (vg-root)``."""
    found = []
    for pattern in ("holders/*", "*/holders/*"):
        for path in glob.glob(os.path.join(folder, pattern)):
            name = attribute(path, "dm/name")
            found.append(f"{os.path.basename(path)} ({name})" if name else os.path.basename(path))
    return sorted(set(found))


def mark(folder: str) -> str:
    """What tells this disk from a later one in the same folder."""
    for name in ("diskseq", "dm/uuid", "device/wwid", "uuid"):
        if found := attribute(folder, name):
            return f"{name} {found}"
    return ""


def all_block(sysfs: str = SYSFS) -> list[str]:
    """The folders of all disks, multipath devices and the like, without partitions and without
    the single paths of an NVMe namespace, which have no device."""
    found = (os.path.realpath(path) for path in glob.glob(os.path.join(sysfs, "block", "*")))
    return sorted(folder for folder in found if attribute(folder, "hidden") != "1")
