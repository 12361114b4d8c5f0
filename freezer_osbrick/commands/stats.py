# SPDX-License-Identifier: Apache-2.0
"""``freezer-osbrick stats``: what the repository uses."""

from __future__ import annotations

import argparse
from typing import Any

from freezer_osbrick.commands import base
from freezer_osbrick.commands.columns import BackupId, Bytes, Column, Moment


class Stats(base.OsbrickLister):
    """Show how much of the repository each volume needs, and what its deletion would free.

    Amounts are those of whole packs, as garbage collection frees them: referenced are the packs
    that backups of the volume need, shared of these are those that other volumes need, too. The
    last line is the whole repository.
    """

    columns = (
        Column("of", "Of"),
        Column("volume_id", "Volume ID"),
        Column("volume_name", "Volume name", optional=True),
        Column("backup_id", "Backup ID", BackupId, optional=True),
        Column("time_stamp", "Time stamp", Moment, optional=True),
        Column("backups", "Backups"),
        Column("size", "Size", Bytes),
        Column("referenced", "Referenced", Bytes),
        Column("unique", "Unique", Bytes),
        Column("shared", "Shared", Bytes),
        Column("frees", "Frees", Bytes),
        Column("stored", "Stored", Bytes, optional=True),
        Column("unneeded", "Unneeded", Bytes, optional=True),
        Column("live", "Live", Bytes, everyday=False),
        Column("project_id", "Project ID", everyday=False),
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        base.add_repository_argument(parser)
        parser.add_argument(
            "--volume-id",
            metavar="<volume-id>",
            help="only this volume and the total; others count in what is shared",
        )
        parser.add_argument(
            "--by-backup", action="store_true", help="also a line for each backup of a volume"
        )
        return parser

    def check(self, parsed_args: argparse.Namespace) -> None:
        super().check(parsed_args)
        base.check_repository(parsed_args)

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        from freezer_osbrick.operations.stats import stats

        context = self.open_context(parsed_args)
        lines = stats(
            context,
            base.repository_url(context, parsed_args),
            volume_id=parsed_args.volume_id,
            by_backup=parsed_args.by_backup,
        )
        return self.rows([line.to_dict() for line in lines], parsed_args)
