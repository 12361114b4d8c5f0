# SPDX-License-Identifier: Apache-2.0
"""Garbage collection of a repository."""

from __future__ import annotations

from freezer_osbrick.operations.context import Context
from freezer_osbrick.repository import collection
from freezer_osbrick.repository.collection import Collected

DEFAULT_GRACE = collection.DEFAULT_GRACE


def collect_garbage(
    context: Context,
    url: str,
    *,
    grace: float = DEFAULT_GRACE,
    rewrite_below: float = 0.0,
    dry_run: bool = False,
) -> Collected:
    """Give back the space that no backup needs; see :mod:`freezer_osbrick.repository.collection`.

    :param grace: seconds for which what was found unneeded is kept.
    :param rewrite_below: a share, 0 to 1: packs of which less is needed are rewritten.
    """
    return collection.collect(
        context.open_repository(url), grace=grace, rewrite_below=rewrite_below, dry_run=dry_run
    )
