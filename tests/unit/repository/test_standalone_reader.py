# SPDX-License-Identifier: Apache-2.0
"""The published description of the format suffices to restore, and what was stored by version 1
stays readable."""

import ast
import hashlib
import json
import os
import pathlib
import subprocess
import sys

import pytest

from freezer_osbrick import errors
from freezer_osbrick.repository import catalogue, repository
from freezer_osbrick.repository.manifest import Manifest
from freezer_osbrick.store.local import LocalStore
from tests.unit.fakes import MemoryDevice
from tests.unit.pipeline.flow import BLOCK, CHUNK, CHUNK_BLOCKS, backup, mixed, restore
from tests.unit.repository import standalone_reader

READER = pathlib.Path(standalone_reader.__file__)
GOLDEN = pathlib.Path(__file__).parents[2] / "golden"
EXPECTED = {
    f"{version}/{kind}": backups
    for version in ("v1", "v1-checked")
    for kind, backups in json.loads((GOLDEN / version / "expected.json").read_text()).items()
}
KEY_FILE = GOLDEN / "v1" / "key-file"
SECRET = KEY_FILE.read_bytes().removesuffix(b"\n")

golden = pytest.mark.parametrize(
    ("kind", "backup_id"), [(kind, backup_id) for kind in EXPECTED for backup_id in EXPECTED[kind]]
)


def secret_of(kind):
    return SECRET if kind.endswith("/sealed") else None


def test_it_uses_nothing_of_this_package_and_is_short():
    text = READER.read_text()
    assert len(text.splitlines()) < 200
    modules = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module.partition(".")[0])
    assert modules <= {"json", "os", "struct", "sys", "blake3", "zstandard", "cryptography"}


@pytest.mark.parametrize("secret", [None, b"a secret"], ids=["checked", "sealed"])
def test_both_readers_agree(tmp_path, secret):
    repo = repository.create(
        LocalStore(str(tmp_path / "store"), create=True),
        secret=secret,
        block_size=BLOCK,
        chunk_blocks=CHUNK_BLOCKS,
    )
    kept = {}
    for number, size in enumerate((0, 1, BLOCK, CHUNK, CHUNK * 9 + 123)):
        source = MemoryDevice(mixed(size, seed=number))
        parent = None
        for turn in range(3):
            parent, _ = backup(repo, source, parent=parent, compression_level=turn)
            kept[parent.backup_id] = bytes(source.content)
            for start in range(turn * 500, size, CHUNK // 2):
                source.content[start : start + 5] = b"\0turn"[: size - start]
            if size > CHUNK:
                source = MemoryDevice(source.content + mixed(777, seed=turn))
    reader = standalone_reader.Reader(repo.store.folder, secret)
    for backup_id, content in kept.items():
        reader.restore(backup_id.hex(), tmp_path / "file")
        target = MemoryDevice(os.urandom(len(content)))
        restore(repo, Manifest(repo, backup_id), target)
        assert (tmp_path / "file").read_bytes() == target.content == content


def test_the_reader_notices_damage(tmp_path):
    store = LocalStore(str(tmp_path / "store"), create=True)
    repo = repository.create(store, block_size=BLOCK, chunk_blocks=CHUNK_BLOCKS)
    manifest, _ = backup(repo, MemoryDevice(mixed(CHUNK)))
    reader = standalone_reader.Reader(store.folder)
    for info in list(store.list("packs/")):
        good = store.get(info.name)
        bad = bytearray(good)
        bad[60] ^= 1
        store.put(info.name, [bad], replace=True)
        with pytest.raises(standalone_reader.Unreadable):
            reader.restore(manifest.backup_id.hex(), tmp_path / "file")
        store.put(info.name, [good], replace=True)
    reader.restore(manifest.backup_id.hex(), tmp_path / "file")


@golden
def test_golden_backups_restore(kind, backup_id):
    expected = EXPECTED[kind][backup_id]
    repo = repository.open_repository(LocalStore(str(GOLDEN / kind)), secret=secret_of(kind))
    target = MemoryDevice(os.urandom(expected["size"]))
    restore(repo, Manifest(repo, bytes.fromhex(backup_id)), target)
    assert hashlib.sha256(target.content).hexdigest() == expected["sha256"]


@golden
def test_golden_backups_restore_with_the_standalone_reader(kind, backup_id, tmp_path):
    command = [sys.executable, READER, GOLDEN / kind, backup_id, tmp_path / "file"]
    if secret_of(kind):
        command.append(KEY_FILE)
    subprocess.run(command, check=True)
    expected = EXPECTED[kind][backup_id]
    assert hashlib.sha256((tmp_path / "file").read_bytes()).hexdigest() == expected["sha256"]


@pytest.mark.parametrize("kind", EXPECTED)
def test_golden_repositories_list_what_they_hold(kind):
    repo = repository.open_repository(LocalStore(str(GOLDEN / kind)), secret=secret_of(kind))
    listed = catalogue.backups(repo)
    assert {
        backup.id: (backup.size, backup.level, backup.time, backup.volume_id) for backup in listed
    } == {
        backup_id: (told["size"], told["level"], told["time"], told["volume"])
        for backup_id, told in EXPECTED[kind].items()
    }
    assert listed[0].head["volume"]["name"] == "volume 1 «ü»"


def test_the_golden_sealed_repository_keeps_its_secrets():
    store = LocalStore(str(GOLDEN / "v1" / "sealed"))
    with pytest.raises(errors.WrongKey):
        repository.open_repository(store)
    with pytest.raises(errors.WrongKey):
        repository.open_repository(store, secret=SECRET + b"\n")
    stored = b"".join(store.get(info.name) for info in store.list(""))
    for told in (b"freezer freezer", b"nightly", b"backup-1", b"00000000-0000"):
        assert told not in stored
