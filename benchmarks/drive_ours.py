# SPDX-License-Identifier: Apache-2.0
"""One backup or restore of a plain file by freezer-osbrick's own pipeline, without a cloud."""

from __future__ import annotations

import argparse
import os
import time

from freezer_osbrick.device.hints import Hints
from freezer_osbrick.device.path_device import PathDevice
from freezer_osbrick.pipeline.backup import BackupWriter
from freezer_osbrick.pipeline.progress import Progress
from freezer_osbrick.pipeline.restore import RestoreReader
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository import repository
from freezer_osbrick.repository.manifest import Manifest
from freezer_osbrick.store.local import LocalStore


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sealed", action="store_true")
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("verb", choices=["init", "backup", "restore"])
    parser.add_argument("folder", help="of the repository")
    parser.add_argument("image", nargs="?", help="to back up, or to restore to")
    args = parser.parse_args()

    secret = b"a secret of the benchmark" if args.sealed else None
    store = LocalStore(args.folder, create=args.verb == "init")
    if args.verb == "init":
        repository.create(store, secret=secret)
        return
    opened = repository.open_repository(store, secret=secret)
    if args.verb == "backup":
        backup(opened, args.image, args.threads)
    else:
        restore(opened, args.image, args.threads)


def backup(opened: repository.Repository, image: str, threads: int) -> None:
    """Back up a file; the newest backup there is the parent."""
    backup_id = os.urandom(form.OBJECT_ID_SIZE)
    device = _open(image, writable=False)
    try:
        writer = BackupWriter(
            opened,
            backup_id,
            device,
            parent=newest(opened),
            hints=Hints(zeros=device.holes()),
            threads=threads,
            progress=Progress("bench"),
        )
        writer.run({"backup": backup_id.hex(), "time": int(time.time())})
    finally:
        device.close()


def restore(opened: repository.Repository, target: str, threads: int) -> None:
    """Restore the newest backup to a file that is there and large enough."""
    manifest = newest(opened)
    if manifest is None:
        raise SystemExit("The repository is empty.")
    device = _open(target, writable=True)
    try:
        reader = RestoreReader(
            opened, manifest, device, compare=False, threads=threads, progress=Progress("bench")
        )
        reader.run()
    finally:
        device.close()


def newest(opened: repository.Repository) -> Manifest | None:
    """The backup that was put last."""
    found = sorted(opened.store.list(form.MANIFESTS), key=lambda info: info.modified)
    if not found:
        return None
    return Manifest(opened, bytes.fromhex(found[-1].name.removeprefix(form.MANIFESTS)))


def _open(path: str, *, writable: bool) -> PathDevice:
    size = os.path.getsize(path)
    return PathDevice(path, size=size, writable=writable, connection_info={}, device_info={})


if __name__ == "__main__":
    main()
