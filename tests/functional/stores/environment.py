# SPDX-License-Identifier: Apache-2.0
"""What the servers of the stores' tests run in: a virtual environment of their own."""

from __future__ import annotations

import contextlib
import pathlib
from typing import Any

from tests.environments import PATIENCE, Environment, locked, run

__all__ = ["PATIENCE", "folder", "locked", "run", "server"]

HERE = pathlib.Path(__file__).resolve().parent
_SERVERS = Environment(HERE / "requirements.txt", "store-servers", "FREEZER_OSBRICK_STORE_SERVERS")


def folder() -> pathlib.Path:
    """Where the environment lies, for all runs of this checkout."""
    return _SERVERS.folder


def server(
    script: str, *arguments: str, log: pathlib.Path
) -> contextlib.AbstractContextManager[dict[str, Any]]:
    """A server of this folder; what it says of itself when it is ready."""
    return _SERVERS.server(HERE / script, *arguments, log=log)
