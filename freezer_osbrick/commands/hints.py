# SPDX-License-Identifier: Apache-2.0
"""``freezer-osbrick hints trust``."""

from __future__ import annotations

import argparse
from typing import Any

from freezer_osbrick import errors
from freezer_osbrick.commands import base
from freezer_osbrick.commands.columns import BackupId, Column


class TrustHints(base.OsbrickLister):
    """Let the change hints of volumes count again after a backup has found them wrong.

    Find out first what made the storage lie: until then every backup reads the whole volume, which
    is slow and right.
    """

    columns = (
        Column("volume_id", "Volume ID"),
        Column("found_wrong_by", "Found wrong by", BackupId),
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        base.add_volume_arguments(parser, "trust the hints of")
        return parser

    def check(self, parsed_args: argparse.Namespace) -> None:
        super().check(parsed_args)
        if not base.volume_ids(parsed_args):
            raise errors.BadRequest("Name a volume.")

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        from freezer_osbrick.operations.trust import trust

        context = self.open_context(parsed_args)
        trusted = trust(context, base.volume_ids(parsed_args))
        return self.rows([one.to_dict() for one in trusted], parsed_args)
