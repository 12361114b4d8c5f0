# SPDX-License-Identifier: Apache-2.0
"""Objects as files on a server that is reached by a protocol for files: SFTP, FTP."""

from __future__ import annotations

import abc
import contextlib
import errno
import operator
import secrets
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from freezer_osbrick import errors
from freezer_osbrick.store import base, pool, ranges

# Unfinished objects begin with a dot, which no object name does; listings pass them over.
_UNFINISHED = ".put-"
_CLOCK = ".clock-"

# Answers of the server, after which its connection is as good as before.
_ANSWERS = (FileNotFoundError, FileExistsError, PermissionError, errors.StoreError, errors.Damaged)


class Entry(NamedTuple):
    """One entry of a folder; the time is seconds on the server's clock."""

    name: str
    is_folder: bool
    size: int
    modified: float


class Connection(abc.ABC):
    """A connection that one thread uses at a time.

    Besides what is named, methods raise ``PermissionError``; ``OSError`` with ``ENOSPC``, or
    without a number, for what else the server refused; and ``ConnectionError``, ``TimeoutError`` or
    ``EOFError`` where the connection broke.
    """

    @abc.abstractmethod
    def write(self, path: str, parts: Iterable[base.Buffer]) -> int:
        """Write a new file, durably where the server can; its size.

        :raises FileNotFoundError: its folder is missing.
        """

    @abc.abstractmethod
    def size(self, path: str) -> int:
        """:raises FileNotFoundError: no such file."""

    @abc.abstractmethod
    def read(self, path: str, offset: int, length: int) -> bytes:
        """Read a part that is there. Fewer bytes where the file shrank meanwhile.

        :raises FileNotFoundError: no such file.
        """

    @abc.abstractmethod
    def entry(self, path: str) -> Entry:
        """:raises FileNotFoundError: neither a file nor a folder has this path."""

    @abc.abstractmethod
    def entries(self, path: str) -> Sequence[Entry]:
        """What lies in a folder.

        :raises FileNotFoundError: no such folder.
        """

    @abc.abstractmethod
    def rename(self, old: str, new: str, *, replace: bool) -> None:
        """Give a file another name.

        :raises FileExistsError: something has it, and ``replace`` is false.
        """

    @abc.abstractmethod
    def remove(self, path: str) -> None:
        """:raises FileNotFoundError: no such file."""

    @abc.abstractmethod
    def make_folder(self, path: str) -> None:
        """One that exists is no error."""

    @property
    @abc.abstractmethod
    def is_alive(self) -> bool:
        """Whether the server can still be asked."""

    @abc.abstractmethod
    def close(self) -> None:
        """Say goodbye."""


