# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import sys
import time

import pytest

from freezer_osbrick import errors
from freezer_osbrick.operations.catalogue import BackupDetail, BackupSummary
from tests.unit.commands.conftest import VOLUME, Terminal


def backup(**changed) -> BackupSummary:
    fields = {
        "backup_id": "0a1b2c3d",
        "time_stamp": 1795210200,
        "level": 0,
        "volume_id": VOLUME,
        "volume_name": "database",
        "size": 2 << 30,
        "bytes_stored": 5 << 20,
        "backup_name": "nightly",
        "hostname": "node1",
        "project_id": "p1",
    }
    return BackupSummary(**{**fields, **changed})


class Repository:
    """Answers to ``remove_backups`` and knows what is left."""

    def __init__(self, *backups: BackupSummary) -> None:
        self.backups = list(backups)

    def remove(self, _context, _url, *, volume_id, backup_name, hostname, before, dry_run):
        doomed = [item for item in self.backups if item.time_stamp <= before]
        if not dry_run:
            self.backups = [item for item in self.backups if item not in doomed]
        return doomed


def test_list(run, operations) -> None:
    operations.answers["list_backups"] = [backup(), backup(backup_id="ffff", level=1)]
    outcome = run("list", "--repository", "/b")
    assert outcome.status == 0
    assert "2026-11-20T21:30:00Z" in outcome.out
    assert "ffff" in outcome.out
    call = operations.asked("list_backups")
    assert call.args == ("/b",)
    asked = call.options
    assert (asked["volume_id"], asked["backup_name"], asked["hostname"]) == (None, None, None)


def test_list_for_programs_and_with_filters(run, operations) -> None:
    operations.answers["list_backups"] = [backup()]
    line = (
        f"list --repository /b -f json --volume-id {VOLUME} --backup-name nightly"
        " --hostname node1 --project-id p1"
    )
    outcome = run(*line.split())
    assert outcome.json == [backup().to_dict()]
    asked = operations.asked("list_backups").options
    assert (asked["volume_id"], asked["backup_name"]) == (VOLUME, "nightly")
    assert (asked["hostname"], asked["project_id"]) == ("node1", "p1")


def test_one_column_for_a_script(run, operations) -> None:
    operations.answers["list_backups"] = [backup(), backup(backup_id="ffff")]
    outcome = run("list", "--repository", "/b", "-f", "value", "-c", "backup_id")
    assert outcome.out.split() == ["0a1b2c3d", "ffff"]


def test_show(run, operations) -> None:
    head = {"mode": "hot", "volume": {"bootable": True, "metadata": {"k": "v"}}}
    operations.answers["show_backup"] = BackupDetail(backup(), head)
    outcome = run("show", "0a1b", "--repository", "/b")
    assert outcome.status == 0
    assert "bootable=true" in outcome.out
    assert "2.00 GiB" in outcome.out
    assert operations.asked("show_backup").args == ("/b", "0a1b")
    outcome = run("show", "0a1b", "--repository", "/b", "-f", "json")
    assert outcome.json["volume"] == {"bootable": True, "metadata": {"k": "v"}}
    assert outcome.json["time_stamp"] == 1795210200


def test_show_what_is_not_there(run, operations) -> None:
    operations.answers["show_backup"] = errors.BackupMissing("There is no backup '0a'.")
    outcome = run("show", "0a", "--repository", "/b")
    assert (outcome.status, outcome.error_lines) == (1, ["There is no backup '0a'."])


def test_remove_dry_run_removes_nothing(run, operations) -> None:
    repository = Repository(backup())
    operations.answers["remove_backups"] = repository.remove
    line = "remove --repository /b --before 2026-11-20T21:30:00Z --dry-run --backup-name nightly"
    line += f" --volume-id {VOLUME}"
    outcome = run(*line.split(), "-f", "json")
    assert [row["backup_id"] for row in outcome.json] == ["0a1b2c3d"]
    assert len(repository.backups) == 1
    asked = operations.asked("remove_backups").options
    assert (asked["before"], asked["volume_id"]) == (1795210200, VOLUME)
    assert (asked["backup_name"], asked["hostname"]) == ("nightly", None)


def test_remove_without_being_asked(run, operations) -> None:
    repository = Repository(backup(), backup(backup_id="new", time_stamp=1795210201))
    operations.answers["remove_backups"] = repository.remove
    line = "remove --repository /b --before 2026-11-20T21:30:00Z --yes -f json"
    outcome = run(*line.split())
    assert [row["backup_id"] for row in outcome.json] == ["0a1b2c3d"]
    assert [item.backup_id for item in repository.backups] == ["new"]


def test_remove_by_age(run, operations) -> None:
    operations.answers["remove_backups"] = Repository().remove
    now = time.time()
    assert run("remove", "--repository", "/b", "--older-than", "1.5", "--yes").status == 0
    before = operations.asked("remove_backups").options["before"]
    assert now - 1.5 * 86400 - 1 <= before <= time.time() - 1.5 * 86400


def test_remove_without_anybody_to_ask(run, operations, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    outcome = run("remove", "--repository", "/b", "--older-than", "30")
    assert outcome.status == 2
    assert "--yes" in outcome.error_lines[0]
    assert operations.calls == []


@pytest.mark.parametrize("answer, left", [("y\n", 0), ("yes\n", 0), ("n\n", 1), ("", 1)])
def test_remove_asks(run, operations, monkeypatch, answer, left) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    repository = Repository(backup())
    operations.answers["remove_backups"] = repository.remove
    outcome = run("remove", "--repository", "/b", "--before", "2027-01-01")
    assert "Remove 1 backup made at 2027-01-01T00:00:00Z or before? [y/N]" in outcome.err
    assert len(repository.backups) == left
    assert outcome.status == (2 if left else 0)


@pytest.mark.parametrize("line", ["remove", "remove --before 2026-01-01 --older-than 3"])
def test_remove_needs_one_age(run, operations, line) -> None:
    outcome = run(*line.split(), "--repository", "/b", "--yes")
    assert outcome.status == 2
    assert operations.calls == []
