# SPDX-License-Identifier: Apache-2.0
"""The three ways by which settings reach the engine, and what becomes of them on the way."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from tests.unit.agent.conftest import Agent

BACKUP = {
    "action": "backup",
    "engine_name": "osbrick",
    "storage": "local",
    "container": "/backups",
    "backup_name": "nightly",
    "single_volume_id": "v1",
}
WITHOUT_VOLUME = {key: value for key, value in BACKUP.items() if key != "single_volume_id"}


def flags(settings: dict[str, Any]) -> list[str]:
    """The settings as a command line."""
    words = []
    for key, value in settings.items():
        name = "engine" if key == "engine_name" else key.replace("_", "-")
        words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return words


def ini(settings: dict[str, Any], section: str = "default") -> str:
    return f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items())


@pytest.fixture(params=["cli", "ini", "job"])
def by(request: pytest.FixtureRequest, agent: Agent) -> Any:
    """Runs the agent with settings given in one of the three ways."""
    given = {
        "cli": lambda settings: agent(*flags(settings)),
        "ini": lambda settings: agent(ini=ini(settings)),
        "job": lambda settings: agent(job=settings),
    }
    return given[request.param]


def test_settings_reach_a_backup_in_each_way(by: Any) -> None:
    run = by(
        {
            **BACKUP,
            "hostname": "web1",
            "incremental": True,
            "max_level": 7,
            "content": "files",
            "exclude": "*.log,/tmp/",
            "fallback_to_blocks": True,
        }
    )
    assert run.status == 0, run.stderr
    assert run.call("backup") == {
        "verb": "backup",
        "url": "/backups",
        "settings": {"url": "/backups"},
        "volume_ids": ["v1"],
        "backup_name": "nightly",
        "hostname": "web1",
        "incremental": True,
        "content": "files",
        "exclude": ["*.log", "/tmp/"],
        "fallback_to_blocks": True,
        "cold": False,
        "max_level": 7,
        "always_level": None,
        "restart_always_level": None,
        "report_file": None,
        "selection": {},
        "hints": {"use": True, "keep": None, "audit": None, "full_read_every": None},
        "parallel": 10,
    }


def test_change_hints_in_each_way(by: Any) -> None:
    given = {"keep_snapshot": True, "no_hints": True, "audit": "2.5%", "full_read_every": 7}
    run = by({**BACKUP, **given})
    assert run.status == 0, run.stderr
    assert run.call("backup")["hints"] == {
        "use": False,
        "keep": True,
        "audit": 0.025,
        "full_read_every": 7,
    }
    assert by({**BACKUP, "audit": "much"}).status != 0


def test_settings_reach_a_restore_in_each_way(by: Any) -> None:
    run = by(
        {
            **BACKUP,
            "action": "restore",
            "hostname": "web1",
            "volume_type": "fast",
            "availability_zone": "zone 2",
            "new_name": "100 % new",
            "restore_from_date": "2026-11-20T10:00:00Z",
            "size": 20,
            "meta_override": True,
            "in_place": True,
            "verify": True,
            "recreate_vol_on_error": True,
            "remove_old_vol": True,
            "yes": True,
        }
    )
    assert run.status == 0, run.stderr
    assert run.call("restore") == {
        "verb": "restore",
        "url": "/backups",
        "volume_ids": ["v1"],
        "backup_id": None,
        "backup_name": "nightly",
        "hostname": "web1",
        "before": 1795168800,
        "volume_type": "fast",
        "availability_zone": "zone 2",
        "new_name": "100 % new",
        "to_folder": None,
        "size_gib": 20,
        "meta_override": True,
        "in_place": True,
        "verify": True,
        "recreate_vol_on_error": True,
        "remove_old_vol": True,
        "report_file": None,
        "selection": {},
        "parallel": 10,
    }


def test_files_are_left_out_of_backups_of_files(by: Any) -> None:
    call = by({**BACKUP, "content": "files"}).call("backup")
    assert (call["content"], call["exclude"], call["fallback_to_blocks"]) == ("files", [], False)
    run = by({**BACKUP, "exclude": "*.log"})
    assert run.status == 1
    assert run.error == "--exclude and --fallback-to-blocks need --content files."


def test_files_are_restored_to_a_folder(by: Any) -> None:
    call = by({**BACKUP, "action": "restore", "to_folder": "/srv/files"}).call("restore")
    assert call["to_folder"] == "/srv/files"


def test_a_cold_backup_in_each_way(by: Any) -> None:
    assert by({**BACKUP, "cold": True}).call("backup")["cold"] is True


def test_what_a_restore_may_do_is_asked_for(by: Any) -> None:
    call = by({**BACKUP, "action": "restore"}).call("restore")
    assert call["size_gib"] is None
    choices = ("meta_override", "in_place", "verify", "recreate_vol_on_error", "remove_old_vol")
    assert [call[name] for name in choices] == [False] * 5


def test_volumes_are_not_removed_unasked(by: Any) -> None:
    run = by({**BACKUP, "action": "restore", "remove_old_vol": True})
    assert "--remove-old-vol needs --yes" in run.error
    assert run.calls == []


CHOICES = {
    "all of the project": ({"all_tenant_volumes": True}, {"all_tenant_volumes": True}),
    "all of another project": (
        {"all_tenant_volumes": True, "project_id": "p2"},
        {"all_tenant_volumes": True, "project_id": "p2"},
    ),
    "all projects": ({"all_tenants": True}, {"all_tenants": True}),
    "groups": (
        {"consistency_groups": "g1,g2"},
        {"consistency_groups": ["g1", "g2"]},
    ),
    "filters": (
        {
            "all_tenants": True,
            "only_name": "db-*",
            "only_metadata": "tier=gold,backup=yes",
            "only_type": "fast",
            "only_zone": "nova",
            "only_size": "10-200",
        },
        {
            "all_tenants": True,
            "name": "db-*",
            "metadata": {"tier": "gold", "backup": "yes"},
            "volume_type": "fast",
            "availability_zone": "nova",
            "min_size": 10,
            "max_size": 200,
        },
    ),
}


@pytest.mark.parametrize("action", ["backup", "restore"])
@pytest.mark.parametrize("given", CHOICES)
def test_choices_reach_the_operations_in_each_way(by: Any, given: str, action: str) -> None:
    settings, expected = CHOICES[given]
    run = by({**WITHOUT_VOLUME, "action": action, **settings, "parallel": 3})
    assert run.status == 0, run.stderr
    call = run.call(action)
    assert (call["volume_ids"], call["selection"], call["parallel"]) == ([], expected, 3)


CONTRADICTIONS = {
    "two ways": (
        {**BACKUP, "all_tenants": True},
        "--single-volume-id and --all-tenants choose different volumes: give one.",
    ),
    "a project beside all": (
        {**WITHOUT_VOLUME, "all_tenants": True, "project_id": "p2"},
        "--project-id chooses the volumes of one project and does not go with --all-tenants.",
    ),
    "a name beside": (
        {**WITHOUT_VOLUME, "all_tenants": True, "cinder_vol_name": "data"},
        "Choose volumes otherwise or by --cinder-vol-name, not both.",
    ),
    "no size": (
        {**WITHOUT_VOLUME, "all_tenants": True, "only_size": "big"},
        "'big' is no size: give --only-size 10, 10-200, 10- or -200.",
    ),
    "no property": (
        {**WITHOUT_VOLUME, "all_tenants": True, "only_metadata": "gold"},
        "'gold' is no property: give --only-metadata KEY=VALUE.",
    ),
    "sizes the wrong way round": (
        {**WITHOUT_VOLUME, "all_tenants": True, "only_size": "20-10"},
        "No volume has at least 20 and at most 10 GiB.",
    ),
    "no date": (
        {**BACKUP, "action": "restore", "restore_from_date": "yesterday"},
        "--restore-from-date takes a date such as 2026-11-20T10:00:00Z, not 'yesterday'.",
    ),
    "no date of a removal": (
        {**BACKUP, "action": "admin"},
        "Specify removal date via --remove-before-date, --remove-from-date, or --remove-older-than",
    ),
    "removal of several": (
        {**BACKUP, "action": "admin", "single_volume_id": "v1,v2", "remove_older_than": 1},
        "--action admin takes one volume, by --single-volume-id, or none.",
    ),
    "a report that is not there": (
        {**WITHOUT_VOLUME, "retry_failed": "/nowhere.json"},
        "The report /nowhere.json cannot be read: No such file or directory.",
    ),
    "a second try of others": (
        {**BACKUP, "retry_failed": "/nowhere.json"},
        "Choose volumes or give --retry-failed, not both.",
    ),
}


@pytest.mark.parametrize("given", CONTRADICTIONS)
def test_contradictions_are_one_sentence(agent: Agent, given: str) -> None:
    settings, sentence = CONTRADICTIONS[given]
    run = agent(job=settings)
    assert run.error == sentence
    assert sentence in run.log and "Traceback" not in run.log
    assert run.calls == []


def test_the_volumes_of_a_report_are_tried_again(by: Any, tmp_path: pathlib.Path) -> None:
    report = tmp_path / "report.json"
    volumes = [{"volume_id": "v1", "state": "success"}, {"volume_id": "v2", "state": "error"}]
    report.write_text(json.dumps({"ok": False, "volumes": volumes}))
    run = by({**WITHOUT_VOLUME, "retry_failed": str(report), "report_file": str(tmp_path / "new")})
    call = run.call("backup")
    assert (call["volume_ids"], call["report_file"]) == (["v2"], str(tmp_path / "new"))


def test_levels_of_all_kinds(by: Any) -> None:
    run = by({**BACKUP, "incremental": True, "always_level": 2, "restart_always_level": 3.5})
    call = run.call("backup")
    assert (call["max_level"], call["always_level"], call["restart_always_level"]) == (None, 2, 3.5)


@pytest.mark.parametrize("key", ["engine", "engine_name"])
@pytest.mark.parametrize("name", ["osbrick", "cinder-osbrick"])
def test_both_names_of_the_engine_by_both_keys_of_a_job(agent: Agent, key: str, name: str) -> None:
    settings = {k: v for k, v in BACKUP.items() if k != "engine_name"}
    run = agent("--metadata-out", "-", job={**settings, key: name})
    assert run.record["engine_name"] == "osbrick"
    assert run.call("backup")["volume_ids"] == ["v1"]


@pytest.mark.parametrize("words", [["-e", "cinder-osbrick"], ["--engine", "cinder-osbrick"]])
def test_the_other_name_of_the_engine_on_the_command_line(agent: Agent, words: list[str]) -> None:
    settings = {k: v for k, v in BACKUP.items() if k != "engine_name"}
    run = agent("--metadata-out", "-", *words, *flags(settings))
    assert run.record["engine_name"] == "osbrick"


@pytest.mark.parametrize("name", ["single_volume_id", "cinderbrick_vol_id", "cinder_vol_id"])
def test_a_volume_by_each_of_its_options(by: Any, name: str) -> None:
    settings = {k: v for k, v in BACKUP.items() if k != "single_volume_id"}
    assert by({**settings, name: "v9"}).call("backup")["volume_ids"] == ["v9"]


def test_the_same_volume_twice_is_one(agent: Agent) -> None:
    assert agent(job={**BACKUP, "cinder_vol_id": "v1"}).call("backup")["volume_ids"] == ["v1"]


def test_two_volumes_are_an_error(by: Any) -> None:
    run = by({**BACKUP, "cinderbrick_vol_id": "v2"})
    assert run.error == (
        "--single-volume-id v1 and --cinderbrick-vol-id v2 are different volumes: give one of them."
    )
    assert run.calls == []


def test_no_volume_is_an_error(agent: Agent) -> None:
    settings = {k: v for k, v in BACKUP.items() if k != "single_volume_id"}
    assert "give --single-volume-id" in agent(*flags(settings)).error


@pytest.mark.parametrize("value", [["v1"], '["v1"]', "['v1']", "v1,"])
def test_a_list_of_one_volume_is_that_volume(agent: Agent, value: Any) -> None:
    assert agent(job={**BACKUP, "single_volume_id": value}).call("backup")["volume_ids"] == ["v1"]


def test_a_list_of_volumes_in_each_form(agent: Agent) -> None:
    for value in (["v1", "v2", "v1"], "v1, v2", '["v1", "v2"]'):
        run = agent(job={**BACKUP, "single_volume_id": value})
        assert run.call("backup")["volume_ids"] == ["v1", "v2"]


def test_the_command_line_counts_more_than_the_file(agent: Agent) -> None:
    run = agent("--single-volume-id", "v2", "--backup-name", "mine", ini=ini(BACKUP))
    assert run.call("backup")["volume_ids"] == ["v2"]
    assert run.call("backup")["backup_name"] == "mine"
    assert "single_volume_id is given on the command line" in run.log


def test_two_engines_are_an_error(agent: Agent) -> None:
    run = agent("--engine", "tar", ini=ini(BACKUP))
    assert run.error.startswith("The command line asks for engine tar, and ")
    assert run.calls == []


def test_our_engine_on_the_command_line_counts_more_than_another_in_the_file(agent: Agent) -> None:
    run = agent("--engine", "osbrick", ini=ini({**BACKUP, "engine_name": "tar"}))
    assert run.call("backup")["volume_ids"] == ["v1"]


def test_keys_with_dashes_are_the_same(agent: Agent) -> None:
    text = ini({key.replace("_", "-"): value for key, value in BACKUP.items()})
    assert agent(ini=text).call("backup")["volume_ids"] == ["v1"]


# -- traps ---------------------------------------------------------------------------------------


def test_unknown_keys_are_left_out_and_named(agent: Agent) -> None:
    run = agent(job={**BACKUP, "get_object": True, "dst_file": "/x", "os_brick": "group"})
    assert run.status == 0, run.stderr
    for key in ("get_object", "dst_file", "os_brick"):
        assert f"{key} is no option of this Freezer" in run.log


def test_a_slip_in_an_option_of_ours_is_refused(agent: Agent) -> None:
    """A filter that is passed over would let everything be backed up."""
    run = agent(job={**WITHOUT_VOLUME, "all_tenants": True, "only_nmae": "db-*"})
    assert run.error.endswith(": only_nmae is no option; did you mean only_name?")
    assert run.calls == []


def test_no_incremental_is_translated(agent: Agent) -> None:
    off = agent(job={**BACKUP, "no_incremental": True, "incremental": True})
    assert off.call("backup")["incremental"] is False
    on = agent(job={**BACKUP, "no_incremental": False, "max_level": 3})
    assert on.call("backup")["incremental"] is True


def test_restore_from_host_is_the_hostname(agent: Agent) -> None:
    run = agent(job={**BACKUP, "action": "restore", "restore_from_host": "web7"})
    assert run.call("restore")["hostname"] == "web7"


def test_a_secret_in_a_job_is_refused_before_anything_is_stored(agent: Agent) -> None:
    run = agent(job={**BACKUP, "encryption_password": "hush"})
    assert "encrypt_pass_file" in run.error
    assert "hush" not in run.stderr + run.log
    assert run.calls == []


def test_the_key_file_reaches_the_repository(agent: Agent) -> None:
    run = agent("--metadata-out", "-", job={**BACKUP, "encrypt_pass_file": "/etc/secret"})
    assert run.call("open")["key_file"] == "/etc/secret"
    assert run.record["encrypted"] is True
    assert run.record["encrypt_pass_file"] == "/etc/secret"


def test_false_never_removes_a_backup(agent: Agent) -> None:
    run = agent(
        job={**BACKUP, "remove_older_than": False, "remove_before_date": False, "max_level": False}
    )
    assert run.status == 0, run.stderr
    assert [call["verb"] for call in run.calls] == ["open", "backup"]
    assert run.call("backup")["max_level"] is None


@pytest.mark.parametrize("value", ["", "None", "false", "False"])
def test_no_value_at_all_never_removes_a_backup(agent: Agent, value: str) -> None:
    run = agent(ini=ini({**BACKUP, "remove_older_than": value}))
    assert run.status == 0, run.stderr
    assert [call["verb"] for call in run.calls] == ["open", "backup"]


@pytest.mark.parametrize("value", [True, "soon"])
def test_what_is_no_number_is_refused(agent: Agent, value: Any) -> None:
    run = agent(job={**BACKUP, "remove_older_than": value})
    assert "remove_older_than" in run.error
    assert run.calls == []


def test_values_survive_the_scheduler(agent: Agent) -> None:
    name = "50 % of %(host)s {a} ['b'] = ; # ü"
    run = agent(job={**BACKUP, "backup_name": name.replace("{a} ", ""), "hostname": "100%%"})
    assert run.status == 0, run.stderr
    assert run.call("backup")["backup_name"] == name.replace("{a} ", "")
    assert run.call("backup")["hostname"] == "100%%"


def test_a_single_percent_in_a_hand_written_file_is_one(agent: Agent) -> None:
    assert agent(ini=ini({**BACKUP, "backup_name": "50 %"})).call("backup")["backup_name"] == "50 %"


@pytest.mark.parametrize(
    ("value", "level", "kept", "said"),
    [
        ("zstd", 1, "zstd", False),
        ("none", 0, "none", False),
        ("gzip", 1, "zstd", True),
        ("bzip2", 1, "zstd", True),
        ("xz", 1, "zstd", True),
        (None, 1, "zstd", False),
    ],
)
def test_compression(agent: Agent, value: str | None, level: int, kept: str, said: bool) -> None:
    settings = {**BACKUP, "metadata_out": "-", **({"compression": value} if value else {})}
    run = agent(*flags(settings))
    assert run.call("open")["compression_level"] == level
    assert run.record["compression"] == kept
    assert (f"compresses with zstd, not with {value}" in run.log) is said


def test_media_and_mode_are_those_of_volumes(agent: Agent) -> None:
    run = agent(job={**BACKUP, "mode": "cinder", "metadata_out": "-"})
    assert (run.record["backup_media"], run.record["mode"]) == ("cinderbrick", "cinder")
    assert agent(job={**BACKUP, "mode": "fs", "metadata_out": "-"}).record["mode"] == "cinder"


def test_a_mode_of_something_else_is_refused(agent: Agent) -> None:
    assert "--mode must be cinder, not mysql" in agent(job={**BACKUP, "mode": "mysql"}).error


def test_another_kind_of_resource_is_refused(agent: Agent) -> None:
    assert "cannot use --nova-inst-id" in agent(job={**BACKUP, "nova_inst_id": "i1"}).error


@pytest.mark.parametrize("name", ["upload_limit", "download_limit"])
@pytest.mark.parametrize(("given", "rate"), [("1000", "1000"), ("10M", "10485760")])
def test_limits_are_kept_by_us_and_trickle_is_never_run(
    by: Any, name: str, given: str, rate: str
) -> None:
    run = by({**BACKUP, name: given})
    assert run.status == 0, run.stderr
    assert run.call("backup")["settings"] == {"url": "/backups", name: rate}
    assert "trickle" not in run.log.lower()


def test_a_limit_that_is_none_is_refused(agent: Agent) -> None:
    assert "no bandwidth" in agent(job={**BACKUP, "upload_limit": "fast"}).error


def test_no_limit_is_no_limit(agent: Agent) -> None:
    assert agent(job={**BACKUP, "upload_limit": -1}).status == 0


SSH = {"ssh_host": "vault", "ssh_username": "back up", "ssh_port": 2222}
FTP = {"ftp_host": "vault", "ftp_username": "backup", "ftp_port": 2121, "ftp_password": "Secret1"}


@pytest.mark.parametrize(
    ("given", "url", "settings"),
    [
        ({"storage": "swift", "container": "vault"}, "swift://vault", {}),
        (
            {"storage": "s3", "container": "vault/a b", "endpoint": "http://127.0.0.1:1"}
            | {"access_key": "AK", "secret_key": "Secret1"},
            "s3://vault/a%20b",
            {"endpoint": "http://127.0.0.1:1", "access_key": "AK", "secret_key": "Secret1"},
        ),
        (
            {"storage": "ssh", "ssh_key": "/etc/key"} | SSH,
            "sftp://back%20up@vault:2222/backups",
            {"ssh_key_file": "/etc/key", "accept_new_host": True},
        ),
        (
            {"storage": "ssh", "ssh_password": "Secret1", "ssh_host": "::1"}
            | {"ssh_username": "root", "ssh_port": 22},
            "sftp://root@[::1]:22/backups",
            {"password": "Secret1", "accept_new_host": True},
        ),
        ({"storage": "ftp"} | FTP, "ftp://backup@vault:2121/backups", {"password": "Secret1"}),
        ({"storage": "ftps"} | FTP, "ftps://backup@vault:2121/backups", {"password": "Secret1"}),
    ],
)
def test_each_storage_of_freezer(by: Any, given: Any, url: str, settings: Any) -> None:
    """Freezer itself connects to none of them: nobody answers there."""
    run = by({**BACKUP, **given, "metadata_out": "-"})
    assert run.status == 0, run.stderr
    assert run.call("backup")["url"] == url
    assert run.call("backup")["settings"] == {"url": url, **settings}
    assert run.record["storage"] == given["storage"]
    assert run.record["container"] == given.get("container", "/backups")
    # A restore made of the record finds the storage.
    told = [name for name in given if name.removesuffix("password") == name != "secret_key"]
    assert {name: run.record[name] for name in told} == {name: given[name] for name in told}
    assert "Secret1" not in run.log + run.stderr + run.stdout


def test_credentials_of_s3_may_be_in_the_environment(agent: Agent) -> None:
    names = {"ACCESS_KEY": "AK", "SECRET_KEY": "SK", "ENDPOINT": "http://s3"}
    run = agent(job={**BACKUP, "storage": "s3", "container": "vault"}, env=names)
    assert run.call("backup")["settings"] == {
        "url": "s3://vault",
        "access_key": "AK",
        "secret_key": "SK",
        "endpoint": "http://s3",
    }


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"storage": "ssh", "ssh_username": "u"}, "--storage ssh needs --ssh-host."),
        ({"storage": "ssh", "ssh_host": "h"}, "--storage ssh needs --ssh-username."),
        ({"storage": "ftp", "ftp_host": "h"}, "--storage ftp needs --ftp-username."),
        (
            {"storage": "ssh", "container": "x"} | SSH,
            "absolute path of a folder with --storage ssh",
        ),
        ({"storage": "ftps", "ftp_certfile": "/c"} | FTP, "leave out --ftp-certfile"),
    ],
)
def test_storages_that_lack_something_are_refused(agent: Agent, given: Any, missing: str) -> None:
    run = agent(job={**BACKUP, **given})
    assert missing in run.error
    assert run.calls == []


def test_each_storage_section_is_a_repository(agent: Agent) -> None:
    """With what Freezer's own options say where a section says nothing."""
    run = agent(
        ini=ini({**BACKUP, "ssh_username": "u", "upload_limit": "10M"})
        + ini({"storage": "local", "container": "/b"}, "storage:near")
        + ini({"storage": "ssh", "container": "/c", "ssh-host": "h"}, "storage:far")
    )
    call = run.call("backup")
    assert call["url"] == ["storage:near", "storage:far"]
    near, far = call["settings"]
    assert near == {"url": "/b", "upload_limit": str(10 << 20)}
    assert far["url"] == "sftp://u@h:22/c"
    assert far["upload_limit"] == near["upload_limit"]


