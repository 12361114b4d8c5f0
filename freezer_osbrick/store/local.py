# SPDX-License-Identifier: Apache-2.0
"""Objects as files below one folder."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence

from freezer_osbrick import errors
from freezer_osbrick.store import base

# os.writev takes at most this many buffers at once (IOV_MAX on Linux).
_MOST_BUFFERS = 1024

# Unfinished objects begin with a dot, which no object name does; listings pass them over.
_UNFINISHED = ".put-"


class LocalStore(base.Store):
    """A store on a local or network file system.

    An object appears under its name at once and whole: it is written to a temporary file in the
    same folder, synced, linked to its name, and the folder is synced.
    """

    capabilities = base.Capabilities(
        conditional_put=True, range_read=True, atomic_replace=True, ordered_listing=True
    )

    def __init__(self, folder: str, *, create: bool = False) -> None:
        """:param folder: an absolute path.

        :param create: make the folder if it is missing; without it a missing folder is an error
            only when something is put.
        """
        self.folder = os.path.normpath(folder)
        self.url = f"file://{self.folder}"
        if create:
            with _translated(self.folder):
                os.makedirs(self.folder, mode=0o700, exist_ok=True)

    def put(self, name: str, parts: Iterable[base.Buffer], *, replace: bool = False) -> int:
        path = self._path(name)
        with _translated(name):
            descriptor, unfinished = self._create_beside(path)
            try:
                try:
                    size = _write_all(descriptor, parts)
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                if replace:
                    os.replace(unfinished, path)
                else:
                    # link, not rename: it fails when the name is taken, so that of two puts one
                    # wins.
                    os.link(unfinished, path)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(unfinished)
            _sync_folder(os.path.dirname(path))
        return size

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        path = self._path(name)
        with _translated(name), open(path, "rb", buffering=0) as file:
            wanted = os.fstat(file.fileno()).st_size - offset if length is None else length
            data = os.pread(file.fileno(), max(wanted, 0), offset)
            while 0 < len(data) < wanted:
                more = os.pread(file.fileno(), wanted - len(data), offset + len(data))
                if not more:
                    break
                data += more
        if len(data) < wanted or wanted < 0:
            raise errors.Damaged(f"Object {name} of {self.url} is shorter than it should be.")
        return data

    def stat(self, name: str) -> base.ObjectInfo:
        with _translated(name):
            status = os.stat(self._path(name))
        return base.ObjectInfo(name, status.st_size, status.st_mtime)

    def list(self, prefix: str) -> Iterator[base.ObjectInfo]:
        top = os.path.join(self.folder, prefix) if prefix else self.folder
        for folder, folders, files in os.walk(top):
            folders.sort()
            for file in sorted(files):
                if file.startswith("."):
                    continue
                path = os.path.join(folder, file)
                try:
                    status = os.stat(path)
                except FileNotFoundError:
                    continue  # deleted while we were listing
                name = os.path.relpath(path, self.folder)
                yield base.ObjectInfo(name, status.st_size, status.st_mtime)

    def delete(self, name: str) -> None:
        path = self._path(name)
        with _translated(name):
            try:
                os.unlink(path)
            except FileNotFoundError:
                return
            _sync_folder(os.path.dirname(path))

    def now(self) -> float:
        """The file server's clock: the modification time of a file made for the purpose."""
        with _translated(self.folder):
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder) as file:
                file.write(b"?")
                file.flush()
                return os.fstat(file.fileno()).st_mtime

    def sweep(self, older_than: float = 86400.0) -> Sequence[str]:
        """Remove unfinished objects that a killed process left behind.

        :param older_than: seconds since they were last written to; younger ones may be in use.
        :returns: the paths that were removed.
        """
        removed = []
        for folder, _folders, files in os.walk(self.folder):
            for file in files:
                path = os.path.join(folder, file)
                if not file.startswith(_UNFINISHED):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - os.stat(path).st_mtime >= older_than:
                        os.unlink(path)
                        removed.append(path)
        return removed

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, base.check_name(name))

    def _create_beside(self, path: str) -> tuple[int, str]:
        """A new temporary file in the folder of the path, which is made if it is missing."""
        folder = os.path.dirname(path)
        try:
            return tempfile.mkstemp(prefix=_UNFINISHED, dir=folder)
        except FileNotFoundError:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            _sync_folder(os.path.dirname(folder))
            return tempfile.mkstemp(prefix=_UNFINISHED, dir=folder)


def _write_all(descriptor: int, parts: Iterable[base.Buffer]) -> int:
    """Write the parts one after the other; their number of bytes."""
    size = 0
    batch: list[memoryview] = []
    for part in parts:
        batch.append(memoryview(part).cast("B"))
        size += len(batch[-1])
        if len(batch) == _MOST_BUFFERS:
            _write_batch(descriptor, batch)
            batch = []
    _write_batch(descriptor, batch)
    return size


def _write_batch(descriptor: int, batch: list[memoryview]) -> None:
    while batch:
        written = os.writev(descriptor, batch)
        done = 0
        while done < len(batch) and written >= len(batch[done]):
            written -= len(batch[done])
            done += 1
        batch = batch[done:]
        if batch and written:
            batch[0] = batch[0][written:]


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _translated(name: str) -> Iterator[None]:
    """Turn what the operating system says into our own errors."""
    try:
        yield
    except FileNotFoundError:
        raise errors.ObjectMissing(f"{name} does not exist.") from None
    except FileExistsError:
        raise errors.ObjectExists(f"{name} exists already.") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise errors.StoreFull(f"No room is left to store {name}.") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise errors.StoreAccessDenied(f"No permission to use {name}: {error}.") from error
        raise errors.StoreError(f"The file system failed at {name}: {error}.") from error
