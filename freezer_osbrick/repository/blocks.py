# SPDX-License-Identifier: Apache-2.0
"""Blocks out of packs: opened, decompressed, and proved by their ids."""

from __future__ import annotations

import zstandard

from freezer_osbrick import errors
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository import packs
from freezer_osbrick.repository.repository import Repository
from freezer_osbrick.repository.sealing import TAG_SIZE


def open_block(
    repository: Repository,
    pack_id: bytes,
    offset: int,
    box: memoryview,
    block_id: bytes,
    size: int,
    decompressor: zstandard.ZstdDecompressor,
) -> bytes | memoryview:
    """The content of a block, proved by its id.

    :param offset: where the box begins in the pack, in bytes.
    :param size: bytes of the block.
    :param decompressor: the thread's own.
    :raises errors.Damaged: it is not the block that was backed up.
    """
    data = packs.open_box(repository, form.KIND_BLOCKS, pack_id, offset, box, block_id)
    where = f"in object {form.pack_name(pack_id)} at byte {offset}"
    if len(box) - TAG_SIZE != size:
        # A block is kept compressed exactly where that made it shorter.
        try:
            if zstandard.frame_content_size(data) != size:
                raise errors.Damaged(f"A block {where} has another size than it should.")
            data = decompressor.decompress(data, max_output_size=size)
        except zstandard.ZstdError as error:
            raise errors.Damaged(f"A block {where} cannot be decompressed: {error}.") from None
    if len(data) != size or repository.ids.block(data) != block_id:
        raise errors.Damaged(f"A block {where} is not the one that was backed up.")
    return data if isinstance(data, bytes) else memoryview(data)
