# SPDX-License-Identifier: Apache-2.0
"""A volume that has a path on this host: a block device or a plain file."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import logging
import os
import stat
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from freezer_osbrick import errors
from freezer_osbrick.device import disks, identity
from freezer_osbrick.device.hints import Extents
from freezer_osbrick.device.volume_device import Device

LOG = logging.getLogger(__name__)

# From linux/fs.h and linux/falloc.h.
_BLKROGET = 0x125E
_BLKFLSBUF = 0x1261
_BLKZEROOUT = 0x127F
_FALLOC_FL_KEEP_SIZE = 0x01
_FALLOC_FL_PUNCH_HOLE = 0x02
_FALLOC_FL_ZERO_RANGE = 0x10

_SECTOR = 512
# Errors that say "this device or file system cannot", and not "it went wrong".
_CANNOT = {errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY, errno.EINVAL, errno.EACCES, errno.EPERM}
# Errors that may be of the way to the storage and not of what lies there, and pauses in seconds
# before the same is tried again.
_MAY_PASS = {errno.EIO, errno.EREMOTEIO, errno.ENOLINK, errno.ETIMEDOUT, errno.EAGAIN}
_PAUSES = (1.0, 5.0, 15.0)
# Seconds that udev has to give a device that has just appeared to its group, and between two looks.
_UDEV_PATIENCE = 15.0
_UDEV_PAUSE = 0.1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong]


class PathDevice(Device):
    """A block device or a file, read and written at offsets.

    Past the page cache where the caller's buffers allow it: a volume is read or written once, and
    would only drive out what others want to keep there. Only a file that is read goes through it:
    it may be there already.
    """

    def __init__(
        self,
        path: str,
        *,
        size: int,
        writable: bool,
        connection_info: Mapping[str, Any],
        device_info: Mapping[str, Any],
    ) -> None:
        self._descriptor = _open(path, writable)
        try:
            self._is_block = identity.prove_kind(path, self._descriptor)
            self._identity: identity.Identity | None = None
            if self._is_block:
                self._identity = identity.of(self._descriptor)
                identity.prove_told(path, self._identity, connection_info, device_info)
                if writable and _is_read_only(self._descriptor):
                    raise errors.IdentityError(
                        f"{path} is read-only, but the volume is to be written."
                    )
                _forget_cache(self._descriptor)
            else:
                identity.prove_raw(connection_info)
            actual = self._length()
            identity.prove_size(path, actual, size)
        except BaseException:
            os.close(self._descriptor)
            raise
        super().__init__(path, actual, writable=writable)
        self.descriptor = self._descriptor
        self._direct = None
        if self._is_block or writable:
            self._direct = _open_direct(self._descriptor, writable)

    def _prove(self) -> None:
        if self._identity is None:
            identity.prove_whole(self.name, self._length(), self.size)
            return
        found = identity.of(self._descriptor)
        for pause in _PAUSES:
            if found.disks or not found.size:  # it has answered, or is not there any more
                break
            LOG.warning("%s does not answer. Asking again.", self.name)
            time.sleep(pause)
            found = identity.of(self._descriptor)
        identity.prove_same(self.name, self._identity, found)

    def _length(self) -> int:
        return os.lseek(self._descriptor, 0, os.SEEK_END)

    def _readinto(self, offset: int, buffer: memoryview) -> None:
        def step(descriptor: int, done: int) -> int:
            count = os.preadv(descriptor, [buffer[done:]], offset + done)
            if not count:
                failure = errors.DeviceError(
                    f"{self.name} ends at {offset + done}: it was cut short."
                )
                self._prove_after(failure)
                raise failure
            return count

        self._move("read", offset, len(buffer), step)

    def _write(self, offset: int, data: memoryview) -> None:
        self._move(
            "written",
            offset,
            len(data),
            lambda descriptor, done: os.pwrite(descriptor, data[done:], offset + done),
        )

    def _move(self, what: str, offset: int, length: int, step: Callable[[int, int], int]) -> None:
        """Read or write a range in as many steps as it takes, and try again what may pass: each
        time after a new proof, since another volume may be what has caused the error.

        :param step: given a descriptor and what is done of the range; returns what it has done.
        """
        done = 0
        pauses = iter(_PAUSES)
        descriptor = self._descriptor if self._direct is None else self._direct
        while done < length:
            try:
                done += step(descriptor, done)
            except OSError as error:
                if error.errno == errno.EINVAL and descriptor != self._descriptor:
                    descriptor = self._descriptor  # offset, length or buffer are not aligned
                    continue
                failure = self._failure(what, offset + done, error)
                pause = next(pauses, None)
                if error.errno not in _MAY_PASS or pause is None:
                    raise failure from error
                LOG.warning("%s Trying again.", failure)
                time.sleep(pause)
                self._prove_after(failure)

    def _prove_after(self, failure: errors.DeviceError) -> None:
        try:
            self.prove()
        except errors.DeviceError as error:
            raise type(error)(f"{failure} {error}") from error

    def _zero(self, offset: int, length: int) -> None:
        if not self._is_block:
            if not (
                self._fallocate(_FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE, offset, length)
                or self._fallocate(_FALLOC_FL_ZERO_RANGE | _FALLOC_FL_KEEP_SIZE, offset, length)
            ):
                self._write_zeros(offset, length)
            return
        # The kernel zeroes whole sectors only: what lies before and after is written.
        start = -(-offset // _SECTOR) * _SECTOR
        end = (offset + length) // _SECTOR * _SECTOR
        if start >= end or not self._zero_sectors(start, end - start):
            self._write_zeros(offset, length)
            return
        self._write_zeros(offset, start - offset)
        self._write_zeros(end, offset + length - end)

    def _zero_sectors(self, offset: int, length: int) -> bool:
        try:
            fcntl.ioctl(self._descriptor, _BLKZEROOUT, struct.pack("QQ", offset, length))
        except OSError as error:
            if error.errno not in _CANNOT:
                raise self._failure("zeroed", offset, error) from error
            return False
        return True

    def _fallocate(self, mode: int, offset: int, length: int) -> bool:
        if _libc.fallocate(self._descriptor, mode, offset, length) == 0:
            return True
        number = ctypes.get_errno()
        if number not in _CANNOT:
            raise self._failure("zeroed", offset, OSError(number, os.strerror(number)))
        return False

    def _holes(self) -> Extents:
        if self._is_block:
            return Extents()
        try:
            # File systems have called data a hole that was written but not yet on the disk.
            os.fsync(self._descriptor)
            return Extents(self._seek_holes())
        except OSError as error:
            if error.errno in _CANNOT:
                return Extents()
            raise self._failure("searched for holes", 0, error) from error

    def _seek_holes(self) -> Iterator[tuple[int, int]]:
        position = 0
        while position < self.size:
            hole = os.lseek(self._descriptor, position, os.SEEK_HOLE)
            if hole >= self.size:
                return
            try:
                position = os.lseek(self._descriptor, hole, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:  # no data follows
                    raise
                position = self.size
            yield hole, position - hole

    def _flush(self) -> None:
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise self._failure("flushed", 0, error) from error

    def _close(self) -> None:
        if self._direct is not None:
            os.close(self._direct)
        os.close(self._descriptor)

    def _failure(self, what: str, offset: int, error: OSError) -> errors.DeviceError:
        return errors.DeviceError(
            f"{self.name} could not be {what} at {offset}: {error.strerror or error}."
        )


def _open(path: str, writable: bool) -> int:
    # O_EXCL on a block device: refused while the kernel has it mounted or claimed otherwise. On a
    # file without O_CREAT it means nothing. O_NONBLOCK: a pipe in the volume's place must not hang
    # us.
    flags = os.O_CLOEXEC | os.O_EXCL | os.O_NONBLOCK | (os.O_RDWR if writable else os.O_RDONLY)
    deadline = time.monotonic() + _UDEV_PATIENCE
    while True:
        try:
            return os.open(path, flags)
        except PermissionError as error:
            if not _is_new(path) or time.monotonic() > deadline:
                raise _cannot_be_opened(path, str(error.strerror)) from error
        except OSError as error:
            reason = str(error.strerror)
            if error.errno == errno.EBUSY:
                reason = f"{_holders(path)} on this host uses it"
            raise _cannot_be_opened(path, reason) from error
        time.sleep(_UDEV_PAUSE)


def _is_new(path: str) -> bool:
    """Whether a block device is as the kernel made it, and udev has not yet come to it: os-brick
    does not wait for that."""
    try:
        found = os.stat(path)
    except OSError:  # it is gone, or in a folder that may not be looked into
        return False
    return stat.S_ISBLK(found.st_mode) and found.st_gid == 0


def _cannot_be_opened(path: str, reason: str) -> errors.DeviceError:
    return errors.DeviceError(f"The device {path} cannot be opened: {reason}.")


def _holders(path: str) -> str:
    """What else may use a block device, for people."""
    number = os.stat(path).st_rdev
    folder = disks.folder_by_number(f"{os.major(number)}:{os.minor(number)}")
    return ", ".join(disks.holders(folder)) or "something else"


def _open_direct(descriptor: int, writable: bool) -> int | None:
    """A second descriptor of the same device, for direct I/O; None where there is none."""
    flags = os.O_DIRECT | os.O_CLOEXEC | (os.O_RDWR if writable else os.O_RDONLY)
    try:
        return os.open(f"/proc/self/fd/{descriptor}", flags)
    except OSError as error:
        LOG.debug("The device is used through the page cache: %s", error)
        return None


def _is_read_only(descriptor: int) -> bool:
    answer = fcntl.ioctl(descriptor, _BLKROGET, struct.pack("i", 0))
    return bool(struct.unpack("i", answer)[0])


def _forget_cache(descriptor: int) -> None:
    """Drop what the kernel may have cached of another volume under the same device name."""
    try:
        fcntl.ioctl(descriptor, _BLKFLSBUF, 0)
    except OSError as error:
        # Needs CAP_SYS_ADMIN. The kernel does the same itself when the last user closes a device.
        LOG.debug("The cache of the device was not dropped: %s", error)
