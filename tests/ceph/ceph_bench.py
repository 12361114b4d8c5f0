# SPDX-License-Identifier: Apache-2.0
"""Volumes in Ceph, written as a guest would, and backups of them in this process."""

from __future__ import annotations

import contextlib
import functools
import glob
import importlib
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

from os_brick.initiator import linuxrbd

from devstack.embedded.embedded_cloud.client import EmbeddedCloud
from freezer_osbrick.operations.backup import BackupRequest, backup
from freezer_osbrick.operations.cleanup import cleanup
from freezer_osbrick.operations.cleanup_report import CleanupReport
from freezer_osbrick.operations.context import Context
from freezer_osbrick.operations.hinting import HintPolicy
from freezer_osbrick.operations.report import VolumeReport
from freezer_osbrick.operations.restore import RestoreRequest, restore
from tests.functional.workbench import Workbench

MIB = 1 << 20
GIB = 1 << 30
POOL = "volumes"

_DEBIAN = "/usr/lib/python3/dist-packages"


def load_modules(folder: pathlib.Path) -> None:
    """Let this process, which does not have Debian's modules rados and rbd, load them from a
    folder.

    :raises FileNotFoundError: they are not there, or are another Python's.
    """
    tag = f"cpython-{sys.version_info.major}{sys.version_info.minor}-*"
    for name in ("rados", "rbd"):
        found = glob.glob(f"{_DEBIAN}/{name}.{tag}.so")
        if not found:
            raise FileNotFoundError(f"there is no module {name} for this Python")
        (folder / os.path.basename(found[0])).symlink_to(found[0])
    sys.path.insert(0, str(folder))
    linuxrbd.rados = importlib.import_module("rados")
    linuxrbd.rbd = importlib.import_module("rbd")


class Images:
    """Cinder's images in Ceph, by librbd and Cinder's own user."""

    def __init__(self, conf: str, keyring: str) -> None:
        self._cluster = linuxrbd.rados.Rados(
            rados_id="cinder", conffile=conf, conf={"keyring": keyring}
        )
        self._cluster.connect()
        self._ioctx = self._cluster.open_ioctx(POOL)

    def close(self) -> None:
        self._ioctx.close()
        self._cluster.shutdown()

    def names(self) -> list[str]:
        return list(linuxrbd.rbd.RBD().list(self._ioctx))

    @contextlib.contextmanager
    def open(self, name: str, snapshot: str | None = None) -> Iterator[Any]:
        """An image; for writing, unless it is at a snapshot."""
        read_only = snapshot is not None
        image = linuxrbd.rbd.Image(self._ioctx, name, snapshot=snapshot, read_only=read_only)
        try:
            yield image
        finally:
            image.close()

    @contextlib.contextmanager
    def volume(self, volume_id: str) -> Iterator[Any]:
        with self.open(f"volume-{volume_id}") as image:
            yield image

    @contextlib.contextmanager
    def new(self, name: str, size: int, features: int = 61) -> Iterator[Any]:
        """An image for as long as a block runs, with its snapshots."""
        linuxrbd.rbd.RBD().create(self._ioctx, name, size, old_format=False, features=features)
        try:
            with self.open(name) as image:
                try:
                    yield image
                finally:
                    for snapshot in list(image.list_snaps()):
                        image.remove_snap(snapshot["name"])
        finally:
            linuxrbd.rbd.RBD().remove(self._ioctx, name)


class CephBench(Workbench):
    """Backs up volumes in Ceph to a folder, as the project ``demo``."""

    def __init__(self, embedded: EmbeddedCloud, folder: pathlib.Path, images: Images) -> None:
        super().__init__(embedded, folder / "state")
        self.images = images
        self.repository = str(folder / "backups")

    @functools.cached_property
    def context(self) -> Context:
        return Context.open(self.conf, session=self.cloud.session)

    def write(self, volume_id: str, offset: int, data: bytes) -> None:
        with self.images.volume(volume_id) as image:
            for start in range(0, len(data), 4 * MIB):
                image.write(data[start : start + 4 * MIB], offset + start)
            image.flush()

    def content(self, volume_id: str) -> bytes:
        """All of it; for small volumes."""
        with self.images.volume(volume_id) as image:
            return b"".join(
                image.read(start, 16 * MIB) for start in range(0, image.size(), 16 * MIB)
            )

    def back_up(
        self,
        volume_id: str,
        *,
        incremental: bool = True,
        keep: bool | None = True,
        repository: Any = None,
        **policy: Any,
    ) -> VolumeReport:
        """A backup that succeeds."""
        request = BackupRequest(
            volume_ids=(volume_id,),
            backup_name="nightly",
            hostname="here",
            incremental=incremental,
            hints=HintPolicy(keep=keep, **policy),
        )
        (told,) = backup(self.context, repository or self.repository, request).volumes
        assert told.state == "success", told
        return told

    def restored(self, volume_id: str) -> str:
        """The newest backup, as a new volume; its id."""
        request = RestoreRequest(volume_ids=(volume_id,))
        (told,) = restore(self.context, self.repository, request).volumes
        assert told.state == "success", told
        restored = told.restored_volume_id
        assert restored is not None
        self.users_own(restored)
        return restored

    def kept(self, volume_id: str | None = None) -> list[str]:
        """The ids of the snapshots that are kept."""
        return [
            snapshot["id"]
            for snapshot in self.embedded.cinder("GET", "/snapshots/detail")["snapshots"]
            if volume_id in (None, snapshot["volume_id"])
        ]

    def clean(self, **options: Any) -> CleanupReport:
        return cleanup(self.cloud, self.host, self.ledger, **options)

    def close(self) -> None:
        self.clean(kept_snapshots=True)
        self._made.reverse()  # what was made of others goes first
        super().close()
