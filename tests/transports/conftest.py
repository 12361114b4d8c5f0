# SPDX-License-Identifier: Apache-2.0
"""One storage guest for all tests of a process, and the table of what they measured."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.transports import frozen, image
from tests.transports.guest import ROW, Guest


@pytest.fixture(scope="session")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """The guest, with storage, a cloud and our package."""
    began = time.monotonic()
    with frozen.thaw(tmp_path_factory.mktemp("delivery")) as machine:
        thawed = time.monotonic()
        version = machine.call("users.install")
        image.say(
            f"thawed in {thawed - began:.0f} s; "
            f"version {version} installed in {time.monotonic() - thawed:.0f} s"
        )
        yield Guest(machine)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--kills",
        type=int,
        default=0,
        help="backups of each transport killed at random moments (default: %(default)s)",
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table of the rows that tests have recorded, in whichever process."""
    rows = [
        value
        for report in terminalreporter.stats.get("passed", ())
        for name, value in report.user_properties
        if name == ROW and report.when == "call"
    ]
    if not rows:
        return
    rows.sort(key=lambda row: (row["as"], row["transport"]))
    columns = list(rows[0])
    lines = [columns, *([row[column] for column in columns] for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    terminalreporter.section("transports")
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        terminalreporter.write_line("  ".join(cells).rstrip())
