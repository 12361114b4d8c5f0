# SPDX-License-Identifier: Apache-2.0
"""Which files a mounted backup has."""

from __future__ import annotations

from freezer_osbrick.filesystem.image_folder import Image
from freezer_osbrick.operations import mount
from tests import physical_volume
from tests.physical_volume import MIB, Sparse
from tests.unit.filesystem.test_partitions import mbr

PARTITION = 4096 * 512


class Reader(Sparse):
    """A volume with a partition that LVM uses."""

    size = 1300 * MIB

    def __init__(self, group: bytes) -> None:
        super().__init__({0: mbr((0x8E, 4096, physical_volume.SIZE // 512)), PARTITION: group})


def test_partitions_and_logical_volumes_in_one_piece() -> None:
    images = mount._images(Reader(physical_volume.beginning()))  # type: ignore[arg-type]
    assert images == {
        "volume.img": Image(0, 1300 * MIB),
        "partition-1.img": Image(PARTITION, physical_volume.SIZE),
        "volume-guest-root.img": Image(PARTITION + MIB, 300 * MIB),
        "volume-guest-swap.img": Image(PARTITION + 301 * MIB, 40 * MIB),
        "volume-guest-home.img": Image(PARTITION + 341 * MIB, 300 * MIB),
    }


def test_a_group_that_cannot_be_read_is_not_shown() -> None:
    images = mount._images(Reader(bytes(1024)))  # type: ignore[arg-type]
    assert list(images) == ["volume.img", "partition-1.img"]
