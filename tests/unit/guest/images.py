# SPDX-License-Identifier: Apache-2.0
"""Small images of file systems, made without root by the programs of each."""

import os
import pathlib
import shutil
import subprocess

import pytest

MIB = 1 << 20
_SIZES = {"xfs": 300 * MIB, "btrfs": 128 * MIB}
_PROGRAMS = {
    "ext4": "mke2fs",
    "ext2": "mke2fs",
    "xfs": "mkfs.xfs",
    "btrfs": "mkfs.btrfs",
    "vfat": "mformat",
}
os.environ["PATH"] += ":/usr/sbin:/sbin"


def fill(folder: pathlib.Path) -> None:
    """A tree that a plain user can make and every file system but FAT can hold."""
    (folder / "etc").mkdir()
    (folder / "etc" / "hosts").write_bytes(b"127.0.0.1 localhost\n")
    (folder / "etc" / "empty").write_bytes(b"")
    (folder / "large").write_bytes(bytes(range(256)) * 8000)
    (folder / "many").mkdir()
    for number in range(300):
        (folder / "many" / f"file-{number:04}-with-a-name-of-some-length").write_bytes(
            b"%d" % number
        )
    deep = folder.joinpath(*(f"d{number}" for number in range(12)))
    deep.mkdir(parents=True)
    (deep / "bottom").write_bytes(b"deep")


def make(kind: str, path: pathlib.Path, source: pathlib.Path) -> None:
    """An image with all that is in a folder."""
    if not shutil.which(_PROGRAMS[kind]):
        pytest.skip(f"{_PROGRAMS[kind]} is not installed")
    size = _SIZES.get(kind, 32 * MIB)
    with open(path, "wb") as file:
        file.truncate(size)
    if kind in ("ext2", "ext4"):
        run("mke2fs", "-q", "-F", "-t", kind, "-d", source, path)
    elif kind == "btrfs":
        run("mkfs.btrfs", "-q", "-f", "--rootdir", source, path)
    elif kind == "xfs":
        prototype = path.with_suffix(".proto")
        prototype.write_text("/stand/diskboot\n0 0\n" + "\n".join(_prototype(source)) + "\n")
        run("mkfs.xfs", "-q", "-f", "-p", prototype, path)
    else:
        run("mformat", "-i", path, "-T", size // 512, "-h", 64, "-s", 32, "::")
        run("mcopy", "-i", path, "-s", *source.iterdir(), "::")


def _prototype(folder: pathlib.Path) -> list[str]:
    lines = ["d--755 0 0"]
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            inner = _prototype(path)
            lines += [f"{path.name} {inner[0]}", *inner[1:]]
        else:
            lines.append(f"{path.name} ---644 0 0 {path}")
    return [*lines, "$"]


def run(*command: object) -> None:
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)


def reader(content: bytes):
    """Reads bytes in memory."""
    return lambda offset, length: content[offset : offset + length]
