# SPDX-License-Identifier: Apache-2.0
"""File systems told by their first bytes, made by the programs that make them."""

from __future__ import annotations

import pathlib
import shutil
import subprocess

import pytest

from freezer_osbrick.filesystem import superblocks
from freezer_osbrick.filesystem.superblocks import FileSystem

MIB = 1 << 20
SIZE = 320 * MIB
UUID = "0fc63daf-8483-4772-8e79-3d69d8477de4"


def made(folder: pathlib.Path, *command: str) -> FileSystem | None:
    if shutil.which(command[0], path="/usr/sbin:/sbin:/usr/bin:/bin") is None:
        pytest.skip(f"{command[0]} is not installed")
    path = folder / "image"
    with open(path, "wb") as file:
        file.truncate(SIZE)
    line = [*command, str(path)]
    env = {"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"}
    subprocess.run(line, check=True, capture_output=True, env=env)
    return look(path)


def look(path: pathlib.Path) -> FileSystem | None:
    with open(path, "rb") as file:

        def read(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        return superblocks.identify(read)


@pytest.mark.parametrize("kind", ["ext2", "ext3", "ext4"])
def test_ext(tmp_path: pathlib.Path, kind: str) -> None:
    found = made(tmp_path, f"mkfs.{kind}", "-q", "-F", "-U", UUID, "-L", "data", "-b", "4096")
    assert found
    assert (found.kind, found.label, found.uuid) == (kind, "data", UUID)
    assert (found.size, found.block_size) == (SIZE, 4096)
    assert found.details["dirty"] is False


def test_xfs(tmp_path: pathlib.Path) -> None:
    found = made(tmp_path, "mkfs.xfs", "-q", "-m", f"uuid={UUID},reflink=0", "-L", "data")
    assert found
    assert (found.kind, found.label, found.uuid) == ("xfs", "data", UUID)
    assert (found.size, found.block_size) == (SIZE, 4096)
    assert found.details["crc"] and not found.details["reflink"]


def test_btrfs(tmp_path: pathlib.Path) -> None:
    found = made(tmp_path, "mkfs.btrfs", "-q", "-U", UUID, "-L", "data")
    assert found
    assert (found.kind, found.label, found.uuid) == ("btrfs", "data", UUID)
    assert (found.size, found.block_size) == (SIZE, 4096)
    assert found.details["devices"] == 1 and not found.details["dirty"]


@pytest.mark.parametrize("bits", ["16", "32"])
def test_vfat(tmp_path: pathlib.Path, bits: str) -> None:
    found = made(tmp_path, "mkfs.vfat", "-F", bits, "-s", "64", "-i", "abcd1234", "-n", "DATA")
    assert found
    assert (found.kind, found.label, found.uuid) == ("vfat", "DATA", "ABCD-1234")
    assert found.details["bits"] == int(bits)


def test_swap(tmp_path: pathlib.Path) -> None:
    found = made(tmp_path, "mkswap", "-U", UUID, "-L", "swp")
    assert found
    assert (found.kind, found.label, found.uuid) == ("swap", "swp", UUID)


def test_what_is_no_file_system(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(bytes(range(256)) * 1024)
    assert look(path) is None
    path.write_bytes(b"")
    assert look(path) is None


def test_a_physical_volume_of_lvm() -> None:
    label = b"LABELONE" + bytes(16) + b"LVM2 001" + b"x" * 32
    disk = (bytes(512) + label).ljust(8192, b"\0")
    found = superblocks.identify(lambda offset, length: disk[offset : offset + length])
    assert found and found.kind == "lvm"


def test_a_luks_container() -> None:
    disk = b"LUKS\xba\xbe\0\x02".ljust(8192, b"\0")
    found = superblocks.identify(lambda offset, length: disk[offset : offset + length])
    assert found and found.kind == "luks"