class RemoteFileStore(base.Store):
    """A store in a folder of a server.

    An object is written under another name in its folder, and then renamed: it appears at once and
    whole.
    """

    def __init__(self, url: str, folder: str, *, create: bool) -> None:
        """
        :param folder: an absolute path on the server.
        :param create: make the folder if it is missing.
        :raises errors.StoreError: the folder does not exist.
        """
        self.url = url
        self.folder = folder.rstrip("/")
        self._connections = pool.Pool(self._connect, lambda connection: connection.close())
        with self._connected(folder) as connection:
            if create:
                self._make_folders(connection, self.folder or "/")
            try:
                connection.entry(self.folder or "/")
            except FileNotFoundError:
                raise errors.StoreError(f"There is no folder {folder} at {url}.") from None

    @abc.abstractmethod
    def _connect(self) -> Connection:
        """Another connection, logged in."""

    def put(self, name: str, parts: Iterable[base.Buffer], *, replace: bool = False) -> int:
        path = self._path(name)
        folder = path.rpartition("/")[0]
        unfinished = f"{folder}/{_UNFINISHED}{secrets.token_hex(8)}"
        if iter(parts) is parts:
            parts = [base.joined(parts)]  # the folder may be missing, and they are wanted again
        try:
            with self._connected(name, missing=errors.StoreError) as connection:
                size = self._write(connection, folder, unfinished, parts)
                connection.rename(unfinished, path, replace=replace)
        except errors.StoreUnavailable:
            raise  # what is left is found by a sweep
        except BaseException:
            with contextlib.suppress(errors.OsbrickError), self._connected(name) as connection:
                connection.remove(unfinished)
            raise
        return size

    def _write(
        self, connection: Connection, folder: str, path: str, parts: Iterable[base.Buffer]
    ) -> int:
        """Write a file, and make its folder if it is missing."""
        try:
            return connection.write(path, parts)
        except FileNotFoundError:
            pass
        except PermissionError:
            # Some servers say so where the folder is missing.
            with contextlib.suppress(FileNotFoundError):
                connection.entry(folder)
                raise
        self._make_folder_of(connection, folder)
        return connection.write(path, parts)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        path = self._path(name)
        with self._connected(name) as connection:
            size = connection.size(path)
            ranges.check(name, self.url, offset, length, size)
            wanted = size - offset if length is None else length
            if wanted < 0:
                raise ranges.too_short(name, self.url)
            data = connection.read(path, offset, wanted) if wanted else b""
        if len(data) < wanted:
            raise ranges.too_short(name, self.url)
        return data

    def stat(self, name: str) -> base.ObjectInfo:
        path = self._path(name)
        with self._connected(name) as connection:
            found = connection.entry(path)
            if found.is_folder:
                raise FileNotFoundError
        return base.ObjectInfo(name, found.size, found.modified)

    def list(self, prefix: str) -> Iterator[base.ObjectInfo]:
        return self._list(base.check_prefix(prefix))

    def _list(self, prefix: str) -> Iterator[base.ObjectInfo]:
        for name, found in self._entries(prefix):
            if found.is_folder:
                yield from self._list(name)
            else:
                yield base.ObjectInfo(name, found.size, found.modified)

    def _entries(self, prefix: str) -> Sequence[tuple[str, Entry]]:
        """What lies in a folder, in the order of the objects' names; folders end in a slash."""
        path = f"{self.folder}/{prefix}".rstrip("/") or "/"
        try:
            with self._connected(prefix or path) as connection:
                found = connection.entries(path)
        except errors.ObjectMissing:
            return []
        return sorted(
            (
                (prefix + entry.name + "/" * entry.is_folder, entry)
                for entry in found
                if base.is_name(entry.name)
            ),
            key=operator.itemgetter(0),
        )

    def delete(self, name: str) -> None:
        path = self._path(name)
        with contextlib.suppress(errors.ObjectMissing), self._connected(name) as connection:
            connection.remove(path)

    def now(self) -> float:
        """The server's clock: the time of a file made for the purpose."""
        path = f"{self.folder}/{_CLOCK}{secrets.token_hex(8)}"
        with self._connected(self.folder, missing=errors.StoreError) as connection:
            connection.write(path, [b"?"])
            try:
                return connection.entry(path).modified
            finally:
                connection.remove(path)

    def sweep(self, older_than: float = 86400.0) -> Sequence[str]:
        limit = self.now() - older_than
        return tuple(self._sweep(self.folder or "/", limit))

    def _sweep(self, folder: str, limit: float) -> Iterator[str]:
        try:
            with self._connected(folder) as connection:
                found = connection.entries(folder)
        except errors.ObjectMissing:
            return
        for entry in found:
            path = f"{folder.rstrip('/')}/{entry.name}"
            if entry.is_folder and base.is_name(entry.name):
                yield from self._sweep(path, limit)
            elif entry.name.startswith((_UNFINISHED, _CLOCK)) and entry.modified <= limit:
                with (
                    contextlib.suppress(errors.ObjectMissing),
                    self._connected(path) as connection,
                ):
                    connection.remove(path)
                    yield path

    def close(self) -> None:
        self._connections.close()

    def _path(self, name: str) -> str:
        return f"{self.folder}/{base.check_name(name)}"

    def _make_folder_of(self, connection: Connection, folder: str) -> None:
        """Make a folder below the store's. The store's own is not made here: where it is missing,
        the server has not mounted what it lies on."""
        try:
            connection.entry(self.folder or "/")
        except FileNotFoundError:
            raise errors.StoreError(f"The folder {self.folder} of {self.url} is missing.") from None
        self._make_folders(connection, folder)

    def _make_folders(self, connection: Connection, folder: str) -> None:
        try:
            if not connection.entry(folder).is_folder:
                raise errors.StoreError(f"{folder} of {self.url} is no folder.")
        except FileNotFoundError:
            self._make_folders(connection, folder.rpartition("/")[0] or "/")
            connection.make_folder(folder)

    @contextlib.contextmanager
    def _connected(
        self, name: str, *, missing: type[errors.StoreError] = errors.ObjectMissing
    ) -> Iterator[Connection]:
        """A connection of this thread's own; what it says is turned into our own errors."""
        try:
            with self._connections.lent(healthy=_ANSWERS) as connection:
                try:
                    yield connection
                except OSError as error:
                    if error.errno is None and not isinstance(error, _ANSWERS):
                        if not connection.is_alive:
                            raise ConnectionError(str(error)) from error
                    raise
        except FileNotFoundError as error:
            if missing is errors.ObjectMissing:
                raise missing(f"{name} does not exist.") from None
            raise missing(f"{name} cannot be used: {error or 'its folder is missing'}.") from error
        except FileExistsError:
            raise errors.ObjectExists(f"{name} exists already.") from None
        except PermissionError as error:
            raise errors.StoreAccessDenied(f"No permission to use {name}: {error}.") from error
        except (ConnectionError, TimeoutError, EOFError) as error:
            raise errors.StoreUnavailable(
                f"{self.url} cannot be reached: {_said(error)}."
            ) from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise errors.StoreFull(f"No room is left to store {name}.") from error
            if error.errno is None:
                raise errors.StoreError(f"{self.url} refused {name}: {_said(error)}.") from error
            raise errors.StoreUnavailable(
                f"{self.url} cannot be reached: {_said(error)}."
            ) from error


def _said(error: BaseException) -> str:
    return str(error).strip().rstrip(".") or type(error).__name__
