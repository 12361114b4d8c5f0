# SPDX-License-Identifier: Apache-2.0
"""Ids of blocks and chunks: what the content is, as 32 bytes that only this repository can
compute."""

from __future__ import annotations

import blake3

from freezer_osbrick.repository import format as form
from freezer_osbrick.store.base import Buffer


class Ids:
    """Keyed BLAKE3-256 over a block's content, and over the ids of a chunk's blocks."""

    def __init__(self, secret: bytes) -> None:
        """:param secret: 32 bytes, the same for the whole life of the repository."""
        self._block_key = form.derive_key("block ids", secret)
        self._chunk_key = form.derive_key("chunk ids", secret)

    def block(self, content: Buffer) -> bytes:
        return blake3.blake3(content, key=self._block_key).digest()

    def chunk(self, block_ids: bytes) -> bytes:
        """:param block_ids: the ids of all its blocks, 32 bytes each, :data:`format.ZEROS` among
        them."""
        return blake3.blake3(block_ids, key=self._chunk_key).digest()
