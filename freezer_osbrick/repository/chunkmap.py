# SPDX-License-Identifier: Apache-2.0
"""Chunk maps: where the blocks of one chunk are stored."""

from __future__ import annotations

import dataclasses
import struct
from collections import Counter

from freezer_osbrick import errors
from freezer_osbrick.repository import format as form

# In place of a pack's number: a block of zeros, stored nowhere.
NO_PACK = 255

_HEAD = struct.Struct("<HBx")  # number of blocks, number of packs


@dataclasses.dataclass
class ChunkMap:
    """The blocks of one chunk, in their order on the volume.

    :param ids: the blocks' ids, 32 bytes each; :data:`format.ZEROS` for a block of zeros.
    :param packs: for each block the id of its pack; None for a block of zeros.
    :param offsets: for each block where its box begins in the pack, in bytes.
    :param lengths: for each block the length of its box, in bytes.
    """

    ids: bytes
    packs: list[bytes | None]
    offsets: list[int]
    lengths: list[int]

    def __len__(self) -> int:
        return len(self.packs)

    def block_id(self, index: int) -> bytes:
        return self.ids[index * form.ID_SIZE : (index + 1) * form.ID_SIZE]

    def stored(self) -> Counter[bytes]:
        """Stored bytes by pack."""
        counter: Counter[bytes] = Counter()
        for pack, length in zip(self.packs, self.lengths, strict=True):
            if pack is not None:
                counter[pack] += length
        return counter

    def encode(self) -> bytes:
        """The map as it is stored, before compression."""
        count = len(self)
        numbers: dict[bytes, int] = {}
        for pack in self.packs:
            if pack is not None:
                numbers.setdefault(pack, len(numbers))
        refs = bytes(NO_PACK if pack is None else numbers[pack] for pack in self.packs)
        return b"".join(
            (
                _HEAD.pack(count, len(numbers)),
                *numbers,
                self.ids,
                refs,
                struct.pack(f"<{count}I", *self.offsets),
                struct.pack(f"<{count}I", *self.lengths),
            )
        )


def decode(data: bytes, most_blocks: int) -> ChunkMap:
    """Read a stored map.

    :raises errors.Damaged: the bytes are no map of at most so many blocks.
    """
    if len(data) < _HEAD.size:
        raise errors.Damaged("A chunk map is too short.")
    count, pack_count = _HEAD.unpack_from(data)
    position = _HEAD.size
    expected = position + pack_count * form.OBJECT_ID_SIZE + count * (form.ID_SIZE + 1 + 4 + 4)
    if len(data) != expected or not 0 < count <= most_blocks or pack_count >= NO_PACK:
        raise errors.Damaged("A chunk map has an impossible length.")
    table: list[bytes] = []
    for _ in range(pack_count):
        table.append(data[position : position + form.OBJECT_ID_SIZE])
        position += form.OBJECT_ID_SIZE
    ids = data[position : position + count * form.ID_SIZE]
    position += len(ids)
    refs = data[position : position + count]
    position += count
    offsets = struct.unpack_from(f"<{count}I", data, position)
    lengths = struct.unpack_from(f"<{count}I", data, position + count * 4)
    if any(ref >= pack_count and ref != NO_PACK for ref in refs):
        raise errors.Damaged("A chunk map names a pack that it does not list.")
    packs = [None if ref == NO_PACK else table[ref] for ref in refs]
    return ChunkMap(ids, packs, list(offsets), list(lengths))


def largest(blocks: int) -> int:
    """Bytes of the longest encoded map of so many blocks."""
    return _HEAD.size + blocks * (form.OBJECT_ID_SIZE + form.ID_SIZE + 1 + 4 + 4)
