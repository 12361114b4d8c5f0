# SPDX-License-Identifier: Apache-2.0
"""A folder with a volume's image in it, shown by FUSE: read-only, fetched when it is read."""

from __future__ import annotations

import contextlib
import ctypes.util
import dataclasses
import errno
import importlib
import os
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

from oslo_log import log

from freezer_osbrick import errors
from freezer_osbrick.filesystem.partitions import Read

LOG = log.getLogger(__name__)

_NANO = 10**9
_BLOCK = 512  # what st_blocks counts

# What cannot be read is logged once in so many seconds, however often it is asked for.
_TOLD_EVERY = 60.0
_MOST_TOLD = 1000

_THREADS = 10  # that wait for the kernel to ask

# Seconds for which the kernel need not ask again: nothing here ever changes.
_FOR_LONG = 86400

_HOW_IT_ENDED = {
    1: "its options were refused",
    2: "there is no folder to mount at",
    4: "the kernel or fusermount3 refused it",
    6: "signals cannot be handled",
}
_SIGNALLED = 8  # of libfuse 3: also where a signal ended it in order


@dataclasses.dataclass(frozen=True)
class Image:
    """A part of the volume that is shown as a file.

    :param start, size: on the volume, in bytes.
    """

    start: int
    size: int


class ImageFolder:
    """Answers what the kernel asks. The names of its methods are those of FUSE."""

    use_ns = True

    def __init__(
        self,
        read: Read,
        images: Mapping[str, Image],
        *,
        moment: int,
        shared: bool,
        ready: Callable[[], None],
    ) -> None:
        """:param read: bytes of the volume.
        :param images: by name.
        :param moment: that the files show, in seconds since the epoch.
        :param shared: for all users of this host.
        :param ready: called when the folder can be used.
        """
        self._read = read
        self._images = images
        self._ready = ready
        self._told: dict[str, float] = {}
        self._lock = threading.Lock()
        times = {f"st_{kind}time": moment * _NANO for kind in "amc"}
        self._common = {**times, "st_uid": os.getuid(), "st_gid": os.getgid()}
        self._file_mode = stat.S_IFREG | (0o444 if shared else 0o400)
        self._folder_mode = stat.S_IFDIR | (0o555 if shared else 0o500)

    def init(self, _path: str) -> None:
        self._ready()

    def getattr(self, path: str, _handle: int | None = None) -> dict[str, Any]:
        if path == "/":
            return {**self._common, "st_mode": self._folder_mode, "st_nlink": 2}
        size = self._image(path).size
        blocks = -(-size // _BLOCK)
        return {
            **self._common,
            "st_mode": self._file_mode,
            "st_nlink": 1,
            "st_size": size,
            "st_blocks": blocks,
        }

    def readdir(self, _path: str, _handle: int) -> list[str]:
        return [".", "..", *self._images]

    def open(self, path: str, flags: int) -> int:
        self._image(path)
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return 0

    def read(self, path: str, size: int, offset: int, _handle: int) -> bytes:
        image = self._image(path)
        length = min(size, image.size - offset)
        if length <= 0:
            return b""
        try:
            return self._read(image.start + offset, length)
        except errors.OsbrickError as error:
            self._tell(str(error))
            raise OSError(errno.EIO, os.strerror(errno.EIO)) from error

    def statfs(self, _path: str) -> dict[str, int]:
        blocks = -(-max((one.size for one in self._images.values()), default=0) // _BLOCK)
        return {"f_bsize": _BLOCK, "f_frsize": _BLOCK, "f_blocks": blocks, "f_namemax": 255}

    def _image(self, path: str) -> Image:
        try:
            return self._images[path.removeprefix("/")]
        except KeyError:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT)) from None

    def _tell(self, reason: str) -> None:
        now = time.monotonic()
        with self._lock:
            if now - self._told.get(reason, -_TOLD_EVERY) < _TOLD_EVERY:
                return
            if len(self._told) >= _MOST_TOLD:
                self._told.clear()
            self._told[reason] = now
        LOG.error("A read failed: %s", reason)


def check(folder: str) -> None:
    """Refuse what cannot be mounted at, before anything is opened.

    :raises errors.BadRequest: with a sentence that says what to do.
    :raises errors.ConfigurationError: something is not installed.
    """
    _library()
    try:
        with os.scandir(folder) as listing:
            if next(listing, None) is not None:
                raise errors.BadRequest(f"The folder {folder} is not empty: name another one.")
    except OSError as error:
        hint = ""
        if error.errno == errno.ENOTCONN:
            hint = f" A mount that was killed is left there: 'fusermount3 -u {folder}' removes it."
        raise errors.BadRequest(
            f"The folder {folder} cannot be mounted at: {error.strerror}.{hint}"
        ) from error


def show(files: ImageFolder, folder: str, *, name: str, shared: bool) -> None:
    """Mount, and return when it was unmounted: by ``fusermount3 -u``, Ctrl-C, SIGTERM or SIGHUP.

    :param name: what the list of mounts calls it.
    :raises errors.BadRequest: it cannot be mounted there.
    """
    options: dict[str, Any] = {
        "ro": True,
        "nosuid": True,
        "nodev": True,
        "default_permissions": True,
        "kernel_cache": True,
        "attr_timeout": _FOR_LONG,
        "entry_timeout": _FOR_LONG,
        "fsname": name,
        "subtype": "freezer-osbrick",
        "allow_other": shared,
    }
    library = _library()
    if (library.fuse_version_major, library.fuse_version_minor) >= (3, 12):
        options["max_idle_threads"] = _THREADS
    with _signals_as_they_are():
        try:
            library.FUSE(files, folder, foreground=True, **options)
        except RuntimeError as error:
            code = error.args[0] if error.args else 0
            if code != _SIGNALLED:
                reason = _HOW_IT_ENDED.get(code, f"FUSE ended with {code}")
                raise errors.BadRequest(
                    f"The backup cannot be mounted at {folder}: {reason}."
                ) from error


@contextlib.contextmanager
def _signals_as_they_are() -> Iterator[None]:
    """Let libfuse handle what ends a mount; it leaves handlers of others alone, and while it runs
    nobody else's come to work."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ending = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_DFL) for number in ending}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _library() -> ModuleType:
    """mfusepy, on libfuse 3 where both are there.

    :raises errors.ConfigurationError: it is not installed, or libfuse is not.
    """
    if ctypes.util.find_library("fuse3"):
        os.environ.setdefault("FUSE_LIBRARY_NAME", "fuse3")
    try:
        return importlib.import_module("mfusepy")
    except ImportError:
        raise errors.ConfigurationError(
            "Mounting needs the Python package mfusepy: install freezer-osbrick[mount]."
        ) from None
    except OSError:
        raise errors.ConfigurationError(
            "Mounting needs libfuse: install the Debian package fuse3, or your system's like it."
        ) from None
