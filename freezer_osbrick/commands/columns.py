# SPDX-License-Identifier: Apache-2.0
"""How results become columns: readable for people, raw for programs.

Programs (json, yaml, csv, value) get every field under its own name with its raw value. People get
the fields that matter every day under a title, with units; ``-c`` brings the others.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cliff import columns as cliff_columns

from freezer_osbrick.commands import dates

_PEOPLE = ("table",)
_NOTHING: tuple[Any, ...] = (None, "", [])
_SENTENCE_WIDTH = 56
_ID_LENGTH = 12  # characters of a backup's id in a table


class Text(cliff_columns.FormattableColumn):
    """A value that reads the same for all; nothing at all is a dash for people."""

    def human_readable(self) -> str:
        return "-" if self._value in (None, "") else str(self._value)


class BackupId(Text):
    """Of a backup: its first characters are enough to name it."""

    def human_readable(self) -> str:
        return "-" if self._value is None else self._value[:_ID_LENGTH]


class Bytes(Text):
    """A number of bytes."""

    def human_readable(self) -> str:
        return "-" if self._value is None else format_bytes(self._value)


class Seconds(Text):
    """A span of time in seconds."""

    def human_readable(self) -> str:
        return "-" if self._value is None else f"{self._value:.1f} s"


class Moment(Text):
    """An instant in seconds since the epoch."""

    def human_readable(self) -> str:
        return "-" if self._value is None else dates.format_date(self._value)


class Sentence(Text):
    """A sentence, or several in a list: wrapped, so that ids keep their lines."""

    def human_readable(self) -> str:
        told = [self._value] if isinstance(self._value, str) else self._value or ()
        return "\n".join(textwrap.fill(sentence, _SENTENCE_WIDTH) for sentence in told) or "-"


class Nested(Text):
    """A mapping or a list: one entry a line for people."""

    def human_readable(self) -> str:
        if isinstance(self._value, Mapping):
            return "\n".join(f"{key}={_inline(item)}" for key, item in self._value.items()) or "-"
        return "\n".join(_inline(item) for item in self._value or ()) or "-"


class Copies(Text):
    """A backup in several repositories: one a line."""

    def human_readable(self) -> str:
        return "\n".join(f"{copy['repository']}: {copy['state']}" for copy in self._value or ())


@dataclasses.dataclass(frozen=True)
class Column:
    """One field of a record and how people see it.

    :param everyday: in the table without being asked for.
    :param optional: left out of the table where no record has a value.
    """

    field: str
    title: str
    kind: type[Text] = Text
    everyday: bool = True
    optional: bool = False


def for_people(parsed_args: argparse.Namespace) -> bool:
    """Is the output a table for a person?"""
    return parsed_args.formatter in _PEOPLE


def table(
    columns: Sequence[Column], records: Iterable[Mapping[str, Any]], parsed_args: argparse.Namespace
) -> tuple[list[str], list[list[Text]]]:
    """Titles and rows as cliff's ``Lister`` takes them."""
    rows = list(records)
    chosen = list(columns)
    people = for_people(parsed_args)
    if people and not parsed_args.columns:
        chosen = [column for column in columns if _in_table(column, rows)]
    names = [column.title if people else column.field for column in chosen]
    return names, [[column.kind(row.get(column.field)) for column in chosen] for row in rows]


def detail(
    columns: Sequence[Column], record: Mapping[str, Any], parsed_args: argparse.Namespace
) -> tuple[list[str], list[Text]]:
    """Names and values as cliff's ``ShowOne`` takes them: known fields first, then all others."""
    kinds = {column.field: column.kind for column in columns}
    fields = [field for field in kinds if field in record]
    fields += [field for field in record if field not in kinds]
    return fields, [_whole(kinds.get(field), record[field]) for field in fields]


def unknown_column(columns: Sequence[Column], wanted: Iterable[str]) -> str | None:
    """The first name given with ``-c`` that is none of the columns."""
    known = {_plain(name) for column in columns for name in (column.field, column.title)}
    return next((name for name in wanted if _plain(name) not in known), None)


def format_bytes(count: float) -> str:
    """A number of bytes in binary units, three digits that matter."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < 1000 or unit == "TiB":
            break
        count /= 1024
    if unit == "B":
        return f"{count:.0f} B"
    return f"{count:.2f} {unit}" if abs(count) < 10 else f"{count:.1f} {unit}"


def _in_table(column: Column, rows: Sequence[Mapping[str, Any]]) -> bool:
    if not column.everyday:
        return False
    return not column.optional or any(row.get(column.field) not in _NOTHING for row in rows)


def _whole(kind: type[Text] | None, value: Any) -> Text:
    if kind is None:
        kind = Nested if isinstance(value, (Mapping, list, tuple)) else Text
    elif kind is BackupId:
        kind = Text
    return kind(value)


def _inline(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _plain(name: str) -> str:
    return name.lower().strip().replace(" ", "_")
