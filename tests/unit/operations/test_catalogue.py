# SPDX-License-Identifier: Apache-2.0
"""Listing, showing and removing backups of a repository in a folder."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from oslo_config import cfg

from freezer_osbrick import errors
from freezer_osbrick.operations import catalogue
from freezer_osbrick.operations.context import Context
from freezer_osbrick.pipeline.backup import BackupWriter
from freezer_osbrick.pipeline.progress import Progress
from freezer_osbrick.repository import repository
from freezer_osbrick.repository.manifest import Manifest
from freezer_osbrick.store.local import LocalStore
from tests.unit.fakes import MemoryDevice
from tests.unit.pipeline.flow import BLOCK, CHUNK, CHUNK_BLOCKS, mixed, new_head, restore

NOW = 1_600_000_000


@pytest.fixture
def context() -> Context:
    conf = cfg.ConfigOpts()
    conf(args=[], default_config_files=[])
    return Context.open(conf)


@pytest.fixture
def url(tmp_path: Any) -> str:
    return f"file://{tmp_path}/backups"


@pytest.fixture
def repo(tmp_path: Any) -> repository.Repository:
    store = LocalStore(f"{tmp_path}/backups", create=True)
    return repository.create(store, block_size=BLOCK, chunk_blocks=CHUNK_BLOCKS)


def store_backup(
    repo: repository.Repository, time: int, content: bytes = b"", parent: str = "", **fields: Any
) -> str:
    """A whole backup; its id."""
    backup_id = os.urandom(16)
    head = new_head(backup_id, time=time, mode="hot", content="blocks", agent="test", **fields)
    before = Manifest(repo, bytes.fromhex(parent)) if parent else None
    device = MemoryDevice(content)
    BackupWriter(repo, backup_id, device, parent=before, progress=Progress("v")).run(head)
    return backup_id.hex()


def volume(number: int, project: str = "p1") -> dict[str, Any]:
    return {"id": f"v{number}", "name": f"volume {number}", "project_id": project}


def ids(summaries: list[catalogue.BackupSummary]) -> list[str]:
    return [told.backup_id for told in summaries]


def test_lists_oldest_first_what_answers_to_all_that_is_given(
    context: Context, url: str, repo: repository.Repository
) -> None:
    two = store_backup(repo, 200, volume=volume(1), hostname="other")
    one = store_backup(repo, 100, volume=volume(1))
    three = store_backup(repo, 300, volume=volume(2, "p2"), name="weekly")
    assert ids(catalogue.list_backups(context, url)) == [one, two, three]
    for given, expected in (
        ({"volume_id": "v1"}, [one, two]),
        ({"volume_id": "v1", "hostname": "other"}, [two]),
        ({"backup_name": "weekly"}, [three]),
        ({"project_id": "p1"}, [one, two]),
        ({"project_id": "p2", "volume_id": "v1"}, []),
        ({"volume_id": "v"}, []),
    ):
        assert ids(catalogue.list_backups(context, url, **given)) == expected, given


def test_what_a_summary_says(context: Context, url: str, repo: repository.Repository) -> None:
    content = mixed(CHUNK * 2)
    backup_id = store_backup(repo, 100, content, volume=volume(1))
    [told] = catalogue.list_backups(context, url)
    as_dict = told.to_dict()
    json.dumps(as_dict)
    stored = sum(info.size for info in repo.store.list("packs/"))
    expected = {
        "backup_id": backup_id,
        "time_stamp": 100,
        "level": 0,
        "volume_id": "v1",
        "volume_name": "volume 1",
        "project_id": "p1",
        "size": len(content),
        "bytes_stored": stored,
        "backup_name": "series",
        "hostname": "host",
    }
    assert {key: as_dict[key] for key in expected} == expected


def test_show(context: Context, url: str, repo: repository.Repository) -> None:
    backup_id = store_backup(repo, 100, mixed(CHUNK), volume=volume(1))
    store_backup(repo, 200, volume=volume(1))
    detail = catalogue.show_backup(context, url, backup_id[:12])
    told = detail.to_dict()
    json.dumps(told)
    assert told["backup_id"] == backup_id and told["volume"] == volume(1)
    assert (told["mode"], told["content"], told["agent"]) == ("hot", "blocks", "test")
    assert told["bytes"]["read"] == CHUNK
    with pytest.raises(errors.BackupMissing):
        catalogue.show_backup(context, url, "nothing")


def test_remove_by_age(context: Context, url: str, repo: repository.Repository) -> None:
    content = mixed(CHUNK * 3)
    one = store_backup(repo, NOW, content, volume=volume(1))
    two = store_backup(repo, NOW + 10, content, one, volume=volume(1))
    three = store_backup(repo, NOW + 20, content + b"more", two, volume=volume(1))
    four = store_backup(repo, NOW + 30, b"other", volume=volume(2))
    removed = catalogue.remove_backups(context, url, before=NOW + 10, dry_run=True)
    assert ids(removed) == [one, two]
    assert len(catalogue.list_backups(context, url)) == 4
    removed = catalogue.remove_backups(context, url, before=NOW + 10)
    assert ids(removed) == [one, two]
    assert ids(catalogue.list_backups(context, url)) == [three, four]
    for backup_id, expected in ((three, content + b"more"), (four, b"other")):
        target = MemoryDevice(os.urandom(len(expected)))
        restore(repo, Manifest(repo, bytes.fromhex(backup_id)), target)
        assert target.content == expected


def test_the_newest_of_each_volume_stays_however_old(
    context: Context, url: str, repo: repository.Repository
) -> None:
    store_backup(repo, 100, volume=volume(1))
    newest = store_backup(repo, 200, volume=volume(1))
    only = store_backup(repo, 50, volume=volume(2))
    catalogue.remove_backups(context, url, before=NOW)
    assert ids(catalogue.list_backups(context, url)) == [only, newest]


def test_remove_chooses_by_name_host_and_volume(
    context: Context, url: str, repo: repository.Repository
) -> None:
    mine = store_backup(repo, 100, volume=volume(1), name="mine")
    other = store_backup(repo, 100, volume=volume(2))
    for number in (1, 2):
        store_backup(repo, 500, volume=volume(number))
    for given in ({"backup_name": "x"}, {"hostname": "x"}, {"volume_id": "v3"}):
        assert catalogue.remove_backups(context, url, before=200, **given) == []
    removed = catalogue.remove_backups(context, url, before=200, backup_name="mine")
    assert ids(removed) == [mine]
    assert other in ids(catalogue.list_backups(context, url))


def test_without_a_repository(context: Context, url: str) -> None:
    assert catalogue.remove_backups(context, url, before=NOW) == []
    for ask in (
        lambda: catalogue.list_backups(context, url),
        lambda: catalogue.show_backup(context, url, "00"),
    ):
        with pytest.raises(errors.RepositoryMissing):
            ask()


def test_damaged_manifests_and_foreign_objects_end_no_listing(
    context: Context, url: str, repo: repository.Repository
) -> None:
    good = store_backup(repo, 100, volume=volume(1))
    bad = store_backup(repo, 200, volume=volume(1))
    data = bytearray(repo.store.get(f"manifests/{bad}"))
    data[70] ^= 1
    repo.store.put(f"manifests/{bad}", [data], replace=True)
    repo.store.put("manifests/readme.txt", [b"hello"])
    assert ids(catalogue.list_backups(context, url)) == [good]
    with pytest.raises(errors.Damaged):
        catalogue.show_backup(context, url, bad)
