# SPDX-License-Identifier: Apache-2.0
"""The beginning of a physical volume of 1200 MiB, as LVM 2.03 wrote it: group ``guest`` with plain
logical volumes, extents of 4 MiB.

It was made on a loop device by pvcreate and vgcreate, and by vgcfgrestore of a text that names the
logical volumes: that needs no device-mapper.
"""

from __future__ import annotations

import lzma
import pathlib

MIB = 1 << 20
SIZE = 1200 * MIB
ROOT = (MIB, 300 * MIB)
SWAP = (301 * MIB, 40 * MIB)
HOME = (341 * MIB, 300 * MIB)
DATA = ((641 * MIB, 240 * MIB), (1041 * MIB, 80 * MIB))  # guest/my-data


def beginning() -> bytes:
    """What LVM writes: label and metadata, 8 KiB."""
    return lzma.decompress(
        (pathlib.Path(__file__).parent / "golden" / "physical-volume.xz").read_bytes()
    )
