# SPDX-License-Identifier: Apache-2.0
"""What forms become, and what becomes a form again."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from freezer_osbrick.dashboard import settings

METADATA = {
    "engine_name": "osbrick",
    "backup_name": "100 % nightly",
    "hostname": "web1",
    "storage": "ssh",
    "container": "/srv/backups",
    "ssh_host": "store",
    "ssh_username": "me",
    "ssh_key": "",
    "time_stamp": 1_700_000_000,
    "job_id": "j",
    "osbrick": {
        "volumes": [
            {"volume_id": "a", "backup_id": "1", "time_stamp": 1_700_000_000},
            {"volume_id": "b", "backup_id": "2", "time_stamp": 1_700_000_090},
            {"volume_id": "c", "backup_id": None, "state": "error", "reason": "no space"},
        ]
    },
}


@pytest.mark.parametrize(
    "data, expected",
    [
        ({"osbrick_volumes": ["a"]}, {"single_volume_id": ["a"]}),
        (
            {"osbrick_volumes": ["a"], "osbrick_volume_ids": "b, a\nc"},
            {"single_volume_id": ["a", "b", "c"]},
        ),
        ({"osbrick_scope": "all_tenant_volumes"}, {"all_tenant_volumes": True}),
        ({"osbrick_scope": "all_tenants", "osbrick_volumes": ["a"]}, {"all_tenants": True}),
        (
            {"osbrick_scope": "consistency_groups", "osbrick_groups": ["g"]},
            {"consistency_groups": ["g"]},
        ),
        ({}, {}),
    ],
)
def test_the_choice_of_volumes(data: dict[str, Any], expected: dict[str, Any]) -> None:
    for action in ("backup", "restore"):
        assert settings.of_form(data, action) == expected
    assert settings.of_form(data, "admin") == {}


def test_a_form_gives_what_its_action_needs() -> None:
    data = {
        "osbrick_volumes": ["a"],
        "osbrick_incremental": True,
        "osbrick_max_level": 6,
        "osbrick_compression": "none",
        "osbrick_remove_older_than": 30.0,
        "osbrick_parallel": None,
        "osbrick_target": "new",
        "osbrick_new_name": "as it was",
        "osbrick_remove_old_vol": True,
        "osbrick_encrypt_pass_file": "/etc/key",
    }
    assert settings.of_form(data, "backup") == {
        "single_volume_id": ["a"],
        "incremental": True,
        "max_level": 6,
        "compression": "none",
        "remove_older_than": 30.0,
        "encrypt_pass_file": "/etc/key",
    }
    assert settings.of_form(data, "restore") == {
        "single_volume_id": ["a"],
        "new_name": "as it was",
        "remove_old_vol": True,
        "yes": True,
        "encrypt_pass_file": "/etc/key",
    }
    assert settings.of_form({**data, "osbrick_target": "in_place"}, "restore")["in_place"] is True


def test_an_action_can_be_changed() -> None:
    for data in (
        {"osbrick_scope": "single_volume_id", "osbrick_volumes": ["a", "b"]},
        {"osbrick_scope": "consistency_groups", "osbrick_groups": ["g"]},
        {"osbrick_scope": "all_tenants", "osbrick_max_level": 3, "osbrick_incremental": True},
    ):
        action = settings.of_form(data, "backup")
        shown = settings.to_form(action)
        assert data.items() <= shown.items()
        assert settings.of_form(shown, "backup") == action
    assert settings.to_form({"single_volume_id": "a, b"})["osbrick_volumes"] == ["a", "b"]
    assert settings.to_form({})["osbrick_target"] == "new"


def test_other_tabs_say_nothing_of_volumes() -> None:
    stock = {
        "action": "backup",
        "engine_name": "osbrick",
        "mode": "fs",
        "storage": "local",
        "container": "/srv",
        "backup_name": "nightly",
        "compression": "gzip",
        "no_incremental": True,
        "max_level": 0,
        "cinder_vol_id": "x",
        "hostname": "web1",
        "parallel": 3,
        "max_retries": 2,
    }
    ours = {"single_volume_id": ["a"], "compression": "zstd"}
    assert settings.completed(stock, ours) == {
        "action": "backup",
        "engine_name": "osbrick",
        "mode": "cinder",
        "storage": "local",
        "container": "/srv",
        "backup_name": "nightly",
        "hostname": "web1",
        "max_retries": 2,
        **ours,
    }
    removal = {**stock, "action": "admin", "remove_older_than": "30"}
    assert settings.completed(removal, {})["remove_older_than"] == "30"


def test_a_restore_finds_each_storage_and_the_key() -> None:
    where = {"storage": "s3", "endpoint": "http://s3", "access_key": "AK", "ssh_host": ""}
    sealed = {**METADATA, **where, "encrypted": True, "encrypt_pass_file": "/etc/key"}
    action = settings.of_restore(sealed, {"osbrick_volumes": ["a"]})
    assert {key: action.get(key) for key in where} == {**where, "ssh_host": None}
    assert action["encrypt_pass_file"] == "/etc/key"
    elsewhere = {"osbrick_volumes": ["a"], "osbrick_encrypt_pass_file": "/other/key"}
    assert settings.of_restore(sealed, elsewhere)["encrypt_pass_file"] == "/other/key"


def test_a_restore_from_a_record() -> None:
    data = {"osbrick_volumes": ["a"], "osbrick_target": "new", "osbrick_new_name": "back"}
    assert settings.of_restore(METADATA, data) == {
        "action": "restore",
        "engine_name": "osbrick",
        "mode": "cinder",
        "storage": "ssh",
        "container": "/srv/backups",
        "ssh_host": "store",
        "ssh_username": "me",
        "backup_name": "100 % nightly",
        "hostname": "web1",
        "restore_from_date": "2023-11-14T22:13:20Z",
        "single_volume_id": ["a"],
        "new_name": "back",
    }
    both = settings.of_restore(METADATA, {"osbrick_volumes": ["a", "b"]})
    assert both["restore_from_date"] == "2023-11-14T22:14:50Z"
    assert both["single_volume_id"] == ["a", "b"]


def test_what_was_not_backed_up_is_not_offered() -> None:
    assert [volume["volume_id"] for volume in settings.restorable(METADATA)] == ["a", "b"]
    assert settings.volumes_of({"engine_name": "tar"}) == []


def test_nothing_of_the_other_rooms_comes_along() -> None:
    """Horizon's process has neither os-brick nor a store."""
    script = (
        "import sys\n"
        "from freezer_osbrick.dashboard import chart, settings\n"
        "print([name for name in sys.modules if name.startswith(('freezer_osbrick.', 'os_brick'))])"
    )
    done = subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == str(
        ["freezer_osbrick.dashboard", "freezer_osbrick.dashboard.settings"]
        + ["freezer_osbrick.dashboard.chart"]
    ), done.stderr
