# SPDX-License-Identifier: Apache-2.0
"""Format version 1: the numbers and names that never change. ``doc/source/format.rst`` describes
it whole."""

from __future__ import annotations

import struct

import blake3
import zstandard

from freezer_osbrick import errors

VERSION = 1

MAGIC = b"FZOB"
END_MAGIC = b"FZOB-END"

# Kinds of objects and, in their boxes' tags, of data.
KIND_BLOCKS = 1
KIND_MAPS = 2
KIND_MANIFEST = 3
KIND_VERIFICATION = 4
KIND_NAMES = {
    KIND_BLOCKS: "blocks",
    KIND_MAPS: "maps",
    KIND_MANIFEST: "manifests",
    KIND_VERIFICATION: "verifications",
}

OBJECT_ID_SIZE = 16
ID_SIZE = 32

# In place of an id: a block or a chunk that holds only zeros. Nothing is stored for it.
ZEROS = bytes(ID_SIZE)

CONFIG_NAME = "config"
PACKS = "packs/"
MANIFESTS = "manifests/"
KEYS = "keys/"
LEASES = "leases/"
DOOMED = "doomed/"
VERIFIED = "verified/"

DEFAULT_BLOCK_SIZE = 64 * 1024
DEFAULT_CHUNK_BLOCKS = 64

# magic, format version, kind, sealing, reserved, repository id, object id
HEADER = struct.Struct("<4sBBBx16s16s")

_CONTEXT = "freezer-osbrick 2026 repository format 1: "


# What reading JSON raises, and looking into what was read, when it is not what it should be.
UNREADABLE_JSON = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
)


def told(error: Exception) -> str:
    """What one of :data:`UNREADABLE_JSON` says, for a person."""
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def derive_key(purpose: str, material: bytes) -> bytes:
    """A key of 32 bytes for one purpose, by BLAKE3's key derivation."""
    return blake3.blake3(material, derive_key_context=_CONTEXT + purpose).digest()


def header(kind: int, sealing: int, repository_id: bytes, object_id: bytes) -> bytes:
    """The first bytes of a pack or a manifest."""
    return HEADER.pack(MAGIC, VERSION, kind, sealing, repository_id, object_id)


def check_header(
    data: bytes, kind: int, sealing: int, repository_id: bytes, object_id: bytes, name: str
) -> None:
    """Refuse an object that is not what its name says.

    :raises errors.UnknownFormat: written in a later format.
    :raises errors.Damaged: anything else that does not fit.
    """
    if len(data) < HEADER.size or data[:4] != MAGIC:
        raise errors.Damaged(f"Object {name} does not begin as an object of ours does.")
    if data[4] != VERSION:
        raise errors.UnknownFormat(
            f"Object {name} has format {data[4]}; this version reads format {VERSION}."
        )
    if data[: HEADER.size] != header(kind, sealing, repository_id, object_id):
        raise errors.Damaged(f"Object {name} belongs elsewhere: its header does not fit its name.")


def pack_name(pack_id: bytes) -> str:
    """Packs lie in 256 folders, so that no folder of a local store grows too long."""
    text = pack_id.hex()
    return f"{PACKS}{text[:2]}/{text}"


def manifest_name(backup_id: bytes) -> str:
    return MANIFESTS + backup_id.hex()


def compress(data: bytes, level: int = 3) -> bytes:
    """A zstd frame, as maps, heads, indexes and trailers are kept."""
    return zstandard.ZstdCompressor(level=level).compress(data)


def decompress(data: bytes | bytearray | memoryview, most: int) -> bytes:
    """The content of a zstd frame, at most ``most`` bytes.

    :raises errors.Damaged: no such frame, or a larger one.
    """
    try:
        if zstandard.frame_content_size(data) > most:
            raise errors.Damaged("Stored data claims to be larger than it can be.")
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=most)
    except zstandard.ZstdError as error:
        raise errors.Damaged(f"Stored data cannot be decompressed: {error}.") from None
