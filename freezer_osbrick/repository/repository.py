# SPDX-License-Identifier: Apache-2.0
"""A repository: a store, and what holds for everything in it."""

from __future__ import annotations

import dataclasses
import hmac
import json
import os
import time
from typing import Any

import blake3

from freezer_osbrick import errors
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository import ids, keys, sealing
from freezer_osbrick.store.base import Store

# Features that a reader must understand before it touches anything. None yet.
KNOWN_FEATURES: frozenset[str] = frozenset()

NOT_SEALED = "none"
SEALED = "aes-256-gcm"

# What the configuration of an unsealed repository consisted of before it had a check.
_UNCHECKED_FIELDS = frozenset(
    ("format", "repository", "created", "block_size", "chunk_blocks", "sealing", "features")
)


@dataclasses.dataclass(frozen=True)
class Repository:
    """An opened repository.

    :param id: 16 random bytes.
    :param block_size: bytes in a block.
    :param chunk_blocks: blocks in a chunk.
    :param master_key: 32 bytes; None where nothing is sealed.
    """

    store: Store
    id: bytes
    block_size: int
    chunk_blocks: int
    sealer: sealing.Sealer
    ids: ids.Ids
    master_key: bytes | None = dataclasses.field(default=None, repr=False)

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
    secret: bytes | None = None,
    block_size: int = form.DEFAULT_BLOCK_SIZE,
    chunk_blocks: int = form.DEFAULT_CHUNK_BLOCKS,
) -> Repository:
    """Make the store a repository.

    :param secret: seals it; the first key is made of it.
    :raises errors.ObjectExists: it is one already.
    :raises errors.BadRequest: no repository can have such blocks or chunks.
    """
    repository_id = os.urandom(form.OBJECT_ID_SIZE)
    config: dict[str, Any] = {
        "format": form.VERSION,
        "repository": repository_id.hex(),
        "created": int(time.time()),
        "block_size": block_size,
        "chunk_blocks": chunk_blocks,
        "sealing": NOT_SEALED if secret is None else SEALED,
        "features": [],
    }
    try:
        _check_config(store, config)
    except ValueError as error:
        raise errors.BadRequest(f"No such repository can be made: {error}.") from None
    master_key = None
    if secret is not None:
        master_key = keys.new_master_key()
    config["check"] = _check(config, master_key or repository_id)
    if secret is not None and master_key is not None:
        # Before the configuration: a repository without a key would be lost from the beginning.
        first = keys.add(store, repository_id, master_key, secret, "first")
    try:
        store.put(form.CONFIG_NAME, [json.dumps(config, indent=1).encode() + b"\n"])
    except errors.ObjectExists:
        if master_key:
            store.delete(form.KEYS + first.id)
        raise
    return _opened(store, config, master_key)


def open_repository(store: Store, *, secret: bytes | None = None) -> Repository:
    """The repository in the store.

    :param secret: of one of its keys, where it is sealed.
    :raises errors.RepositoryMissing: there is none.
    :raises errors.UnknownFormat: it needs a later version of this package.
    :raises errors.WrongKey: sealed, and the secret is missing or wrong; or not sealed, though there
        is a secret.
    """
    try:
        text = store.get(form.CONFIG_NAME)
    except errors.ObjectMissing:
        raise errors.RepositoryMissing(f"There is no repository at {store.url}.") from None
    try:
        config = json.loads(text)
        _check_config(store, config)
    except form.UNREADABLE_JSON as error:
        raise errors.Damaged(
            f"The object {form.CONFIG_NAME} of the repository at {store.url} is damaged:"
            f" {form.told(error)}."
        ) from None
    master_key = _unlock(store, config, secret)
    _prove(store, config, master_key)
    return _opened(store, config, master_key)


