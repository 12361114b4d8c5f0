# SPDX-License-Identifier: Apache-2.0
"""A guest's file system, mounted where nobody else sees it.

The mount is attached to no folder: it lives in a name space of its own, has no path, and ends with
the descriptor of its root or with this process, however that ends. The kernel parses what a guest
has written, so this happens only where the operator chose file mode.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Iterator

from oslo_log import log as logging

from freezer_osbrick import errors
from freezer_osbrick.filesystem.loop import loop_device
from freezer_osbrick.filesystem.superblocks import FileSystem
from freezer_osbrick.filesystem.syscalls import Mounting, sync_file_system

LOG = logging.getLogger(__name__)

# Beside ro, nodev, nosuid and noexec. A clone has its source's UUID, which xfs would refuse; of
# btrfs all is wanted, not only the subvolume that is mounted by default.
_OPTIONS: dict[str, tuple[tuple[str, str | None], ...]] = {
    "ext2": (),
    "ext3": (),
    "ext4": (),
    "xfs": (("nouuid", None),),
    "btrfs": (("subvolid", "5"),),
    "vfat": (("iocharset", "utf8"),),
}

_BTRFS_DEV_INFO = 0xD000941E
_BTRFS_FORGET_DEV = 0x50009405
_BTRFS_DEV_INFO_ARGS = struct.Struct("Q16sQQ3032s1024s")


def supported() -> frozenset[str]:
    """The kinds of file systems that this host's kernel can read.

    :raises errors.DeviceError: it can mount nothing in this way.
    """
    kinds = set()
    for kind in sorted(_OPTIONS):
        try:
            _begin(kind).close()
        except errors.NoFileSystem:
            continue
        kinds.add(kind)
    return frozenset(kinds)


@contextlib.contextmanager
def mounted(
    descriptor: int, offset: int, size: int, found: FileSystem, *, writable: bool, repair: bool
) -> Iterator[int]:
    """Mount the file system in a part of an opened volume.

    :param descriptor: of the volume's file or block device.
    :param writable: mount it for writing.
    :param repair: let the kernel replay the journal, which writes to the device.
    :returns: a descriptor of the root folder. All that was opened below must be closed at the end.
    :raises errors.JournalDirty: the journal is to be replayed, and ``repair`` is False.
    :raises errors.DeviceError: it cannot be mounted.
    """
    _check_devices(found)
    if found.kind == "btrfs" and found.details.get("dirty") and not repair:
        # The others answer so themselves, when they are mounted from a read-only device.
        raise errors.JournalDirty("The log of the btrfs file system has to be replayed first.")
    with loop_device(descriptor, offset, size, writable=writable or repair) as path:
        root = _mount(path, found, writable)
        try:
            if found.kind == "btrfs":
                _prove_btrfs(root, path)
            yield root
            if writable:
                _sync(root)
        finally:
            os.close(root)
            if found.kind == "btrfs":
                _forget_btrfs(path)


def _begin(kind: str) -> Mounting:
    """:raises errors.NoFileSystem: the kernel does not know this kind."""
    try:
        return Mounting(kind)
    except OSError as error:
        if error.errno == errno.ENODEV:
            raise errors.NoFileSystem(f"This host's kernel has no {kind}.") from error
        reason = error.strerror
        if error.errno == errno.ENOSYS:
            reason = "it needs Linux 5.6 or later"
        elif error.errno == errno.EPERM:
            reason = "it needs root rights"
        raise errors.DeviceError(f"File mode is not possible here: {reason}.") from error


def _mount(path: str, found: FileSystem, writable: bool) -> int:
    mounting = _begin(found.kind)
    try:
        mounting.set("source", path)
        if not writable:
            mounting.set("ro")
        for option, value in _OPTIONS[found.kind]:
            mounting.set(option, value)
        return mounting.mount(writable=writable)
    except OSError as error:
        told = mounting.told() or error.strerror
        # What every file system answers that has to replay its journal on a read-only device.
        if error.errno == errno.EROFS or (error.errno == errno.EACCES and not writable):
            raise errors.JournalDirty(
                f"The journal of the {found.kind} file system has to be replayed first: {told}."
            ) from error
        raise errors.DeviceError(
            f"The {found.kind} file system cannot be mounted: {told}."
        ) from error
    finally:
        mounting.close()


def _check_devices(found: FileSystem) -> None:
    if found.kind == "btrfs" and found.details.get("devices", 1) != 1:
        raise errors.DeviceError(
            "The btrfs file system spans several volumes: back them up as blocks."
        )


def _prove_btrfs(root: int, path: str) -> None:
    """A btrfs is known by its UUID, which a clone shares with its source: an older kernel gives us
    the other's, if that is mounted on this host.

    :raises errors.IdentityError: it is the other one.
    """
    buffer = bytearray(_BTRFS_DEV_INFO_ARGS.pack(1, bytes(16), 0, 0, b"", b""))
    try:
        fcntl.ioctl(root, _BTRFS_DEV_INFO, buffer)
    except OSError as error:
        raise errors.IdentityError(
            f"The device of the btrfs file system is not known: {error.strerror}."
        ) from error
    name = os.fsdecode(_BTRFS_DEV_INFO_ARGS.unpack(buffer)[5].partition(b"\0")[0])
    if os.path.realpath(name) != os.path.realpath(path):
        raise errors.IdentityError(
            f"This host has another btrfs file system with the same UUID mounted from {name}: "
            "unmount it, or back the volume up as blocks."
        )


def _forget_btrfs(path: str) -> None:
    """Else the kernel holds on to what it knows of the device under this UUID."""
    buffer = bytearray(struct.pack("q4088s", 0, os.fsencode(path)))
    try:
        with open("/dev/btrfs-control", "rb", buffering=0) as control:
            fcntl.ioctl(control, _BTRFS_FORGET_DEV, buffer)
    except OSError as error:
        LOG.debug("btrfs did not forget %s: %s", path, error)


def _sync(root: int) -> None:
    try:
        sync_file_system(root)
    except OSError as error:
        raise errors.DeviceError(
            f"What was written to the file system is not certain to be there: {error.strerror}."
        ) from error
