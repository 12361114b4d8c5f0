# SPDX-License-Identifier: Apache-2.0
"""A repository: a store, and what holds for everything in it."""

from __future__ import annotations

import dataclasses
import json
import os
import time

from freezer_osbrick import errors
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository import ids, sealing
from freezer_osbrick.store.base import Store

# Features that a reader must understand before it touches anything. None yet.
KNOWN_FEATURES: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class Repository:
    """An opened repository.

    :param id: 16 random bytes.
    :param block_size: bytes in a block.
    :param chunk_blocks: blocks in a chunk.
    """

    store: Store
    id: bytes
    block_size: int
    chunk_blocks: int
    sealer: sealing.Sealer
    ids: ids.Ids

    @property
    def chunk_size(self) -> int:
        """Bytes in a chunk."""
        return self.block_size * self.chunk_blocks

    def chunk_count(self, size: int) -> int:
        """Chunks that a volume of so many bytes has; the last may be short."""
        return -(-size // self.chunk_size)


def create(
    store: Store,
    *,
    block_size: int = form.DEFAULT_BLOCK_SIZE,
    chunk_blocks: int = form.DEFAULT_CHUNK_BLOCKS,
) -> Repository:
    """Make the store a repository.

    :raises errors.ObjectExists: it is one already.
    """
    config = {
        "format": form.VERSION,
        "repository": os.urandom(form.OBJECT_ID_SIZE).hex(),
        "created": int(time.time()),
        "block_size": block_size,
        "chunk_blocks": chunk_blocks,
        "sealing": "none",
        "features": [],
    }
    store.put(form.CONFIG_NAME, [json.dumps(config, indent=1).encode() + b"\n"])
    return _from_config(store, config)


def open_repository(store: Store) -> Repository:
    """The repository in the store.

    :raises errors.RepositoryMissing: there is none.
    :raises errors.UnknownFormat: it needs a later version of this package.
    """
    try:
        text = store.get(form.CONFIG_NAME)
    except errors.ObjectMissing:
        raise errors.RepositoryMissing(f"There is no repository at {store.url}.") from None
    try:
        return _from_config(store, json.loads(text))
    except (ValueError, KeyError, TypeError) as error:
        raise errors.Damaged(
            f"The object {form.CONFIG_NAME} of the repository at {store.url} is damaged: {error}."
        ) from None


def open_or_create(store: Store) -> Repository:
    """The repository in the store, made if there is none."""
    try:
        return open_repository(store)
    except errors.RepositoryMissing:
        pass
    try:
        return create(store)
    except errors.ObjectExists:
        return open_repository(store)  # somebody else was a moment faster


def _from_config(store: Store, config: dict) -> Repository:
    if config["format"] != form.VERSION:
        raise errors.UnknownFormat(
            f"The repository at {store.url} has format {config['format']};"
            f" this version reads format {form.VERSION}."
        )
    unknown = set(config["features"]) - KNOWN_FEATURES
    if unknown or config["sealing"] != "none":
        what = ", ".join(sorted(unknown)) or f"sealing {config['sealing']}"
        raise errors.UnknownFormat(
            f"The repository at {store.url} needs a later version of freezer-osbrick ({what})."
        )
    repository_id = bytes.fromhex(config["repository"])
    block_size, chunk_blocks = int(config["block_size"]), int(config["chunk_blocks"])
    if (
        len(repository_id) != form.OBJECT_ID_SIZE
        or not 4096 <= block_size <= 1 << 20
        or block_size & (block_size - 1)
        or not 1 <= chunk_blocks <= 128
    ):
        raise ValueError("impossible numbers")
    return Repository(
        store=store,
        id=repository_id,
        block_size=block_size,
        chunk_blocks=chunk_blocks,
        sealer=sealing.Checked(repository_id),
        ids=ids.Ids(repository_id),
    )
