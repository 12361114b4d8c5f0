# SPDX-License-Identifier: Apache-2.0
"""Partition tables, made here byte by byte."""

from __future__ import annotations

import struct
import uuid
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freezer_osbrick import errors
from freezer_osbrick.filesystem import partitions
from freezer_osbrick.filesystem.partitions import Partition, Table, part_of

MIB = 1 << 20
SIZE = 12 * MIB
LINUX = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
OWN = uuid.UUID("6978cb05-f6c1-d249-abc8-e431051de2f8")


def read_table(disk: bytes) -> Table | None:
    return partitions.read_table(lambda offset, length: disk[offset : offset + length], len(disk))


def mbr(*entries: tuple[int, int, int]) -> bytes:
    """A sector with a table; entries of type, first sector, sectors."""
    rows = [struct.pack("<B3xB3xII", 0, *entry) for entry in entries]
    return (bytes(446) + b"".join(rows)).ljust(510, b"\0") + b"\x55\xaa"


def gpt(*entries: tuple[int, int, str], sector: int = 512) -> bytearray:
    """A disk with both copies of a table; entries of first and last sector and a name."""
    disk = bytearray(SIZE)
    last = SIZE // sector - 1
    array = b"".join(
        struct.pack(
            "<16s16sQQQ72s", LINUX.bytes_le, OWN.bytes_le, a, b, 0, name.encode("utf-16-le")
        )
        for a, b, name in entries
    ).ljust(128 * 128, b"\0")
    room = len(array) // sector
    for own, other, where in ((1, last, 2), (last, 1, last - room)):
        head = struct.pack(
            "<8sIIIIQQQQ16sQIII",
            *(b"EFI PART", 0x10000, 92, 0, 0, own, other, 34, last - 34, OWN.bytes_le),
            *(where, 128, 128, zlib.crc32(array)),
        )
        head = head[:16] + struct.pack("<I", zlib.crc32(head)) + head[20:]
        disk[own * sector : own * sector + len(head)] = head
        disk[where * sector : where * sector + len(array)] = array
    disk[:512] = mbr((0xEE, 1, last))
    return disk


@pytest.mark.parametrize("sector", [512, 4096])
def test_a_gpt(sector: int) -> None:
    table = read_table(bytes(gpt((256, 511, "root"), (512, 1023, "dåta"), sector=sector)))
    assert table and table.kind == "gpt"
    assert table.partitions == (
        Partition(1, 256 * sector, 256 * sector, str(LINUX), str(OWN), "root"),
        Partition(2, 512 * sector, 512 * sector, str(LINUX), str(OWN), "dåta"),
    )
    assert sum(length for _, length in table.records) == 512 + 2 * (sector + 16384)


def test_the_second_copy_of_a_gpt_serves_where_the_first_is_damaged() -> None:
    disk = gpt((256, 511, "root"))
    disk[1024 + 40] ^= 1
    table = read_table(bytes(disk))
    assert table and [one.number for one in table.partitions] == [1]
    disk[SIZE - 512 + 60] ^= 1
    assert read_table(bytes(disk)) is None


def test_an_mbr_with_logical_partitions() -> None:
    disk = bytearray(SIZE)
    disk[:512] = mbr((0x83, 2048, 2048), (0x05, 8192, 12288), (0, 0, 0), (0x82, 20480, 2048))
    disk[8192 * 512 : 8192 * 512 + 512] = mbr((0x83, 2048, 2048), (0x05, 4096, 8192))
    disk[12288 * 512 : 12288 * 512 + 512] = mbr((0x8E, 2048, 4096))
    table = read_table(bytes(disk))
    assert table and table.kind == "mbr"
    assert [
        (one.number, one.start // 512, one.size // 512, one.type) for one in table.partitions
    ] == [
        (1, 2048, 2048, "83"),
        (4, 20480, 2048, "82"),
        (5, 10240, 2048, "83"),
        (6, 14336, 4096, "8e"),
    ]
    assert table.records == ((0, 512), (8192 * 512, 512), (12288 * 512, 512))


def test_a_chain_of_logical_partitions_that_bites_its_tail_ends() -> None:
    disk = bytearray(SIZE)
    disk[:512] = mbr((0x05, 8192, 12288))
    disk[8192 * 512 : 8192 * 512 + 512] = mbr((0x83, 2048, 4096), (0x05, 0, 8192))
    table = read_table(bytes(disk))
    assert table and [one.number for one in table.partitions] == [5]


@pytest.mark.parametrize(
    "sector",
    [
        bytes(512),
        mbr(),
        mbr((0x83, 2048, SIZE // 512)),  # beyond the end
        mbr((0x83, 2048, 4096), (0x83, 4096, 4096)),  # one over the other
        mbr((0x83, 0, 4096)),  # over the table itself
        b"\xeb\x3c\x90" + bytes(443) + bytes(range(1, 65)) + b"\x55\xaa",  # code
    ],
    ids=["zeros", "empty", "beyond", "overlap", "zero", "boot"],
)
def test_what_is_no_table(sector: bytes) -> None:
    assert read_table(sector.ljust(SIZE, b"\0")) is None


@settings(deadline=None)
@given(st.binary(max_size=2048), st.integers(0, 1500))
def test_any_bytes_are_read_without_harm(noise: bytes, place: int) -> None:
    disk = gpt((256, 511, "root"))
    disk[place : place + len(noise)] = noise
    table = read_table(bytes(disk))
    assert table is None or all(one.end <= SIZE for one in table.partitions)


def test_a_partition_by_its_number() -> None:
    table = read_table(bytes(gpt((256, 511, "root"))))
    assert table and partitions.find(table, 1).start == 256 * 512
    with pytest.raises(errors.BadRequest, match="no partition 3; there are: 1"):
        partitions.find(table, 3)


def test_a_part_in_pieces() -> None:
    """Each byte is where the order of the pieces puts it."""
    content = bytes(range(100))
    part = part_of(
        lambda offset, length: content[offset : offset + length], (50, 10), (0, 5), (90, 10)
    )
    whole = content[50:60] + content[:5] + content[90:]
    for offset in range(27):
        for length in range(28):
            assert part(offset, length) == whole[offset : offset + length]
