# SPDX-License-Identifier: Apache-2.0
"""From a repository's address to the store behind it."""

from __future__ import annotations

import os
import urllib.parse

from freezer_osbrick import errors
from freezer_osbrick.store import base, local

SCHEMES = ("file",)


def normalise(address: str) -> str:
    """The address as a URL: an absolute path is short for ``file://``.

    :raises errors.BadRequest: it is no address of a repository.
    """
    if address.startswith("/"):
        return f"file://{os.path.normpath(address)}"
    parts = urllib.parse.urlsplit(address)
    if parts.scheme not in SCHEMES:
        raise errors.BadRequest(
            f"{address!r} is no repository address: give an absolute path or file:///PATH."
        )
    if parts.netloc or not parts.path.startswith("/") or parts.query or parts.fragment:
        raise errors.BadRequest(f"{address!r} must be file:///PATH with an absolute path.")
    return f"file://{os.path.normpath(urllib.parse.unquote(parts.path))}"


def open_store(address: str, *, create: bool = False) -> base.Store:
    """The store at the address.

    :param create: make the place where it keeps its objects if it is missing.
    """
    return local.LocalStore(normalise(address).removeprefix("file://"), create=create)
