# SPDX-License-Identifier: Apache-2.0
"""Chunk maps: they come back as they were, and nonsense is damage."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freezer_osbrick import errors
from freezer_osbrick.repository import chunkmap
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository.chunkmap import ChunkMap

u32 = st.integers(0, 2**32 - 1)
block = st.one_of(
    st.just((form.ZEROS, None, 0, 0)),
    st.tuples(st.binary(min_size=32, max_size=32), st.binary(min_size=16, max_size=16), u32, u32),
)


def made_of(blocks):
    ids, packs, offsets, lengths = zip(*blocks, strict=True)
    return ChunkMap(b"".join(ids), list(packs), list(offsets), list(lengths))


@given(st.lists(block, min_size=1, max_size=128))
def test_round_trip(blocks):
    chunk_map = made_of(blocks)
    data = chunk_map.encode()
    assert len(data) <= chunkmap.largest(len(blocks))
    assert chunkmap.decode(data, 128) == chunk_map
    assert chunkmap.decode(data, len(blocks)) == chunk_map
    if len(blocks) > 1:
        with pytest.raises(errors.Damaged):
            chunkmap.decode(data, len(blocks) - 1)
    for index, expected in enumerate(blocks):
        assert chunk_map.block_id(index) == expected[0]
    assert sum(chunk_map.stored().values()) == sum(b[3] for b in blocks)


@given(st.binary(max_size=400))
def test_any_bytes(data):
    try:
        decoded = chunkmap.decode(data, 8)
    except errors.Damaged:
        return
    assert 0 < len(decoded) <= 8 and chunkmap.decode(decoded.encode(), 8) == decoded


@given(st.lists(block, min_size=1, max_size=8), st.data())
def test_changed_bytes(blocks, data):
    good = bytearray(made_of(blocks).encode())
    position = data.draw(st.integers(0, len(good) - 1))
    good[position] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(good)))
    for bad in (bytes(good), bytes(good[:cut]), bytes(good) + b"\0"):
        try:
            decoded = chunkmap.decode(bad, 8)
        except errors.Damaged:
            continue
        assert len(bad) == len(good) and len(decoded) == len(blocks)


def test_a_known_map():
    """Frozen: how a map lies in a repository of format 1."""
    pack = bytes(range(16))
    chunk_map = made_of([(b"\x11" * 32, pack, 40, 116), (form.ZEROS, None, 0, 0)])
    assert chunk_map.encode().hex() == (
        "02000100" + pack.hex() + "11" * 32 + "00" * 32 + "00ff" + "2800000000000000"
        "7400000000000000"
    )
