# SPDX-License-Identifier: Apache-2.0
"""``freezer-osbrick restore``."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from freezer_osbrick import errors
from freezer_osbrick.commands import base, choosing, dates, transfer
from freezer_osbrick.commands.columns import Column
from freezer_osbrick.operations import consent


class Restore(transfer.TransferCommand):
    """Restore volumes, every block checked.

    A volume that still exists is left as it is: a new volume is made of a snapshot of it and only
    the blocks that differ are written into that one. A volume that is gone is created anew with the
    type, size, name and properties it had. The id of each restored volume is printed.
    """

    columns = (
        *transfer.OUTCOME,
        Column("restored_volume_id", "Restored volume ID", optional=True),
        Column("target", "Target", optional=True),
        Column("verified", "Verified", everyday=False, optional=True),
        Column("removed_volume_id", "Removed volume ID", optional=True),
        *transfer.byte_columns("bytes_written"),
        *transfer.byte_columns("bytes_read", "bytes_zero", "bytes_reused", everyday=False),
        transfer.SECONDS,
        transfer.BACKUP,
        transfer.TIME,
        transfer.REPOSITORY,
        transfer.REASON,
        transfer.NOTES,
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        choosing.add_arguments(parser, "restore")
        base.add_repository_argument(
            parser, several="; may be repeated: what one lacks is taken from the next"
        )
        choice = parser.add_argument_group("which backup", "The newest one where nothing is said.")
        choice.add_argument(
            "--backup",
            metavar="<backup-id>",
            help="restore this backup; the first characters do where they name only one",
        )
        choice.add_argument(
            "--restore-from-date",
            metavar="<date>",
            type=dates.date_argument,
            help="the newest backup made at this date or before, ISO 8601, UTC without a zone",
        )
        choice.add_argument(
            "--backup-name", metavar="<name>", help="only backups that carry this name"
        )
        choice.add_argument("--hostname", metavar="<host>", help="only backups made on this host")
        target = parser.add_argument_group("the restored volume")
        target.add_argument(
            "--volume-type", metavar="<type>", help="volume type, instead of the one recorded"
        )
        target.add_argument(
            "--availability-zone", metavar="<zone>", help="zone, instead of the one recorded"
        )
        target.add_argument(
            "--to-folder",
            metavar="<folder>",
            help="restore the files of a file backup into an empty folder of this host; of several "
            "volumes into folders in it that have the ids of the volumes",
        )
        target.add_argument("--new-name", metavar="<name>", help="name of the restored volume")
        target.add_argument(
            "--size",
            metavar="<GiB>",
            type=gib,
            help="size of the restored volume, not less than the one recorded",
        )
        target.add_argument(
            "--in-place",
            action="store_true",
            help="write to the existing volume itself, which nothing may be attached to",
        )
        target.add_argument(
            "--meta-override",
            action="store_true",
            help="a volume that exists gets name, description, properties, image metadata and"
            " bootable flag of the backup, and so does its restored clone",
        )
        target.add_argument(
            "--verify",
            action="store_true",
            help="read the restored volume back and compare it with the backup",
        )
        target.add_argument(
            "--recreate-vol-on-error",
            action="store_true",
            help="a restore that fails on its volume is tried again with a new volume, and the"
            " broken one is removed",
        )
        target.add_argument(
            "--remove-old-vol",
            action="store_true",
            help="DANGEROUS: delete the existing volume when the restored one was read back and"
            " proved; never one that is attached to a server",
        )
        target.add_argument(
            "--yes", action="store_true", help="do not ask before old volumes are removed"
        )
        transfer.add_run_arguments(parser, "restore")
        return parser

    def check(self, parsed_args: argparse.Namespace) -> None:
        super().check(parsed_args)
        base.check_repository(parsed_args)
        selection = choosing.chosen(parsed_args)
        if parsed_args.backup:
            if selection:
                raise errors.BadRequest("Name volumes or one --backup, not both.")
            if parsed_args.restore_from_date is not None:
                raise errors.BadRequest("Give --backup or --restore-from-date, not both.")
        else:
            selection.check()

        if parsed_args.remove_old_vol:
            consent.to_remove_old_volumes(given=parsed_args.yes)

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        from freezer_osbrick.operations.restore import RestoreRequest, restore

        selection = choosing.chosen(parsed_args)
        request = RestoreRequest(
            volume_ids=selection.volume_ids,
            selection=dataclasses.replace(selection, volume_ids=()),
            backup_id=parsed_args.backup,
            backup_name=parsed_args.backup_name,
            hostname=parsed_args.hostname,
            before=parsed_args.restore_from_date,
            volume_type=parsed_args.volume_type,
            availability_zone=parsed_args.availability_zone,
            new_name=parsed_args.new_name,
            size_gib=parsed_args.size,
            meta_override=parsed_args.meta_override,
            in_place=parsed_args.in_place,
            verify=parsed_args.verify,
            recreate_vol_on_error=parsed_args.recreate_vol_on_error,
            remove_old_vol=parsed_args.remove_old_vol,
            to_folder=parsed_args.to_folder,
            report_file=parsed_args.report_file,
        )
        context = self.open_context(parsed_args)
        urls = base.repository_urls(context, parsed_args)
        with self.progress(parsed_args) as show:
            report = restore(context, urls, request, progress=show)
        return self.report(report, parsed_args)


def gib(text: str) -> int:
    """A size for argparse: a whole number of GiB, 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; give whole GiB: 1, 2 and so on")
    return int(text)
