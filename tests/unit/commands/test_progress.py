# SPDX-License-Identifier: Apache-2.0
"""What a person at a terminal sees of a run."""

from __future__ import annotations

import dataclasses
import io
import re

from freezer_osbrick.commands import progress


@dataclasses.dataclass(frozen=True)
class Event:
    volume_id: str
    phase: str
    done_bytes: int = 0
    total_bytes: int = 0


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drawn(*events: Event, monkeypatch) -> list[str]:
    """The rows on the terminal after these events, top down."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    with progress.bars(terminal) as show:
        for event in events:
            show(event)
        terminal.seek(0)
        terminal.truncate()
    # Before it ends, all is drawn once more.
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    return [re.sub(r"[━╸╺]+", "#", row).rstrip() for row in re.split(r"[\r\n]+", text) if row]


def test_several_volumes(monkeypatch) -> None:
    waiting = [Event(name * 12, "waiting") for name in "abcd"]
    rows = drawn(
        *waiting,
        Event("a" * 12, "read", 1 << 30, 1 << 30),
        Event("a" * 12, "ended"),
        Event("b" * 12, "snapshot"),
        Event("c" * 12, "read", 1 << 29, 1 << 31),
        Event("c" * 12, "read", 1 << 30, 1 << 31),
        monkeypatch=monkeypatch,
    )
    (told,) = [row for row in rows if "volumes" in row]
    # One is done, and half of another: bytes of different volumes are not added.
    assert told.startswith("1 of 4 volumes, 2 at work #  38%")
    assert "GiB" not in told and "/s" not in told
    assert any(re.match(r"cccccccc read +#  50% 1.0/2.0 GiB", row) for row in rows)
    assert any(re.fullmatch(r"bbbbbbbb snapshot +#", row) for row in rows)
    assert not any(row.startswith("aaaaaaaa") for row in rows)


def test_one_volume_has_no_row_for_all(monkeypatch) -> None:
    rows = drawn(
        Event("v" * 12, "waiting"), Event("v" * 12, "read", 5, 10), monkeypatch=monkeypatch
    )
    assert [row.split()[0] for row in rows] == ["vvvvvvvv"]


def test_a_share_does_not_go_back(monkeypatch) -> None:
    """A restore writes and then reads again; what detaches has no size."""
    rows = drawn(
        Event("a" * 12, "waiting"),
        Event("b" * 12, "waiting"),
        Event("a" * 12, "write", 10, 10),
        Event("a" * 12, "detach"),
        monkeypatch=monkeypatch,
    )
    (told,) = [row for row in rows if "volumes" in row]
    assert told.startswith("0 of 2 volumes, 1 at work #  50%")
