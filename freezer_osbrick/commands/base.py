# SPDX-License-Identifier: Apache-2.0
"""What all commands share: arguments, the context of operations, errors and exit statuses."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cliff import command, lister, show

from freezer_osbrick import errors
from freezer_osbrick.commands import columns
from freezer_osbrick.operations import signals

if TYPE_CHECKING:
    from freezer_osbrick.operations.context import Context

LOG = logging.getLogger(__name__)

UNEXPECTED = 70  # EX_SOFTWARE of sysexits.h: a fault in this program
REPOSITORY_VARIABLE = "FREEZER_OSBRICK_REPOSITORY"
KEY_VARIABLE = "FREEZER_OSBRICK_KEY_FILE"


class OsbrickCommand(command.Command):
    """A command whose failures are one sentence and an exit status."""

    exit_status = 0

    def run(self, parsed_args: argparse.Namespace) -> int:
        try:
            with signals.ending_in_order(LOG.warning):
                self.check(parsed_args)
                super().run(parsed_args)
        except BrokenPipeError:
            raise  # whoever read our output has gone: cliff knows what to do
        except signals.Ended as exc:
            return exc.exit_status
        except errors.OsbrickError as exc:
            return self._fail(str(exc), exc, exc.exit_status)
        except Exception as exc:
            told = f"Unexpected {type(exc).__name__}: {exc} (run with --debug for details)"
            return self._fail(told, exc, UNEXPECTED)
        return self.exit_status

    def check(self, parsed_args: argparse.Namespace) -> None:
        """Refuse arguments that make no sense together, before anything is started.

        :raises errors.BadRequest: with a sentence that says what to give instead.
        """

    def open_context(self, parsed_args: argparse.Namespace) -> Context:
        """Everything operations need, from the configuration files and the environment."""
        from freezer_osbrick import opts
        from freezer_osbrick.operations.context import Context

        options = self.app.options
        conf = opts.load(options.config_files)
        if options.os_cloud:
            conf.set_override("os_cloud", options.os_cloud, group="cloud")
        return Context.open(conf, key_file=getattr(parsed_args, "key_file", None))

    def _fail(self, message: str, exc: Exception, status: int) -> int:
        debug = self.app.options.debug
        told = " ".join(message.split()) or type(exc).__name__
        LOG.error("%s", told, exc_info=exc if debug else None)
        return status


class OsbrickLister(OsbrickCommand, lister.Lister):
    """A command that prints one row a record."""

    columns: Sequence[columns.Column] = ()
    nothing = ""  # what a person is told where there is no row

    def check(self, parsed_args: argparse.Namespace) -> None:
        super().check(parsed_args)
        unknown = columns.unknown_column(self.columns, parsed_args.columns)
        if unknown is not None:
            known = ", ".join(column.field for column in self.columns)
            raise errors.BadRequest(f"There is no column {unknown!r}; there are {known}.")

    def rows(self, records: Sequence[dict[str, Any]], parsed_args: argparse.Namespace) -> Any:
        """The records as cliff takes them."""
        if not records and self.nothing and columns.for_people(parsed_args):
            LOG.warning(self.nothing)
        return columns.table(self.columns, records, parsed_args)


class OsbrickShowOne(OsbrickCommand, show.ShowOne):
    """A command that prints the fields of one record."""


def add_repository_argument(parser: argparse.ArgumentParser, several: str = "") -> None:
    """``--repository URL|NAME`` and the key of a sealed one.

    :param several: what it means to give several; without it the last one counts.
    """
    parser.add_argument(
        "--encrypt-pass-file",
        "--key-file",
        metavar="<file>",
        dest="key_file",
        default=os.environ.get(KEY_VARIABLE),
        help=(
            "file with the secret that unlocks a sealed repository, and seals one that is made"
            f" (environment: {KEY_VARIABLE})"
        ),
    )
    parser.add_argument(
        "--repository",
        metavar="<url-or-name>",
        action="append" if several else "store",
        default=None if several else os.environ.get(REPOSITORY_VARIABLE),
        help=(
            "where backups lie: file:///srv/backups, an absolute path, or NAME for a section "
            f"[repository:NAME] of the configuration file (environment: {REPOSITORY_VARIABLE})"
            f"{several}"
        ),
    )


def repository_url(context: Context, parsed_args: argparse.Namespace) -> str:
    """The repository's URL, or the name under which the configuration knows its URL and more.

    :raises errors.ConfigurationError: the configuration knows no such name.
    """
    return _known(context, parsed_args.repository)


def repository_urls(context: Context, parsed_args: argparse.Namespace) -> tuple[str, ...]:
    """Those of a command that takes several.

    :raises errors.ConfigurationError: the configuration knows no such name.
    """
    return tuple(_known(context, given) for given in _given(parsed_args))


def _known(context: Context, given: str) -> str:
    from freezer_osbrick import named_repositories

    if "://" not in given and not given.startswith("/"):
        named_repositories.url_of(context.conf, given)
    return given


def _given(parsed_args: argparse.Namespace) -> list[str]:
    named = parsed_args.repository or os.environ.get(REPOSITORY_VARIABLE) or []
    return [named] if isinstance(named, str) else list(named)


def check_repository(parsed_args: argparse.Namespace) -> None:
    """Refuse a command line that names no repository."""
    if not _given(parsed_args):
        raise errors.BadRequest(
            f"Name a repository with --repository or the variable {REPOSITORY_VARIABLE}."
        )


def add_volume_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Volume ids, as words or with Freezer's ``--single-volume-id``."""
    parser.add_argument(
        "volume_ids", metavar="<volume-id>", nargs="*", help=f"id of a volume to {verb}"
    )
    parser.add_argument(
        "--single-volume-id",
        metavar="<volume-id>",
        action="append",
        default=[],
        help=(
            f"id of a volume to {verb}, or several separated by commas, as freezer-agent names "
            "this option; may be repeated"
        ),
    )


def volume_ids(parsed_args: argparse.Namespace) -> tuple[str, ...]:
    """The volumes named on the command line, each once, in the order given."""
    return words([*parsed_args.volume_ids, *parsed_args.single_volume_id])


def words(given: Sequence[str]) -> tuple[str, ...]:
    """Words that were given one by one or separated by commas, each once, in the order given."""
    parts = (part.strip() for word in given for part in word.split(","))
    return tuple(dict.fromkeys(part for part in parts if part))
