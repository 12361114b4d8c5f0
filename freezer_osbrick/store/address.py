# SPDX-License-Identifier: Apache-2.0
"""From a repository's address to the store behind it."""

from __future__ import annotations

import os
import urllib.parse

from freezer_osbrick import errors
from freezer_osbrick.store import base, local

SCHEMES = ("file",)


def normalise(address: str) -> str:
    """The address as a URL: an absolute path is short for ``file://``. A URL stays as it is.

    :raises errors.BadRequest: it is no address of a repository.
    """
    return local.url_of(_folder(address))


def open_store(address: str, *, create: bool = False) -> base.Store:
    """The store at the address.

    :param create: make the place where it keeps its objects if it is missing.
    :raises errors.BadRequest: it is no address of a repository.
    """
    return local.LocalStore(_folder(address), create=create)


def _folder(address: str) -> str:
    """The absolute path that the address means."""
    if address.startswith("/"):
        path = address
    else:
        try:
            parts = urllib.parse.urlsplit(address)
        except ValueError:
            parts = urllib.parse.SplitResult("", "", "", "", "")
        if parts.scheme not in SCHEMES:
            raise errors.BadRequest(
                f"{address!r} is no repository address: give an absolute path or file:///PATH."
            )
        if parts.netloc or not parts.path.startswith("/") or parts.query or parts.fragment:
            raise errors.BadRequest(f"{address!r} must be file:///PATH with an absolute path.")
        path = urllib.parse.unquote(parts.path)
    if "\0" in path:
        raise errors.BadRequest(f"{address!r} is no repository address: it contains a null byte.")
    return os.path.normpath("/" + path.lstrip("/"))
