# SPDX-License-Identifier: Apache-2.0
"""Frozen values of format 1. If one of them has to change, what was backed up can't be read."""

import blake3
import pytest

from freezer_osbrick import errors
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository import ids, sealing

MATERIAL = bytes(range(16))
OBJECT = bytes(range(16, 32))


@pytest.mark.parametrize(
    ("purpose", "key"),
    [
        ("block ids", "506fb55d299308e0d66da4fc65da2ea800d839d44884a29a093a50a078efe21b"),
        ("chunk ids", "f66df312af012ae3c6dad1624b5af5eeb543fce5a912c8cab0097c7ce30a2ce2"),
        ("tags", "0ea0845fa816fee2975e4a181a8920520633033092c00c52d05dbfc93a47c94f"),
    ],
)
def test_keys(purpose, key):
    assert form.derive_key(purpose, MATERIAL).hex() == key
    context = f"freezer-osbrick 2026 repository format 1: {purpose}"
    assert blake3.blake3(MATERIAL, derive_key_context=context).hexdigest() == key


def test_ids():
    made = ids.Ids(MATERIAL)
    block = made.block(b"content")
    assert block.hex() == ("6a0602cad0f617b6a0f8cc5c4108f54aa7d6c7078d0c5a7b27e1cb6fae075f17")
    assert block == made.block(memoryview(b"content")) == made.block(bytearray(b"content"))
    assert made.chunk(block + form.ZEROS).hex() == (
        "3dd49a9b2b225edfd7cf17206bc1c428d9ac349219b6f40598f35ee948c97283"
    )
    assert made.block(b"").hex() == (
        "e550f65e7f532ffcd8a13a400e124c519aaf6117574c6bfaa4707df9649ec0b2"
    )


def test_header_and_names():
    header = form.header(form.KIND_MAPS, 0, MATERIAL, OBJECT)
    assert header.hex() == "465a4f4201020000" + MATERIAL.hex() + OBJECT.hex()
    assert form.pack_name(OBJECT) == "packs/10/101112131415161718191a1b1c1d1e1f"
    assert form.manifest_name(OBJECT) == "manifests/101112131415161718191a1b1c1d1e1f"


def test_tags():
    sealer = sealing.Checked(MATERIAL)
    assert sealer.code == 0
    place = sealer.place(form.KIND_BLOCKS, OBJECT, 40, b"\x33" * 32)
    assert place.hex() == "0101" + MATERIAL.hex() + OBJECT.hex() + "28" + "00" * 7 + "33" * 32
    data, tag = sealer.seal(form.KIND_BLOCKS, OBJECT, 40, b"data", b"\x33" * 32)
    assert (data, bytes(tag).hex()) == (b"data", "0c10a958a433e71ae93f5687ded6e2b5")
    _, tag = sealer.seal(form.KIND_MANIFEST, OBJECT, 1, b"")
    assert bytes(tag).hex() == "8d2590a49b4f542d11bf3d88e898812b"


def test_sealed_boxes():
    sealer = sealing.Sealed(MATERIAL, bytes(range(32)))
    assert sealer.code == 1
    [box] = sealer.seal(form.KIND_BLOCKS, OBJECT, 40, b"data", b"\x33" * 32)
    assert box.hex() == "28928f7d495eeb1a1534c8735b56a3bd211165e0"
    [box] = sealer.seal(form.KIND_MANIFEST, OBJECT, 1, b"")
    assert box.hex() == "2c4a008e95625e4db3826273f9de4c23"


@pytest.mark.parametrize(
    "sealer", [sealing.Checked(MATERIAL), sealing.Sealed(MATERIAL, bytes(32))], ids=["0", "1"]
)
def test_a_box_opens_only_at_its_place(sealer):
    place = (form.KIND_BLOCKS, OBJECT, 40)
    box = b"".join(sealer.seal(*place, b"data" * 100, b"\x33" * 32))
    assert bytes(sealer.open(*place, memoryview(box), b"\x33" * 32)) == b"data" * 100
    others = [
        ((form.KIND_MAPS, OBJECT, 40), box, b"\x33" * 32),
        ((form.KIND_BLOCKS, MATERIAL, 40), box, b"\x33" * 32),
        ((form.KIND_BLOCKS, OBJECT, 41), box, b"\x33" * 32),
        (place, box, b"\x34" * 32),
        (place, box, b""),
        (place, box[:-1], b"\x33" * 32),
        (place, box[1:], b"\x33" * 32),
        (place, box + b"\0", b"\x33" * 32),
        *((place, box[:length], b"\x33" * 32) for length in range(20)),
    ]
    for elsewhere, other, data_id in others:
        with pytest.raises(errors.Damaged):
            sealer.open(*elsewhere, memoryview(other), data_id)


def test_zstd_frames():
    data = b"some data " * 1000
    frame = form.compress(data)
    assert form.decompress(memoryview(frame), len(data)) == data
    for bad, most in [
        (frame, len(data) - 1),
        (frame[:-1], len(data)),
        (b"", 100),
        (frame[:5], 100),
        (b"\0" * 50, 100),
        (frame[:10] + b"\xff" * 10 + frame[20:], len(data)),
    ]:
        with pytest.raises(errors.Damaged):
            form.decompress(bad, most)
