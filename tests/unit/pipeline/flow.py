# SPDX-License-Identifier: Apache-2.0
"""Small repositories, contents, and the way of a backup and a restore, for the tests."""

import os
import random

from freezer_osbrick.pipeline.backup import BackupWriter
from freezer_osbrick.pipeline.progress import Progress
from freezer_osbrick.pipeline.restore import RestoreReader
from freezer_osbrick.repository import repository
from freezer_osbrick.repository.manifest import Manifest
from tests.unit.fakes import MemoryStore

BLOCK, CHUNK_BLOCKS = 4096, 8
CHUNK = BLOCK * CHUNK_BLOCKS


def new_repository(store=None, **options):
    return repository.create(
        store or MemoryStore(), block_size=BLOCK, chunk_blocks=CHUNK_BLOCKS, **options
    )


def new_head(backup_id, level=0, **fields):
    return {
        "backup": backup_id.hex(),
        "name": "series",
        "hostname": "host",
        "time": 1_700_000_000,
        "finished": 1_700_000_001.0,
        "level": level,
        "volume": {"id": "v1"},
        **fields,
    }


def backup(repo, device, parent=None, backup_id=None, **options):
    backup_id = backup_id or os.urandom(16)
    progress = Progress("v1")
    writer = BackupWriter(repo, backup_id, device, parent=parent, progress=progress, **options)
    amounts = writer.run(new_head(backup_id, 1 if parent else 0))
    return Manifest(repo, backup_id), amounts


def restore(repo, manifest, device, compare=False, **options):
    progress = Progress("v1")
    return RestoreReader(
        repo, manifest, device, compare=compare, progress=progress, **options
    ).run()


def mixed(size, seed=1):
    """Zeros, noise and repeated text, in blocks."""
    source = random.Random(seed)
    parts = []
    while sum(map(len, parts)) < size:
        kind = source.randrange(3)
        count = source.randrange(1, 5) * BLOCK
        parts.append([bytes(count), source.randbytes(count), (b"freezer " * count)[:count]][kind])
    return b"".join(parts)[:size]
