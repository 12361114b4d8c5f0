# SPDX-License-Identifier: Apache-2.0
"""What the demo proves with: check sums, file system checks, and what is left in the cloud."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import pathlib

from embedded.embedded_cloud.client import EmbeddedCloud

from . import system

_BLOCK = 4 << 20
_OURS = "freezer_osbrick"  # what the keys of our tags in Cinder begin with


def sha256(device: str) -> str:
    """The check sum of a whole device or file, past the page cache where that can be.

    A mounted file system does not keep the page cache of its block device up to date.
    """
    try:
        descriptor = os.open(device, os.O_RDONLY | os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        descriptor = os.open(device, os.O_RDONLY)  # tmpfs and others have no direct reading
    digest = hashlib.sha256()
    try:
        with mmap.mmap(-1, _BLOCK) as buffer, memoryview(buffer) as view:
            offset = 0
            while count := os.preadv(descriptor, [view], offset):
                digest.update(view[:count])
                offset += count
    finally:
        os.close(descriptor)
    return digest.hexdigest()


def check_file_system(device: str, kind: str) -> str:
    """Check a restored file system without writing to it.

    :returns: what was found, in a few words.
    :raises DemoError: it is damaged.
    """
    if kind == "ext4":
        system.run("e2fsck", "-f", "-n", device)
        return "e2fsck finds no fault"
    options = [] if pathlib.Path(device).is_block_device() else ["-f"]
    system.run("xfs_repair", "-n", *options, device)
    return "xfs_repair finds no fault"


def read_files(device: str, kind: str, mount_point: pathlib.Path) -> str:
    """Mount a restored file system read-only and read every file of it.

    :returns: what was read, in a few words.
    """
    mount_point.mkdir(parents=True, exist_ok=True)
    # While the original is mounted too, XFS would refuse a second one with the same UUID.
    options = {"ext4": "ro,noload", "xfs": "ro,norecovery,nouuid"}[kind]
    system.run("mount", "-t", kind, "-o", options, device, mount_point)
    try:
        count, size = _read_all(mount_point)
    finally:
        system.run("umount", mount_point)
    return f"mounted read-only, {count} files with {size >> 20} MiB read"


def _read_all(folder: pathlib.Path) -> tuple[int, int]:
    count = size = 0
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            count += 1
            size += len(path.read_bytes())
    return count, size


def leftovers(cloud: EmbeddedCloud, state: pathlib.Path) -> dict[str, int]:
    """What of ours is still there, counted: all zero is what has to be.

    The cloud is asked as its admin, for all projects. A restored volume is the user's.
    """

    def listed(what: str) -> list[dict[str, object]]:
        found = cloud.cinder("GET", f"/{what}/detail?all_tenants=1", project="admin")[what]
        return list(found)

    attachments = cloud.cinder("GET", "/attachments?all_tenants=1", project="admin")["attachments"]
    held = {volume for server in cloud.servers().values() for volume in server["volumes"]}
    devices = [
        path
        for path in cloud.loop_devices().values()
        if os.path.basename(path).removeprefix("volume-") not in held
    ]
    tagged = [
        volume
        for volume in listed("volumes")
        if any(str(key).startswith(_OURS) for key in volume["metadata"])  # type: ignore[attr-defined]
    ]
    return {
        "snapshots": len(listed("snapshots")),
        "volumes with our tags": len(tagged),
        "attachments without a server": sum(not made.get("instance") for made in attachments),
        "loop devices without a server": len(devices),
        "journals and scratch folders": len(list((state / "ledger").glob("*.*"))),
    }
