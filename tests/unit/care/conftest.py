# SPDX-License-Identifier: Apache-2.0
"""Small repositories, sealed and not, with a history of backups whose contents are known."""

from __future__ import annotations

import os
from typing import Any

import pytest

from freezer_osbrick import opts
from freezer_osbrick.cloud.volumes import VolumeRecord
from freezer_osbrick.device.volume_device import Device
from freezer_osbrick.operations.backup import BackupRequest
from freezer_osbrick.operations.contents import Blocks
from freezer_osbrick.operations.context import Context
from freezer_osbrick.operations.copying import Copy, Hinted, Shared
from freezer_osbrick.operations.hinting import Hinting, HintPolicy
from freezer_osbrick.operations.report import CopyReport
from freezer_osbrick.pipeline.backup import BackupWriter
from freezer_osbrick.pipeline.progress import Progress
from freezer_osbrick.pipeline.restore import RestoreReader
from freezer_osbrick.repository import repository as repositories
from freezer_osbrick.repository.manifest import Manifest
from freezer_osbrick.repository.repository import Repository
from tests.unit.fakes import MemoryDevice, MemoryStore

BLOCK, CHUNK_BLOCKS = 4096, 8
CHUNK = BLOCK * CHUNK_BLOCKS
DAY = 86400
SECRET = b"the secret of the tests"
URL = "memory:"


class ClockedStore(MemoryStore):
    """A store in memory whose clock is set by the test."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        super().__init__()
        self.clock = now

    def now(self) -> float:
        return self.clock


class Shelf:
    """A repository, and what was backed up into it."""

    def __init__(self, repository: Repository, store: ClockedStore) -> None:
        self.repository = repository
        self.store = store
        self.contents: dict[str, bytes] = {}

    def backup(
        self,
        content: bytes,
        *,
        volume: str = "v1",
        time: float | None = None,
        parent: str | None = None,
        name: str = "nightly",
        hostname: str = "node1",
        project: str = "p1",
    ) -> str:
        """Back up a content; the id of the backup, in hexadecimal."""
        backup_id = os.urandom(16)
        head: dict[str, Any] = {
            "backup": backup_id.hex(),
            "name": name,
            "hostname": hostname,
            "time": self.store.now() if time is None else time,
            "level": 1 if parent else 0,
            "parent": parent,
            "content": "blocks",
            "volume": {"id": volume, "name": f"volume {volume}", "project_id": project},
        }
        writer = BackupWriter(
            self.repository,
            backup_id,
            MemoryDevice(content),
            parent=Manifest(self.repository, bytes.fromhex(parent)) if parent else None,
            progress=Progress(volume),
            threads=2,
        )
        writer.run(head)
        self.contents[backup_id.hex()] = bytes(content)
        return backup_id.hex()

    def manifest(self, backup_id: str) -> Manifest:
        return Manifest(self.repository, bytes.fromhex(backup_id))

    def restores(self, backup_id: str) -> bool:
        """Whether a restore gives what was backed up; an error where it fails as it should."""
        device = MemoryDevice(os.urandom(len(self.contents[backup_id])))
        RestoreReader(
            self.repository,
            self.manifest(backup_id),
            device,
            compare=False,
            progress=Progress("v1"),
        ).run()
        return bytes(device.content) == self.contents[backup_id]

    def ids(self) -> set[str]:
        """The backups whose manifests are in the store."""
        prefix = "manifests/"
        names = self.store.objects
        return {name.removeprefix(prefix) for name in names if name.startswith(prefix)}


def new_shelf(sealed: bool = False) -> Shelf:
    store = ClockedStore()
    repository = repositories.create(
        store,
        block_size=BLOCK,
        chunk_blocks=CHUNK_BLOCKS,
        secret=SECRET if sealed else None,
    )
    return Shelf(repository, store)


@pytest.fixture(params=[False, True], ids=["unsealed", "sealed"])
def shelf(request: pytest.FixtureRequest) -> Shelf:
    return new_shelf(sealed=request.param)


@pytest.fixture
def context(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> Context:
    """What the verbs take; every URL leads to the shelf's repository."""
    return context_of(shelf, monkeypatch)


def volume_backup(
    context: Context,
    repository: Repository,
    volume: str,
    device: Device,
    *,
    incremental: bool = True,
    name: str = "v",
) -> tuple[Copy, VolumeRecord, CopyReport]:
    """A volume's backup as the verb makes it, from the attached device on: no cloud is needed."""
    report = CopyReport(repository.store.url)
    request = BackupRequest((volume,), "nightly", "node1", incremental=incremental)
    blocks, progress = Blocks(device), Progress(volume)
    record = VolumeRecord.from_dict(
        {"id": volume, "name": name, "description": "", "size_gib": 1, "status": "in-use"}
    )
    hinted = Hinted(Hinting(context, HintPolicy(), record), None)
    one = Copy(context, repository, request.series, Shared(), blocks, hinted, report, progress)
    return one, record, report


def context_of(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> Context:
    from oslo_config import cfg

    conf = cfg.ConfigOpts()
    opts.register(conf)
    conf([], project="freezer-osbrick", default_config_files=[], default_config_dirs=[])
    made = Context(conf)
    monkeypatch.setattr(
        made, "open_repository", lambda url, create=False, **options: shelf.repository
    )
    return made
