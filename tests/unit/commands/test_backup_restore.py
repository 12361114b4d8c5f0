# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import socket
import sys

import pytest

from freezer_osbrick import errors
from freezer_osbrick.operations.report import CopyReport
from freezer_osbrick.pipeline.progress import ProgressEvent
from tests.unit.commands.conftest import OTHER_VOLUME, VOLUME, Terminal, run_report, volume_report

RESTORES_ONLY = {
    *("bytes_written", "restored_volume_id", "target", "verified", "removed_volume_id"),
}


def test_backup_asks_for_what_was_named(run, operations) -> None:
    operations.answers["backup"] = run_report(volume_report())
    outcome = run("backup", VOLUME, "--repository", "file:///srv/backups", "-f", "json")
    assert outcome.status == 0
    urls, request = operations.asked("backup").args
    assert urls == ("file:///srv/backups",)
    assert request.volume_ids == (VOLUME,)
    assert request.hostname == socket.gethostname()
    assert (request.incremental, request.max_level, request.always_level) == (False, None, None)
    assert (request.content, request.exclude, request.fallback_to_blocks) == ("blocks", (), False)
    assert request.cold is False


def test_backup_takes_every_option(run, operations) -> None:
    operations.answers["backup"] = run_report(volume_report())
    line = (
        f"backup {VOLUME} --single-volume-id {OTHER_VOLUME} --single-volume-id {VOLUME}"
        " --content files --exclude *.log --exclude /tmp/ --fallback-to-blocks"
        " --incremental --cold --backup-name nightly --hostname node1 --max-level 6"
        " --always-level 3 --restart-always-level 7.5 --repository /srv/backups"
    )
    assert run(*line.split()).status == 0
    urls, request = operations.asked("backup").args
    assert urls == ("/srv/backups",)
    assert request.volume_ids == (VOLUME, OTHER_VOLUME)
    assert (request.backup_name, request.hostname) == ("nightly", "node1")
    assert request.incremental is True
    assert (request.content, request.exclude) == ("files", ("*.log", "/tmp/"))
    assert request.fallback_to_blocks is True
    assert request.cold is True
    levels = (request.max_level, request.always_level, request.restart_always_level)
    assert levels == (6, 3, 7.5)


def test_backup_takes_change_hints_as_asked(run, operations) -> None:
    operations.answers["backup"] = run_report(volume_report())
    assert run("backup", VOLUME, "--repository", "/b").status == 0
    hints = operations.asked("backup").args[1].hints
    assert (hints.use, hints.keep, hints.audit, hints.full_read_every) == (True, None, None, None)
    operations.calls.clear()
    line = "--keep-snapshot --no-hints --audit 5% --full-read-every 7"
    assert run("backup", VOLUME, "--repository", "/b", *line.split()).status == 0
    hints = operations.asked("backup").args[1].hints
    assert (hints.use, hints.keep, hints.audit, hints.full_read_every) == (False, True, 0.05, 7)
    outcome = run("backup", VOLUME, "--repository", "/b", "--audit", "0")
    assert outcome.status == 2


def test_backup_takes_every_choice(run, operations) -> None:
    operations.answers["backup"] = run_report(volume_report())
    line = (
        "backup --all-tenant-volumes --project-id p2 --only-name db-* --only-metadata tier=gold"
        " --only-metadata a=b --only-type fast --only-zone nova --only-size 10- --parallel 3"
        " --report-file /r --repository /b"
    )
    assert run(*line.split()).status == 0
    _, request = operations.asked("backup").args
    chosen = request.chosen
    assert (chosen.volume_ids, chosen.all_tenant_volumes, chosen.project_id) == ((), True, "p2")
    filters = chosen.filters
    assert (filters.name, dict(filters.metadata)) == ("db-*", {"tier": "gold", "a": "b"})
    assert (filters.volume_type, filters.availability_zone) == ("fast", "nova")
    assert (filters.min_size, filters.max_size) == (10, None)
    assert request.report_file == "/r"
    assert operations.conf.osbrick.parallel == 3


