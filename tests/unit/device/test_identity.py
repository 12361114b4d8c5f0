# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator

import pytest

from freezer_osbrick import errors
from freezer_osbrick.device import identity

GIB = 1 << 30
WWN = "3600508b400105e210000900000490000"


@pytest.mark.parametrize("actual", [GIB, GIB + 1, 2 * GIB - 1])
def test_sizes_of_the_volume(actual: int) -> None:
    identity.prove_size("it", actual, GIB)


@pytest.mark.parametrize("actual", [0, GIB - 1, 2 * GIB])
def test_sizes_of_something_else(actual: int) -> None:
    with pytest.raises(errors.IdentityError, match=f"it has {actual} bytes"):
        identity.prove_size("it", actual, GIB)


@pytest.fixture
def descriptor(tmp_path: pathlib.Path) -> Iterator[int]:
    """Of a file, which the pretended sysfs takes for the block device 0:0."""
    descriptor = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def sysfs(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "sys"


def disk(sysfs: pathlib.Path, name: str, **attributes: str) -> pathlib.Path:
    folder = sysfs / "devices" / name
    (folder / "device").mkdir(parents=True)
    for attribute, value in attributes.items():
        (folder / attribute.replace("__", "/")).write_text(value + "\n")
    return folder


def block_device(sysfs: pathlib.Path, folder: pathlib.Path) -> None:
    (sysfs / "dev" / "block").mkdir(parents=True)
    (sysfs / "dev" / "block" / "0:0").symlink_to(folder)


def test_a_scsi_disk(sysfs: pathlib.Path, descriptor: int) -> None:
    block_device(sysfs, disk(sysfs, "sda", device__wwid="naa." + WWN[1:]))
    identity.prove_name(descriptor, {}, {"scsi_wwn": WWN}, sysfs=str(sysfs))
    other = WWN[:-1] + "1"
    with pytest.raises(errors.IdentityError, match="sda is naa.6005.* and not naa.6005.*1: this"):
        identity.prove_name(descriptor, {}, {"scsi_wwn": other}, sysfs=str(sysfs))


def test_every_path_of_a_multipath_device(sysfs: pathlib.Path, descriptor: int) -> None:
    mapped = disk(sysfs, "dm-0")
    (mapped / "slaves").mkdir()
    for name in ("sda", "sdb"):
        path = disk(sysfs, name, device__wwid="naa." + WWN[1:])
        (mapped / "slaves" / name).symlink_to(path)
    block_device(sysfs, mapped)
    identity.prove_name(descriptor, {}, {"scsi_wwn": WWN}, sysfs=str(sysfs))
    (sysfs / "devices" / "sdb" / "device" / "wwid").write_text("naa.600508b400105e21ffff\n")
    with pytest.raises(errors.IdentityError, match="sdb"):
        identity.prove_name(descriptor, {}, {"scsi_wwn": WWN}, sysfs=str(sysfs))


@pytest.mark.parametrize(("key", "attribute"), [("vol_uuid", "uuid"), ("volume_nguid", "nguid")])
def test_an_nvme_namespace(sysfs: pathlib.Path, descriptor: int, key: str, attribute: str) -> None:
    told = "6c8f3a52-8b7d-4b5e-9f37-0a1b2c3d4e5f"
    block_device(sysfs, disk(sysfs, "nvme0n1", **{attribute: told.replace("-", "").upper()}))
    identity.prove_name(descriptor, {key: told}, {}, sysfs=str(sysfs))
    with pytest.raises(errors.IdentityError, match="nvme0n1"):
        identity.prove_name(descriptor, {key: told[::-1]}, {}, sysfs=str(sysfs))


def test_nothing_told_and_nothing_known(sysfs: pathlib.Path, descriptor: int) -> None:
    block_device(sysfs, disk(sysfs, "loop0"))
    identity.prove_name(descriptor, {}, {}, sysfs=str(sysfs))
    # This disk has no such attribute, and "1ATA..." is no network address authority identity.
    identity.prove_name(descriptor, {"vol_uuid": "x"}, {"scsi_wwn": WWN}, sysfs=str(sysfs))
    identity.prove_name(descriptor, {}, {"scsi_wwn": "1ATA     DISK"}, sysfs=str(sysfs))
