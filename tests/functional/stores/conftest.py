# SPDX-License-Identifier: Apache-2.0
"""Real servers on free ports of the loopback device, one of each kind for a run."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterator
from typing import Any

import pytest

from freezer_osbrick.store.s3 import S3Store
from freezer_osbrick.store.swift import SwiftStore
from tests.functional.stores import environment

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
        return SwiftStore(container, prefix, **self.login(user), **more)

    def s3(self, bucket: str, prefix: str = "", *, user: str = "admin", **more: Any):
        return S3Store(
            bucket,
            prefix,
            endpoint=self.url,
            region="test-region",
            access_key=f"test:{user}",
            secret_key=f"{user}-secret",
            **more,
        )


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