@pytest.mark.parametrize("verb", ["backup", "restore"])
def test_groups_and_lists_between_commas(run, operations, verb) -> None:
    operations.answers[verb] = run_report(volume_report())
    assert run(verb, "--consistency-groups", "g1, g2", "--repository", "/b").status == 0
    assert run(verb, f"{VOLUME},{OTHER_VOLUME}", VOLUME, "--repository", "/b").status == 0
    groups, ids = (call.args[1].chosen for _, call in operations.calls)
    assert groups.consistency_groups == ("g1", "g2")
    assert ids.volume_ids == (VOLUME, OTHER_VOLUME)


@pytest.mark.parametrize("verb", ["backup", "restore"])
def test_the_failed_ones_are_tried_again(run, operations, verb, tmp_path) -> None:
    operations.answers[verb] = run_report(
        volume_report(), volume_report(volume_id=OTHER_VOLUME, state="error", reason="Full.")
    )
    printed = run(verb, VOLUME, OTHER_VOLUME, "--repository", "/b", "-f", "json")
    (tmp_path / "report").write_text(printed.out)
    run(verb, "--retry-failed", str(tmp_path / "report"), "--repository", "/b")
    assert operations.calls[1][1].args[1].volume_ids == (OTHER_VOLUME,)


def test_an_excluded_volume_is_no_failure(run, operations) -> None:
    excluded = volume_report(volume_id=OTHER_VOLUME, state="excluded", reason="It has 5 GiB.")
    operations.answers["backup"] = run_report(volume_report(), excluded)
    outcome = run("backup", "--all-tenants", "--repository", "/b")
    assert outcome.status == 0
    assert "It has 5 GiB." in outcome.out


def test_programs_get_the_whole_report(run, operations) -> None:
    report = volume_report()
    operations.answers["backup"] = run_report(report)
    rows = run("backup", VOLUME, "--repository", "/b", "-f", "json").json
    expected = {key: value for key, value in report.to_dict().items() if key not in RESTORES_ONLY}
    assert rows == [expected]


def test_people_get_a_table(run, operations) -> None:
    operations.answers["backup"] = run_report(volume_report())
    outcome = run("backup", VOLUME, "--repository", "/b")
    assert "| Volume ID " in outcome.out
    assert "| 2.00 GiB " in outcome.out
    assert "| 4.2 s " in outcome.out
    assert "Reason" not in outcome.out


def test_a_failed_volume_is_a_row_with_its_reason_and_exit_status_1(run, operations) -> None:
    failed = volume_report(volume_id=OTHER_VOLUME, state="error", reason="Quota gigabytes is full.")
    operations.answers["backup"] = run_report(volume_report(), failed)
    outcome = run("backup", VOLUME, OTHER_VOLUME, "--repository", "/b")
    assert outcome.status == 1
    assert VOLUME in outcome.out
    (row,) = [line for line in outcome.out.splitlines() if OTHER_VOLUME in line]
    assert "Quota gigabytes is full." in row


def test_notes_reach_the_table(run, operations) -> None:
    noted = volume_report(notes=["A full backup was made.", "The parent is damaged."])
    operations.answers["backup"] = run_report(noted)
    table = run("backup", VOLUME, "--repository", "/b").out
    assert "A full backup was made." in table
    assert "The parent is damaged." in table


def test_the_repository_may_come_from_the_environment(run, operations, monkeypatch) -> None:
    monkeypatch.setenv("FREEZER_OSBRICK_REPOSITORY", "file:///from/environment")
    operations.answers["backup"] = run_report(volume_report())
    assert run("backup", VOLUME).status == 0
    assert operations.asked("backup").args[0] == ("file:///from/environment",)


def test_the_repository_may_be_named_in_the_configuration(run, operations, tmp_path) -> None:
    conf = tmp_path / "freezer-osbrick.conf"
    conf.write_text("[repository:vault]\nurl = file:///srv/vault\n")
    operations.answers["backup"] = run_report(volume_report())
    line = ["--config-file", str(conf), "backup", VOLUME, "--repository"]
    assert run(*line, "vault").status == 0
    assert operations.asked("backup").args[0] == ("vault",)
    outcome = run(*line, "cellar")
    assert outcome.status == 2
    (said,) = outcome.error_lines
    assert "'cellar'" in said and "vault" in said


