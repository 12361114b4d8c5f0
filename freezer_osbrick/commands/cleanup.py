# SPDX-License-Identifier: Apache-2.0
"""``freezer-osbrick cleanup``."""

from __future__ import annotations

import argparse
from typing import Any

from freezer_osbrick.commands import base
from freezer_osbrick.commands.columns import Column, Sentence

FAILED = 1


class Cleanup(base.OsbrickLister):
    """Remove what runs that died left behind.

    Snapshots, volumes and attachments in the cloud, and connected devices, mounts and temporary
    files on this host. A volume that was taken from its server for a cold backup is attached to it
    again. Nothing of a run that lives and nothing that others made is touched. The exit status is 1
    where something could not be removed or given back.
    """

    nothing = "Nothing is left behind."
    columns = (
        Column("state", "State"),
        Column("kind", "Kind"),
        Column("id", "ID"),
        Column("host", "Host"),
        Column("run", "Run", everyday=False),
        Column("reason", "Reason", Sentence, optional=True),
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--dry-run", action="store_true", help="list what would be removed, remove nothing"
        )
        parser.add_argument(
            "--host",
            metavar="<host>",
            help="this backup host is gone for good: remove what its runs left in the cloud, too",
        )
        parser.add_argument(
            "--kept-snapshots",
            action="store_true",
            help="remove the snapshots that backups with --keep-snapshot left on their volumes,"
            " too: Cinder deletes no volume that has one",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        from freezer_osbrick.operations.cleanup import cleanup

        context = self.open_context(parsed_args)
        report = cleanup(
            context.cloud,
            context.host,
            context.ledger,
            dry_run=parsed_args.dry_run,
            host_gone=parsed_args.host,
            kept_snapshots=(
                parsed_args.kept_snapshots or context.conf.osbrick.keep_snapshot is False
            ),
        )
        if report.failed:
            self.exit_status = FAILED
        return self.rows([item.to_dict() for item in report.items], parsed_args)
