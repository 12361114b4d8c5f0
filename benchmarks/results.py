# SPDX-License-Identifier: Apache-2.0
"""What was measured, as a table for people and as JSON for programs."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

import contenders
from measure import Cost

OURS = contenders.Ours.name
SEALED = contenders.OursSealed.name
LIMIT = contenders.Zstd.name

_HEADINGS = (
    "data",
    "phase",
    "program",
    "wall s",
    "CPU s",
    "memory MiB",
    "stored MB",
    "MB/s",
    "wall : ours",
    "CPU : ours",
)


@dataclasses.dataclass
class Row:
    """One program in one phase on one kind of data.

    :param size: bytes of the volume.
    :param stored: bytes that the phase added to the repository, in each run; empty for a restore.
    """

    data: str
    phase: str
    program: str
    size: int
    costs: list[Cost] = dataclasses.field(default_factory=list)
    stored: list[int] = dataclasses.field(default_factory=list)

    @property
    def wall(self) -> float:
        """Seconds, the median of the runs."""
        return statistics.median(cost.wall for cost in self.costs)

    @property
    def cpu(self) -> float:
        """Seconds, the median of the runs."""
        return statistics.median(cost.cpu for cost in self.costs)

    @property
    def memory(self) -> int:
        """Bytes, the most of the runs."""
        return max(cost.memory for cost in self.costs)

    @property
    def added(self) -> float | None:
        """Bytes, the median of the runs."""
        return statistics.median(self.stored) if self.stored else None

    def to_dict(self, ours: Row | None) -> dict[str, Any]:
        return {
            "data": self.data,
            "phase": self.phase,
            "program": self.program,
            "runs": len(self.costs),
            "wall_seconds": round(self.wall, 3),
            "wall_seconds_each": [round(cost.wall, 3) for cost in self.costs],
            "cpu_seconds": round(self.cpu, 3),
            "peak_memory_bytes": self.memory,
            "stored_bytes": self.added,
            "megabytes_per_second": round(self.size / self.wall / 1e6, 1),
            "wall_ratio_to_ours": round(self.wall / ours.wall, 3) if ours else None,
            "cpu_ratio_to_ours": round(self.cpu / ours.cpu, 3) if ours else None,
        }


class Results:
    """All rows, in the order in which they were first measured."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str, str], Row] = {}

    def add(
        self, data: str, phase: str, program: str, size: int, cost: Cost, stored: int | None
    ) -> None:
        row = self._rows.setdefault((data, phase, program), Row(data, phase, program, size))
        row.costs.append(cost)
        if stored is not None:
            row.stored.append(stored)

    def to_list(self) -> list[dict[str, Any]]:
        return [row.to_dict(self._ours(row)) for row in self._rows.values()]

    def table(self) -> str:
        """All rows; the last columns say how many times our time a program takes."""
        lines: list[Sequence[str]] = [_HEADINGS]
        for row in self._rows.values():
            ours = self._ours(row)
            added = row.added
            lines.append(
                (
                    row.data,
                    row.phase,
                    row.program,
                    f"{row.wall:.2f}",
                    f"{row.cpu:.2f}",
                    f"{row.memory / (1 << 20):.0f}",
                    "-" if added is None else f"{added / 1e6:.1f}",
                    f"{row.size / row.wall / 1e6:.0f}",
                    f"{row.wall / ours.wall:.2f}" if ours else "-",
                    f"{row.cpu / ours.cpu:.2f}" if ours else "-",
                )
            )
        return _aligned(lines, left=3)

    def summary(self) -> list[str]:
        """For each kind of data and phase: how we stand against the best of the peers."""
        told = []
        for (data, phase), rows in self._phases():
            peers = [row for row in rows if row.program not in (OURS, SEALED, LIMIT)]
            ours = next((row for row in rows if row.program == OURS), None)
            if not ours or not peers:
                continue
            best = min(peers, key=lambda row: row.wall)
            thrifty = min(peers, key=lambda row: row.cpu)
            line = (
                f"{data}, {phase}: {best.wall / ours.wall:.2f} x as fast as {best.program},"
                f" {thrifty.cpu / ours.cpu:.2f} x less CPU than {thrifty.program}"
            )
            if ours.added and phase == "change":
                least = min(peers, key=lambda row: row.added or 0)
                line += (
                    f"; stores {ours.added / (least.added or 1):.2f} of what {least.program} does"
                )
            sealed = next((row for row in rows if row.program == SEALED), None)
            if sealed:
                line += f"; sealing takes {sealed.wall / ours.wall - 1:+.0%}"
                line += f" wall, {sealed.cpu / ours.cpu - 1:+.0%} CPU"
            told.append(line)
        return told

    def _ours(self, row: Row) -> Row | None:
        return self._rows.get((row.data, row.phase, OURS))

    def _phases(self) -> Iterable[tuple[tuple[str, str], list[Row]]]:
        grouped: dict[tuple[str, str], list[Row]] = {}
        for row in self._rows.values():
            grouped.setdefault((row.data, row.phase), []).append(row)
        return grouped.items()


def _aligned(lines: Sequence[Sequence[str]], left: int) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
