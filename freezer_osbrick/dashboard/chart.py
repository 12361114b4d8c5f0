# SPDX-License-Identifier: Apache-2.0
"""A small chart of the bytes that the backups of a name stored, one bar a backup."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from freezer_osbrick.dashboard import settings

WIDTH, HEIGHT = 640, 120  # of the bars' field
_MOST = 40  # bars
_GAP = 4
_LEAST = 2  # a bar that stands for little is seen, too


@dataclasses.dataclass(frozen=True)
class Bar:
    """One backup: where its bar lies from the upper left corner, and what it stands for."""

    x: float
    y: float
    width: float
    height: float
    stored: int
    time_stamp: int
    is_shown: bool


def stored_by(metadata: Mapping[str, Any]) -> int:
    """The bytes that a run put into the repository."""
    return sum(volume.get("bytes_stored") or 0 for volume in settings.volumes_of(metadata))


def bars(records: Sequence[Mapping[str, Any]], shown: str) -> list[Bar]:
    """The bars of the newest records, oldest first.

    :param records: of freezer-api, of one backup name.
    :param shown: id of the record that the page is about.
    """
    ordered = sorted(records, key=lambda record: record["backup_metadata"]["time_stamp"])[-_MOST:]
    if not ordered:
        return []
    amounts = [stored_by(record["backup_metadata"]) for record in ordered]
    most = max(amounts) or 1
    step = min(WIDTH / len(ordered), 60)
    made = []
    for index, (record, stored) in enumerate(zip(ordered, amounts, strict=True)):
        height = max(HEIGHT * stored / most, _LEAST)
        made.append(
            Bar(
                x=round(index * step, 1),
                y=round(HEIGHT - height, 1),
                width=round(step - _GAP, 1),
                height=round(height, 1),
                stored=stored,
                time_stamp=int(record["backup_metadata"]["time_stamp"]),
                is_shown=record["backup_id"] == shown,
            )
        )
    return made
