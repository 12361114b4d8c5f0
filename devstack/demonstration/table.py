# SPDX-License-Identifier: Apache-2.0
"""The table at the end."""

from __future__ import annotations

from collections.abc import Sequence


class Table:
    """Rows of words and numbers under titles; numbers stand to the right."""

    def __init__(self, *titles: str) -> None:
        self.rows: list[Sequence[object]] = []
        self._titles = titles

    def add(self, *cells: object) -> None:
        self.rows.append(cells)

    def __str__(self) -> str:
        text = [[_text(cell) for cell in row] for row in self.rows]
        widths = [max(map(len, column)) for column in zip(self._titles, *text, strict=True)]
        lines = [
            "  ".join(
                title.ljust(width) for title, width in zip(self._titles, widths, strict=True)
            ).rstrip()
        ]
        lines.append("  ".join("-" * width for width in widths))
        for row, cells in zip(self.rows, text, strict=True):
            lines.append(
                "  ".join(
                    words.ljust(width) if isinstance(cell, str) else words.rjust(width)
                    for cell, words, width in zip(row, cells, widths, strict=True)
                ).rstrip()
            )
        return "\n".join(lines)


def _text(cell: object) -> str:
    if isinstance(cell, float):
        return f"{cell:.1f}"
    if isinstance(cell, int):
        return f"{cell:,}"
    return "-" if cell is None else str(cell)
