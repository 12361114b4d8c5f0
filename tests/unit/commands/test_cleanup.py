# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from .conftest import Record


def report(*states: str) -> Record:
    items = [
        Record(state=state, kind="volume", id=f"id-{state}", run="r1", reason=f"why {state}")
        for state in states
    ]
    return Record(
        items=items,
        removed=[item for item in items if item.state == "removed"],
        kept=[item for item in items if item.state == "kept"],
        failed=[item for item in items if item.state == "failed"],
    )


def test_all_removed(run, operations) -> None:
    operations.answers["cleanup"] = report("removed", "kept")
    outcome = run("cleanup", "-f", "json")
    assert outcome.status == 0
    assert [row["state"] for row in outcome.json] == ["removed", "kept"]
    asked = operations.asked("cleanup")
    assert (asked.dry_run, asked.host_gone) == (False, None)


def test_something_stayed(run, operations) -> None:
    operations.answers["cleanup"] = report("removed", "failed")
    outcome = run("cleanup")
    assert outcome.status == 1
    assert "why failed" in outcome.out


def test_options(run, operations) -> None:
    operations.answers["cleanup"] = report()
    assert run("cleanup", "--dry-run", "--host", "node7").status == 0
    asked = operations.asked("cleanup")
    assert (asked.dry_run, asked.host_gone) == (True, "node7")
