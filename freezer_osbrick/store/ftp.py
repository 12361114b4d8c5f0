# SPDX-License-Identifier: Apache-2.0
"""Objects as files on a server that speaks FTP, plain or under TLS.

Not through ``freezer.storage.ftp``: its classes open no files, list no empty folders, check no
certificates, and have one connection.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import ftplib
import re
import socket
import ssl
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from freezer_osbrick import errors
from freezer_osbrick.store import base, remote_files

_TIMEOUT = 60.0  # seconds without an answer
_PIECE = 1 << 16
_BINARY = "TYPE I"

# 550 means anything from "does not exist" to "not allowed", and only its text says which.
_DENIED = re.compile(r"denied|permission|privilege|not allowed|forbidden|read.only", re.IGNORECASE)

# One line of a listing as most servers write it, for those without MLSD.
_LIST_LINE = re.compile(
    r"(?P<kind>[-dl])[-rwxsStTlL.+]{9}\S*\s+\d+\s+\S+\s+\S+\s+(?P<size>\d+)\s+"
    r"\w{3}\s+\d{1,2}\s+[\d:]{4,5}\s(?P<name>.+)"
)


class FtpStore(remote_files.RemoteFileStore):
    """A store in a folder of an FTP server.

    FTP promises little: a rename may or may not replace what is there, so that whether a name is
    taken is asked before, and two simultaneous puts may both believe that they won; nor does
    it say whether what was sent has reached the disk.
    """

    def __init__(
        self,
        host: str,
        folder: str,
        *,
        port: int = 21,
        user: str | None = None,
        password: str | None = None,
        encrypted: bool = False,
        ca_file: str | None = None,
        create: bool = False,
    ) -> None:
        """
        :param folder: an absolute path on the server.
        :param user: None: anonymous.
        :param encrypted: TLS for commands and data; the server's certificate is checked.
        :param ca_file: certificates of the authorities that are trusted; None: the system's.
        """
        self._host = host
        self._port = port
        self._user = user or "anonymous"
        self._password = password or ("anonymous@" if user is None else "")
        self._tls: ssl.SSLContext | None = None
        self._restarts = True
        if encrypted:
            try:
                self._tls = ssl.create_default_context(cafile=ca_file)
            except OSError as error:
                raise errors.ConfigurationError(
                    f"The certificates in {ca_file} cannot be read: {error}."
                ) from error
        where = f"[{host}]" if ":" in host else host
        where = where if port == 21 else f"{where}:{port}"
        login = f"{urllib.parse.quote(user)}@" if user else ""
        scheme = "ftps" if encrypted else "ftp"
        super().__init__(
            f"{scheme}://{login}{where}{urllib.parse.quote(folder)}", folder, create=create
        )

    @property
    def capabilities(self) -> base.Capabilities:  # type: ignore[override]
        return base.Capabilities(
            conditional_put=False,
            range_read=self._restarts,
            atomic_replace=False,
            ordered_listing=True,
        )

    def _connect(self) -> FtpConnection:
        where = f"{self._host}:{self._port}"
        # Insecure, as the scheme of its address says.
        ftp = _Ftps(self._tls) if self._tls else ftplib.FTP(encoding="utf-8")  # noqa: S321
        try:
            ftp.connect(self._host, self._port, timeout=_TIMEOUT)
            ftp.login(self._user, self._password)
            if isinstance(ftp, ftplib.FTP_TLS):
                ftp.prot_p()
            connection = FtpConnection(ftp)
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError, EOFError) as error:
            ftp.close()
            raise errors.StoreUnavailable(f"{where} hung up.") from error
        except ssl.SSLError as error:
            ftp.close()
            raise errors.StoreError(f"No safe connection to {where}: {error}.") from error
        except ftplib.error_perm as error:
            ftp.close()
            raise errors.StoreAccessDenied(f"{where} denies the login: {error}.") from error
        except (OSError, ftplib.Error) as error:
            ftp.close()
            raise errors.StoreUnavailable(f"{where} cannot be reached: {error}.") from error
        self._restarts = connection.restarts
        return connection


class _Ftps(ftplib.FTP_TLS):
    """Resumes the session for data, which careful servers ask for: it proves who connects."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(context=context, encoding="utf-8")

    def ntransfercmd(self, cmd: str, rest: Any = None) -> tuple[socket.socket, int | None]:
        connection, size = ftplib.FTP.ntransfercmd(self, cmd, rest)  # noqa: S321 (TLS follows)
        assert isinstance(self.sock, ssl.SSLSocket)
        connection = self.context.wrap_socket(
            connection, server_hostname=self.host, session=self.sock.session
        )
        return connection, size


