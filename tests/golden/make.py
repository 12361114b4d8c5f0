# SPDX-License-Identifier: Apache-2.0
"""Make the golden repositories of the present format version.

They are made once for a version, committed, and never made again: every later version of this
package must restore them. Run from the top of the source tree:

    python -m tests.golden.make tests/golden/v1

``v1`` is of the first version; ``v1-checked`` is an unsealed repository whose configuration has a
check, made by ``python -m tests.golden.make tests/golden/v1-checked plain``.
"""

import hashlib
import json
import os
import random
import sys
import time
from unittest import mock

from freezer_osbrick.pipeline.backup import BackupWriter
from freezer_osbrick.pipeline.progress import Progress
from freezer_osbrick.repository import catalogue, repository
from freezer_osbrick.repository.manifest import Manifest
from freezer_osbrick.store.local import LocalStore
from tests.unit.fakes import MemoryDevice

BLOCK, CHUNK_BLOCKS = 4096, 8
CHUNK = BLOCK * CHUNK_BLOCKS
SECRET = b"golden secret"
BEGAN = 1_800_000_000


class Maker:
    """One repository, and what each of its backups held."""

    def __init__(self, folder, seed, secret):
        self.random = random.Random(seed)
        self.clock = BEGAN
        self.expected = {}
        self.repository = repository.create(
            LocalStore(folder, create=True),
            secret=secret,
            block_size=BLOCK,
            chunk_blocks=CHUNK_BLOCKS,
        )

    def backup(self, volume, content, parent=None, **options):
        self.clock += 3600
        backup_id = os.urandom(16)
        head = {
            "backup": backup_id.hex(),
            "name": "nightly",
            "hostname": "backup-1",
            "time": self.clock,
            "level": parent.head["level"] + 1 if parent else 0,
            "parent": parent.backup_id.hex() if parent else None,
            "mode": "hot",
            "content": "blocks",
            "agent": "freezer-osbrick golden",
            "volume": {
                "id": f"00000000-0000-4000-8000-{volume:012}",
                "name": f"volume {volume} «ü»",
                "project_id": "0123456789abcdef0123456789abcdef",
                "size_gib": 1,
            },
        }
        device = MemoryDevice(content, writable=False)
        progress = Progress(head["volume"]["id"])
        BackupWriter(
            self.repository,
            backup_id,
            device,
            parent=parent,
            threads=1,
            progress=progress,
            **options,
        ).run(head)
        self.expected[backup_id.hex()] = {
            "size": len(content),
            "level": head["level"],
            "time": head["time"],
            "volume": head["volume"]["id"],
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        return Manifest(self.repository, backup_id)

    def remove(self, manifest):
        """Its packs stay: the backups after it use them."""
        backup_id = manifest.backup_id.hex()
        catalogue.remove(self.repository, catalogue.find(self.repository, backup_id))
        del self.expected[backup_id]

    def fill(self):
        noise = self.random.randbytes
        volume = bytearray(
            noise(20_000) + b"freezer " * 12_000 + bytes(CHUNK * 5) + noise(CHUNK) + b"\xff" * 777
        )
        first = self.backup(1, volume)
        volume[9 * BLOCK : 9 * BLOCK + 100] = noise(100)
        volume[CHUNK * 4 : CHUNK * 4 + 50] = noise(50)  # where zeros were
        second = self.backup(1, volume, first)
        volume[BLOCK * 2 : BLOCK * 5] = bytes(BLOCK * 3)  # zeros where data was
        volume[-1] = 0
        volume += bytes(CHUNK) + noise(5000)  # grown
        third = self.backup(1, volume, second)
        self.backup(1, volume, third)  # unchanged
        self.remove(second)
        self.backup(2, bytes(CHUNK * 3 + 5))  # nothing but zeros, an odd size
        self.backup(3, noise(BLOCK * 2 + 1) * 2, compression_level=0)
        self.backup(4, b"")
        self.backup(5, (b"many chunks " * 400_000)[: BLOCK * 1000], compression_level=19)


def main(folder, *names):
    os.mkdir(folder)
    expected = {}
    for seed, (name, secret) in enumerate((("plain", None), ("sealed", SECRET))):
        if names and name not in names:
            continue
        source = random.Random(f"golden {seed}")
        with (
            mock.patch.object(os, "urandom", source.randbytes),
            mock.patch.object(time, "time", lambda: float(BEGAN)),
        ):
            maker = Maker(os.path.abspath(os.path.join(folder, name)), seed, secret)
            maker.fill()
        expected[name] = maker.expected
    with open(os.path.join(folder, "expected.json"), "w") as file:
        json.dump(expected, file, indent=1)
        file.write("\n")
    with open(os.path.join(folder, "key-file"), "wb") as file:
        file.write(SECRET + b"\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
