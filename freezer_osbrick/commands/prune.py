# SPDX-License-Identifier: Apache-2.0
"""``freezer-osbrick prune``: retention."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any

from freezer_osbrick import errors
from freezer_osbrick.commands import base
from freezer_osbrick.commands.columns import BackupId, Bytes, Column, Moment, Sentence

if TYPE_CHECKING:
    from freezer_osbrick.operations.prune import PruneLine, PruneRequest

_COUNTED = {
    "last": "the so many newest backups",
    "hourly": "the newest backup of each of the so many last hours that have one",
    "daily": "the newest backup of each of the so many last days that have one",
    "weekly": "the newest backup of each of the so many last weeks that have one",
    "monthly": "the newest backup of each of the so many last months that have one",
    "yearly": "the newest backup of each of the so many last years that have one",
}

_DURATION = re.compile(r"(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?")
_SECONDS = (7 * 86400, 86400, 3600)


class Prune(base.OsbrickLister):
    """Remove the backups that no rule keeps, and say of each why it is kept or not.

    A backup that any of the rules keeps is kept. They count for each volume apart, in UTC. Never
    removed are the newest backup of a volume, the newest undamaged and the newest verified one;
    backups from the future are kept and count for nothing. 'gc' gives the space back.
    """

    columns = (
        Column("action", "Action"),
        Column("backup_id", "Backup ID", BackupId),
        Column("time_stamp", "Time stamp", Moment),
        Column("volume_id", "Volume ID"),
        Column("volume_name", "Volume name", optional=True),
        Column("reasons", "Reasons", Sentence),
        Column("backup_name", "Backup name", everyday=False),
        Column("hostname", "Hostname", everyday=False),
        Column("project_id", "Project ID", everyday=False),
        Column("state", "State", everyday=False),
        Column("verified", "Verified", Moment, everyday=False),
        Column("level", "Level", everyday=False),
        Column("size", "Size", Bytes, everyday=False),
        Column("bytes_stored", "Bytes stored", Bytes, everyday=False),
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        base.add_repository_argument(parser)
        for rule, told in _COUNTED.items():
            parser.add_argument(
                f"--keep-{rule}", metavar="<n>", type=_count, default=0, help=f"keep {told}"
            )
        parser.add_argument(
            "--keep-within",
            metavar="<duration>",
            type=duration,
            help="keep all backups that are no older than this: 36h, 7d, 2w, or 1w3d12h",
        )
        parser.add_argument(
            "--by-series",
            action="store_true",
            help=(
                "count backups of one volume apart that have another backup name or host name;"
                " what is never removed stays that of the volume"
            ),
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
            "--dry-run",
            action="store_true",
            help="say what would become of each backup, remove nothing",
        )
        parser.add_argument("--yes", action="store_true", help="do not ask")
        return parser

    def check(self, parsed_args: argparse.Namespace) -> None:
        super().check(parsed_args)
        base.check_repository(parsed_args)
        if not _rules(parsed_args):
            raise errors.BadRequest(
                "No retention rule is given: say what is to be kept, such as --keep-daily 7."
            )
        if not (parsed_args.yes or parsed_args.dry_run or self.app.stdin.isatty()):
            raise errors.BadRequest("Nobody is here to be asked: give --yes or --dry-run.")

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        from freezer_osbrick.operations.prune import DELETE, prune

        context = self.open_context(parsed_args)
        url = base.repository_url(context, parsed_args)
        request = _request(parsed_args)
        if parsed_args.yes and not parsed_args.dry_run:
            lines = prune(context, url, request)
            return self._table(lines, parsed_args)
        lines = prune(context, url, request, dry_run=True)
        doomed = sum(line.action == DELETE for line in lines)
        if doomed and not parsed_args.dry_run:
            if not self._confirmed(doomed, len(lines)):
                raise errors.BadRequest("Nothing was removed.")
            lines = prune(context, url, request)
        return self._table(lines, parsed_args)

    def _table(self, lines: list[PruneLine], parsed_args: argparse.Namespace) -> Any:
        return self.rows([line.to_dict() for line in lines], parsed_args)

    def _confirmed(self, doomed: int, count: int) -> bool:
        self.app.stderr.write(
            f"Remove {doomed} of {count} backups (--dry-run shows which and why)? [y/N] "
        )
        self.app.stderr.flush()
        return self.app.stdin.readline().strip().lower() in ("y", "yes")


def duration(text: str) -> int:
    """Seconds of weeks, days and hours such as ``7d``, ``36h`` or ``1w3d12h``, for argparse."""
    match = _DURATION.fullmatch(text.strip())
    seconds = 0
    if match:
        numbers = zip(match.groups(), _SECONDS, strict=True)
        seconds = sum(int(number or 0) * length for number, length in numbers)
    if not seconds:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no duration; write it in weeks, days and hours, such as 2w, 7d or 36h"
        )
    return seconds


def _count(text: str) -> int:
    if not text.strip().isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of backups")
    return int(text)


def _rules(parsed_args: argparse.Namespace) -> dict[str, Any]:
    """The rules that were given."""
    names = [f"keep_{rule}" for rule in (*_COUNTED, "within")]
    return {name: getattr(parsed_args, name) for name in names if getattr(parsed_args, name)}


def _request(parsed_args: argparse.Namespace) -> PruneRequest:
    from freezer_osbrick.operations.prune import PruneRequest

    return PruneRequest(
        **_rules(parsed_args),
        by_series=parsed_args.by_series,
        volume_id=parsed_args.volume_id,
        backup_name=parsed_args.backup_name,
        hostname=parsed_args.hostname,
        project_id=parsed_args.project_id,
    )
