# SPDX-License-Identifier: Apache-2.0
"""The bars of stored bytes."""

from __future__ import annotations

from typing import Any

from freezer_osbrick.dashboard import chart


def record(number: int, *stored: int | None) -> dict[str, Any]:
    volumes = [{"bytes_stored": amount} for amount in stored]
    return {
        "backup_id": str(number),
        "backup_metadata": {"time_stamp": number, "osbrick": {"volumes": volumes}},
    }


def test_bars_lie_side_by_side_in_order_of_time() -> None:
    bars = chart.bars([record(3, 25), record(1, 60, 40), record(2, None, 0)], "3")
    assert [(bar.time_stamp, bar.stored, bar.is_shown) for bar in bars] == [
        (1, 100, False),
        (2, 0, False),
        (3, 25, True),
    ]
    assert [bar.height for bar in bars] == [chart.HEIGHT, 2, chart.HEIGHT / 4]
    assert all(bar.y + bar.height == chart.HEIGHT for bar in bars)
    for left, right in zip(bars, bars[1:], strict=False):
        assert left.x + left.width < right.x


def test_many_backups_fit() -> None:
    bars = chart.bars([record(number, number) for number in range(200)], "199")
    assert bars[-1].time_stamp == 199
    assert bars[-1].x + bars[-1].width <= chart.WIDTH
    assert min(bar.width for bar in bars) > 5


def test_no_backups_no_bars() -> None:
    assert chart.bars([], "1") == []
    assert chart.bars([record(1)], "1")[0].stored == 0
