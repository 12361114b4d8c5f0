# SPDX-License-Identifier: Apache-2.0
"""Decompressing LZO."""

import pytest

from freezer_osbrick.guest import lzo

END = b"\x11\x00\x00"


@pytest.mark.parametrize(
    ("stream", "content"),
    [
        (bytes([17 + 5]) + b"hello" + END, b"hello"),
        # Three more than 15 literals, counted beyond the instruction.
        (b"\x00\x01" + b"x" * 19 + END, b"x" * 19),
        # 4 literals, then 8 bytes from 4 back.
        (bytes([17 + 4]) + b"abcd" + bytes([0xE0 | 3 << 2, 0]) + END, b"abcd" * 3),
        # 33 + 31 bytes from 1 back: a run.
        (bytes([17 + 4]) + b"aaaa" + b"\x20\x1f\x00\x00" + END, b"a" * (4 + 64)),
    ],
)
def test_streams(stream, content):
    assert lzo.decompress(stream, 4096) == content


@pytest.mark.parametrize("stream", [b"", b"\x16", b"\x16he", b"\x00\x00\x00", b"\x15abcd\xff\x7f"])
def test_nonsense(stream):
    with pytest.raises(lzo.BrokenData):
        lzo.decompress(stream, 4096)


def test_no_more_than_said():
    with pytest.raises(lzo.BrokenData):
        lzo.decompress(
            bytes([17 + 4]) + b"aaaa" + b"\x20" + bytes(400) + b"\x1f\x00\x00" + END, 4096
        )


def test_segments():
    stream = bytes([17 + 5]) + b"hello" + END
    segment = len(stream).to_bytes(4, "little") + stream
    data = (4 + 2 * len(segment)).to_bytes(4, "little") + segment * 2
    assert lzo.decompress_btrfs(data + bytes(100), 4096) == b"hellohello"
    with pytest.raises(lzo.BrokenData):
        lzo.decompress_btrfs(b"\xff\xff\xff\xff", 4096)