class FtpConnection(remote_files.Connection):
    """:ivar restarts: whether the server can begin to send in the middle of a file."""

    def __init__(self, ftp: ftplib.FTP) -> None:
        self._ftp = ftp
        self._alive = True
        features = self._features()
        self._machine_listings = "MLST" in features or "MLSD" in features
        self.restarts = "REST" in features
        ftp.voidcmd(_BINARY)

    def write(self, path: str, parts: Iterable[base.Buffer]) -> int:
        size = 0
        with _translated(self):
            connection = self._ftp.transfercmd(f"STOR {path}")
            with contextlib.closing(connection):
                for part in parts:
                    view = memoryview(part).cast("B")
                    connection.sendall(view)
                    size += len(view)
                self._end_tls(connection)
            self._ftp.voidresp()
        arrived = self.size(path)
        if arrived != size:
            raise ConnectionError(f"{arrived} of {size} bytes arrived")
        return size

    def size(self, path: str) -> int:
        with _translated(self):
            size = self._ftp.size(path)
        if size is None:
            raise OSError("it does not say how long files are")
        return size

    def read(self, path: str, offset: int, length: int) -> bytes:
        data = bytearray()
        skipped = 0 if self.restarts else offset
        with _translated(self, exists=True):
            rest = offset if self.restarts and offset else None
            connection = self._ftp.transfercmd(f"RETR {path}", rest)
            with contextlib.closing(connection):
                while len(data) < skipped + length:
                    piece = connection.recv(min(_PIECE, skipped + length - len(data)))
                    if not piece:
                        break
                    data += piece
                whole = not connection.recv(1) if len(data) == skipped + length else True
                if whole:
                    self._end_tls(connection)
            if whole:
                self._ftp.voidresp()
            else:
                self._swallow_abort()
        return bytes(data[skipped:])

    def entry(self, path: str) -> remote_files.Entry:
        name = path.rpartition("/")[2]
        if self._machine_listings:
            with _translated(self):
                answer = self._ftp.sendcmd(f"MLST {path}")
            lines = [line for line in answer.splitlines() if line.startswith(" ")]
            found = _entry_of_facts(name, _facts(lines[0])) if lines else None
            if found is None:
                raise FileNotFoundError
            return found
        if self._is_folder(path):
            return remote_files.Entry(name, True, 0, 0.0)
        return remote_files.Entry(name, False, self.size(path), self._modified(path))

    def entries(self, path: str) -> Sequence[remote_files.Entry]:
        # Some servers answer with an empty listing where they should say that there is no folder.
        self._enter(path)
        if self._machine_listings:
            with _translated(self):
                listed = list(self._ftp.mlsd())
                self._ftp.voidcmd(_BINARY)  # listings are text
            found = (_entry_of_facts(name, facts) for name, facts in listed)
            return [entry for entry in found if entry is not None]
        return list(self._entries_of_list(path))

    def rename(self, old: str, new: str, *, replace: bool) -> None:
        if not replace and self._exists(new):
            raise FileExistsError(errno.EEXIST, "exists")
        try:
            with _translated(self, exists=True):
                self._ftp.rename(old, new)
        except OSError:
            if not replace or not self._exists(new):
                raise
            self.remove(new)
            with _translated(self, exists=True):
                self._ftp.rename(old, new)

    def remove(self, path: str) -> None:
        if not self._exists(path):
            raise FileNotFoundError
        with _translated(self, exists=True):
            self._ftp.delete(path)

    def make_folder(self, path: str) -> None:
        try:
            with _translated(self, exists=True):
                self._ftp.mkd(path)
        except OSError:
            if not self._is_folder(path):
                raise

    @property
    def is_alive(self) -> bool:
        return self._alive

    def close(self) -> None:
        try:
            if self._alive:
                self._ftp.quit()
        finally:
            self._ftp.close()

    def broken(self) -> None:
        """No more is to be had from this connection."""
        self._alive = False

    def _features(self) -> set[str]:
        try:
            answer = self._ftp.sendcmd("FEAT")
        except ftplib.error_perm:
            return set()
        return {line.split()[0].upper() for line in answer.splitlines()[1:-1] if line.strip()}

    def _exists(self, path: str) -> bool:
        try:
            self.size(path)
        except FileNotFoundError:
            return False
        return True

    def _is_folder(self, path: str) -> bool:
        try:
            self._enter(path)
        except FileNotFoundError:
            return False
        return True

    def _enter(self, path: str) -> None:
        with _translated(self):
            self._ftp.cwd(path)

    def _entries_of_list(self, path: str) -> Iterator[remote_files.Entry]:
        lines: list[str] = []
        with _translated(self):
            self._ftp.retrlines("LIST", lines.append)
            self._ftp.voidcmd(_BINARY)
        for line in lines:
            match = _LIST_LINE.fullmatch(line.rstrip())
            if match is None:
                if line.startswith("total ") or not line.strip():
                    continue
                raise OSError(f"a listing that is not understood: {line!r}")
            name = match["name"].partition(" -> ")[0] if match["kind"] == "l" else match["name"]
            whole = f"{path.rstrip('/')}/{name}"
            if not base.is_name(name) and not name.startswith("."):
                continue
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile, or leads nowhere
                if match["kind"] == "d":
                    yield remote_files.Entry(name, True, 0, 0.0)
                elif match["kind"] == "l":
                    yield self.entry(whole)
                else:
                    size = int(match["size"])
                    yield remote_files.Entry(name, False, size, self._modified(whole))

    def _modified(self, path: str) -> float:
        with _translated(self):
            return _time(self._ftp.sendcmd(f"MDTM {path}")[4:].strip())

    def _end_tls(self, connection: socket.socket) -> None:
        if isinstance(connection, ssl.SSLSocket):
            with contextlib.suppress(OSError):
                connection.unwrap()

    def _swallow_abort(self) -> None:
        """After data was refused in the middle: what the server says to that is of no interest."""
        try:
            self._ftp.voidresp()
        except (ftplib.error_temp, ftplib.error_perm):
            return


