# SPDX-License-Identifier: Apache-2.0
"""``freezer-osbrick gc``."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from freezer_osbrick.commands import base, columns
from freezer_osbrick.commands.columns import Bytes, Column

HOUR = 3600

AMOUNTS = (
    Column("deleted", "Deleted"),
    Column("deleted_bytes", "Deleted bytes", Bytes),
    Column("doomed", "Doomed"),
    Column("doomed_bytes", "Doomed bytes", Bytes),
    Column("waiting", "Waiting"),
    Column("waiting_bytes", "Waiting bytes", Bytes),
    Column("rewritten", "Rewritten"),
    Column("rewritten_bytes", "Rewritten bytes", Bytes),
    Column("needed", "Needed"),
    Column("needed_bytes", "Needed bytes", Bytes),
    Column("reasons", "Reasons", columns.Nested),
)


class CollectGarbage(base.OsbrickShowOne):
    """Give back the space of packs that no backup needs any more.

    In two steps: what is found unneeded is doomed, and deleted by a later run when the grace period
    has passed and no backup that was under way can need it. Backups, restores and other collections
    may run at the same time, from any host; it may be ended at any point.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        base.add_repository_argument(parser)
        parser.add_argument(
            "--grace",
            metavar="<hours>",
            type=hours,
            default=24.0,
            help="hours for which a doomed pack is kept (default: 24)",
        )
        parser.add_argument(
            "--rewrite-below",
            metavar="<percent>",
            type=percent,
            default=20.0,
            help=(
                "rewrite packs of which a smaller share is still needed, so that the rest can be"
                " given back (default: 20; 0: never)"
            ),
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="say what would be done, do nothing"
        )
        return parser

    def check(self, parsed_args: argparse.Namespace) -> None:
        super().check(parsed_args)
        base.check_repository(parsed_args)

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        from freezer_osbrick.operations.collect import collect_garbage

        context = self.open_context(parsed_args)
        done = collect_garbage(
            context,
            base.repository_url(context, parsed_args),
            grace=parsed_args.grace * HOUR,
            rewrite_below=parsed_args.rewrite_below / 100,
            dry_run=parsed_args.dry_run,
        )
        return columns.detail(AMOUNTS, dataclasses.asdict(done), parsed_args)


def hours(text: str) -> float:
    """A number of hours for argparse: 0 or more, fractions allowed."""
    try:
        count = float(text)
    except ValueError:
        count = -1.0
    if not 0 <= count < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of hours")
    return count


def percent(text: str) -> float:
    """A share in percent for argparse, with or without its sign."""
    try:
        share = float(text.removesuffix("%"))
    except ValueError:
        share = -1.0
    if not 0 <= share <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of percent from 0 to 100")
    return share
