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


class Sparse:
    """Reads what is zeros but for some pieces; of those that overlap the later ones count.

    :param pieces: by offset, in bytes.
    """

    def __init__(self, pieces: dict[int, bytes]) -> None:
        self.pieces = pieces

    def read(self, offset: int, length: int) -> bytes:
        found = bytearray(length)
        for start, data in self.pieces.items():
            begin, end = max(start, offset), min(start + len(data), offset + length)
            if begin < end:
                found[begin - offset : end - offset] = data[begin - start : end - start]
        return bytes(found)
