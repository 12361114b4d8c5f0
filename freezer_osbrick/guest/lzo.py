# SPDX-License-Identifier: Apache-2.0
"""LZO1X as btrfs stores it. No library of a fitting license decompresses it.

The stream is a row of instructions, each a byte that says how many bytes follow as they are, or how
far back bytes are to be repeated; the kernel's documentation lists them.
"""

from __future__ import annotations

from freezer_osbrick import errors

_SECTOR = 4096


class BrokenData(errors.OsbrickError):
    """It is no LZO."""


def decompress_btrfs(data: bytes, size: int) -> bytes:
    """The content of an extent: a length, then segments of at most a sector of content each, with
    their lengths; no length lies across the end of a sector.

    :param size: bytes of the content, at most.
    """
    total = int.from_bytes(data[:4], "little")
    if not 4 <= total <= len(data):
        raise BrokenData("its length is impossible")
    place, content = 4, bytearray()
    while place + 4 <= total and len(content) < size:
        if _SECTOR - place % _SECTOR < 4:
            place += _SECTOR - place % _SECTOR
        length = int.from_bytes(data[place : place + 4], "little")
        place += 4
        segment = data[place : place + length]
        if not length or len(segment) != length:
            raise BrokenData("a segment has an impossible length")
        content += decompress(segment, size - len(content))
        place += length
    return bytes(content)


def decompress(data: bytes, most: int) -> bytes:
    """One stream, of at most so many bytes of content."""
    try:
        return _Stream(data, most).run()
    except IndexError:
        raise BrokenData("it ends too early") from None


class _Stream:
    def __init__(self, data: bytes, most: int) -> None:
        self._data = data
        self._most = most
        self._place = 0
        self._out = bytearray()

    def run(self) -> bytes:
        literals = 0  # how many the last instruction had copied: says what a small one means
        first = self._data[0]
        if first > 17:
            self._place = 1
            self._copy(first - 17)
            literals = min(first - 17, 4)
        while True:
            code = self._next()
            if code < 16 and not literals:
                self._copy(self._length(code, 15, 3))
                literals = 4
                continue
            if code < 16:
                distance = (self._next() << 2) + (code >> 2)
                if literals == 4:
                    self._repeat(distance + 2049, 3)
                else:
                    self._repeat(distance + 1, 2)
                literals = code & 3
            elif code >= 64:
                self._repeat((self._next() << 3) + (code >> 2 & 7) + 1, (code >> 5) + 1)
                literals = code & 3
            else:
                if code >= 32:
                    length, high = self._length(code & 31, 31, 2), 1
                else:
                    length, high = self._length(code & 7, 7, 2), 16384 + ((code & 8) << 11)
                low = self._next() | self._next() << 8
                if code < 32 and high + (low >> 2) == 16384:
                    return bytes(self._out)
                self._repeat(high + (low >> 2), length)
                literals = low & 3
            self._copy(literals)

    def _next(self) -> int:
        self._place += 1
        return self._data[self._place - 1]

    def _length(self, given: int, mask: int, more: int) -> int:
        """A length of which 0 says that it goes on in the following bytes."""
        if given:
            return given + more
        length = mask + more
        while (byte := self._next()) == 0:
            length += 255
        return length + byte

    def _copy(self, count: int) -> None:
        piece = self._data[self._place : self._place + count]
        if len(piece) != count or len(self._out) + count > self._most:
            raise BrokenData("it is longer than it says")
        self._out += piece
        self._place += count

    def _repeat(self, distance: int, count: int) -> None:
        if distance > len(self._out) or len(self._out) + count > self._most:
            raise BrokenData("it repeats what is not there")
        start = len(self._out) - distance
        for index in range(count):
            self._out.append(self._out[start + index])
