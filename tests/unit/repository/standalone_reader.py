#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Restore a backup from a local repository without freezer-osbrick.

Written from the description of the format alone, as a proof that it suffices. Needs blake3 and
zstandard, and cryptography for sealed repositories.

Usage: standalone_reader.py REPOSITORY BACKUP-ID FILE [KEY-FILE]
"""

import json
import os
import struct
import sys

import blake3
import zstandard

CONTEXT = "freezer-osbrick 2026 repository format 1: "
BLOCKS, MAPS, MANIFEST = 1, 2, 3
SEALING_KEYS = {BLOCKS: "sealing blocks", MAPS: "sealing maps", MANIFEST: "sealing manifests"}
ZEROS = bytes(32)
TAG = 16


class Unreadable(Exception):
    """The repository does not say what it should."""


def need(condition, what):
    if not condition:
        raise Unreadable(what)


def keyed(key, data):
    return blake3.blake3(data, key=key).digest()


class Reader:
    def __init__(self, folder, secret=None):
        self.folder = folder
        config = json.loads(self.read("config"))
        need(config["format"] == 1, "unknown format")
        need(config["features"] == [], "unknown features")
        self.repository = bytes.fromhex(config["repository"])
        self.block_size = config["block_size"]
        self.chunk_blocks = config["chunk_blocks"]
        self.sealing = {"none": 0, "aes-256-gcm": 1}[config["sealing"]]
        self.material = self.repository
        if self.sealing:
            need(secret is not None, "the repository is sealed")
            self.material = self.unlock(secret)
        if self.sealing or len(config) > 7:
            check = config.pop("check", None)
            text = json.dumps(config, sort_keys=True).encode()
            need(keyed(self.key("configuration"), text).hex() == check, "config was changed")

    def read(self, name, offset=0, length=-1):
        with open(os.path.join(self.folder, name), "rb") as file:
            file.seek(offset)
            data = file.read(length)
        need(length < 0 or len(data) == length, f"{name} is too short")
        return data

    def key(self, purpose):
        return blake3.blake3(self.material, derive_key_context=CONTEXT + purpose).digest()

    def unlock(self, secret):
        """The master key, by trying each object below keys/."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

        for name in os.listdir(os.path.join(self.folder, "keys")):
            wrap = json.loads(self.read(f"keys/{name}"))
            nonce, wrapped = bytes.fromhex(wrap.pop("nonce")), bytes.fromhex(wrap.pop("wrapped"))
            need(wrap["kdf"] == "scrypt", "unknown key derivation")
            salt = bytes.fromhex(wrap["salt"])
            key = Scrypt(salt=salt, length=32, n=wrap["n"], r=wrap["r"], p=wrap["p"]).derive(secret)
            bound = self.repository + json.dumps(wrap, sort_keys=True).encode()
            try:
                return AESGCM(key).decrypt(nonce, wrapped, bound)
            except InvalidTag:
                continue
        raise Unreadable("the secret opens no key")

    def open_box(self, box, kind, object_id, position, data_id=b""):
        """The data in a box, proved to belong to this place."""
        place = struct.pack("<BB16s16sQ", 1, kind, self.repository, object_id, position) + data_id
        if self.sealing:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            key = keyed(self.key(SEALING_KEYS[kind]), object_id)
            return AESGCM(key).decrypt(struct.pack("<Q4x", position), box, place)
        data, tag = box[:-TAG], box[-TAG:]
        need(keyed(self.key("tags"), place + data)[:TAG] == tag, f"a box of kind {kind} is damaged")
        return data

    def pack_box(self, kind, pack, offset, length, data_id):
        box = self.read(f"packs/{pack.hex()[:2]}/{pack.hex()}", offset, length)
        return self.open_box(box, kind, pack, offset, data_id)

    def manifest(self, backup):
        """The head, and of each chunk: its id, its map's pack, offset and length."""
        data = self.read(f"manifests/{backup}")
        magic, version, kind, sealing, reserved, repository, object_id = struct.unpack_from(
            "<4sBBBB16s16s", data
        )
        expected = (b"FZOB", 1, MANIFEST, self.sealing, 0, self.repository)
        need((magic, version, kind, sealing, reserved, repository) == expected, "a foreign header")
        head_length, index_length = struct.unpack_from("<II", data, 40)
        position = 48

        def next_box(number, length):
            nonlocal position
            box = data[position : position + length]
            position += length
            return zstandard.decompress(self.open_box(box, MANIFEST, object_id, number))

        head = json.loads(next_box(0, head_length))
        need(head["backup"] == backup, "the manifest is of another backup")
        index = next_box(1, index_length)
        pack_count, segment_count = struct.unpack_from("<II", index)
        packs = [
            struct.unpack_from("<16sBQQ", index, 8 + number * 33)[0] for number in range(pack_count)
        ]
        lengths = struct.unpack_from(f"<{segment_count}I", index, 8 + pack_count * 33)
        chunks = []
        for number, length in enumerate(lengths):
            for entry in struct.iter_unpack("<32sIIII", next_box(2 + number, length)):
                chunk_id, pack, offset, box_length, _ = entry
                chunks.append((chunk_id, packs[pack] if packs else b"", offset, box_length))
        return head, chunks

    def chunk_map(self, chunk_id, pack, offset, length):
        """Of each block: its id, its pack, offset and length."""
        data = zstandard.decompress(self.pack_box(MAPS, pack, offset, length, chunk_id))
        count, pack_count = struct.unpack_from("<HB", data)
        packs, position = [], 4
        for _ in range(pack_count):
            packs.append(data[position : position + 16])
            position += 16
        ids = [data[position + n * 32 : position + n * 32 + 32] for n in range(count)]
        need(keyed(self.key("chunk ids"), b"".join(ids)) == chunk_id, "a map of another chunk")
        position += count * 32
        numbers = data[position : position + count]
        offsets = struct.unpack_from(f"<{count}I", data, position + count)
        lengths = struct.unpack_from(f"<{count}I", data, position + count * 5)
        need(len(data) == position + count * 9, "a map of a wrong length")
        where = [None if number == 255 else packs[number] for number in numbers]
        return list(zip(ids, where, offsets, lengths, strict=True))

    def block(self, block_id, pack, offset, length, size):
        data = self.pack_box(BLOCKS, pack, offset, length, block_id)
        if len(data) < size:
            data = zstandard.decompress(data)
        need(len(data) == size and keyed(self.key("block ids"), data) == block_id, "a wrong block")
        return data

    def restore(self, backup, path):
        head, chunks = self.manifest(backup)
        size, chunk_size = head["size"], self.block_size * self.chunk_blocks
        need(len(chunks) == -(-size // chunk_size), "the list of chunks has a wrong length")
        with open(path, "wb") as file:
            file.truncate(size)
            for number, (chunk_id, *place) in enumerate(chunks):
                if chunk_id == ZEROS:
                    continue
                offset = number * chunk_size
                for block_id, *block_place in self.chunk_map(chunk_id, *place):
                    length = min(self.block_size, size - offset)
                    if block_id != ZEROS:
                        file.seek(offset)
                        file.write(self.block(block_id, *block_place, length))
                    offset += length
                need(offset == min((number + 1) * chunk_size, size), "a map of a wrong length")


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    key_secret = None
    if len(sys.argv) == 5:
        with open(sys.argv[4], "rb") as key_file:
            key_secret = key_file.read().removesuffix(b"\n").removesuffix(b"\r")
    Reader(sys.argv[1], key_secret).restore(sys.argv[2], sys.argv[3])
