# SPDX-License-Identifier: Apache-2.0
"""Garbage collection of a repository."""

from __future__ import annotations

from freezer_osbrick.operations.context import Context
from freezer_osbrick.repository import collection
from freezer_osbrick.repository.collection import Collected

DEFAULT_GRACE = collection.DEFAULT_GRACE


def collect_garbage(
    context: Context, url: str, *, grace: float = DEFAULT_GRACE, dry_run: bool = False
) -> Collected:
    """Give back the space that no backup needs; see :mod:`freezer_osbrick.repository.collection`.

    :param grace: seconds for which what was found unneeded is kept.
    """
    return collection.collect(context.open_repository(url), grace=grace, dry_run=dry_run)
