# SPDX-License-Identifier: Apache-2.0
"""``freezer-osbrick key``: who can open a sealed repository."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from freezer_osbrick.commands import base
from freezer_osbrick.commands.columns import Column, Moment

KEYS = (
    Column("id", "Key ID"),
    Column("label", "Label"),
    Column("created", "Created", Moment),
)


class KeyLister(base.OsbrickLister):
    """A command that shows keys."""

    columns = KEYS

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        base.add_repository_argument(parser)
        return parser

    def check(self, parsed_args: argparse.Namespace) -> None:
        super().check(parsed_args)
        base.check_repository(parsed_args)


class AddKey(KeyLister):
    """Let one more secret open the repository. Nothing has to be stored again."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("new_key_file", metavar="<new-key-file>", help="holds the new secret")
        parser.add_argument(
            "--label", metavar="<label>", default="", help="what to call it, for people"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        from freezer_osbrick.operations.keys import add_key

        context = self.open_context(parsed_args)
        url = base.repository_url(context, parsed_args)
        key = add_key(context, url, parsed_args.new_key_file, parsed_args.label)
        return self.rows([dataclasses.asdict(key)], parsed_args)


class ListKeys(KeyLister):
    """List the keys that open the repository."""

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        from freezer_osbrick.operations.keys import list_keys

        context = self.open_context(parsed_args)
        found = list_keys(context, base.repository_url(context, parsed_args))
        return self.rows([dataclasses.asdict(key) for key in found], parsed_args)


class RemoveKey(KeyLister):
    """Let a secret open the repository no more.

    Whoever had it may have kept a copy of what it opens: nothing is sealed anew. The last key is
    never removed.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("key_id", metavar="<key-id>", help="id of the key, or its beginning")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        from freezer_osbrick.operations.keys import remove_key

        context = self.open_context(parsed_args)
        url = base.repository_url(context, parsed_args)
        key = remove_key(context, url, parsed_args.key_id)
        return self.rows([dataclasses.asdict(key)], parsed_args)


class ExportKey(base.OsbrickCommand):
    """Print the master key, to be kept on paper.

    Whoever has it can read everything. Typed into a file it serves as a key file, even when all
    keys in the repository are lost.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        base.add_repository_argument(parser)
        return parser

    def check(self, parsed_args: argparse.Namespace) -> None:
        super().check(parsed_args)
        base.check_repository(parsed_args)

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        from freezer_osbrick.operations.keys import export_key

        context = self.open_context(parsed_args)
        self.app.stdout.write(export_key(context, base.repository_url(context, parsed_args)))
