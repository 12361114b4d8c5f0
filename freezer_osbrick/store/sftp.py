# SPDX-License-Identifier: Apache-2.0
"""Objects as files on a server that speaks SFTP.

Not through ``freezer.storage.ssh``: its one connection takes the key of any server, has no time
limits, and cannot be used by several threads.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import logging
import os
import stat
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence

import paramiko
import paramiko.common
import paramiko.sftp

from freezer_osbrick import errors
from freezer_osbrick.store import base, remote_files
from freezer_osbrick.store.ssh_keys import RefuseNew, TakeNew, check_key, fingerprint

_TIMEOUT = 60.0  # seconds without an answer
_REQUESTS = 64  # that are under way at a time

_PIECE = 1 << 15  # bytes of one request: what every server takes

_FSYNC = "fsync@openssh.com"


class SftpStore(remote_files.RemoteFileStore):
    """A store in a folder of an SFTP server.

    A rename does not replace what is there: OpenSSH makes a link, which fails where the name is
    taken, and so of two puts one wins.
    """

    def __init__(
        self,
        host: str,
        folder: str,
        *,
        port: int = 22,
        user: str | None = None,
        password: str | None = None,
        ssh_key_file: str | None = None,
        known_hosts: str | None = None,
        accept_new_host: bool = False,
        create: bool = False,
    ) -> None:
        """
        :param folder: an absolute path on the server.
        :param user: None: the user of this process.
        :param password: of the user, or of the private key where one is given.
        :param ssh_key_file: private key; None, and no password: those of ``~/.ssh`` and the agent.
        :param known_hosts: file with the keys of servers; None: ``~/.ssh/known_hosts``.
        :param accept_new_host: take the key of a server that is in none of these files, and write
            it to ``known_hosts``. Another key than the one that is there is refused in any case.
        """
        self._host = host
        self._port = port
        self._user = user
        self._password = password
        self._key_file = os.path.expanduser(ssh_key_file) if ssh_key_file else None
        self._known_hosts = os.path.expanduser(known_hosts or "~/.ssh/known_hosts")
        self._accept_new_host = accept_new_host
        self._renames_over = True
        if self._key_file:
            check_key(self._key_file, password)
        _keep_quiet()
        where = f"[{host}]" if ":" in host else host
        where = where if port == 22 else f"{where}:{port}"
        login = f"{urllib.parse.quote(user)}@" if user else ""
        super().__init__(
            f"sftp://{login}{where}{urllib.parse.quote(folder)}", folder, create=create
        )

    @property
    def capabilities(self) -> base.Capabilities:  # type: ignore[override]
        return base.Capabilities(
            conditional_put=True,
            range_read=True,
            atomic_replace=self._renames_over,
            ordered_listing=True,
        )

    def _connect(self) -> SftpConnection:
        client = paramiko.SSHClient()
        with self._translated():
            try:
                for path in ("/etc/ssh/ssh_known_hosts", self._known_hosts):
                    if os.path.exists(path):
                        client.load_system_host_keys(path)
                client.set_missing_host_key_policy(
                    TakeNew(self._known_hosts) if self._accept_new_host else RefuseNew()
                )
                client.connect(
                    self._host,
                    self._port,
                    username=self._user,
                    password=None if self._key_file else self._password,
                    passphrase=self._password if self._key_file else None,
                    key_filename=self._key_file,
                    allow_agent=not (self._key_file or self._password),
                    look_for_keys=not (self._key_file or self._password),
                    timeout=_TIMEOUT,
                    banner_timeout=_TIMEOUT,
                    auth_timeout=_TIMEOUT,
                    channel_timeout=_TIMEOUT,
                )
                connection = SftpConnection(client)
            except BaseException:
                client.close()
                raise
        self._renames_over = connection.renames_over
        return connection

    @contextlib.contextmanager
    def _connected(
        self, name: str, *, missing: type[errors.StoreError] = errors.ObjectMissing
    ) -> Iterator[remote_files.Connection]:
        try:
            with super()._connected(name, missing=missing) as connection:
                yield connection
        except paramiko.SSHException as error:
            raise errors.StoreUnavailable(f"{self.url} cannot be reached: {error}.") from error

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn what fails on the way to a connection into our own errors."""
        where = f"{self._host}:{self._port}"
        try:
            yield
        except paramiko.BadHostKeyException as error:
            raise errors.StoreAccessDenied(
                f"The key of {where} is not the one in the known hosts: "
                f"{fingerprint(error.key)} came. Somebody may be in between."
            ) from error
        except (
            paramiko.PasswordRequiredException,
            paramiko.AuthenticationException,
        ) as error:
            raise errors.StoreAccessDenied(f"{where} denies the login: {error}") from error
        except paramiko.SSHException as error:
            raise errors.StoreUnavailable(f"{where} cannot be reached: {error}.") from error
        except EOFError as error:
            raise errors.StoreUnavailable(f"{where} hung up.") from error
        except OSError as error:
            raise errors.StoreUnavailable(f"{where} cannot be reached: {error}.") from error


