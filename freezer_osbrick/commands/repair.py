# SPDX-License-Identifier: Apache-2.0
"""``freezer-osbrick repair``: making whole again what can be made whole."""

from __future__ import annotations

import argparse
import logging
from typing import Any

from freezer_osbrick.commands import base, progress
from freezer_osbrick.commands.columns import BackupId, Bytes, Column, Moment, Sentence
from freezer_osbrick.commands.verify import Ranges

LOG = logging.getLogger(__name__)

DAMAGED = 1


class Repair(base.OsbrickLister):
    """Repair the backups that 'check' or an earlier 'verify' finds wrong, as far as it can be
    proved.

    Lost chunk maps, blocks and indexes are looked for in all packs, and used where their ids prove
    them. Each such backup is read whole, and what it has lost is named and recorded. What cannot be
    repaired is left as it is. The exit status is 1 where something is lost.
    """

    columns = (
        Column("backup_id", "Backup ID", BackupId),
        Column("state", "State"),
        Column("time_stamp", "Time stamp", Moment),
        Column("volume_id", "Volume ID"),
        Column("volume_name", "Volume name", optional=True),
        Column("maps", "Maps", optional=True),
        Column("blocks", "Blocks", optional=True),
        Column("moved", "Moved", optional=True),
        Column("lost_bytes", "Lost bytes", Bytes, optional=True),
        Column("ranges", "Lost ranges", Ranges, optional=True),
        Column("reasons", "Reasons", Sentence, optional=True),
        Column("rewritten", "Rewritten", everyday=False),
        Column("project_id", "Project ID", everyday=False),
    )
    nothing = "There is nothing to repair."

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        base.add_repository_argument(parser)
        parser.add_argument(
            "--dry-run",
            action="store_true",
            help="read and search all the same, say what would be done, change nothing",
        )
        return parser

    def check(self, parsed_args: argparse.Namespace) -> None:
        super().check(parsed_args)
        base.check_repository(parsed_args)

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        from freezer_osbrick.operations.repair import repair

        context = self.open_context(parsed_args)
        url = base.repository_url(context, parsed_args)
        options = self.app.options
        with progress.shown(parsed_args, options.verbose_level, self.app.stderr) as show:
            report = repair(context, url, dry_run=parsed_args.dry_run, progress=show)
        for problem in report.problems:
            LOG.warning("%s", problem)
        if not report.ok:
            self.exit_status = DAMAGED
        return self.rows([backup.to_dict() for backup in report.backups], parsed_args)
