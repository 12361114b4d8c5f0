# SPDX-License-Identifier: Apache-2.0
"""Which paths a user leaves out, written as in a ``.gitignore`` file."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pathspec

from freezer_osbrick import errors
from freezer_osbrick.filesystem.walk import Excluded, nothing


def excluded(patterns: Sequence[str]) -> Excluded:
    """Tells of a path, from the root of its file system, whether a pattern leaves it out.

    A folder that is left out is left out with all that is in it.

    :raises errors.BadRequest: something is no pattern.
    """
    if not patterns:
        return nothing
    try:
        spec = pathspec.GitIgnoreSpec.from_lines(patterns)
    except ValueError as error:
        raise errors.BadRequest(f"These patterns cannot be used: {error}.") from None

    def decide(path: bytes, is_folder: bool) -> bool:
        return spec.match_file(os.fsdecode(path) + ("/" if is_folder else ""))

    return decide
