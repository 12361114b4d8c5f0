# SPDX-License-Identifier: Apache-2.0
"""The catalogue: the manifests and nothing else."""

import json
import struct

import pytest

from freezer_osbrick import errors
from freezer_osbrick.repository import catalogue
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository.manifest import ManifestWriter
from tests.unit.pipeline.flow import new_head, new_repository


@pytest.fixture
def repo():
    return new_repository()


def store_backup(repo, backup_id, **fields):
    writer = ManifestWriter(repo, backup_id, 0)
    head = new_head(backup_id, **{"size": 0, "bytes": {"stored": 0}, **fields})
    writer.store(head, {})
    writer.close()
    return backup_id.hex()


def listed(repo, condition=None):
    return [backup.id for backup in catalogue.backups(repo, condition)]


def test_an_empty_repository(repo):
    assert catalogue.backups(repo) == []
    with pytest.raises(errors.BackupMissing):
        catalogue.find(repo, "00")


def test_oldest_first_then_by_the_end_then_by_id(repo):
    three = store_backup(repo, b"\3" * 16, time=30)
    one = store_backup(repo, b"\1" * 16, time=20, finished=99.5)
    nine = store_backup(repo, b"\x09" * 16, time=20, finished=50)
    two = store_backup(repo, b"\2" * 16, time=20, finished=99.5)
    assert listed(repo) == [nine, one, two, three]
    assert listed(repo, lambda backup: backup.time > 25) == [three]


def test_what_a_backup_tells(repo):
    text = store_backup(repo, b"\3" * 16, time=30.7, level=4, volume={"id": "v9", "name": "x"})
    [backup] = catalogue.backups(repo)
    assert (backup.id, backup.time, backup.level, backup.volume_id) == (text, 30, 4, "v9")
    assert backup == catalogue.find(repo, text)


def test_find_by_the_first_characters(repo):
    one = store_backup(repo, bytes.fromhex("abc1" + "00" * 14))
    two = store_backup(repo, bytes.fromhex("abc2" + "00" * 14))
    assert catalogue.find(repo, "abc1").id == one
    assert catalogue.find(repo, "  ABC2 ").id == two
    assert catalogue.find(repo, two).id == two
    for ambiguous in ("a", "abc"):
        with pytest.raises(errors.BadRequest, match="2 backups begin with"):
            catalogue.find(repo, ambiguous)
    for missing in ("", "   ", "b", one + "0", "manifests/abc1", "../config", "abc1\0", "äb"):
        with pytest.raises(errors.BackupMissing):
            catalogue.find(repo, missing)


def test_remove(repo):
    one, two = store_backup(repo, b"\1" * 16), store_backup(repo, b"\2" * 16)
    backup = catalogue.find(repo, one)
    for _ in range(2):  # a second time is no error
        catalogue.remove(repo, backup)
        assert listed(repo) == [two]


def test_a_damaged_manifest_is_left_out_and_logged(repo, caplog):
    good, bad = store_backup(repo, b"\1" * 16), store_backup(repo, b"\2" * 16)
    name = form.manifest_name(b"\2" * 16)
    changed = bytearray(repo.store.objects[name])
    changed[60] ^= 1
    repo.store.objects[name] = bytes(changed)
    assert listed(repo) == [good]
    assert bad in caplog.text and good not in caplog.text
    with pytest.raises(errors.Damaged, match=bad):
        catalogue.find(repo, "0202")


def test_a_manifest_of_a_later_format_is_left_out_and_logged(repo, caplog):
    good, later = store_backup(repo, b"\1" * 16), store_backup(repo, b"\2" * 16)
    name = form.manifest_name(b"\2" * 16)
    changed = bytearray(repo.store.objects[name])
    changed[4] = 9
    repo.store.objects[name] = bytes(changed)
    assert listed(repo) == [good]
    assert later in caplog.text and "format 9" in caplog.text
    with pytest.raises(errors.UnknownFormat):
        catalogue.find(repo, later)


@pytest.mark.parametrize(
    "foreign", ["readme.txt", "abcd", "old/0101", "01" * 17, "01" * 15, "01" * 16 + ".bak"]
)
def test_foreign_objects_below_manifests(repo, foreign, caplog):
    good = store_backup(repo, b"\1" * 16)
    repo.store.objects[form.MANIFESTS + foreign] = b"not a manifest"
    assert listed(repo) == [good]
    assert foreign in caplog.text
    assert catalogue.find(repo, "01").id == good
    with pytest.raises(errors.BackupMissing):
        catalogue.find(repo, "readme")


def test_a_store_that_refuses_is_no_damage(repo):
    """A listing without it would look complete."""
    store_backup(repo, b"\1" * 16)

    def fault(verb, name):
        if verb == "get":
            raise errors.StoreAccessDenied("No permission.")

    repo.store.fault = fault
    with pytest.raises(errors.StoreAccessDenied):
        catalogue.backups(repo)


def test_a_backup_removed_while_listing(repo):
    store_backup(repo, b"\1" * 16)
    two = store_backup(repo, b"\2" * 16)

    def fault(verb, name):
        if verb == "stat":
            repo.store.objects.pop(form.manifest_name(b"\1" * 16), None)

    repo.store.fault = fault
    assert listed(repo) == [two]


def raw_head(repo, backup_id, head):
    """A manifest with this head and right tags."""
    boxes = [
        b"".join(repo.sealer.seal(form.KIND_MANIFEST, b"f" * 16, position, form.compress(data)))
        for position, data in enumerate((json.dumps(head).encode(), struct.pack("<II", 0, 0)))
    ]
    header = form.header(form.KIND_MANIFEST, repo.sealer.code, repo.id, b"f" * 16)
    lengths = struct.pack("<II", *map(len, boxes))
    repo.store.objects[form.manifest_name(backup_id)] = header + lengths + b"".join(boxes)


NONSENSE = [None, True, "text", -1.5, float("nan"), float("inf"), [], {}, [1], {"id": 5}]


@pytest.mark.parametrize("field", ["time", "finished", "level", "size", "bytes", "volume", "name"])
@pytest.mark.parametrize("value", [*NONSENSE, ...], ids=str)
def test_forged_heads_end_no_listing(repo, field, value):
    """The listing holds what is right; whatever the head says, it can be sorted and shown."""
    good = store_backup(repo, b"\1" * 16)
    head = {**new_head(b"\2" * 16, size=0, bytes={"stored": 0}), field: value}
    if value is ...:
        del head[field]
    raw_head(repo, b"\2" * 16, head)
    found = listed(repo)
    assert good in found
    for backup in catalogue.backups(repo):
        assert isinstance(backup.time, int) and isinstance(backup.level, int)
        assert isinstance(backup.volume_id, str)
        assert backup.head["name"] is None or isinstance(backup.head["name"], str)
    if value is ... or isinstance(value, list | bool) or (field, value) == ("bytes", {}):
        assert found == [good]
        with pytest.raises(errors.Damaged):
            catalogue.find(repo, "0202")
