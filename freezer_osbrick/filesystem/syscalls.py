# SPDX-License-Identifier: Apache-2.0
"""Calls of the Linux kernel that Python does not have. Their numbers are the same on every
architecture."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

_OPENAT2 = 437
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432

_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
_HOW = struct.Struct("QQQ")
_SAFELY = _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS

# The kernel takes no longer path at once.
_LONGEST = 4000

_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_CREATE = 0, 1, 6
_CLOSE_ON_EXEC = 1
_MOUNT_ATTR_RDONLY = 0x01
_MOUNT_ATTR_NOSUID = 0x02
_MOUNT_ATTR_NODEV = 0x04
_MOUNT_ATTR_NOEXEC = 0x08
_MOUNT_ATTR_NOATIME = 0x10
_MOUNT_ATTR_NODIRATIME = 0x80

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def open_beneath(folder: int, path: bytes, flags: int, mode: int = 0) -> int:
    """Open a path below a folder: no symbolic link on the way is followed, and nothing leads out.

    :param folder: descriptor of the folder.
    :raises OSError: ELOOP for a symbolic link, EXDEV for a way out.
    """
    if len(path) <= _LONGEST:
        return _openat2(folder, path, flags, mode)
    head, tail = _cut(path)
    between = _openat2(folder, head, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, 0)
    try:
        return open_beneath(between, tail, flags, mode)
    finally:
        os.close(between)


def _cut(path: bytes) -> tuple[bytes, bytes]:
    place = path.rfind(b"/", 0, _LONGEST)
    if place <= 0:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    return path[:place], path[place + 1 :]


def _openat2(folder: int, path: bytes, flags: int, mode: int) -> int:
    if not flags & os.O_CREAT:
        mode = 0  # the kernel refuses what would mean nothing
    how = _HOW.pack(flags, mode, _SAFELY)
    while True:
        try:
            return _call(_OPENAT2, folder, path or b".", how, len(how))
        except OSError as error:
            if error.errno != errno.EAGAIN:  # something was renamed on the way just now
                raise


def sync_file_system(descriptor: int) -> None:
    """Return when all of the file system that a descriptor lies in is on its device.

    :raises OSError: it is not certain to be.
    """
    if _libc.syncfs(ctypes.c_int(descriptor)) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class Mounting:
    """A file system that is about to be mounted."""

    def __init__(self, kind: str) -> None:
        self._descriptor = _call(_FSOPEN, kind.encode(), _CLOSE_ON_EXEC)

    def set(self, option: str, value: str | None = None) -> None:
        """An option with a value or, without one, a flag."""
        if value is None:
            self._configure(_FSCONFIG_SET_FLAG, option.encode(), None)
        else:
            self._configure(_FSCONFIG_SET_STRING, option.encode(), os.fsencode(value))

    def mount(self, *, writable: bool) -> int:
        """Mount it, attached nowhere: no name space sees it, and it ends with its descriptors.

        :returns: a descriptor of its root folder.
        """
        self._configure(_FSCONFIG_CREATE, None, None)
        attributes = (
            _MOUNT_ATTR_NOSUID
            | _MOUNT_ATTR_NODEV
            | _MOUNT_ATTR_NOEXEC
            | _MOUNT_ATTR_NOATIME
            | _MOUNT_ATTR_NODIRATIME
            | (0 if writable else _MOUNT_ATTR_RDONLY)
        )
        mount = _call(_FSMOUNT, self._descriptor, _CLOSE_ON_EXEC, attributes)
        try:
            return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount)
        finally:
            os.close(mount)

    def told(self) -> str:
        """What the kernel has said of it."""
        said: list[str] = []
        while True:
            try:
                line = os.read(self._descriptor, 1024)
            except OSError:
                return "; ".join(said)
            said.append(line.decode("utf-8", "replace").partition(" ")[2].strip())

    def close(self) -> None:
        os.close(self._descriptor)

    def _configure(self, command: int, key: bytes | None, value: bytes | None) -> None:
        _call(_FSCONFIG, self._descriptor, command, key, value, 0)


def _call(number: int, *arguments: int | bytes | None) -> int:
    typed = [
        ctypes.c_long(argument) if isinstance(argument, int) else ctypes.c_char_p(argument)
        for argument in arguments
    ]
    result = int(_libc.syscall(ctypes.c_long(number), *typed))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