def test_one_storage_section_stands_for_the_options(agent: Agent) -> None:
    run = agent(ini=ini(BACKUP) + ini({"storage": "local", "container": "/b"}, "storage:one"))
    assert run.call("backup")["url"] == "/b"


def test_one_bucket_name_at_two_services(agent: Agent) -> None:
    """The same URL, and yet two repositories."""
    bucket = {"storage": "s3", "container": "vault", "secret_key": "s"}
    sections = [{**bucket, "endpoint": f"http://s3-{n}", "access_key": n} for n in ("a", "b")]
    run = agent(ini=ini(BACKUP) + "".join(ini(s, f"storage:{n}") for n, s in enumerate(sections)))
    first, second = run.call("backup")["settings"]
    assert first["url"] == second["url"] == "s3://vault"
    assert (first["endpoint"], second["access_key"]) == ("http://s3-a", "b")


def test_a_job_lists_its_storages(agent: Agent) -> None:
    storages = [{"storage": "local", "container": "/a"}, {"storage": "local", "container": "/b"}]
    run = agent(job={**BACKUP, "storages": storages})
    assert run.call("backup")["url"] == ["storage:1", "storage:2"]
    assert [settings["url"] for settings in run.call("backup")["settings"]] == ["/a", "/b"]
    named = agent(job={**BACKUP, "storages": {"near": storages[0], "far": storages[1]}})
    assert named.call("backup")["url"] == ["near", "far"]


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"storage": "local"}, "[storage:second] needs a storage and a container."),
        ({"storage": "local", "container": "b"}, "[storage:second]: --container must be"),
        ({"storage": "tape", "container": "/b"}, "tape"),
        ({"storage": "local", "container": "/b", "speed": "9"}, "speed is no option"),
        ({"storage": "ssh", "container": "/b", "ssh_port": "x"}, "ssh_port"),
    ],
)
def test_a_storage_section_that_cannot_be_used(agent: Agent, section: Any, said: str) -> None:
    first = ini({"storage": "local", "container": "/a"}, "storage:first")
    run = agent(ini=ini(BACKUP) + first + ini(section, "storage:second"))
    assert said in run.error
    assert run.calls == []


