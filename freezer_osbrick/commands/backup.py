# SPDX-License-Identifier: Apache-2.0
"""``freezer-osbrick backup``."""

from __future__ import annotations

import argparse
import dataclasses
import socket
from typing import Any

from freezer_osbrick import errors
from freezer_osbrick.commands import base, choosing, transfer
from freezer_osbrick.commands.columns import Column, Sentence


class Backup(transfer.TransferCommand):
    """Back up volumes, whatever they are attached to.

    Each volume is frozen by a snapshot, a volume of that snapshot is attached to this host, and its
    blocks, or the files of its file systems, are stored. The volume itself keeps its state and its
    users, unless --cold is given. Every backup restores by itself; an incremental one stores only
    what changed.
    """

    columns = (
        *transfer.OUTCOME,
        transfer.LEVEL,
        Column("content", "Content", everyday=False, optional=True),
        Column("file_systems", "File systems", Sentence, everyday=False, optional=True),
        *transfer.byte_columns("bytes_read", "bytes_stored"),
        *transfer.byte_columns("bytes_zero", "bytes_reused", "bytes_new", everyday=False),
        Column("hints", "Hints", everyday=False, optional=True),
        Column("blocks_audited", "Blocks audited", everyday=False, optional=True),
        transfer.SECONDS,
        transfer.BACKUP,
        transfer.TIME,
        transfer.REPOSITORY,
        transfer.COPIES,
        transfer.REASON,
        transfer.NOTES,
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        choosing.add_arguments(parser, "back up")
        base.add_repository_argument(parser, several="; may be repeated: each gets every backup")
        parser.add_argument(
            "--incremental",
            action="store_true",
            help="compare with the newest backup of the same volume and store what changed",
        )
        _add_content_arguments(parser)
        parser.add_argument(
            "--cold",
            action="store_true",
            help="detach each volume from its server, back the volume itself up, and attach it"
            " again; without a server: no snapshot is made",
        )
        parser.add_argument(
            "--backup-name",
            metavar="<name>",
            default="default",
            help="a name for backups that belong together (default: %(default)s)",
        )
        parser.add_argument(
            "--hostname",
            metavar="<host>",
            default=socket.gethostname(),
            help="host to record in the backup (default: this one)",
        )
        _add_level_arguments(parser)
        _add_hint_arguments(parser)
        transfer.add_run_arguments(parser, "back up")
        return parser

    def check(self, parsed_args: argparse.Namespace) -> None:
        super().check(parsed_args)
        base.check_repository(parsed_args)
        choosing.chosen(parsed_args).check()
        if parsed_args.content == "blocks" and (
            parsed_args.exclude or parsed_args.fallback_to_blocks
        ):
            raise errors.BadRequest("--exclude and --fallback-to-blocks need --content files.")
        if parsed_args.restart_always_level is not None and parsed_args.always_level is None:
            raise errors.BadRequest("--restart-always-level needs --always-level beside it.")

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        from freezer_osbrick.operations.backup import BackupRequest, backup
        from freezer_osbrick.operations.hinting import HintPolicy

        selection = choosing.chosen(parsed_args)
        request = BackupRequest(
            volume_ids=selection.volume_ids,
            selection=dataclasses.replace(selection, volume_ids=()),
            backup_name=parsed_args.backup_name,
            hostname=parsed_args.hostname,
            incremental=parsed_args.incremental,
            content=parsed_args.content,
            exclude=tuple(parsed_args.exclude),
            fallback_to_blocks=parsed_args.fallback_to_blocks,
            cold=parsed_args.cold,
            max_level=parsed_args.max_level,
            always_level=parsed_args.always_level,
            restart_always_level=parsed_args.restart_always_level,
            report_file=parsed_args.report_file,
            hints=HintPolicy(
                use=not parsed_args.no_hints,
                keep=parsed_args.keep_snapshot,
                audit=parsed_args.audit,
                full_read_every=parsed_args.full_read_every,
            ),
        )
        context = self.open_context(parsed_args)
        urls = base.repository_urls(context, parsed_args)
        with self.progress(parsed_args) as show:
            report = backup(context, urls, request, progress=show)
        return self.report(report, parsed_args)


def _add_content_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "content", "What is stored of a volume. This host's kernel reads the guest's file systems."
    )
    group.add_argument(
        "--content",
        choices=("blocks", "files"),
        default="blocks",
        help="all blocks, or the files of all file systems (default: %(default)s)",
    )
    group.add_argument(
        "--exclude",
        metavar="<pattern>",
        action="append",
        default=[],
        help="files and folders to leave out, as in a .gitignore; may be given several times",
    )
    group.add_argument(
        "--fallback-to-blocks",
        action="store_true",
        help="store the blocks of a volume without a file system, instead of failing",
    )


def _add_level_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "levels", "When to begin again with a full backup, as freezer-agent does."
    )
    group.add_argument(
        "--max-level",
        metavar="<level>",
        type=level,
        help="a full backup follows an incremental one of this level",
    )
    group.add_argument(
        "--always-level",
        metavar="<level>",
        type=level,
        help="levels grow up to this one and stay there",
    )
    group.add_argument(
        "--restart-always-level",
        metavar="<days>",
        type=days,
        help="with --always-level: a full backup after so many days",
    )


def _add_hint_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "change hints",
        "What need not be read, because the volume's storage (Ceph) says what has changed since"
        " the last backup.",
    )
    group.add_argument(
        "--keep-snapshot",
        action="store_true",
        default=None,
        help="leave the snapshot of this backup on the volume until the next one, for its change"
        " hints; it takes room and quota, and Cinder deletes no volume that has one",
    )
    group.add_argument(
        "--no-hints",
        action="store_true",
        help="read everything, even what is known to be empty",
    )
    group.add_argument(
        "--audit",
        metavar="<share>",
        type=transfer.share,
        help="read this share of what need not be read all the same, to prove it; at least 64"
        " blocks (default: of the configuration, 1%%)",
    )
    group.add_argument(
        "--full-read-every",
        metavar="<number>",
        type=level,
        help="read everything each so many backups; 0 for never (default: of the configuration,"
        " 30)",
    )


def level(text: str) -> int:
    """A backup level for argparse: a whole number, 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a level; give 0, 1, 2 and so on")
    return int(text)


def days(text: str) -> float:
    """A number of days for argparse: more than 0, fractions allowed."""
    try:
        count = float(text)
    except ValueError:
        count = 0.0
    if not 0 < count < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days above 0")
    return count
