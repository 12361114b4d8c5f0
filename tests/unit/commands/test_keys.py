# SPDX-License-Identifier: Apache-2.0
"""``key`` and ``gc`` on real repositories in a folder."""

from __future__ import annotations

import pathlib

import pytest

from freezer_osbrick import opts
from freezer_osbrick.operations.context import Context, read_secret
from freezer_osbrick.repository import keys, repository
from freezer_osbrick.store.local import LocalStore


@pytest.fixture(autouse=True)
def quick_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_SCRYPT", {"n": 1 << 10, "r": 8, "p": 1})


@pytest.fixture
def key_file(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "key"
    path.write_bytes(b"hush\n")
    return path


@pytest.fixture
def sealed(tmp_path: pathlib.Path, key_file: pathlib.Path) -> str:
    folder = tmp_path / "sealed"
    secret = read_secret(str(key_file))
    repository.create(LocalStore(str(folder), create=True), secret=secret)
    return str(folder)


@pytest.fixture
def plain(tmp_path: pathlib.Path) -> str:
    folder = tmp_path / "plain"
    repository.create(LocalStore(str(folder), create=True))
    return str(folder)


def test_keys_come_and_go(command_line, sealed: str, key_file: pathlib.Path) -> None:
    second = key_file.with_name("second")
    second.write_bytes(b"other")
    with_key = ("--repository", sealed, "--encrypt-pass-file", str(key_file), "-f", "json")
    added = command_line("key", "add", str(second), "--label", "colleague", *with_key).json
    assert added[0]["label"] == "colleague"
    assert {key["label"] for key in command_line("key", "list", *with_key).json} == {
        "first",
        "colleague",
    }
    by_second = ("--repository", sealed, "--key-file", str(second), "-f", "json")
    [first] = [
        key for key in command_line("key", "list", *by_second).json if key["label"] == "first"
    ]
    assert command_line("key", "remove", first["id"][:10], *by_second).status == 0
    outcome = command_line("key", "list", *with_key)
    assert outcome.status == 1
    assert len(outcome.error_lines) == 1 and "does not open" in outcome.error_lines[0]


def test_the_key_on_paper_opens_the_repository(
    command_line, sealed: str, key_file: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FREEZER_OSBRICK_KEY_FILE", str(key_file))
    paper = command_line("key", "export", "--repository", sealed).out
    typed = key_file.with_name("typed")
    typed.write_text(paper)
    assert command_line("list", "--repository", sealed, "--key-file", str(typed)).status == 0


@pytest.mark.parametrize("verb", [("list",), ("gc",), ("key", "list"), ("key", "export")])
def test_without_the_key_one_sentence(command_line, sealed: str, verb: tuple[str, ...]) -> None:
    outcome = command_line(*verb, "--repository", sealed)
    assert outcome.status == 1
    assert len(outcome.error_lines) == 1 and "is sealed: give a key" in outcome.error_lines[0]


@pytest.mark.parametrize(
    ("content", "told"), [(None, "cannot be read"), (b"", "is empty"), (b"\n", "is empty")]
)
def test_a_bad_key_file(
    command_line, plain: str, tmp_path: pathlib.Path, content: bytes | None, told: str
) -> None:
    path = tmp_path / "bad"
    if content is not None:
        path.write_bytes(content)
    outcome = command_line("list", "--repository", plain, "--key-file", str(path))
    assert outcome.status == 2
    assert len(outcome.error_lines) == 1 and told in outcome.error_lines[0]


def test_a_repository_without_keys(command_line, plain: str, key_file: pathlib.Path) -> None:
    for verb in ("list", "export"):
        outcome = command_line("key", verb, "--repository", plain)
        assert outcome.status == 2 and "is not sealed" in outcome.error_lines[0]
    outcome = command_line("list", "--repository", plain, "--key-file", str(key_file))
    assert outcome.status == 1 and "is not sealed" in outcome.error_lines[0]


def test_a_new_repository_is_sealed_by_the_key(tmp_path: pathlib.Path, key_file) -> None:
    context = Context(opts.load(), key_file=str(key_file))
    made = context.open_repository(str(tmp_path / "new"), create=True)
    assert made.master_key is not None
    assert context.open_repository(str(tmp_path / "new")).id == made.id


def test_gc(command_line, plain: str) -> None:
    folder = LocalStore(plain)
    folder.put("packs/aa/" + "aa" * 16, [b"unneeded"])
    looked = command_line("gc", "--repository", plain, "--dry-run", "-f", "json").json
    assert (looked["doomed"], looked["doomed_bytes"], looked["deleted"]) == (1, 8, 0)
    assert command_line("gc", "--repository", plain, "--grace", "0", "-f", "json").json == looked
    assert command_line("gc", "--repository", plain, "-f", "json").json["waiting"] == 1
    done = command_line("gc", "--repository", plain, "--grace", "0", "-f", "json").json
    assert (done["deleted"], done["deleted_bytes"]) == (1, 8)
    assert not list(folder.list("packs/"))


@pytest.mark.parametrize("grace", ["-1", "soon", "inf", "nan"])
def test_gc_refuses_nonsense(command_line, plain: str, grace: str) -> None:
    assert command_line("gc", "--repository", plain, "--grace", grace).status == 2
