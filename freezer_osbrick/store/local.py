# SPDX-License-Identifier: Apache-2.0
"""Objects as files below one folder."""

from __future__ import annotations

import contextlib
import errno
import operator
import os
import stat
import tempfile
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence

from freezer_osbrick import errors
from freezer_osbrick.store import base, writing

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
        self.url = url_of(self.folder)
        if create and not os.path.isdir(self.folder):
            if os.path.exists(self.folder):
                raise errors.StoreError(f"{self.folder} is no folder.")
            with _translated(self.folder):
                os.makedirs(self.folder, mode=0o700, exist_ok=True)
                _sync_folder(os.path.dirname(self.folder))

    def put(self, name: str, parts: Iterable[base.Buffer], *, replace: bool = False) -> int:
        path = self._path(name)
        with _translated(name, missing=errors.StoreError):
            with self._unfinished(path, named=replace) as (descriptor, unfinished):
                size = writing.write_all(descriptor, parts)
                os.fsync(descriptor)
                if replace:
                    os.replace(unfinished, path)
                else:
                    _link(unfinished, path)
            _sync_folder(os.path.dirname(path))
        return size

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        path = self._path(name)
        with _translated(name), open(path, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            wanted = size - offset if length is None else length
            if offset < 0 or wanted < 0 or offset + wanted > size:
                raise _too_short(name, self.url)
            data = os.pread(file.fileno(), wanted, offset)
            while len(data) < wanted:
                more = os.pread(file.fileno(), wanted - len(data), offset + len(data))
                if not more:
                    raise _too_short(name, self.url)
                data += more
        return data

    def stat(self, name: str) -> base.ObjectInfo:
        with _translated(name):
            status = os.stat(self._path(name))
            if not stat.S_ISREG(status.st_mode):
                raise FileNotFoundError
        return base.ObjectInfo(name, status.st_size, status.st_mtime)

    def list(self, prefix: str) -> Iterator[base.ObjectInfo]:
        return self._list(base.check_prefix(prefix))

    def _list(self, prefix: str) -> Iterator[base.ObjectInfo]:
        for name, entry in self._entries(prefix):
            if name.endswith("/"):
                yield from self._list(name)
                continue
            try:
                with _translated(name):
                    status = entry.stat()
            except errors.ObjectMissing:
                continue  # deleted while we were listing
            if stat.S_ISREG(status.st_mode):
                yield base.ObjectInfo(name, status.st_size, status.st_mtime)

    def _entries(self, prefix: str) -> Sequence[tuple[str, os.DirEntry[str]]]:
        """What lies in a folder, in the order of the objects' names; folders end in a slash."""
        # A folder that cannot be read must not look like an empty one: whoever asks which objects
        # are in use would take all for unused.
        try:
            with (
                _translated(prefix or self.folder),
                os.scandir(os.path.join(self.folder, prefix)) as found,
            ):
                return sorted(
                    (
                        (prefix + entry.name + "/" * entry.is_dir(), entry)
                        for entry in found
                        if base.is_name(entry.name)
                    ),
                    key=operator.itemgetter(0),
                )
        except errors.ObjectMissing:
            return []

    def delete(self, name: str) -> None:
        path = self._path(name)
        with contextlib.suppress(errors.ObjectMissing), _translated(name):
            os.unlink(path)
            _sync_folder(os.path.dirname(path))

    def now(self) -> float:
        """The file server's clock: the modification time of a file made for the purpose."""
        with (
            _translated(self.folder, missing=errors.StoreError),
            tempfile.TemporaryFile(prefix=_UNFINISHED, dir=self.folder) as file,
        ):
            file.write(b"?")
            file.flush()
            os.fsync(file.fileno())  # a network file system stamps it when it gets the data
            return os.fstat(file.fileno()).st_mtime

    def sweep(self, older_than: float = 86400.0) -> Sequence[str]:
        """Remove unfinished objects that a killed process left behind.

        One that is still in use is lost to its writer, whose put then fails: nothing worse.

        :param older_than: seconds on the store's clock since they were last written to; younger
            ones may be in use.
        :returns: the paths that were removed.
        """
        removed = []
        limit = self.now() - older_than
        for folder, _folders, files in os.walk(self.folder):
            for file in files:
                path = os.path.join(folder, file)
                if not file.startswith(_UNFINISHED):
                    continue
                with contextlib.suppress(errors.ObjectMissing), _translated(path):
                    if os.stat(path).st_mtime <= limit:
                        os.unlink(path)
                        removed.append(path)
        return removed

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, base.check_name(name))

    @contextlib.contextmanager
    def _unfinished(self, path: str, *, named: bool) -> Iterator[tuple[int, str]]:
        """A new file in the folder of the path, which is made if it is missing: its descriptor,
        and a path by which it can be linked. It goes at the end unless it was linked or renamed.

        :param named: it must have a name, so that it can be renamed. One without a name is better:
            of a killed process the kernel leaves nothing.
        """
        folder = os.path.dirname(path)
        if not os.path.isdir(folder):
            self._make_folder(folder)
        descriptor = None if named else _open_unnamed(folder)
        if descriptor is not None:
            try:
                yield descriptor, f"/proc/self/fd/{descriptor}"
            finally:
                os.close(descriptor)
            return
        descriptor, unfinished = tempfile.mkstemp(prefix=_UNFINISHED, dir=folder)
        try:
            yield descriptor, unfinished
        finally:
            os.close(descriptor)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(unfinished)

    def _make_folder(self, folder: str) -> None:
        """Make a folder below the store's, durably. The store's own is not made here: where it is
        missing, a file system is not mounted."""
        if folder == self.folder:
            raise errors.StoreError(f"The folder {folder} is missing.")
        parent = os.path.dirname(folder)
        if not os.path.isdir(parent):
            self._make_folder(parent)
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, mode=0o700)
        _sync_folder(parent)


def url_of(folder: str) -> str:
    """The URL of an absolute path."""
    return "file://" + urllib.parse.quote(folder)


def _open_unnamed(folder: str) -> int | None:
    """A new file without a name; None where the file system has no such files (NFS)."""
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT):
            return None
        raise


def _link(unfinished: str, path: str) -> None:
    """Give the file its name. Not by renaming: this fails when the name is taken, so that of two
    puts one wins."""
    try:
        # A folder's descriptor is given so that Python calls linkat, which alone follows /proc's
        # link to a file without a name; with absolute paths it plays no part.
        os.link(unfinished, path, src_dir_fd=0, follow_symlinks=True)
    except FileExistsError:
        # NFS asks again when an answer is lost: then it is our own link that is in the way.
        if not os.path.samefile(unfinished, path):
            raise
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise errors.StoreError(
                f"The file system at {os.path.dirname(path)} makes no hard links, which a"
                " repository needs."
            ) from error
        raise


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _too_short(name: str, url: str) -> errors.Damaged:
    return errors.Damaged(f"Object {name} of {url} is shorter than it should be.")


@contextlib.contextmanager
def _translated(
    name: str, *, missing: type[errors.StoreError] = errors.ObjectMissing
) -> Iterator[None]:
    """Turn what the operating system says into our own errors."""
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        if missing is errors.ObjectMissing:
            raise missing(f"{name} does not exist.") from None
        raise missing(f"{name} cannot be used: {error}.") from error
    except FileExistsError:
        raise errors.ObjectExists(f"{name} exists already.") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise errors.StoreFull(f"No room is left to store {name}.") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise errors.StoreAccessDenied(f"No permission to use {name}: {error}.") from error
        raise errors.StoreError(f"The file system failed at {name}: {error}.") from error
