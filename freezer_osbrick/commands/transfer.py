# SPDX-License-Identifier: Apache-2.0
"""What backup and restore share: they move volumes, show progress and report one row a volume."""

from __future__ import annotations

import argparse
import contextlib
from typing import TYPE_CHECKING, Any

from freezer_osbrick.commands import base, progress
from freezer_osbrick.commands.columns import BackupId, Bytes, Column, Moment, Seconds, Sentence

if TYPE_CHECKING:
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
REASON = Column("reason", "Reason", Sentence, optional=True)
NOTES = Column("notes", "Notes", Sentence, optional=True)


def byte_columns(*names: str, everyday: bool = True) -> tuple[Column, ...]:
    """Columns of byte counts, each titled after its field."""
    return tuple(
        Column(name, name.replace("_", " ").capitalize(), Bytes, everyday, optional=True)
        for name in names
    )


class TransferCommand(base.OsbrickLister):
    """A command that moves volumes and reports one row each."""

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