@pytest.mark.parametrize(
    "line, said",
    [
        ("backup --repository /b", "No volume is chosen: give --single-volume-id, "),
        (f"backup {VOLUME} --all-tenants --repository /b", "choose different volumes: give one"),
        ("backup --all-tenants --project-id p --repository /b", "does not go with --all-tenants"),
        ("backup --all-tenants --only-size x --repository /b", "'x' is no size"),
        ("backup --all-tenants --only-metadata x --repository /b", "'x' is no property"),
        ("backup --retry-failed /nowhere --repository /b", "/nowhere cannot be read"),
        (f"backup {VOLUME}", "Name a repository with --repository"),
        (f"backup {VOLUME} --repository /b -c colour", "There is no column 'colour'"),
        (
            f"backup {VOLUME} --repository /b --restart-always-level 3",
            "--restart-always-level needs --always-level",
        ),
        ("restore --repository /b", "No volume is chosen: give --single-volume-id, "),
        (f"restore {VOLUME} --backup 0a --repository /b", "volumes or one --backup, not both"),
        (
            "restore --backup 0a --restore-from-date 2026-01-01 --repository /b",
            "--backup or --restore-from-date, not both",
        ),
        (f"restore {VOLUME}", "Name a repository with --repository"),
        (f"restore {VOLUME} --remove-old-vol --repository /b", "--remove-old-vol needs --yes"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(run, operations, line, said) -> None:
    outcome = run(*line.split())
    assert outcome.status == 2
    (told,) = outcome.error_lines
    assert said in told
    assert operations.calls == []


@pytest.mark.parametrize(
    "line, said",
    [
        ("backup v --max-level high", "'high' is not a level"),
        ("backup v --max-level -1", "--max-level"),
        ("backup v --restart-always-level 0", "not a number of days above 0"),
        ("backup v --restart-always-level nan", "not a number of days above 0"),
        ("restore v --restore-from-date tomorrow", "'tomorrow' is not a date"),
        ("restore v --size 0", "'0' is no size"),
        ("restore v --size 2.5", "'2.5' is no size"),
        ("backup v --no-such-option", "--no-such-option"),
    ],
)
def test_bad_values_are_refused_by_the_parser(run, operations, line, said) -> None:
    outcome = run(*line.split())
    assert outcome.status == 2
    assert said in outcome.error_lines[-1]
    assert "Traceback" not in outcome.err
    assert operations.calls == []


def test_restore_asks_for_what_was_named(run, operations) -> None:
    operations.answers["restore"] = run_report(
        volume_report(restored_volume_id=OTHER_VOLUME, target="clone", bytes_written=4096)
    )
    line = (
        f"restore {VOLUME} --repository /b --restore-from-date 2026-11-20T21:30:00Z"
        " --backup-name nightly --hostname node1 --volume-type slow --availability-zone az2"
        " --new-name back --size 30 --meta-override --in-place --verify --recreate-vol-on-error"
        " --remove-old-vol --yes"
    )
    outcome = run(*line.split())
    assert outcome.status == 0
    assert OTHER_VOLUME in outcome.out
    assert "clone" in outcome.out
    _, request = operations.asked("restore").args
    assert request.volume_ids == (VOLUME,)
    assert request.backup_id is None
    assert request.before == 1795210200
    assert (request.backup_name, request.hostname) == ("nightly", "node1")
    assert (request.volume_type, request.availability_zone) == ("slow", "az2")
    assert (request.new_name, request.size_gib) == ("back", 30)
    assert request.meta_override and request.in_place and request.verify
    assert request.recreate_vol_on_error and request.remove_old_vol


def test_several_repositories(run, operations, monkeypatch) -> None:
    monkeypatch.setenv("FREEZER_OSBRICK_REPOSITORY", "file:///not/this")
    copies = [CopyReport("/a"), CopyReport("/b", "error", "It is full.")]
    partial = volume_report(state="partial", reason="b: It is full.", copies=copies)
    partial.repository = "/a"
    operations.answers["backup"] = run_report(partial)
    line = ("backup", VOLUME, "--repository", "/a", "--repository", "/b")
    outcome = run(*line, "-f", "json")
    assert operations.asked("backup").args[0] == ("/a", "/b")
    assert outcome.status == 1
    (row,) = outcome.json
    assert [copy["reason"] for copy in row["copies"]] == [None, "It is full."]
    assert row["repository"] == "/a"
    table = run(*line).out
    assert "/a: success" in table and "/b: error" in table


def test_restore_from_several_repositories(run, operations) -> None:
    told = volume_report(restored_volume_id=OTHER_VOLUME, repository="/b")
    operations.answers["restore"] = run_report(told)
    outcome = run("restore", VOLUME, "--repository", "/a", "--repository", "/b")
    assert operations.asked("restore").args[0] == ("/a", "/b")
    assert " /b " in outcome.out


def test_restore_of_one_backup(run, operations) -> None:
    operations.answers["restore"] = run_report(volume_report(restored_volume_id=OTHER_VOLUME))
    outcome = run("restore", "--backup", "0a1b", "--repository", "/b", "-f", "json")
    assert outcome.status == 0
    assert outcome.json[0]["restored_volume_id"] == OTHER_VOLUME
    _, request = operations.asked("restore").args
    assert (request.volume_ids, request.backup_id) == ((), "0a1b")


@pytest.mark.parametrize(
    "options, terminal, bars",
    [
        ([], True, True),
        ([], False, False),
        (["-q"], True, False),
        (["-f", "json"], True, False),
    ],
)
def test_bars_are_for_a_person_who_watches(
    run, operations, monkeypatch, options, terminal, bars
) -> None:
    if terminal:
        monkeypatch.setattr(sys, "stderr", Terminal())
    operations.answers["backup"] = run_report(volume_report())
    run("backup", VOLUME, "--repository", "/b", *options)
    assert bool(operations.asked("backup").progress) is bars


def test_bars_show_the_phase_and_the_share_done(run, operations, monkeypatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    for phase, done, total in (
        ("snapshot", 0, 0),
        ("read", 0, 4 << 20),
        ("read", 1 << 20, 4 << 20),
    ):
        operations.events.append(ProgressEvent(VOLUME, phase, done, total))
    operations.answers["backup"] = run_report(volume_report())
    outcome = run("backup", VOLUME, "--repository", "/b")
    drawn = terminal.getvalue()
    assert f"{VOLUME[:8]} read" in drawn
    assert "25%" in drawn
    assert "1.0/4.0 MiB" in drawn
    assert "| Volume ID" in outcome.out


def test_an_error_is_one_line_and_its_own_status(run, operations) -> None:
    operations.answers["backup"] = errors.QuotaExceeded("The quota of snapshots\nis used up.")
    outcome = run("backup", VOLUME, "--repository", "/b")
    assert outcome.status == 1
    assert outcome.error_lines == ["The quota of snapshots is used up."]
    assert outcome.out == ""


def test_an_error_with_debug_has_a_traceback(run, operations) -> None:
    operations.answers["backup"] = errors.BadRequest("No such thing.")
    outcome = run("--debug", "backup", VOLUME, "--repository", "/b")
    assert outcome.status == 2
    assert outcome.error_lines[0] == "No such thing."
    assert "Traceback" in outcome.err


def test_a_fault_of_our_own_is_one_line_too(run, operations) -> None:
    operations.answers["backup"] = ZeroDivisionError("division by zero")
    outcome = run("backup", VOLUME, "--repository", "/b")
    assert outcome.status == 70
    (line,) = outcome.error_lines
    assert "ZeroDivisionError: division by zero" in line
    assert "--debug" in line


def test_an_error_that_says_nothing_is_named(run, operations) -> None:
    operations.answers["backup"] = errors.DeviceError()
    outcome = run("backup", VOLUME, "--repository", "/b")
    assert outcome.status == 1
    assert outcome.error_lines == ["DeviceError"]
