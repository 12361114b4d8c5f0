# SPDX-License-Identifier: Apache-2.0
"""``freezer-osbrick check``: is the repository sound?"""

from __future__ import annotations

import argparse
from typing import Any

from freezer_osbrick.commands import base, columns, progress
from freezer_osbrick.commands.columns import Bytes, Column, Sentence

DAMAGED = 1

_SHOWN = 8


class Problems(Sentence):
    """Problems, a sentence each, with the backup that each harms and what it loses."""

    def human_readable(self) -> str:
        return Sentence([_sentence(problem) for problem in self._value]).human_readable()


FIELDS = (
    Column("ok", "OK"),
    Column("problems", "Problems", Problems),
    Column("backups", "Backups"),
    Column("packs", "Packs"),
    Column("pack_bytes", "Bytes of packs", Bytes),
    Column("unneeded", "Unneeded packs"),
    Column("unneeded_bytes", "Bytes of unneeded packs", Bytes),
    Column("leases", "Leases"),
    Column("doomed", "Doomed lists"),
    Column("stale", "Stale verifications"),
    Column("unknown", "Unknown objects"),
)


class Check(base.OsbrickShowOne):
    """Check the structure of a repository: all but the content of blocks is read.

    Its configuration and keys, every manifest, every pack that a backup needs (its size, header and
    trailer), every chunk map, and what the manifests say is in use. What nobody needs is counted.
    The exit status is 1 where anything is wrong.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        base.add_repository_argument(parser)
        return parser

    def check(self, parsed_args: argparse.Namespace) -> None:
        super().check(parsed_args)
        base.check_repository(parsed_args)

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        from freezer_osbrick.operations.check import check

        context = self.open_context(parsed_args)
        url = base.repository_url(context, parsed_args)
        options = self.app.options
        with progress.shown(parsed_args, options.verbose_level, self.app.stderr) as show:
            report = check(context, url, progress=show)
        if not report.ok:
            self.exit_status = DAMAGED
        return columns.detail(FIELDS, report.to_dict(), parsed_args)


def _sentence(problem: dict[str, Any]) -> str:
    told = problem["text"]
    if problem["backup"]:
        told = f"Backup {problem['backup']}: {told}"
    if problem["ranges"]:
        shown = [f"{offset}+{length}" for offset, length in problem["ranges"][:_SHOWN]]
        rest = len(problem["ranges"]) - len(shown)
        told += f" Lost: {', '.join(shown)}{f' and {rest} more ranges' if rest else ''}."
    return told
