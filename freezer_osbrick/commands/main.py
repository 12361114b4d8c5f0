# SPDX-License-Identifier: Apache-2.0
"""The entry point of ``freezer-osbrick``."""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import sys
import warnings
from typing import Any, TextIO

from cliff import app, commandmanager

USAGE = 2
NAMESPACE = "freezer_osbrick.commands"

_LEVELS = (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)
_OURS = ("freezer_osbrick", "freezer-osbrick")
_TALKATIVE = ("keystoneauth", "cinderclient", "urllib3")


class OsbrickApp(app.App):
    """Back up and restore Cinder volumes by attaching them straight to this host."""

    NAME = "freezer-osbrick"

    def __init__(self, **streams: Any) -> None:
        super().__init__(
            description=self.__doc__,
            version=_version(),
            command_manager=commandmanager.CommandManager(NAMESPACE),
            deferred_help=True,
            **streams,
        )

    def build_option_parser(
        self,
        description: str | None,
        version: str | None,
        argparse_kwargs: dict[str, Any] | None = None,
    ) -> argparse.ArgumentParser:
        parser = super().build_option_parser(
            description, version, {"prog": self.NAME, **(argparse_kwargs or {})}
        )
        parser.add_argument(
            "--config-file",
            metavar="<file>",
            dest="config_files",
            action="append",
            default=[],
            help=(
                "configuration file, may be repeated (default: "
                "/etc/freezer-osbrick/freezer-osbrick.conf and ~/.config/freezer-osbrick.conf)"
            ),
        )
        parser.add_argument(
            "--os-cloud",
            metavar="<cloud>",
            help="entry of clouds.yaml to use (otherwise the variables OS_*)",
        )
        return parser

    def configure_logging(self) -> None:
        """What went wrong goes to stderr, more with each -v; a log file gets all but secrets."""
        level = _LEVELS[min(self.options.verbose_level, len(_LEVELS) - 1)]
        root = logging.getLogger()
        root.setLevel(min(level, logging.INFO))
        console = _Console()
        console.setLevel(level)
        if level == logging.WARNING:
            console.addFilter(_is_ours_or_an_error)
        if level >= logging.WARNING and not sys.warnoptions:
            warnings.simplefilter("ignore")  # what libraries tell their programmers
        console.setFormatter(logging.Formatter(self.CONSOLE_MESSAGE_FORMAT))
        root.addHandler(console)
        # They log bodies at DEBUG, and the connection properties in them hold passwords.
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.INFO)
        if self.options.log_file:
            try:
                file_handler = logging.FileHandler(self.options.log_file)
            except OSError as exc:
                self.parser.error(f"the log file cannot be written: {exc}")
            file_handler.setFormatter(logging.Formatter(self.LOG_FILE_MESSAGE_FORMAT))
            root.addHandler(file_handler)

    def interact(self) -> None:
        """There is no shell of our own: without a command, say what there is."""
        self.parser.print_usage(self.stderr)
        self.LOG.error("Give a command; 'freezer-osbrick --help' lists them.")


def _is_ours_or_an_error(record: logging.LogRecord) -> bool:
    """Libraries warn of much that is as it should be, such as a host without iSCSI."""
    return record.levelno >= logging.ERROR or record.name.startswith(_OURS)


class _Console(logging.StreamHandler):
    """Writes to what stderr is now, so that lines go above progress bars and not through them."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stderr


def _version() -> str:
    return importlib.metadata.version("freezer-osbrick")


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    application = OsbrickApp()
    status = application.run(sys.argv[1:] if argv is None else argv)
    return USAGE if application.interactive_mode else status


if __name__ == "__main__":
    sys.exit(main())
