# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from freezer_osbrick.operations.cleanup_report import CleanupItem, CleanupReport


def report(*states: str) -> CleanupReport:
    return CleanupReport(
        [
            CleanupItem(state, "volume", f"id-{state}", "r1", "node1", f"why {state}")
            for state in states
        ]
    )


def test_all_removed(run, operations) -> None:
    operations.answers["cleanup"] = report("removed", "kept")
    outcome = run("cleanup", "-f", "json")
    assert outcome.status == 0
    assert outcome.json == [
        {
            "state": state,
            "kind": "volume",
            "id": f"id-{state}",
            "run": "r1",
            "host": "node1",
            "reason": f"why {state}",
        }
        for state in ("removed", "kept")
    ]
    asked = operations.asked("cleanup")
    assert asked.args == ("host", "ledger")
    assert asked.options == {"dry_run": False, "host_gone": None, "kept_snapshots": False}


def test_something_stayed(run, operations) -> None:
    operations.answers["cleanup"] = report("removed", "failed")
    outcome = run("cleanup")
    assert outcome.status == 1
    assert "why failed" in outcome.out


def test_options(run, operations) -> None:
    operations.answers["cleanup"] = report()
    assert run("cleanup", "--dry-run", "--host", "node7").status == 0
    assert operations.asked("cleanup").options == {
        "dry_run": True,
        "host_gone": "node7",
        "kept_snapshots": False,
    }
    operations.calls.clear()
    assert run("cleanup", "--kept-snapshots").status == 0
    assert operations.asked("cleanup").options["kept_snapshots"] is True


def test_nothing_was_left(run, operations) -> None:
    operations.answers["cleanup"] = report()
    outcome = run("cleanup")
    assert (outcome.status, outcome.error_lines) == (0, ["Nothing is left behind."])
    outcome = run("cleanup", "-f", "json")
    assert (outcome.json, outcome.err) == ([], "")
