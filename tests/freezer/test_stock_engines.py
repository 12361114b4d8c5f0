# SPDX-License-Identifier: Apache-2.0
"""Freezer's other engines are the same with our hook and without it."""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import pytest

from devstack.embedded.embedded_cloud.client import EmbeddedCloud
from tests.freezer import rig
from tests.freezer.client import Person
from tests.functional.backup_host import BackupHost
from tests.functional.workbench import Workbench

# FREEZER_OSBRICK_DISABLE for the agent and the scheduler.
HOOK = {"on": "0", "off": "1"}
NOWHERE = "11111111-2222-3333-4444-555555555555"


@pytest.fixture(scope="module")
def host(cloud: EmbeddedCloud, tmp_path_factory: pytest.TempPathFactory) -> BackupHost:
    """A host that is not asked what is left at the end: Freezer's engines leave files."""
    folder = tmp_path_factory.mktemp("host")
    return BackupHost(Workbench(cloud, folder / "state"), folder)  # type: ignore[arg-type]


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder with something in it."""
    folder = tmp_path / "tree"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "file").write_text("content" * 1000)
    (folder / "empty").touch()
    return folder


def content(folder: pathlib.Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


# Not rsync: its backups of Freezer 19 hang, with the hook and without it.
@pytest.mark.parametrize("engine", ["tar", "rsyncv2"])
def test_files_come_back(
    host: BackupHost, engine: str, tree: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """By agents with the hook and without it, each from what the other stored."""
    records, restored = {}, {}
    for name, disable in HOOK.items():
        words = (
            *("--engine", engine, "--mode", "fs", "--storage", "local"),
            *("--container", str(tmp_path / f"store-{name}"), "--backup-name", "files"),
        )
        agent = ("freezer-agent", "--metadata-out", "-", *words)
        backup = ("--action", "backup", "--path-to-backup", str(tree))
        done = host.start(*agent, *backup, FREEZER_OSBRICK_DISABLE=disable).wait()
        records[name] = timeless(done.document)
        target = tmp_path / f"restored-{name}"
        target.mkdir()
        restore = ("--action", "restore", "--restore-abs-path", str(target))
        other = HOOK["off" if name == "on" else "on"]
        done = host.start(*agent, *restore, FREEZER_OSBRICK_DISABLE=other).wait()
        restored[name] = (done.status, content(target))
    assert records["on"] == records["off"]
    assert restored["on"] == restored["off"]
    if engine == "tar":  # restores of rsyncv2 fail in Freezer 19 itself
        assert restored["on"] == (0, content(tree))


@pytest.fixture(scope="module")
def images(
    cloud: EmbeddedCloud, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    with rig.images(cloud, tmp_path_factory.mktemp("images")) as told:
        yield told


@pytest.mark.parametrize(
    "engine, option, kind",
    [("nova", "nova-inst-id", "server"), ("glance", "glance-image-id", "image")],
)
def test_images_and_servers_are_stored_and_asked_for(
    host: BackupHost,
    images: dict[str, Any],
    engine: str,
    option: str,
    kind: str,
    tmp_path: pathlib.Path,
) -> None:
    """Backups succeed; restores of Freezer 19 end as they end, with the hook and without it."""
    records, stored, restored = {}, {}, {}
    for name, disable in HOOK.items():
        store = tmp_path / f"store-{name}"
        agent = (
            *("freezer-agent", "--metadata-out", "-", "--engine", engine, "--mode", engine),
            *("--storage", "local", "--container", str(store), "--backup-name", "one"),
            *(f"--{option}", images[kind]),
        )
        done = host.start(*agent, "--action", "backup", FREEZER_OSBRICK_DISABLE=disable).wait()
        records[name] = timeless(done.document)
        data = [path.read_bytes() for path in store.rglob("data") if path.is_file()]
        stored[name] = [len(part) for part in data]
        other = HOOK["off" if name == "on" else "on"]
        done = host.start(*agent, "--action", "restore", FREEZER_OSBRICK_DISABLE=other).wait()
        restored[name] = (done.status, sentences(done.stderr))
    assert records["on"] == records["off"]
    assert stored["on"] == stored["off"] and sum(stored["on"]) > 0
    assert restored["on"] == restored["off"]


def sentences(told: str) -> list[str]:
    """What an agent complained of, without what differs from run to run."""
    found = re.findall(r"Critical Error: (.*)", told)
    return [re.sub(r"req-[0-9a-f-]+|[0-9]{6,}", "", sentence) for sentence in found]


def timeless(record: dict[str, Any]) -> dict[str, Any]:
    """A record without what differs from run to run."""
    own = ("time_stamp", "container", "cindernative_backup_container")
    return {key: value for key, value in record.items() if key not in own}


@pytest.mark.parametrize("mode, option", [("nova", "nova-inst-id"), ("glance", "glance-image-id")])
def test_engines_of_servers_and_images_say_the_same(
    host: BackupHost, mode: str, option: str, tmp_path: pathlib.Path
) -> None:
    """As far as a cloud without servers and images can go: they look for it, and fail."""
    words = (
        *("--engine", mode, "--mode", mode, "--storage", "local", "--action", "backup"),
        *("--container", str(tmp_path), "--backup-name", "none", f"--{option}", NOWHERE),
    )
    told = set()
    for disable in HOOK.values():
        done = host.start("freezer-agent", *words, FREEZER_OSBRICK_DISABLE=disable).wait()
        critical = re.findall(r"Critical Error: (.*)", done.stderr)
        # Request ids and ports of a run are its own.
        told.add((done.status, re.sub(r"req-[0-9a-f-]+", "", critical[0])))
    assert len(told) == 1, told
    ((status, sentence),) = told
    assert status == 1
    assert "Failed to backup" in sentence


@pytest.mark.parametrize("hook", HOOK)
def test_a_tar_job_of_the_scheduler(
    host: BackupHost, person: Person, hook: str, tree: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    environment = {**host.environment("demo"), "FREEZER_OSBRICK_DISABLE": HOOK[hook]}
    name = f"tar-{hook}"
    action = {
        "action": "backup",
        "mode": "fs",
        "engine_name": "tar",
        "storage": "local",
        "container": str(tmp_path / "store"),
        "backup_name": name,
        "path_to_backup": str(tree),
    }
    with rig.scheduler(tmp_path / "scheduler", environment):
        assert person.run(action) == "success"
    (record,) = person.records(name)
    metadata = record["backup_metadata"]
    assert (metadata["engine_name"], metadata["backup_media"]) == ("tar", "fs")
    assert "osbrick" not in metadata


def test_without_the_hook_the_engine_is_freezers_own(
    host: BackupHost, person: Person, tmp_path: pathlib.Path
) -> None:
    """Which cannot be loaded beside this os-brick: the job fails, as it does without us."""
    action = {
        "action": "backup",
        "mode": "cinder",
        "engine_name": "osbrick",
        "storage": "local",
        "container": str(tmp_path / "store"),
        "backup_name": "stock",
        "cinderbrick_vol_id": NOWHERE,
    }
    environment = {**host.environment("demo"), "FREEZER_OSBRICK_DISABLE": "1"}
    with rig.scheduler(tmp_path / "scheduler", environment) as running:
        assert person.run(action) == "fail"
    assert "freezer_osbrick" not in json.dumps(running.log())
