# SPDX-License-Identifier: Apache-2.0
"""``freezer-osbrick verify``: are the backups what was backed up?"""

from __future__ import annotations

import argparse
from typing import Any

from freezer_osbrick.commands import base, progress, transfer
from freezer_osbrick.commands.backup import days
from freezer_osbrick.commands.columns import (
    BackupId,
    Bytes,
    Column,
    Moment,
    Sentence,
    Text,
    format_bytes,
)

DAMAGED = 1

_SECONDS_A_DAY = 86400
_SHOWN = 8


class Share(Text):
    """A share of a whole."""

    def human_readable(self) -> str:
        return "-" if self._value is None else f"{100 * self._value:g} %"


class Ranges(Text):
    """Ranges of a volume in bytes: the first ones, and how many there are."""

    def human_readable(self) -> str:
        told = [f"{offset}+{length}" for offset, length in self._value[:_SHOWN]]
        if len(self._value) > _SHOWN:
            told.append(f"… {len(self._value)} in all")
        return "\n".join(told) or "-"


class Verify(base.OsbrickLister):
    """Read the stored blocks of backups and check each of them.

    Blocks that several backups share are read once. What was found is recorded in the repository:
    'list' shows it, a damaged backup is not built upon again, and 'prune' keeps the newest verified
    backup of each volume. The exit status is 1 where a backup is damaged.
    """

    columns = (
        Column("backup_id", "Backup ID", BackupId),
        Column("state", "State"),
        Column("time_stamp", "Time stamp", Moment),
        Column("volume_id", "Volume ID"),
        Column("volume_name", "Volume name", optional=True),
        Column("share", "Read", Share),
        Column("bytes_stored", "Bytes stored", Bytes),
        Column("lost_bytes", "Lost bytes", Bytes, optional=True),
        Column("ranges", "Lost ranges", Ranges, optional=True),
        Column("reasons", "Reasons", Sentence, optional=True),
        Column("blocks", "Blocks", everyday=False),
        Column("project_id", "Project ID", everyday=False),
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        base.add_repository_argument(parser)
        parser.add_argument(
            "--backup",
            metavar="<backup-id>",
            dest="backup_ids",
            action="append",
            default=[],
            help="only this backup; the first characters do; may be repeated",
        )
        parser.add_argument("--volume-id", metavar="<volume-id>", help="only backups of it")
        parser.add_argument(
            "--backup-name", metavar="<name>", help="only backups that carry this name"
        )
        parser.add_argument("--hostname", metavar="<host>", help="only backups made on this host")
        parser.add_argument(
            "--project-id", metavar="<project-id>", help="only backups of this project's volumes"
        )
        parser.add_argument(
            "--sample",
            metavar="<share>",
            type=transfer.share,
            default=1.0,
            help=(
                "read only this share of the blocks of each backup, such as 5%%, chosen at random;"
                " at least 64 blocks of each, and all of small ones"
            ),
        )
        parser.add_argument(
            "--not-verified-for",
            metavar="<days>",
            type=days,
            help=(
                "only backups that were not read for so many days; whole, unless --sample is given"
            ),
        )
        return parser

    def check(self, parsed_args: argparse.Namespace) -> None:
        super().check(parsed_args)
        base.check_repository(parsed_args)

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        from freezer_osbrick.operations.verify import VerifyRequest, verify

        context = self.open_context(parsed_args)
        url = base.repository_url(context, parsed_args)
        for_days = parsed_args.not_verified_for
        request = VerifyRequest(
            backup_ids=tuple(parsed_args.backup_ids),
            volume_id=parsed_args.volume_id,
            backup_name=parsed_args.backup_name,
            hostname=parsed_args.hostname,
            project_id=parsed_args.project_id,
            share=parsed_args.sample,
            not_verified_for=None if for_days is None else for_days * _SECONDS_A_DAY,
        )
        options = self.app.options
        with progress.shown(parsed_args, options.verbose_level, self.app.stderr) as show:
            report = verify(context, url, request, progress=show)
        if not report.ok:
            self.exit_status = DAMAGED
        damaged = sum(backup.state != "ok" for backup in report.backups)
        self.app.LOG.info(
            "%d backups verified, %d damaged; %s were read.",
            len(report.backups),
            damaged,
            format_bytes(report.bytes_read),
        )
        return self.rows([backup.to_dict() for backup in report.backups], parsed_args)
