# SPDX-License-Identifier: Apache-2.0
"""Ranges of a volume that need not be read."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freezer_osbrick.device.hints import Extents, Gathering
from freezer_osbrick.device.path_device import PathDevice

SIZE = 40

ranges = st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(0, 9)), max_size=8)


def bytes_in(extents):
    return {byte for offset, length in extents for byte in range(offset, offset + length)}


@given(ranges, st.integers(0, SIZE), st.integers(1, 12))
def test_extents_are_the_sets_of_their_bytes(given_ranges, offset, length):
    extents = Extents(given_ranges)
    wanted = bytes_in(given_ranges)
    asked = set(range(offset, offset + length))
    assert bytes_in(extents) == wanted
    assert extents.total == len(wanted)
    assert bool(extents) == bool(wanted)
    assert extents.cover(offset, length) == (asked <= wanted)
    assert extents.touch(offset, length) == bool(asked & wanted)
    assert bytes_in(extents.complement(SIZE)) == set(range(SIZE)) - wanted


@given(ranges)
def test_extents_are_in_order_and_apart(given_ranges):
    listed = list(Extents(given_ranges))
    for (offset, length), (following, _) in zip(listed, listed[1:], strict=False):
        assert offset + length < following


def test_holes_of_a_file(tmp_path):
    path = tmp_path / "volume"
    size = 8 << 20
    with open(path, "wb") as file:
        file.truncate(size)
        file.seek(1 << 20)
        file.write(os.urandom(1 << 20))
        file.seek(6 << 20)
        file.write(b"\0" * 4096)  # written, so that it need not be a hole
    device = PathDevice(str(path), size=size, writable=False, connection_info={}, device_info={})
    try:
        holes = device.holes()
    finally:
        device.close()
    if not holes:
        pytest.skip("the file system has no holes")
    assert holes.cover(0, 1 << 20) and holes.cover(2 << 20, 1 << 20) and holes.cover(7 << 20, 4096)
    assert not holes.touch(1 << 20, 1 << 20)
    content = path.read_bytes()
    assert not any(any(content[offset : offset + length]) for offset, length in holes)


@given(ranges, st.integers(1, 12), st.integers(1, 5))
def test_what_is_gathered_is_never_less_than_was_told(told, grain, most):
    gathering = Gathering(grain, most)
    for offset, length in told:
        gathering.add(offset, length)
    extents = gathering.extents()
    assert bytes_in(extents) >= bytes_in(told)
    assert len(list(extents)) <= most


def test_gathered_as_told_while_they_are_few():
    gathering = Gathering(grain=4, most=10)
    for pair in ((0, 3), (3, 1), (100, 5), (107, 1), (200, 1)):
        gathering.add(*pair)
    assert list(gathering.extents()) == [(0, 4), (100, 8), (200, 1)]
