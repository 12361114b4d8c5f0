# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import time

import pytest

from freezer_osbrick.commands import dates


@pytest.mark.parametrize(
    "text, epoch",
    [
        ("2026-11-20T21:30:00Z", 1795210200),
        ("2026-11-20T21:30:00z", 1795210200),
        ("2026-11-20T21:30:00", 1795210200),
        ("2026-11-20 21:30:00", 1795210200),
        ("2026-11-20T22:30:00+01:00", 1795210200),
        ("2026-11-20T21:30:00.750000Z", 1795210200),
        ("2026-11-20", 1795132800),
        (" 2026-11-20T21:30 ", 1795210200),
        ("1970-01-01T00:00:00Z", 0),
    ],
)
def test_iso_dates(text: str, epoch: int) -> None:
    assert dates.parse_date(text) == epoch


def test_a_date_without_a_zone_is_utc_whatever_the_machine_thinks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert dates.parse_date("2026-11-20T21:30:00") == 1795210200
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("text", ["", "Z", "yesterday", "2026-13-01", "20.11.2026", "9" * 30])
def test_no_dates(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a date; write it as 2026-"):
        dates.date_argument(text)


def test_a_date_reads_back() -> None:
    assert dates.format_date(1795210200) == "2026-11-20T21:30:00Z"
    assert dates.parse_date(dates.format_date(1795210200)) == 1795210200
