# SPDX-License-Identifier: Apache-2.0
"""Real servers on free ports of the loopback device, one of each kind for a run."""

from __future__ import annotations

import dataclasses
import itertools
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from freezer_osbrick.store.ftp import FtpStore
from freezer_osbrick.store.s3 import S3Store
from freezer_osbrick.store.sftp import SftpStore
from freezer_osbrick.store.swift import SwiftStore
from tests.functional.stores import environment, openssh

_numbers = itertools.count()


def new_name(word: str = "backups") -> str:
    """A name that no other test uses."""
    return f"{word}-{next(_numbers)}"


@dataclasses.dataclass(frozen=True)
class SwiftServer:
    """A running Swift, reached by its own protocol and by that of S3."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def login(self, user: str = "admin") -> dict[str, str]:
        """Of ``admin``, ``writer`` or ``stranger``."""
        return {
            "auth_url": f"{self.url}/auth/v1.0",
            "user": f"test:{user}",
            "key": f"{user}-secret",
        }

    def swift(self, container: str, prefix: str = "", *, user: str = "admin", **more: Any):
        return SwiftStore(container, prefix, **{**self.login(user), **more})

    def s3(self, bucket: str, prefix: str = "", *, user: str = "admin", **more: Any):
        login = {
            "endpoint": self.url,
            "region": "test-region",
            "access_key": f"test:{user}",
            "secret_key": f"{user}-secret",
        }
        return S3Store(bucket, prefix, **{**login, **more})


@pytest.fixture(scope="session")
def swift_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SwiftServer]:
    folder = tmp_path_factory.mktemp("swift")
    probe = folder / "probe"
    probe.touch()
    try:
        os.setxattr(probe, "user.swift", b"x")
    except OSError as error:
        pytest.skip(f"Swift needs a file system with user attributes at {folder}: {error}")
    started = environment.server("swift_server.py", str(folder / "data"), log=folder / "log")
    with started as said:
        yield SwiftServer(said["port"])


POLICY = pathlib.Path(__file__).parents[3] / "etc" / "policies" / "s3-append-only.json"


@dataclasses.dataclass(frozen=True)
class S3Server:
    """A running S3 with conditional puts.

    :param bucket: the only one that the identity ``agent`` may use, as our policy has it.
    :param identities: credentials of ``admin`` and ``agent``.
    """

    url: str
    bucket: str
    identities: dict[str, dict[str, str]]

    def s3(self, bucket: str, prefix: str = "", *, user: str = "admin", **more: Any) -> S3Store:
        login = {"endpoint": self.url, "region": "us-east-1", **self.identities[user]}
        return S3Store(bucket, prefix, **{**login, **more})


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    log, bucket = tmp_path_factory.mktemp("s3") / "log", "append-only"
    policy = POLICY.read_text().replace("BUCKET", bucket)
    with environment.server("s3_server.py", policy, log=log) as said:
        yield S3Server(said["url"], bucket, said["identities"])


class SshServer(openssh.SshServer):
    def sftp(self, name: str, **more: Any) -> SftpStore:
        arguments: dict[str, Any] = {
            "user": self.user,
            "ssh_key_file": str(self.folder / "key"),
            "known_hosts": str(self.folder / "known_hosts"),
        }
        arguments.update(more)
        return SftpStore(
            "127.0.0.1", str(self.folder / "files" / name), port=self.port, **arguments
        )


@pytest.fixture(scope="session")
def ssh_server() -> Iterator[SshServer]:
    # Not below pytest's folder, which is closed to the server's user: several sessions of pytest
    # share it, and would close it to each other's servers.
    with (
        tempfile.TemporaryDirectory(prefix="freezer-osbrick-openssh-") as folder,
        openssh.running(pathlib.Path(folder)) as server,
    ):
        yield SshServer(server.folder, server.port, server.user)


@dataclasses.dataclass(frozen=True)
class FtpServer:
    """Running servers for one folder.

    :param ports: of ``ftp``, ``ftps``, and ``old``, which has no machine-readable listings.
    """

    folder: pathlib.Path
    ports: dict[str, int]

    def ftp(self, name: str, kind: str = "ftp", *, user: str = "backup", **more: Any) -> FtpStore:
        arguments: dict[str, Any] = {"user": user, "password": f"{user}-secret"}
        if kind == "ftps":
            arguments |= {"encrypted": True, "ca_file": str(self.folder / "certificate.pem")}
        arguments.update(more)
        return FtpStore("127.0.0.1", f"/{name}", port=self.ports[kind], **arguments)


@pytest.fixture(scope="session")
def ftp_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FtpServer]:
    folder = tmp_path_factory.mktemp("ftp")
    with environment.server("ftp_server.py", str(folder), log=folder / "log") as ports:
        yield FtpServer(folder, ports)
