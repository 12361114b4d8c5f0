# SPDX-License-Identifier: Apache-2.0
"""Levels, as a user of freezer-agent knows them."""

from __future__ import annotations

import pytest

from freezer_osbrick.operations.levels import Levels
from freezer_osbrick.repository.catalogue import Backup

DAY = 86400


def history(*levels: int, began: int = 0, step: int = DAY) -> list[Backup]:
    return [
        Backup(id=f"{number:032x}", time=began + number * step, size=0, head={"level": level})
        for number, level in enumerate(levels)
    ]


def sequence(levels: Levels, count: int, step: int = DAY) -> list[int]:
    """The levels of so many backups, one after the other."""
    made: list[int] = []
    for number in range(count):
        made.append(levels.next(history(*made, step=step), number * step))
    return made


def test_without_incremental_each_backup_is_a_full_one() -> None:
    assert sequence(Levels(max_level=5, always_level=3), 4) == [0, 0, 0, 0]


def test_incremental_levels_grow_for_ever() -> None:
    assert sequence(Levels(incremental=True), 50) == list(range(50))


@pytest.mark.parametrize(
    ("most", "expected"), [(1, [0, 1, 0, 1, 0, 1, 0]), (3, [0, 1, 2, 3, 0, 1, 2])]
)
def test_after_max_level_follows_a_full_one(most: int, expected: list[int]) -> None:
    assert sequence(Levels(incremental=True, max_level=most), 7) == expected


@pytest.mark.parametrize(("stay", "expected"), [(1, [0, 1, 1, 1]), (2, [0, 1, 2, 2])])
def test_always_level_is_kept(stay: int, expected: list[int]) -> None:
    assert sequence(Levels(incremental=True, always_level=stay), 4) == expected


def test_a_lowered_bound_is_followed_by_a_full_one() -> None:
    for lowered in (Levels(incremental=True, max_level=2), Levels(True, always_level=2)):
        assert lowered.next(history(0, 1, 2, 3, 4), 5 * DAY) == 0


def test_max_level_wins_over_always_level() -> None:
    assert sequence(Levels(incremental=True, max_level=2, always_level=4), 5) == [0, 1, 2, 0, 1]


def test_restart_after_days() -> None:
    levels = Levels(incremental=True, always_level=2, restart_always_level=3)
    # The full one of day 0 is more than three days old on day 4, not before.
    assert sequence(levels, 10) == [0, 1, 2, 2, 0, 1, 2, 2, 0, 1]


def test_restart_goes_by_the_newest_full_one() -> None:
    levels = Levels(incremental=True, always_level=1, restart_always_level=2)
    past = history(0, 1, 1, 0, 1)
    assert levels.next(past, 5 * DAY) == 1
    assert levels.next(past, 5 * DAY + 1) == 0


def test_restart_when_the_full_one_was_removed() -> None:
    """Then the oldest that is left tells how long it has been."""
    levels = Levels(incremental=True, always_level=2, restart_always_level=2)
    assert levels.next(history(1, 2, began=10 * DAY), 12 * DAY) == 2
    assert levels.next(history(1, 2, began=10 * DAY), 12 * DAY + 1) == 0


def test_restart_means_nothing_without_always_level() -> None:
    assert Levels(incremental=True, restart_always_level=1).next(history(0, 1), 99 * DAY) == 2


def test_a_clock_that_was_put_back_does_no_harm() -> None:
    levels = Levels(incremental=True, always_level=2, restart_always_level=1)
    assert levels.next(history(0, began=100 * DAY), 0) == 1