def open_or_create(store: Store, *, secret: bytes | None = None) -> Repository:
    """The repository in the store, made if there is none."""
    try:
        return open_repository(store, secret=secret)
    except errors.RepositoryMissing:
        pass
    try:
        made = create(store, secret=secret)
        if store.capabilities.conditional_put:
            return made
        # Without it two may have made one at once: the one that is there now counts.
        return open_repository(store, secret=secret)
    except errors.ObjectExists:
        return open_repository(store, secret=secret)  # somebody else was a moment faster


def _check_config(store: Store, config: dict[str, Any]) -> None:
    if type(config["format"]) is not int:
        raise TypeError(f"its format is {config['format']!r}")
    if config["format"] != form.VERSION:
        raise errors.UnknownFormat(
            f"The repository at {store.url} has format {config['format']};"
            f" this version reads format {form.VERSION}."
        )
    if not isinstance(config["features"], list):
        raise TypeError(f"its features are {config['features']!r}")
    unknown = {str(feature) for feature in config["features"]} - KNOWN_FEATURES
    if config["sealing"] not in (NOT_SEALED, SEALED):
        unknown.add(f"sealing {config['sealing']}")
    if unknown:
        raise errors.UnknownFormat(
            f"The repository at {store.url} needs a later version of freezer-osbrick"
            f" ({', '.join(sorted(unknown))})."
        )
    block_size, chunk_blocks = config["block_size"], config["chunk_blocks"]
    if (
        len(bytes.fromhex(config["repository"])) != form.OBJECT_ID_SIZE
        or type(block_size) is not int
        or type(chunk_blocks) is not int
        or not 4096 <= block_size <= 1 << 20
        or block_size & (block_size - 1)
        or not 1 <= chunk_blocks <= 128
    ):
        raise ValueError(
            f"repository {config['repository']}, blocks of {block_size!r} bytes,"
            f" chunks of {chunk_blocks!r} blocks"
        )


def _unlock(store: Store, config: dict[str, Any], secret: bytes | None) -> bytes | None:
    if config["sealing"] == NOT_SEALED:
        if secret is not None:
            raise errors.WrongKey(
                f"The repository at {store.url} is not sealed: leave the key out, or use another"
                " repository."
            )
        return None
    if secret is None:
        raise errors.WrongKey(f"The repository at {store.url} is sealed: give a key.")
    return keys.unlock(store, bytes.fromhex(config["repository"]), secret)


def _prove(store: Store, config: dict[str, Any], master_key: bytes | None) -> None:
    """Refuse a configuration that is not what was written."""
    if master_key is None and config.keys() == _UNCHECKED_FIELDS:
        return  # made before every configuration had a check
    told = str(config.get("check"))
    try:
        expected = _check(config, master_key or bytes.fromhex(config["repository"]))
        right = hmac.compare_digest(told.encode(), expected.encode())
    except form.UNREADABLE_JSON:  # fields of nobody's, that cannot be written again
        right = False
    if not right:
        raise errors.Damaged(
            f"The object {form.CONFIG_NAME} of the repository at {store.url} was changed."
        )


def _check(config: dict[str, Any], material: bytes) -> str:
    """What proves that the configuration is as it was written, and where it is sealed that nobody
    without the key wrote it.

    :param material: the master key, or without one the repository's id.
    """
    protected = {field: value for field, value in config.items() if field != "check"}
    text = json.dumps(protected, sort_keys=True).encode()
    return blake3.blake3(text, key=form.derive_key("configuration", material)).hexdigest()


def _opened(store: Store, config: dict[str, Any], master_key: bytes | None) -> Repository:
    repository_id = bytes.fromhex(config["repository"])
    sealer: sealing.Sealer = sealing.Checked(repository_id)
    if master_key:
        sealer = sealing.Sealed(repository_id, master_key)
    return Repository(
        store=store,
        id=repository_id,
        block_size=config["block_size"],
        chunk_blocks=config["chunk_blocks"],
        sealer=sealer,
        ids=ids.Ids(master_key or repository_id),
        master_key=master_key,
    )
