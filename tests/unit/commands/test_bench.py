# SPDX-License-Identifier: Apache-2.0
"""``bench`` on small volumes and real stores in folders."""

from __future__ import annotations

import json
import os
import pathlib

import pytest

from freezer_osbrick import errors
from freezer_osbrick.operations import bench
from freezer_osbrick.repository import keys, repository
from freezer_osbrick.store.local import LocalStore

SINGLE = [
    "read",
    "zero test",
    "hash",
    "compress, zstd 1",
    "compress, zstd 3",
    "decompress",
    "seal, AES-256-GCM",
    "open, AES-256-GCM",
    "put",
    "get",
]
WHOLE = ["backup", "backup, unchanged", "restore"]
MIB = 1 << 20
SIZE = 16 * MIB


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_SCRYPT", {"n": 1 << 10, "r": 8, "p": 1})
    monkeypatch.setattr(bench.packs, "TARGET_SIZE", MIB)


@pytest.fixture
def scratch(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Where temporary folders are made."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def test_every_step_is_measured_and_nothing_stays(command_line, scratch):
    outcome = command_line("bench", "--size", "16", "--threads", "2", "-f", "json")
    assert outcome.status == 0, outcome.err
    assert [(step["step"], step["threads"]) for step in outcome.json] == [
        *((step, 1) for step in SINGLE),
        *((step, 1) for step in WHOLE),
        *((step, 2) for step in WHOLE),
    ]
    for step in outcome.json:
        assert step["seconds"] > 0
        assert step["bytes_per_second"] == pytest.approx(step["bytes"] / step["seconds"], rel=1e-3)
    volume = {step["step"]: step["bytes"] for step in outcome.json}
    assert volume["read"] == volume["backup"] == volume["restore"] == SIZE
    assert 0 < volume["seal, AES-256-GCM"] < volume["hash"] <= SIZE
    assert list(scratch.iterdir()) == []


def test_the_table_for_people(command_line, scratch):
    outcome = command_line("bench", "--size", "16", "--threads", "1")
    assert outcome.status == 0, outcome.err
    assert "Speed a core" in outcome.out
    assert "MB/s" in outcome.out
    assert outcome.err == ""


def test_a_file_of_the_user_is_only_read(command_line, scratch, tmp_path):
    volume = tmp_path / "volume"
    content = os.urandom(3 * MIB) + bytes(MIB) + b"text " * 1000  # the end is no whole block
    volume.write_bytes(content)
    volume.chmod(0o400)
    outcome = command_line("bench", str(volume), "--threads", "1", "-f", "json")
    assert outcome.status == 0, outcome.err
    steps = {step["step"]: step for step in outcome.json}
    assert steps["read"]["bytes"] == steps["restore"]["bytes"] == len(content)
    assert volume.read_bytes() == content


def test_only_so_much_of_a_large_file(command_line, scratch, tmp_path):
    volume = tmp_path / "volume"
    with open(volume, "wb") as file:
        file.truncate(1 << 40)
    arguments = ["--size", "16", "--threads", "1", "-f", "json"]
    outcome = command_line("bench", str(volume), *arguments)
    assert outcome.status == 0, outcome.err
    assert {step["bytes"] for step in outcome.json if step["step"] in WHOLE} == {SIZE}


def test_a_repository_there_is_not_touched(command_line, scratch, tmp_path):
    folder = tmp_path / "repository"
    opened = repository.create(LocalStore(str(folder), create=True))
    opened.store.put("bench/objects/0", [b"of a run that was killed"])
    config = (folder / "config").read_bytes()
    arguments = ["--size", "16", "--threads", "1", "-f", "json"]
    outcome = command_line("bench", "--repository", f"file://{folder}", *arguments)
    assert outcome.status == 0, outcome.err
    assert [info.name for info in opened.store.list("")] == ["config"]
    assert (folder / "config").read_bytes() == config


def test_nothing_stays_when_a_store_fails(command_line, scratch, tmp_path, monkeypatch):
    folder = tmp_path / "store"
    folder.mkdir()
    put = LocalStore.put

    def failing(self: LocalStore, name: str, *args: object, **kwargs: object) -> int:
        if "manifests" in name:
            raise errors.StoreFull("No room is left.")
        return put(self, name, *args, **kwargs)

    monkeypatch.setattr(LocalStore, "put", failing)
    outcome = command_line("bench", "--repository", str(folder), "--size", "16", "--threads", "1")
    assert outcome.status == errors.StoreFull.exit_status
    assert outcome.error_lines == ["No room is left."]
    assert list(LocalStore(str(folder)).list("")) == []
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--size", "1"], "Too little to measure"),
        (["--threads", "0"], "At least one thread"),
        (["/nonexistent/volume"], "cannot be read"),
        (["/dev/null"], "empty"),
    ],
)
def test_what_cannot_be_measured(command_line, scratch, arguments, told):
    outcome = command_line("bench", *arguments)
    assert outcome.status == errors.BadRequest.exit_status
    assert told in outcome.err
    assert len(outcome.error_lines) == 1


def test_the_configuration_says_how_many_threads(command_line, scratch, tmp_path):
    config = tmp_path / "osbrick.conf"
    config.write_text("[osbrick]\nworkers = 3\n")
    outcome = command_line("--config-file", str(config), "bench", "--size", "16", "-f", "json")
    assert outcome.status == 0, outcome.err
    assert max(step["threads"] for step in json.loads(outcome.out)) == 3
