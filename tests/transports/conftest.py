# SPDX-License-Identifier: Apache-2.0
"""One storage guest for all tests of a run, and the table of what they measured."""

from __future__ import annotations

import pathlib
import sys
import time
from collections.abc import Iterator

import pytest

from tests.transports import guest as storage_guest
from tests.transports.guest import Guest
from tests.transports.machine import Machine

_rows: list[dict[str, str]] = []


@pytest.fixture(scope="session")
def table() -> list[dict[str, str]]:
    """Rows for the table that stands at the end of the run."""
    return _rows


@pytest.fixture(scope="session")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """The guest, with storage, a cloud and our package. Built and booted here."""
    share = tmp_path_factory.mktemp("share")
    storage_guest.share(share)
    began = time.monotonic()
    with Machine(pathlib.Path(share)) as machine:
        guest = Guest(machine)
        booted = time.monotonic()
        parts = machine.call("storage.prepare")
        version = machine.call("users.install")
        said = ", ".join(f"{name} {seconds:.0f}" for name, seconds in parts.items())
        print(
            f"storage guest: booted in {booted - began:.0f} s; {said} s; version {version}",
            file=sys.stderr,
        )
        yield guest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--kills",
        type=int,
        default=3,
        help="backups that are killed at random moments (default: %(default)s)",
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _rows:
        return
    columns = list(_rows[0])
    lines = [columns, *([row[column] for column in columns] for row in _rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    terminalreporter.section("transports")
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        terminalreporter.write_line("  ".join(cells).rstrip())
