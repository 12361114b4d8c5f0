# SPDX-License-Identifier: Apache-2.0
"""Checking the structure of a repository."""

from __future__ import annotations

import dataclasses
from typing import Any

from freezer_osbrick.operations.context import Context
from freezer_osbrick.pipeline.check import Census, Problem, RepositoryChecker
from freezer_osbrick.pipeline.progress import Listener, Progress
from freezer_osbrick.repository.leases import Lease


@dataclasses.dataclass
class CheckReport:
    """What is in a repository, and what is wrong with it."""

    problems: list[Problem]
    census: Census

    @property
    def ok(self) -> bool:
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            **dataclasses.asdict(self.census),
            "problems": [dataclasses.asdict(problem) for problem in self.problems],
        }


def check(context: Context, url: str, progress: Listener | None = None) -> CheckReport:
    """Read all of a repository but the content of its blocks, and say what is wrong.

    :raises errors.Damaged: not even its configuration is sound.
    :raises errors.StoreError: the store failed; that says nothing about the repository.
    """
    repository = context.open_repository(url)
    with Lease(repository, "check", needed=False) as lease:
        checker = RepositoryChecker(
            repository,
            threads=context.conf.osbrick.workers,
            progress=Progress("backups", progress),
            lease=lease.id,
        )
        return CheckReport(checker.run(), checker.census)
