# SPDX-License-Identifier: Apache-2.0
"""What people get wrong in a job: it fails, and the scheduler's log says why in one sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from devstack.embedded.embedded_cloud.client import EmbeddedCloud
from tests.freezer import rig
from tests.freezer.client import Person
from tests.freezer.test_jobs import action_of
from tests.functional.backup_host import BackupHost

NOWHERE = "11111111-2222-3333-4444-555555555555"
VOLUME = object()  # stands for a volume of the project
FOREIGN = object()  # for one of another project

# Action, its settings, and what the sentence has to say.
MISTAKES: dict[str, tuple[str, dict[str, Any], str]] = {
    "no volume": ("backup", {}, "give --single-volume-id"),
    "an empty list": ("backup", {"single_volume_id": []}, "give --single-volume-id"),
    "no such volume": ("backup", {"single_volume_id": NOWHERE}, NOWHERE),
    "no id at all": ("backup", {"single_volume_id": "my volume!"}, "my volume!"),
    "an object for an id": ("backup", {"single_volume_id": {"id": "x"}}, "single_volume_id"),
    "somebody else's volume": ("backup", {"single_volume_id": FOREIGN}, "Volume "),
    "several of which one is missing": (
        "backup",
        {"single_volume_id": [VOLUME, NOWHERE]},
        f"1 of 2 volumes failed: {NOWHERE}",
    ),
    "all projects, by a tenant": ("backup", {"all_tenants": True}, "administrator"),
    "no such group": ("backup", {"consistency_groups": [NOWHERE]}, NOWHERE),
    "two choices": (
        "backup",
        {"single_volume_id": VOLUME, "all_tenant_volumes": True},
        "choose different volumes",
    ),
    "half a path": ("backup", {"single_volume_id": VOLUME, "container": "x"}, "absolute path"),
    "a folder that cannot be": (
        "backup",
        {"single_volume_id": VOLUME, "container": "/dev/null/backups"},
        "/dev/null/backups",
    ),
    "levels without incremental": (
        "backup",
        {"single_volume_id": VOLUME, "max_level": 3},
        "give --incremental",
    ),
    "a number in words": ("backup", {"single_volume_id": VOLUME, "parallel": "many"}, "parallel"),
    "no content": ("backup", {"single_volume_id": VOLUME, "content": "all"}, "content"),
    "no file systems": (
        "backup",
        {"single_volume_id": VOLUME, "content": "files"},
        "file system",
    ),
    "no key file": (
        "backup",
        {"single_volume_id": VOLUME, "encrypt_pass_file": "/nowhere/key"},
        "/nowhere/key",
    ),
    "nothing to restore": ("restore", {"single_volume_id": VOLUME}, "backup"),
    "no date": (
        "restore",
        {"single_volume_id": VOLUME, "restore_from_date": "yesterday"},
        "yesterday",
    ),
    "danger without consent": (
        "restore",
        {"single_volume_id": VOLUME, "remove_old_vol": True},
        "needs --yes",
    ),
    "a removal of what": ("admin", {}, "removal date"),
}


@pytest.fixture(scope="module")
def volumes(host: BackupHost, cloud: EmbeddedCloud) -> Iterator[dict[object, str]]:
    foreign = cloud.create_volume(1, project="other")["id"]
    yield {VOLUME: host.bench.volume(1, name="data").id, FOREIGN: foreign}
    cloud.delete_volume(foreign, project="other")


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence(
    host: BackupHost,
    person: Person,
    scheduler: rig.Scheduler,
    volumes: dict[object, str],
    mistake: str,
) -> None:
    verb, given, wanted = MISTAKES[mistake]
    settings = {key: filled(value, volumes) for key, value in given.items()}
    before = len(scheduler.log())
    assert person.run(action_of(host, verb, mistake, **settings)) == "fail"
    said = scheduler.log()[before:]
    sentences = re.findall(r"Critical Error: (.*)", said)
    assert len(sentences) == 1 and wanted in sentences[0], said
    assert "Traceback" not in said
    assert "Traceback" not in (host.log_file.read_text() if host.log_file.exists() else "")
    assert host.leftovers() == {}


def filled(value: Any, volumes: dict[object, str]) -> Any:
    if isinstance(value, list):
        return [filled(one, volumes) for one in value]
    return volumes[value] if value in (VOLUME, FOREIGN) else value
