# SPDX-License-Identifier: Apache-2.0
"""Volume groups, read from what LVM wrote and from what was done to it."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

import pytest

from freezer_osbrick.filesystem import logical_volumes
from freezer_osbrick.filesystem.logical_volumes import (
    LogicalVolume,
    NotReadable,
    _crc,
    read_group,
)
from tests.physical_volume import DATA, HOME, MIB, ROOT, SIZE, SWAP, beginning

METADATA = 4096
TEXT = METADATA + 1536


def reader(data: bytes, start: int = 0) -> Callable[[int, int], bytes]:
    def read(offset: int, length: int) -> bytes:
        offset -= start
        part = data[max(offset, 0) : max(offset, 0) + length]
        return part + bytes(length - len(part))

    return read


def text_of(data: bytes) -> bytes:
    start, length = struct.unpack_from("<QQ", data, METADATA + 40)
    return data[METADATA + start : METADATA + start + length]


def with_text(change: Callable[[bytes], bytes], *, start: int = 1536, area: int = 0) -> bytes:
    """The physical volume with another text, whose checksums are right.

    :param start: of the text within the metadata.
    :param area: size of the metadata, where it is to be another.
    """
    data = bytearray(beginning().ljust(64 << 10, b"\0"))
    text = change(text_of(data))
    size = area or struct.unpack_from("<Q", data, METADATA + 32)[0]
    struct.pack_into("<Q", data, METADATA + 32, size)
    if area:
        struct.pack_into("<Q", data, 512 + 32 + 40 + 40, area)
        struct.pack_into("<I", data, 528, _crc(bytes(data[532:1024])))
    struct.pack_into("<QQI", data, METADATA + 40, start, len(text), _crc(text))
    struct.pack_into("<I", data, METADATA, _crc(bytes(data[METADATA + 4 : METADATA + 512])))
    first = min(len(text), size - start)
    data[METADATA + start : METADATA + start + first] = text[:first]
    data[METADATA + 512 : METADATA + 512 + len(text) - first] = text[first:]
    return bytes(data)


def replaced(old: str, new: str, count: int = -1) -> bytes:
    assert old.encode() in text_of(beginning())
    return with_text(lambda text: text.replace(old.encode(), new.encode(), count))


def test_what_lvm_wrote() -> None:
    group = read_group(reader(beginning()), 0, SIZE)
    assert group.name == "guest"
    assert group.volumes == (
        LogicalVolume("guest/home", (HOME,)),
        LogicalVolume("guest/my-data", DATA),
        LogicalVolume("guest/root", (ROOT,)),
        LogicalVolume("guest/swap", (SWAP,)),
    )
    assert group.records == ((0, MIB),)
    assert group.volumes[1].size == 320 * MIB
    assert group.volumes[1].folder == "volume-guest-my--data"


def test_in_a_partition() -> None:
    group = read_group(reader(beginning(), 2 * MIB), 2 * MIB, SIZE)
    assert group.volumes[2] == LogicalVolume("guest/root", ((3 * MIB, 300 * MIB),))
    assert group.records == ((2 * MIB, MIB),)


def test_pieces_that_follow_one_another_are_one() -> None:
    group = read_group(reader(replaced('"pv0", 260', '"pv0", 220')), 0, SIZE)
    assert group.volumes[1].pieces == ((641 * MIB, 320 * MIB),)


def test_a_text_that_goes_round() -> None:
    length = len(text_of(beginning()))
    data = with_text(lambda text: text, start=512 + length, area=1024 + length)
    assert read_group(reader(data), 0, SIZE) == read_group(reader(beginning()), 0, SIZE)


def test_a_group_without_volumes() -> None:
    data = with_text(lambda text: text[: text.index(b"logical_volumes")] + b"}\n")
    assert read_group(reader(data), 0, SIZE).volumes == ()


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('type = "striped"', 'type = "thin"', "is thin, and not a plain one"),
        ('type = "striped"', 'type = "raid1"', "is raid1, and not a plain one"),
        ("stripe_count = 1", "stripe_count = 2", "is striped, and not a plain one"),
        ("pe_count = 299", "pe_count = 300", "reaches beyond its end"),
        ('"pv0", 260', '"pv0", 290', "reaches beyond its end"),
        ('"pv0", 260', '"pv0", 10', "has volumes that overlap"),
        ('"pv0", 260', '"pv1", 260', "contradicts itself"),
        ("start_extent = 60", "start_extent = 61", "contradicts itself"),
        ("root {", "../etc {", "cannot be understood"),
        ("segment_count = 2", "segment_count = 3", "cannot be understood"),
        ("extent_size = 8192", 'extent_size = "big"', "cannot be understood"),
        ("pv0 {", "pv0 { }\n pv1 {", "lies on 2 physical volumes"),
        ("physical_volumes {", "others {", "cannot be understood"),
        ("seqno = ", "} seqno = ", "cannot be understood"),
    ],
)
def test_what_is_not_looked_into(old: str, new: str, told: str) -> None:
    with pytest.raises(NotReadable, match=told):
        read_group(reader(replaced(old, new, 1)), 0, SIZE)


@pytest.mark.parametrize("name", ["..etc", "2nd", "10", "a-b", "x+y_z"])
def test_names_that_lvm_allows(name: str) -> None:
    group = read_group(reader(replaced("root {", f"{name} {{", 1)), 0, SIZE)
    assert LogicalVolume(f"guest/{name}", (ROOT,)) in group.volumes


def test_another_physical_volume_of_that_id() -> None:
    data = bytearray(beginning())
    data[544:576] = b"x" * 32
    struct.pack_into("<I", data, 528, _crc(bytes(data[532:1024])))
    with pytest.raises(NotReadable, match="names another physical volume"):
        read_group(reader(bytes(data)), 0, SIZE)


@pytest.mark.parametrize(
    ("place", "told"), [(600, "label"), (METADATA + 50, "metadata"), (TEXT + 100, "metadata")]
)
def test_damage_is_told(place: int, told: str) -> None:
    data = bytearray(beginning())
    data[place] ^= 1
    with pytest.raises(NotReadable, match=f"its {told} is damaged"):
        read_group(reader(bytes(data)), 0, SIZE)


def test_no_physical_volume() -> None:
    for data in (b"", bytes(512), bytes(1 << 20)):
        with pytest.raises(NotReadable, match="it has no label"):
            read_group(lambda offset, length, data=data: data[offset:][:length], 0, len(data))


def test_nonsense_ends_in_a_sentence() -> None:
    """Text whose checksum is right and which says anything."""
    chance = random.Random(5)
    text = text_of(beginning())
    for _ in range(300):
        changed = bytearray(text)
        for _ in range(chance.randrange(1, 6)):
            place = chance.randrange(len(changed))
            changed[place : place + chance.randrange(3)] = chance.choice(
                [b"", b"{", b"}", b"]", b'"', b"-1", b"99999999999999999999", b"\xff", b"="]
            )
        data = with_text(lambda _, changed=bytes(changed): changed)
        try:
            group = read_group(reader(data), 0, SIZE)
        except NotReadable:
            continue
        for volume in group.volumes:
            assert all(0 <= at and at + size <= SIZE for at, size in volume.pieces)


def test_the_parser_knows_what_lvm_writes() -> None:
    text = '# a comment\na { b = [ "x", 1, -2 ]\n c = "}{" d=3 e = 1.5 f { } }\n'
    assert logical_volumes._parse(text) == {
        "a": {"b": ["x", 1, -2], "c": "}{", "d": 3, "e": 1.5, "f": {}}
    }
