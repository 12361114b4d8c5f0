# SPDX-License-Identifier: Apache-2.0
"""``freezer-osbrick files list`` and ``files restore``: single files out of a backup."""

from __future__ import annotations

import argparse
import os
from typing import Any

from freezer_osbrick.commands import base, columns
from freezer_osbrick.commands.columns import Bytes, Column, Moment, format_bytes

INCOMPLETE = 1


class ListFiles(base.OsbrickLister):
    """List files in the backup of a volume.

    The file systems in the backup are read by this program itself, not by the kernel: ext2, ext3,
    ext4, XFS, btrfs and FAT. Where the volume has partitions, a path begins with one of them:
    /partition-1/etc.
    """

    columns = (
        Column("mode", "Mode"),
        Column("uid", "UID", optional=True),
        Column("gid", "GID", optional=True),
        Column("size", "Size", Bytes),
        Column("mtime", "Changed", Moment, optional=True),
        Column("path", "Path"),
        Column("target", "Target", optional=True),
        Column("links", "Links", everyday=False),
    )
    nothing = "The folder is empty."
    need_sort_by_cliff = False

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        _add_backup_argument(parser)
        parser.add_argument(
            "path", metavar="<path>", nargs="?", default="/", help="file or folder (default: /)"
        )
        parser.add_argument(
            "--recursive", action="store_true", help="also what is in folders in the folder"
        )
        base.add_repository_argument(parser)
        return parser

    def check(self, parsed_args: argparse.Namespace) -> None:
        super().check(parsed_args)
        base.check_repository(parsed_args)

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        from freezer_osbrick.operations.files import list_files

        context = self.open_context(parsed_args)
        listing = list_files(
            context,
            base.repository_url(context, parsed_args),
            parsed_args.backup_id,
            os.fsencode(parsed_args.path),
            recursive=parsed_args.recursive,
        )
        for note in listing.notes:
            self.app.LOG.warning(note)
        for problem in listing.problems:
            self.app.LOG.error(problem)
            self.exit_status = INCOMPLETE
        return self.rows([file.to_dict() for file in listing.files], parsed_args)


class RestoreFiles(base.OsbrickShowOne):
    """Restore files and folders from the backup of a volume into a folder of this host.

    Each gets its last name there, with owner, mode, times and extended attributes; who is not root
    gets files of one's own. Nothing that is there already is touched. The exit status is 1 where
    not everything could be restored.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        _add_backup_argument(parser)
        parser.add_argument(
            "paths", metavar="<path>", nargs="+", help="file or folder in the backup"
        )
        parser.add_argument(
            "--to",
            metavar="<folder>",
            dest="folder",
            required=True,
            help="the folder to restore into; one that is made can be entered by its owner only",
        )
        base.add_repository_argument(parser)
        return parser

    def check(self, parsed_args: argparse.Namespace) -> None:
        super().check(parsed_args)
        base.check_repository(parsed_args)

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        from freezer_osbrick.operations.files import restore_files

        context = self.open_context(parsed_args)
        report = restore_files(
            context,
            base.repository_url(context, parsed_args),
            parsed_args.backup_id,
            [os.fsencode(path) for path in parsed_args.paths],
            parsed_args.folder,
        )
        for note in report.notes:
            self.app.LOG.warning(note)
        for problem in report.problems:
            self.app.LOG.error(problem)
        if report.problem_count:
            self.exit_status = INCOMPLETE
        self.app.LOG.info(
            "%d files and folders were restored, %s.",
            report.made,
            format_bytes(report.bytes_written),
        )
        fields = report.to_dict()
        if columns.for_people(parsed_args):  # who has read them above
            del fields["notes"], fields["problems"]
        return tuple(fields), tuple(fields.values())


def _add_backup_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "backup_id",
        metavar="<backup-id>",
        help="id of the backup; the first characters do where they name only one",
    )
