# SPDX-License-Identifier: Apache-2.0
"""Another volume turns up behind the device of one that is being read: CVE-2023-2088 by hand.

The kernel goes on reading without an error. Here it is told to put another file behind the loop
device that a clone is attached by; ``tests/transports`` does the same with a LUN.
"""

from __future__ import annotations

import fcntl
import os
import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from devstack.embedded.embedded_cloud import loop
from devstack.embedded.embedded_cloud.client import EmbeddedCloud
from freezer_osbrick.operations.backup import BackupRequest, backup
from freezer_osbrick.operations.catalogue import list_backups
from freezer_osbrick.operations.context import Context
from freezer_osbrick.pipeline.progress import ProgressEvent
from tests.functional.workbench import Workbench

GIB = 1 << 30
_LOOP_CHANGE_FD = 0x4C06  # from linux/loop.h; of devices that are read-only


@pytest.fixture
def bench(cloud: EmbeddedCloud, tmp_path: pathlib.Path) -> Iterator[Workbench]:
    if not loop.usable():
        pytest.skip("loop devices need root")
    bench = Workbench(cloud, tmp_path / "state")
    yield bench
    bench.close()


class Swap:
    """Once reading has begun, another volume of the same size is behind the device."""

    def __init__(self, bench: Workbench, other: pathlib.Path) -> None:
        self._bench = bench
        self._other = other
        self.device: str | None = None

    def __call__(self, event: ProgressEvent) -> None:
        if event.phase != "read" or self.device is not None:
            return
        (self.device,) = self._bench.embedded.loop_devices()
        with open(self._other, "rb") as other, open(self.device, "rb") as opened:
            fcntl.ioctl(opened, _LOOP_CHANGE_FD, other.fileno())

    def undo(self) -> None:
        if self.device is not None:  # the cloud knows its devices by their files
            subprocess.run(["losetup", "--detach", self.device], check=True)


@pytest.mark.parametrize("content", ["zeros", "data"])
def test_no_backup_is_made_of_another_volume(
    bench: Workbench, tmp_path: pathlib.Path, content: str
) -> None:
    record = bench.volume()
    other = tmp_path / "of-another-tenant"
    with open(other, "wb") as file:
        file.truncate(GIB)
        if content == "data":
            file.write(os.urandom(8 << 20))
    swap = Swap(bench, other)
    context = Context(bench.conf, bench.cloud.session)
    url = f"file://{tmp_path}/backups"
    try:
        report = backup(context, url, BackupRequest((record.id,), "nightly", "here"), progress=swap)
    finally:
        swap.undo()
    (volume,) = report.volumes
    assert volume.state == "error"
    assert volume.reason is not None
    assert "is not the volume any more" in volume.reason
    assert str(other) in volume.reason
    assert list_backups(context, url) == []
    assert bench.leftovers() == {}
