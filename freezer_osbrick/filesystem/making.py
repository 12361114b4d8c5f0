# SPDX-License-Identifier: Apache-2.0
"""New file systems of the same kind, with the same label, UUID and features, by the programs that
make them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence

from freezer_osbrick import errors
from freezer_osbrick.filesystem.superblocks import FileSystem

_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
_PACKAGES = {"ext2": "e2fsprogs", "ext3": "e2fsprogs", "ext4": "e2fsprogs"}
_PACKAGES |= {"xfs": "xfsprogs", "btrfs": "btrfs-progs", "vfat": "dosfstools"}

# What mke2fs is told by other options, or does by itself.
_EXT_NOT_NAMED = {"meta_bg", "journal_dev", "orphan_file", "mmp", "encrypt", "verity"}
_LABEL_OF_VFAT = re.compile(r"[^\x20-\x7e]")


def make(path: str, like: FileSystem, size: int) -> None:
    """Make a file system like another one on a device.

    :param path: of the device, all of whose content is lost.
    :param size: of the file system in bytes, at most the device's.
    :raises errors.DeviceError: it cannot be made.
    """
    command = _COMMANDS[like.kind](like, size)
    _run([*command, path] + _size_after(like, size), like.kind)


def check_programs(kinds: Sequence[str]) -> None:
    """
    :raises errors.DeviceError: a program that makes one of these kinds is missing.
    """
    for kind in kinds:
        if shutil.which(f"mkfs.{kind}", path=_PATH) is None:
            raise errors.DeviceError(
                f"A {kind} file system cannot be made: install the package {_PACKAGES[kind]}."
            )


def _ext(like: FileSystem, size: int) -> list[str]:
    details = like.details
    features = [name for name in details["features"] if name not in _EXT_NOT_NAMED]
    inodes = details["inodes"] * max(size, like.size) // max(like.size, 1)
    return [
        *(f"mkfs.{like.kind}", "-q", "-F", "-E", "nodiscard,lazy_itable_init=1"),
        *("-b", str(like.block_size), "-I", str(details["inode_size"]), "-N", str(inodes)),
        *("-O", ",".join(["none", *features]), "-U", like.uuid, "-L", like.label),
    ]


def _xfs(like: FileSystem, size: int) -> list[str]:
    details = like.details
    if not details["crc"]:
        meta = "crc=0,finobt=0,reflink=0"
    else:
        names = ("finobt", "rmapbt", "reflink", "inobtcount", "bigtime")
        meta = ",".join(["crc=1", *(f"{name}={details[name]:d}" for name in names)])
    naming = "" if details["crc"] else f",ftype={details['ftype']:d}"
    return [
        *("mkfs.xfs", "-q", "-f", "-K", "-m", f"{meta},uuid={like.uuid}"),
        *("-b", f"size={like.block_size}", "-i", f"size={details['inode_size']}"),
        *("-s", f"size={details['sector_size']}", "-n", f"version=2{naming}"),
        *("-d", f"size={size // like.block_size}b", "-L", like.label),
    ]


def _btrfs(like: FileSystem, size: int) -> list[str]:
    details = like.details
    line = [
        *("mkfs.btrfs", "-q", "-f", "-K", "-U", like.uuid, "-L", like.label),
        *("-s", str(like.block_size), "-n", str(details["node_size"])),
        *("--byte-count", str(size)),
    ]
    if details["checksum"]:
        line += ["--csum", details["checksum"]]
    return [*line, "--mixed"] if details["mixed"] else line


def _vfat(like: FileSystem, size: int) -> list[str]:
    details = like.details
    return [
        *("mkfs.vfat", "-F", str(details["bits"]), "-i", like.uuid.replace("-", "").lower()),
        *("-S", str(details["sector_size"]), "-s", str(details["sectors_per_cluster"])),
        *("-n", _LABEL_OF_VFAT.sub("_", like.label) or "NO NAME"),
    ]


_COMMANDS: dict[str, Callable[[FileSystem, int], list[str]]] = {
    "ext2": _ext,
    "ext3": _ext,
    "ext4": _ext,
    "xfs": _xfs,
    "btrfs": _btrfs,
    "vfat": _vfat,
}


def _size_after(like: FileSystem, size: int) -> list[str]:
    """The size, where the program wants it behind the device."""
    if like.kind.startswith("ext"):
        return [str(size // like.block_size)]
    return [str(size // 1024)] if like.kind == "vfat" else []


def _run(line: list[str], kind: str) -> None:
    check_programs([kind])
    env = {**os.environ, "PATH": _PATH, "LC_ALL": "C"}
    done = subprocess.run(
        line, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=env
    )
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())
        raise errors.DeviceError(f"The {kind} file system could not be made: {said}")
