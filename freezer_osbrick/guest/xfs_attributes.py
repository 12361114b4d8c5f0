# SPDX-License-Identifier: Apache-2.0
"""Extended attributes of XFS: in the inode, or in a tree of blocks of their own."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Protocol, TypeVar

from freezer_osbrick.guest.filesystem import MOST_STEPS, MOST_XATTR, BrokenFileSystem, field

_LOCAL, _ROOT, _SECURE, _PARENT, _INCOMPLETE = 0x01, 0x02, 0x04, 0x08, 0x80
_LEAF_MAGIC = (0xFBEE, 0x3BEE)
_NODE_MAGIC = (0xFEBE, 0x3EBE)
_REMOTE_HEADER = 56
_MOST_DEPTH = 6

E = TypeVar("E")

Stored = Iterator[tuple[bytes, bytes]]


class Blocks(Protocol[E]):
    """What of the file system is needed here."""

    block_size: int
    has_checksums: bool

    def block_of(self, extents: list[E], index: int) -> bytes: ...


def short_form(fork: bytes) -> Stored:
    """Those that the inode holds: names with their prefix, and values."""
    place = 4
    for _ in range(field("B", fork, 2)):
        name_length, value_length, flags = struct.unpack_from("BBB", fork, place)
        name = fork[place + 3 : place + 3 + name_length]
        place += 3 + name_length
        if shown := _name(name, flags):
            yield shown, fork[place : place + value_length]
        place += value_length


def leaves(blocks: Blocks[E], extents: list[E]) -> Stored:
    """Those that lie in blocks."""
    index = _first_leaf(blocks, extents)
    for _ in range(MOST_STEPS):
        block = blocks.block_of(extents, index)
        if field(">H", block, 8) not in _LEAF_MAGIC:
            raise BrokenFileSystem("extended attributes are broken")
        yield from _leaf(blocks, extents, block)
        index = field(">I", block, 0)
        if not index:
            return


def _first_leaf(blocks: Blocks[E], extents: list[E]) -> int:
    index = 0
    for _ in range(_MOST_DEPTH):
        block = blocks.block_of(extents, index)
        if field(">H", block, 8) not in _NODE_MAGIC:
            return index
        index = field(">I", block, (64 if blocks.has_checksums else 16) + 4)
    raise BrokenFileSystem("extended attributes are broken")


def _leaf(blocks: Blocks[E], extents: list[E], block: bytes) -> Stored:
    count_at, place = (56, 80) if blocks.has_checksums else (12, 32)
    for index in range(field(">H", block, count_at)):
        at, flags = (
            field(">H", block, place + index * 8 + 4),
            field("B", block, place + index * 8 + 6),
        )
        if flags & _LOCAL:
            value_length, name_length = field(">H", block, at), field("B", block, at + 2)
            name = block[at + 3 : at + 3 + name_length]
            value = block[at + 3 + name_length : at + 3 + name_length + value_length]
        else:
            first, value_length, name_length = (
                field(">I", block, at),
                field(">I", block, at + 4),
                field("B", block, at + 8),
            )
            name = block[at + 9 : at + 9 + name_length]
            if flags & _INCOMPLETE:
                continue
            value = _remote(blocks, extents, first, value_length)
        if shown := _name(name, flags):
            yield shown, value


def _remote(blocks: Blocks[E], extents: list[E], index: int, length: int) -> bytes:
    if length > MOST_XATTR:
        raise BrokenFileSystem("an extended attribute is too long")
    parts: list[bytes] = []
    while sum(map(len, parts)) < length:
        block = blocks.block_of(extents, index)
        if blocks.has_checksums:
            if not block.startswith(b"XARM"):
                raise BrokenFileSystem("an extended attribute is broken")
            block = block[_REMOTE_HEADER:]
        parts.append(block)
        index += 1
    return b"".join(parts)[:length]


def _name(name: bytes, flags: int) -> bytes:
    """The name as programs know it; empty for what they never see."""
    if flags & (_INCOMPLETE | _PARENT):
        return b""
    if flags & _ROOT:
        return b"trusted." + name
    return (b"security." if flags & _SECURE else b"user.") + name