@contextlib.contextmanager
def _translated(connection: FtpConnection, *, exists: bool = False) -> Iterator[None]:
    """Turn what the server says into what a file system would say.

    :param exists: the file is known to be there: what is refused is not allowed.
    """
    try:
        yield
    except ftplib.error_perm as error:
        code, said = str(error)[:3], str(error)[4:]
        if code == "552":
            raise OSError(errno.ENOSPC, said) from error
        if code in ("530", "532", "553") or (code == "550" and (exists or _DENIED.search(said))):
            raise PermissionError(said) from error
        if code == "550":
            raise FileNotFoundError(said) from error
        raise OSError(str(error)) from error
    except ftplib.error_temp as error:
        if str(error).startswith("452"):
            raise OSError(errno.ENOSPC, str(error)[4:]) from error
        connection.broken()
        raise ConnectionError(str(error)) from error
    except (ftplib.error_proto, ftplib.error_reply) as error:
        connection.broken()
        raise ConnectionError(str(error)) from error
    except (OSError, EOFError) as error:
        connection.broken()
        raise ConnectionError(str(error) or "the server hung up") from error


def _facts(line: str) -> dict[str, str]:
    facts = line.strip().partition(" ")[0]
    pairs = (fact.partition("=") for fact in facts.split(";") if fact)
    return {key.lower(): value for key, _, value in pairs}


def _entry_of_facts(name: str, facts: dict[str, str]) -> remote_files.Entry | None:
    kind = facts.get("type", "").lower()
    if kind in ("dir", "cdir", "pdir"):
        # The folder itself and the one above are named among what lies in it.
        return None if name in (".", "..") else remote_files.Entry(name, True, 0, 0.0)
    if kind != "file":
        return None
    return remote_files.Entry(
        name, False, int(facts.get("size", 0)), _time(facts.get("modify", "19700101000000"))
    )


def _time(text: str) -> float:
    """Seconds since the epoch from ``YYYYMMDDHHMMSS``, with or without a fraction, in UTC."""
    whole, _, fraction = text.partition(".")
    moment = datetime.datetime.strptime(whole, "%Y%m%d%H%M%S").replace(tzinfo=datetime.timezone.utc)
    return moment.timestamp() + (float(f"0.{fraction}") if fraction.isdigit() else 0.0)
