# SPDX-License-Identifier: Apache-2.0
"""A restore from a repository in memory, through a pretended Cinder, into volumes in memory."""

from __future__ import annotations

import os
import pathlib
import types
from collections.abc import Callable
from typing import Any

import pytest

from freezer_osbrick.cloud.ledger import Ledger
from freezer_osbrick.cloud.volumes import VolumeRecord, capture
from freezer_osbrick.operations import attach
from freezer_osbrick.operations.report import VolumeReport
from freezer_osbrick.operations.restore import RestoreRequest, restore
from freezer_osbrick.pipeline.backup import BackupWriter
from freezer_osbrick.pipeline.progress import Progress
from freezer_osbrick.pipeline.workers import Budget
from tests.unit.cloud.fake_cinder import FakeCloud, Resource
from tests.unit.fakes import MemoryDevice
from tests.unit.operations.fake_host import FakeHost
from tests.unit.pipeline import flow

OLD, NEW = flow.mixed(8 * flow.CHUNK, seed=1), flow.mixed(8 * flow.CHUNK, seed=2)


class Bench:
    """A volume that held OLD when it was backed up and holds NEW now.

    :ivar contents: what volumes hold, by id; a GiB is as large as OLD.
    :ivar broken: said of a volume's id and a verb (open, write), may raise.
    """

    def __init__(self, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cloud = FakeCloud()
        self.volume = self.cloud.volume(
            description="of mine", metadata={"tier": "gold"}, volume_type="fast"
        )
        self.contents = {self.volume.id: bytearray(NEW)}
        self.broken: Callable[[str, str], None] = lambda volume_id, verb: None
        self.host = FakeHost(self.cloud.cinder.log, folder)
        self.ledger = Ledger(str(folder / "ledger"), "here")
        self.repository = flow.new_repository()
        self._devices: dict[int, str] = {}
        monkeypatch.setattr(attach, "open_device", self._open_device)
        self.backup(self.record())

    def record(self) -> VolumeRecord:
        return capture(self.cloud, self.volume.id)  # type: ignore[arg-type]

    def backup(self, record: VolumeRecord, content: bytes = OLD, now: int = 1_700_000_000) -> str:
        backup_id = os.urandom(16)
        writer = BackupWriter(
            self.repository, backup_id, MemoryDevice(content), parent=None, progress=Progress("v")
        )
        writer.run(flow.new_head(backup_id, volume=record.to_dict(), time=now))
        return backup_id.hex()

    def context(self) -> Any:
        """What the operations work with."""
        return types.SimpleNamespace(
            cloud=self.cloud,
            host=self.host,
            ledger=self.ledger,
            conf=self.cloud.conf,
            budget=Budget(4),
            set_up=lambda: None,
            open_repository=lambda url, **_: self.repository,
        )

    def restore(self, **request: Any) -> VolumeReport:
        asked = RestoreRequest(volume_ids=(self.volume.id,), **request)
        (told,) = restore(self.context(), "memory:", asked).volumes  # type: ignore[arg-type]
        return told

    def lose_the_volume(self) -> None:
        del self.cloud.cinder.volumes.all[self.volume.id]
        del self.contents[self.volume.id]

    def now(self, volume_id: str | None) -> Resource:
        """What Cinder has of a volume."""
        assert volume_id is not None
        return self.cloud.cinder.volumes.all[volume_id]

    @property
    def nothing_left(self) -> bool:
        cinder = self.cloud.cinder
        return not (cinder.attachments.all or cinder.volume_snapshots.all or self.ledger.runs())

    @property
    def volume_ids(self) -> set[str]:
        return set(self.cloud.cinder.volumes.all)

    def _open_device(
        self, device_info: Any, *, size: int, writable: bool, connection_info: Any
    ) -> MemoryDevice:
        volume_id = connection_info["device_path"].rpartition("/")[2]
        self.broken(volume_id, "open")
        content = self._content(volume_id)
        device = MemoryDevice(b"", writable=writable)
        device.content, device.size = content, len(content)
        write = device._write

        def watched(offset: int, data: memoryview) -> None:
            self.broken(volume_id, "write")
            write(offset, data)

        device._write = watched  # type: ignore[method-assign]
        return device

    def _content(self, volume_id: str) -> bytearray:
        volume = self.now(volume_id)
        room = volume.size * len(OLD)
        if volume_id not in self.contents:
            snapshots = self.cloud.cinder.volume_snapshots.all
            snapshot = snapshots.get(getattr(volume, "snapshot_id", None))
            held = self.contents[snapshot.volume_id] if snapshot else b""
            self.contents[volume_id] = bytearray(held) + bytes(room - len(held))
        return self.contents[volume_id]
