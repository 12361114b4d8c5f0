# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from tests.unit.commands.conftest import VOLUME, run_report, volume_report


def test_help_names_every_command(run) -> None:
    outcome = run("--help")
    assert outcome.status == 0
    for command in ("backup", "restore", "list", "show", "remove", "cleanup"):
        assert f"\n  {command} " in outcome.out


@pytest.mark.parametrize("command", ["backup", "restore", "list", "show", "remove", "cleanup"])
def test_help_of_a_command(run, command) -> None:
    outcome = run(command, "--help")
    assert outcome.status == 0
    assert f"usage: freezer-osbrick {command}" in outcome.out


def test_help_loads_neither_clients_nor_os_brick() -> None:
    program = (
        "import sys\n"
        "from freezer_osbrick.commands import main\n"
        "try: main.main(['backup', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'os_brick', 'cinderclient', 'keystoneauth1', 'oslo_config', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("argv", [[], ["--debug"]])
def test_no_command_is_a_usage_error(run, argv) -> None:
    outcome = run(*argv)
    assert outcome.status == 2
    assert "--help" in outcome.err


def test_an_unknown_command(run) -> None:
    outcome = run("backpu")
    assert outcome.status == 2
    assert "backup" in outcome.out + outcome.err


@pytest.mark.parametrize(
    "text, said",
    [
        ("[osbrick]\nworkers = many\n", "workers"),
        ("[cloud]\nlease = 1\n", "lease"),
        ("no section at all\n", "freezer-osbrick.conf"),
    ],
)
def test_a_bad_configuration_is_refused_before_anything_starts(
    run, operations, tmp_path, text, said
) -> None:
    conf = tmp_path / "freezer-osbrick.conf"
    conf.write_text(text)
    outcome = run("--config-file", str(conf), "list", "--repository", "/b")
    assert outcome.status == 2
    (line,) = outcome.error_lines
    assert said in line
    assert operations.calls == []


def test_a_configuration_that_is_not_there(run, tmp_path) -> None:
    outcome = run("--config-file", str(tmp_path / "none"), "list", "--repository", "/b")
    assert outcome.status == 2
    (line,) = outcome.error_lines
    assert str(tmp_path / "none") in line


def test_the_users_own_file_is_read(run, operations, tmp_path) -> None:
    folder = tmp_path / ".config"
    folder.mkdir()
    (folder / "freezer-osbrick.conf").write_text("[osbrick]\nworkers = 7\n")
    operations.answers["list_backups"] = []
    assert run("list", "--repository", "/b").status == 0
    assert operations.conf.osbrick.workers == 7


def test_os_cloud_wins_over_the_file(run, operations, tmp_path) -> None:
    conf = tmp_path / "freezer-osbrick.conf"
    conf.write_text("[cloud]\nos_cloud = from-file\n")
    operations.answers["list_backups"] = []
    line = ["--config-file", str(conf), "list", "--repository", "/b"]
    run(*line)
    assert operations.conf.cloud.os_cloud == "from-file"
    run("--os-cloud", "from-line", *line)
    assert operations.conf.cloud.os_cloud == "from-line"


def test_a_log_file_that_cannot_be_written(run, tmp_path) -> None:
    outcome = run("--log-file", str(tmp_path / "no" / "log"), "list", "--repository", "/b")
    assert outcome.status == 2
    assert "the log file cannot be written" in outcome.err


def test_a_log_file_holds_no_bodies_of_requests(run, operations, tmp_path) -> None:
    def talk(*_args, **_kwargs):
        logging.getLogger("keystoneauth.session").debug("auth_password: secret")
        logging.getLogger("freezer_osbrick.cloud").debug("waiting for the snapshot")
        return []

    operations.answers["list_backups"] = talk
    log = tmp_path / "log"
    run("-vv", "--log-file", str(log), "list", "--repository", "/b")
    written = log.read_text()
    assert "waiting for the snapshot" in written
    assert "secret" not in written


def test_what_libraries_tell_their_programmers_is_for_the_curious(run, operations) -> None:
    def warn(*_args, **_kwargs):
        logging.getLogger("os_brick.initiator").warning("Could not find the iSCSI file.")
        logging.getLogger("os_brick.initiator").error("The device is lost.")
        return []

    operations.answers["list_backups"] = warn
    outcome = run("list", "--repository", "/b")
    assert "The device is lost." in outcome.error_lines
    assert "iSCSI" not in outcome.err
    assert "iSCSI" in run("-v", "list", "--repository", "/b").err


def test_warnings_are_shown_and_quiet_hides_them(run, operations) -> None:
    def warn(*_args, **_kwargs):
        logging.getLogger("freezer_osbrick.repository").warning("A manifest is passed over.")
        return run_report(volume_report())

    operations.answers["backup"] = warn
    assert "passed over" in run("backup", VOLUME, "--repository", "/b").err
    assert "passed over" not in run("-q", "backup", VOLUME, "--repository", "/b").err
