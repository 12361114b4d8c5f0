# SPDX-License-Identifier: Apache-2.0
"""Parts of objects, as HTTP asks for them and answers."""

from __future__ import annotations

import re

from freezer_osbrick import errors

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


def too_short(name: str, url: str) -> errors.Damaged:
    return errors.Damaged(f"Object {name} of {url} is shorter than it should be.")


def header(offset: int, length: int | None) -> str | None:
    """The value of ``Range``; None where all of the object is wanted.

    HTTP has no range of no bytes: ``length`` is not 0.
    """
    if length is None:
        return f"bytes={offset}-" if offset else None
    return f"bytes={offset}-{offset + length - 1}"


def check(name: str, url: str, offset: int, length: int | None, size: int) -> None:
    """:raises errors.Damaged: an object of this size has no such part."""
    if offset < 0 or (length or 0) < 0 or offset + (length or 0) > size:
        raise too_short(name, url)


def extract(
    name: str, url: str, body: bytes, offset: int, length: int | None, content_range: str | None
) -> bytes:
    """The wanted part from an answer.

    :param content_range: header of the answer; None where the server sent all of the object.
    :raises errors.Damaged: the object ends before the part does.
    :raises errors.StoreUnavailable: the answer is no answer to what was asked.
    """
    if content_range is not None:
        found = _CONTENT_RANGE.fullmatch(content_range)
        if found is None or int(found[1]) != offset:
            raise errors.StoreUnavailable(f"{url} answered with another range of {name}.")
    else:
        check(name, url, offset, length, len(body))
        body = body[offset:] if offset else body
        body = body if length is None else body[:length]
    if length is not None and len(body) < length:
        raise too_short(name, url)
    return body
