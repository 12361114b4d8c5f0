# SPDX-License-Identifier: Apache-2.0
"""A part of an opened volume as a block device of its own, for the kernel to mount.

The loop device is set to vanish with its last user, so that not even ``kill -9`` leaves one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator

from freezer_osbrick import errors

# From linux/loop.h.
_CTL_GET_FREE = 0x4C82
_CONFIGURE = 0x4C0A
_READ_ONLY, _AUTOCLEAR, _DIRECT_IO = 1, 4, 16
_INFO = struct.Struct("QQQQQIIII64s64s32sQQ")
_CONFIG = struct.Struct(f"II{_INFO.size}s64s")
_MAJOR = 7

_ATTEMPTS = 64


@contextlib.contextmanager
def loop_device(descriptor: int, offset: int, size: int, *, writable: bool) -> Iterator[str]:
    """The path of a loop device over ``size`` bytes from ``offset`` on of a file or block device.

    It vanishes at the end, or with whatever still uses it then.

    :param descriptor: of the file or device, which stays open as long as the loop device lives.
    :raises errors.DeviceError: there is none to be had.
    """
    loop, path = _set_up(descriptor, offset, size, writable)
    try:
        yield path
    finally:
        os.close(loop)


def _set_up(descriptor: int, offset: int, size: int, writable: bool) -> tuple[int, str]:
    flags = _AUTOCLEAR | (0 if writable else _READ_ONLY)
    if stat.S_ISBLK(os.fstat(descriptor).st_mode):
        flags |= _DIRECT_IO  # past the cache of the device below: it would hold all a second time
    info = _INFO.pack(0, 0, 0, offset, size, 0, 0, 0, flags, b"freezer-osbrick", b"", b"", 0, 0)
    try:
        with open("/dev/loop-control", "rb", buffering=0) as control:
            for _ in range(_ATTEMPTS):
                number = fcntl.ioctl(control, _CTL_GET_FREE)
                path = f"/dev/loop{number}"
                loop = _open(path, number, writable)
                try:
                    config = _CONFIG.pack(descriptor, 0, info, bytes(64))
                    fcntl.ioctl(loop, _CONFIGURE, config)
                except OSError as error:
                    os.close(loop)
                    if error.errno != errno.EBUSY:  # somebody else was a moment faster
                        raise
                else:
                    return loop, path
    except OSError as error:
        raise errors.DeviceError(
            f"No loop device can be had, which file mode needs: {error.strerror}."
        ) from error
    raise errors.DeviceError("No loop device can be had, which file mode needs: all are taken.")


def _open(path: str, number: int, writable: bool) -> int:
    flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC
    try:
        return os.open(path, flags)
    except FileNotFoundError:  # a container has not all of them
        os.mknod(path, 0o600 | stat.S_IFBLK, os.makedev(_MAJOR, number))
        return os.open(path, flags)