class SftpConnection(remote_files.Connection):
    """:ivar renames_over: whether the server can rename a file over another one."""

    def __init__(self, client: paramiko.SSHClient) -> None:
        self._client = client
        self._sftp = client.open_sftp()
        channel = self._sftp.get_channel()
        assert channel is not None
        channel.settimeout(_TIMEOUT)
        self._syncs = True
        self.renames_over = self._knows_posix_rename()

    def write(self, path: str, parts: Iterable[base.Buffer]) -> int:
        with self._sftp.open(path, "wbx") as file:
            try:
                size = self._send(file.handle, parts)
                if file.stat().st_size != size:
                    raise OSError(f"it holds {file.stat().st_size} bytes after {size} were sent")
                self._sync(file)
            except OSError as error:
                if error.errno is None and self._is_full(path):
                    raise OSError(errno.ENOSPC, "No room is left") from error
                raise
        return size

    def size(self, path: str) -> int:
        found = self._sftp.stat(path)
        if not stat.S_ISREG(found.st_mode or 0):
            raise FileNotFoundError
        return found.st_size or 0

    def read(self, path: str, offset: int, length: int) -> bytes:
        with self._sftp.open(path, "rb") as file:
            return self._fetch(file.handle, offset, length)

    def _send(self, handle: bytes, parts: Iterable[base.Buffer]) -> int:
        requests = _Requests(self._sftp)
        size = 0
        for part in parts:
            view = memoryview(part).cast("B")
            for start in range(0, len(view), _PIECE):
                piece = view[start : start + _PIECE].tobytes()
                requests.send(paramiko.sftp.CMD_WRITE, handle, paramiko.sftp.int64(size), piece)
                size += len(piece)
                if len(requests) >= _REQUESTS:
                    requests.answer()
        while requests:
            requests.answer()
        return size

    def _fetch(self, handle: bytes, offset: int, length: int) -> bytes:
        requests = _Requests(self._sftp)
        data = bytearray()
        asked = 0
        while len(data) < length:
            while asked < length and len(requests) < _REQUESTS:
                wanted = min(_PIECE, length - asked)
                start = paramiko.sftp.int64(offset + asked)
                requests.send(paramiko.sftp.CMD_READ, handle, start, wanted)
                asked += wanted
            wanted = min(_PIECE, length - len(data))
            try:
                piece = requests.answer().get_string()
            except EOFError:
                break
            data += piece
            if len(piece) < wanted:
                # The server gives less at a time: what was asked for does not fit any more.
                requests.forget()
                asked = len(data)
        return bytes(data)

    def entry(self, path: str) -> remote_files.Entry:
        return _entry(path.rpartition("/")[2], self._sftp.stat(path))

    def entries(self, path: str) -> Sequence[remote_files.Entry]:
        found = []
        for attributes in self._sftp.listdir_attr(path):
            name = attributes.filename
            if stat.S_ISLNK(attributes.st_mode or 0):
                try:
                    attributes = self._sftp.stat(f"{path}/{name}")
                except OSError:
                    continue  # leads nowhere
            mode = attributes.st_mode or 0
            if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
                found.append(_entry(name, attributes))
        return found

    def rename(self, old: str, new: str, *, replace: bool) -> None:
        if replace and self.renames_over:
            self._sftp.posix_rename(old, new)
            return
        if replace:
            with contextlib.suppress(FileNotFoundError):
                self._sftp.remove(new)
        try:
            self._sftp.rename(old, new)
        except OSError as error:
            if error.errno is None and self._exists(new):
                raise FileExistsError(errno.EEXIST, "exists") from error
            raise

    def remove(self, path: str) -> None:
        try:
            self._sftp.remove(path)
        except OSError as error:
            # A folder, or a path below a file: no such file in any case.
            if error.errno is None and not self._is_file(path):
                raise FileNotFoundError from error
            raise

    def make_folder(self, path: str) -> None:
        try:
            self._sftp.mkdir(path, mode=0o700)
        except OSError:
            if not self._exists(path):
                raise

    @property
    def is_alive(self) -> bool:
        channel, transport = self._sftp.get_channel(), self._client.get_transport()
        return not (channel is None or channel.closed) and bool(transport and transport.is_active())

    def close(self) -> None:
        self._client.close()

    def _knows_posix_rename(self) -> bool:
        try:
            self._sftp.posix_rename("/.no-such-file-1", "/.no-such-file-2")
        except (FileNotFoundError, PermissionError):
            return True
        except OSError:
            return False
        return True

    def _sync(self, file: paramiko.SFTPFile) -> None:
        """Have the server write the file to its disk, where it knows how to."""
        if self._syncs:
            try:
                self._sftp._request(paramiko.sftp.CMD_EXTENDED, _FSYNC, file.handle)
            except OSError as error:
                if error.errno is not None:
                    raise
                self._syncs = False

    def _is_full(self, path: str) -> bool:
        """Whether the file system has no room; SFTP has no word for it."""
        folder = path.rpartition("/")[0] or "/"
        try:
            _, answer = self._sftp._request(
                paramiko.sftp.CMD_EXTENDED, "statvfs@openssh.com", folder
            )
            _block, fragment, _blocks, _free, available = (answer.get_int64() for _ in range(5))
        except (OSError, EOFError, paramiko.SSHException):
            return False
        return fragment * available < 1 << 20

    def _exists(self, path: str) -> bool:
        try:
            self._sftp.stat(path)
        except OSError:
            return False
        return True

    def _is_file(self, path: str) -> bool:
        try:
            return stat.S_ISREG(self._sftp.stat(path).st_mode or 0)
        except OSError:
            return False


