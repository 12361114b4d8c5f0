# SPDX-License-Identifier: Apache-2.0
"""One backup or restore of a plain file by freezer-osbrick's own pipeline, without a cloud."""

from __future__ import annotations

import argparse
import json
import os
import re
import time

from freezer_osbrick.device.hints import NO_HINTS, Hints
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
    parser.add_argument("--read-holes", action="store_true", help="read what is known to be empty")
    parser.add_argument("--tell", metavar="FILE", help="write there what was done, as JSON")
    parser.add_argument("verb", choices=["init", "backup", "restore"])
    parser.add_argument("folder", help="of the repository")
    parser.add_argument("image", nargs="?", help="to back up, or to restore to")
    args = parser.parse_args()

    secret = b"a secret of the benchmark" if args.sealed else None
    store = LocalStore(args.folder, create=args.verb == "init")
    if args.verb == "init":
        repository.create(store, secret=secret)
        _tell(args.tell)
        return
    opened = repository.open_repository(store, secret=secret)
    if args.verb == "backup":
        read = backup(opened, args.image, args.threads, read_holes=args.read_holes)
    else:
        read = restore(opened, args.image, args.threads)
    _tell(args.tell, read)


def backup(
    opened: repository.Repository, image: str, threads: int, *, read_holes: bool = False
) -> int:
    """Back up a file; the newest backup there is the parent. Bytes that were read."""
    backup_id = os.urandom(form.OBJECT_ID_SIZE)
    device = _open(image, writable=False)
    try:
        writer = BackupWriter(
            opened,
            backup_id,
            device,
            parent=newest(opened),
            hints=NO_HINTS if read_holes else Hints(zeros=device.holes()),
            threads=threads,
            progress=Progress("bench"),
        )
        return writer.run({"backup": backup_id.hex(), "time": int(time.time())}).read
    finally:
        device.close()


def restore(opened: repository.Repository, target: str, threads: int) -> int:
    """Restore the newest backup to a file that is there and large enough. Bytes fetched."""
    manifest = newest(opened)
    if manifest is None:
        raise SystemExit("The repository is empty.")
    device = _open(target, writable=True)
    try:
        reader = RestoreReader(
            opened, manifest, device, compare=False, threads=threads, progress=Progress("bench")
        )
        return reader.run().fetched
    finally:
        device.close()


def newest(opened: repository.Repository) -> Manifest | None:
    """The backup that was put last."""
    found = sorted(opened.store.list(form.MANIFESTS), key=lambda info: info.modified)
    if not found:
        return None
    return Manifest(opened, bytes.fromhex(found[-1].name.removeprefix(form.MANIFESTS)))


def _tell(path: str | None, read: int = 0) -> None:
    """Write bytes read, and the most memory that this process ever had resident."""
    if path is None:
        return
    with open("/proc/self/status") as status:
        found = re.search(r"VmHWM:\s*(\d+) kB", status.read())
    with open(path, "w") as file:
        json.dump({"read": read, "memory": int(found[1]) * 1024 if found else 0}, file)


def _open(path: str, *, writable: bool) -> PathDevice:
    size = os.path.getsize(path)
    return PathDevice(path, size=size, writable=writable, connection_info={}, device_info={})


if __name__ == "__main__":
    main()