@pytest.mark.parametrize("storages", ["here and there", "[1, 2]", "7", "[{"])
def test_storages_that_are_no_list(agent: Agent, storages: str) -> None:
    run = agent("--engine", "osbrick", job={**BACKUP, "storages": storages})
    assert "storages must be a list of objects" in run.error


def test_a_relative_container_is_refused(agent: Agent) -> None:
    assert "absolute path" in agent(job={**BACKUP, "container": "backups"}).error


def test_options_without_a_meaning_are_named(agent: Agent) -> None:
    log = agent(job={**BACKUP, "path_to_backup": "/x", "timeout": 5, "snapshot": ""}).log
    assert "Engine osbrick does not use --path-to-backup, --timeout." in log


def test_the_folder_is_left_to_the_engine(agent: Agent, tmp_path: pathlib.Path) -> None:
    container = tmp_path / "mistyped" / "folder"
    run = agent(job={**BACKUP, "action": "restore", "container": str(container)})
    assert run.call("restore")["url"] == str(container)
    assert not container.parent.exists()


def test_a_file_that_is_none_is_one_clear_error(agent: Agent) -> None:
    run = agent("--engine", "osbrick", ini="no section\n")
    assert "is no readable ini file: File contains no section headers." in run.error


def test_dates_are_utc_with_and_without_z(agent: Agent) -> None:
    for date in ("2026-11-20T10:00:00Z", "2026-11-20T10:00:00", "2026-11-20T11:00:00+01:00"):
        run = agent(job={**BACKUP, "action": "restore", "restore_from_date": date})
        assert run.call("restore")["before"] == 1795168800


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("backup", "Levels are for incremental backups: give --incremental, too."),
        ("restore", "incremental option is required for backup level options"),
    ],
)
def test_levels_without_incremental_are_refused(agent: Agent, action: str, said: str) -> None:
    run = agent(job={**BACKUP, "action": action, "max_level": 3})
    assert run.error == said
    assert run.calls == []


def test_engine_settings_come_from_freezers_own_configuration_files(
    agent: Agent, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "freezer-agent.conf"
    path.write_text("[osbrick]\nworkers = 7\n")
    run = agent("--config-file", str(path), *flags(BACKUP))
    assert run.call("open")["workers"] == 7


def test_an_unknown_engine_setting_is_one_clear_error(agent: Agent, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "freezer-agent.conf"
    path.write_text("[osbrick]\nparalel = 7\n")
    run = agent("--config-file", str(path), *flags(BACKUP))
    assert "[osbrick] has no option paralel; did you mean parallel?" in run.error


def test_a_wrong_engine_setting_is_one_clear_error(agent: Agent, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "freezer-agent.conf"
    path.write_text("[osbrick]\nworkers = many\n")
    run = agent("--config-file", str(path), *flags(BACKUP))
    assert run.error.startswith("The configuration cannot be used: ")
    assert "workers" in run.error
