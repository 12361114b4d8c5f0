# SPDX-License-Identifier: Apache-2.0
"""``freezer-osbrick list``, ``show`` and ``remove``: what a repository holds."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from freezer_osbrick import errors
from freezer_osbrick.commands import base, columns, dates
from freezer_osbrick.commands.backup import days
from freezer_osbrick.commands.columns import BackupId, Bytes, Column, Moment

if TYPE_CHECKING:
    from freezer_osbrick.operations.context import Context

_SECONDS_A_DAY = 86400

BACKUPS = (
    Column("backup_id", "Backup ID", BackupId),
    Column("time_stamp", "Time stamp", Moment),
    Column("level", "Level"),
    Column("volume_id", "Volume ID"),
    Column("volume_name", "Volume name", optional=True),
    Column("size", "Size", Bytes),
    Column("bytes_stored", "Bytes stored", Bytes),
    Column("state", "State"),
    Column("verified", "Verified", Moment, everyday=False),
    Column("backup_name", "Backup name"),
    Column("hostname", "Hostname"),
    Column("project_id", "Project ID", everyday=False),
)


class ListBackups(base.OsbrickLister):
    """List the backups of a repository, oldest first."""

    columns = BACKUPS
    nothing = "There are no such backups."

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        base.add_repository_argument(parser)
        _add_filter_arguments(parser)
        parser.add_argument(
            "--project-id", metavar="<project-id>", help="only backups of this project's volumes"
        )
        return parser

    def check(self, parsed_args: argparse.Namespace) -> None:
        super().check(parsed_args)
        base.check_repository(parsed_args)

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        from freezer_osbrick.operations.catalogue import list_backups

        context = self.open_context(parsed_args)
        found = list_backups(
            context,
            base.repository_url(context, parsed_args),
            volume_id=parsed_args.volume_id,
            backup_name=parsed_args.backup_name,
            hostname=parsed_args.hostname,
            project_id=parsed_args.project_id,
        )
        return self.rows([backup.to_dict() for backup in found], parsed_args)


class ShowBackup(base.OsbrickShowOne):
    """Show everything recorded about one backup."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "backup_id",
            metavar="<backup-id>",
            help="id of the backup; the first characters do where they name only one",
        )
        base.add_repository_argument(parser)
        return parser

    def check(self, parsed_args: argparse.Namespace) -> None:
        super().check(parsed_args)
        base.check_repository(parsed_args)

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        from freezer_osbrick.operations.catalogue import show_backup

        context = self.open_context(parsed_args)
        url = base.repository_url(context, parsed_args)
        backup = show_backup(context, url, parsed_args.backup_id)
        return columns.detail(BACKUPS, backup.to_dict(), parsed_args)


class RemoveBackups(base.OsbrickLister):
    """Remove the backups made at a date or before; each other backup stays restorable.

    The backups that were removed (with --dry-run: would be) are listed.
    """

    columns = BACKUPS
    nothing = "There are no such backups."

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        base.add_repository_argument(parser)
        age = parser.add_mutually_exclusive_group(required=True)
        age.add_argument(
            "--before",
            metavar="<date>",
            type=dates.date_argument,
            help="made at this date or before, ISO 8601, UTC without a zone",
        )
        age.add_argument(
            "--older-than", metavar="<days>", type=days, help="made so many days ago or earlier"
        )
        _add_filter_arguments(parser)
        parser.add_argument(
            "--dry-run", action="store_true", help="list what would be removed, remove nothing"
        )
        parser.add_argument("--yes", action="store_true", help="do not ask")
        return parser

    def check(self, parsed_args: argparse.Namespace) -> None:
        super().check(parsed_args)
        base.check_repository(parsed_args)
        if not (parsed_args.yes or parsed_args.dry_run or self.app.stdin.isatty()):
            raise errors.BadRequest("Nobody is here to be asked: give --yes or --dry-run.")

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        context = self.open_context(parsed_args)
        url = base.repository_url(context, parsed_args)
        before = parsed_args.before
        if before is None:
            before = int(time.time() - parsed_args.older_than * _SECONDS_A_DAY)
        at_once = parsed_args.yes and not parsed_args.dry_run
        doomed = self._remove(context, url, before, parsed_args, dry_run=not at_once)
        if doomed and not (at_once or parsed_args.dry_run):
            if not self._confirmed(len(doomed), before):
                raise errors.BadRequest("Nothing was removed.")
            doomed = self._remove(context, url, before, parsed_args, dry_run=False)
        return self.rows([backup.to_dict() for backup in doomed], parsed_args)

    def _remove(
        self,
        context: Context,
        url: str,
        before: int,
        parsed_args: argparse.Namespace,
        *,
        dry_run: bool,
    ) -> list[Any]:
        from freezer_osbrick.operations.catalogue import remove_backups

        return remove_backups(
            context,
            url,
            volume_id=parsed_args.volume_id,
            backup_name=parsed_args.backup_name,
            hostname=parsed_args.hostname,
            before=before,
            dry_run=dry_run,
        )

    def _confirmed(self, count: int, before: int) -> bool:
        noun = "backup" if count == 1 else "backups"
        self.app.stderr.write(
            f"Remove {count} {noun} made at {dates.format_date(before)} or before? [y/N] "
        )
        self.app.stderr.flush()
        return self.app.stdin.readline().strip().lower() in ("y", "yes")


def _add_filter_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--volume-id", metavar="<volume-id>", help="only backups of this volume")
    parser.add_argument("--backup-name", metavar="<name>", help="only backups that carry this name")
    parser.add_argument("--hostname", metavar="<host>", help="only backups made on this host")
