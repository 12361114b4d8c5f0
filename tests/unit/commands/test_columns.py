# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse

import pytest

from freezer_osbrick.commands import columns

COLUMNS = (
    columns.Column("volume_id", "Volume ID"),
    columns.Column("size", "Size", columns.Bytes),
    columns.Column("project_id", "Project ID", everyday=False),
    columns.Column("reason", "Reason", optional=True),
)
ROWS = [{"volume_id": "v1", "size": 3 << 30, "project_id": "p1", "reason": None}]


def asked(formatter: str, *wanted: str) -> argparse.Namespace:
    return argparse.Namespace(formatter=formatter, columns=list(wanted))


@pytest.mark.parametrize(
    "count, text",
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.98 KiB"),
        (4096, "4.00 KiB"),
        (150 * 1024 * 1024, "150.0 MiB"),
        (3 << 30, "3.00 GiB"),
        (5000 << 40, "5000.0 TiB"),
    ],
)
def test_bytes(count: int, text: str) -> None:
    assert columns.format_bytes(count) == text


def test_people_see_titles_units_and_no_empty_reason() -> None:
    names, rows = columns.table(COLUMNS, ROWS, asked("table"))
    assert names == ["Volume ID", "Size"]
    assert [str(cell) for cell in rows[0]] == ["v1", "3.00 GiB"]


def test_a_reason_shows_when_there_is_one() -> None:
    failed = [*ROWS, {"volume_id": "v2", "size": None, "reason": "quota"}]
    names, rows = columns.table(COLUMNS, failed, asked("table"))
    assert names == ["Volume ID", "Size", "Reason"]
    assert [[str(cell) for cell in row] for row in rows] == [
        ["v1", "3.00 GiB", "-"],
        ["v2", "-", "quota"],
    ]


def test_nothing_was_read_is_told_and_not_known_is_not() -> None:
    read = (columns.Column("read", "Read", columns.Bytes, optional=True),)
    assert columns.table(read, [{"read": 0}], asked("table"))[0] == ["Read"]
    assert columns.table(read, [{"read": None}], asked("table"))[0] == []


def test_sentences_are_wrapped_for_people_only() -> None:
    reason = "The quota of snapshots is used up: delete some, or ask for more, and try again."
    told = columns.Sentence(reason)
    assert str(told).replace("\n", " ") == reason
    assert max(map(len, str(told).splitlines())) <= 56
    assert told.machine_readable() == reason
    assert str(columns.Sentence(["One.", "Two."])) == "One.\nTwo."
    assert str(columns.Sentence(None)) == str(columns.Sentence([])) == "-"


def test_programs_get_every_field_raw() -> None:
    names, rows = columns.table(COLUMNS, ROWS, asked("json"))
    assert names == ["volume_id", "size", "project_id", "reason"]
    assert [cell.machine_readable() for cell in rows[0]] == ["v1", 3 << 30, "p1", None]


def test_a_person_may_ask_for_what_is_not_everyday() -> None:
    names, _ = columns.table(COLUMNS, ROWS, asked("table", "project_id"))
    assert "Project ID" in names


def test_columns_are_known_by_field_and_by_title() -> None:
    assert columns.unknown_column(COLUMNS, ["Volume ID", "volume_id", "SIZE"]) is None
    assert columns.unknown_column(COLUMNS, ["size", "colour"]) == "colour"


def test_a_backup_id_is_short_in_a_table_and_whole_elsewhere() -> None:
    backups = (columns.Column("backup_id", "Backup ID", columns.BackupId),)
    record = {"backup_id": "0a1b2c3d4e5f60718293a4b5c6d7e8f9"}
    _, rows = columns.table(backups, [record], asked("table"))
    assert str(rows[0][0]) == "0a1b2c3d4e5f"
    _, values = columns.detail(backups, record, asked("table"))
    assert str(values[0]) == record["backup_id"]
    _, rows = columns.table(backups, [record], asked("json"))
    assert rows[0][0].machine_readable() == record["backup_id"]


def test_detail_shows_what_no_column_knows_and_opens_nested_values() -> None:
    record = {"cloud": {"type": "fast", "tags": [1, 2]}, "size": 4096, "parents": ["a", "b"]}
    names, values = columns.detail(COLUMNS, record, asked("table"))
    assert names == ["size", "cloud", "parents"]
    assert [str(value) for value in values] == ["4.00 KiB", "type=fast\ntags=[1, 2]", "a\nb"]
    assert [value.machine_readable() for value in values][1] == record["cloud"]
