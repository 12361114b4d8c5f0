# SPDX-License-Identifier: Apache-2.0
"""What backup and restore share: they move volumes, show progress and report one row a volume."""

from __future__ import annotations

import argparse
import contextlib
from typing import TYPE_CHECKING, Any

from freezer_osbrick import errors
from freezer_osbrick.commands import base, progress
from freezer_osbrick.commands.columns import (
    BackupId,
    Bytes,
    Column,
    Copies,
    Moment,
    Seconds,
    Sentence,
)

if TYPE_CHECKING:
    from freezer_osbrick.operations.context import Context
    from freezer_osbrick.operations.report import RunReport

FAILED = 1

OUTCOME = (
    Column("volume_id", "Volume ID"),
    Column("volume_name", "Volume name", optional=True),
    Column("project_id", "Project ID", everyday=False),
    Column("volume_type", "Volume type", everyday=False),
    Column("size_gib", "Size GiB", everyday=False),
    Column("state", "State"),
)
BACKUP = Column("backup_id", "Backup ID", BackupId, optional=True)
LEVEL = Column("level", "Level", optional=True)
TIME = Column("time_stamp", "Time stamp", Moment, everyday=False)
SECONDS = Column("seconds", "Seconds", Seconds)
REPOSITORY = Column("repository", "Repository", optional=True)
COPIES = Column("copies", "Copies", Copies, optional=True)
REASON = Column("reason", "Reason", Sentence, optional=True)
NOTES = Column("notes", "Notes", Sentence, optional=True)


def byte_columns(*names: str, everyday: bool = True) -> tuple[Column, ...]:
    """Columns of byte counts, each titled after its field."""
    return tuple(
        Column(name, name.replace("_", " ").capitalize(), Bytes, everyday, optional=True)
        for name in names
    )


def add_run_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """How many at a time, and what is kept of the run."""
    group = parser.add_argument_group("the run")
    group.add_argument(
        "--parallel",
        metavar="<number>",
        type=count,
        help=f"volumes to {verb} at the same time (default: of the configuration, 10)",
    )
    group.add_argument(
        "--report-file",
        metavar="<file>",
        help="keep in this file what becomes of each volume, as JSON, while the run goes on",
    )


def count(text: str) -> int:
    """A number of things for argparse: 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number; give 1, 2, 3 and so on")
    return int(text)


def share(text: str) -> float:
    """A share such as ``5%`` or ``0.05``, for argparse."""
    from freezer_osbrick import quantities

    try:
        return quantities.parse_share(text)
    except errors.BadRequest as error:
        raise argparse.ArgumentTypeError(str(error)) from error


class TransferCommand(base.OsbrickLister):
    """A command that moves volumes and reports one row each."""

    def open_context(self, parsed_args: argparse.Namespace) -> Context:
        context = super().open_context(parsed_args)
        if parsed_args.parallel is not None:
            context.conf.set_override("parallel", parsed_args.parallel, group="osbrick")
        return context

    def progress(
        self, parsed_args: argparse.Namespace
    ) -> contextlib.AbstractContextManager[progress.Listener | None]:
        """Bars where a person watches, nothing elsewhere."""
        return progress.shown(parsed_args, self.app.options.verbose_level, self.app.stderr)

    def report(self, report: RunReport, parsed_args: argparse.Namespace) -> Any:
        """The rows of a finished run; a failed volume makes the whole command fail."""
        if not report.ok:
            self.exit_status = FAILED
        return self.rows([volume.to_dict() for volume in report.volumes], parsed_args)