class _Requests:
    """Requests under way on a connection, whose answers are taken in their order.

    Paramiko's own files copy too much in reading, and lose errors in writing ahead.
    """

    def __init__(self, sftp: paramiko.SFTPClient) -> None:
        self._sftp = sftp
        self._under_way: collections.deque[int] = collections.deque()
        self._answers: dict[int, tuple[int, paramiko.Message]] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    def send(self, *request: object) -> None:
        self._under_way.append(self._sftp._async_request(self, *request))

    def answer(self) -> paramiko.Message:
        """The answer to the oldest request.

        :raises OSError: the server refused it.
        :raises EOFError: the file ends before.
        """
        number = self._under_way.popleft()
        while number not in self._answers:
            self._sftp._read_response()
        kind, message = self._answers.pop(number)
        if kind == paramiko.sftp.CMD_STATUS:
            self._sftp._convert_status(message)
        return message

    def forget(self) -> None:
        """Take all answers, and care for none."""
        while self:
            with contextlib.suppress(OSError, EOFError):
                self.answer()

    def _async_response(self, kind: int, message: paramiko.Message, number: int) -> None:
        """Called by paramiko for each answer."""
        self._answers[number] = (kind, message)


def _entry(name: str, attributes: paramiko.SFTPAttributes) -> remote_files.Entry:
    is_folder = stat.S_ISDIR(attributes.st_mode or 0)
    return remote_files.Entry(
        name, is_folder, attributes.st_size or 0, float(attributes.st_mtime or 0)
    )


def _keep_quiet() -> None:
    """Paramiko tells of each connection, and prints tracebacks of what we report ourselves."""
    logger = logging.getLogger("paramiko")
    if logger.getEffectiveLevel() < logging.CRITICAL:
        logger.setLevel(logging.CRITICAL)
