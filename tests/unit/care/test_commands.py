# SPDX-License-Identifier: Apache-2.0
"""The commands on a repository in a folder, from the command line to the store and back."""

from __future__ import annotations

import io
import pathlib
import random
import sys
import time

import pytest

from freezer_osbrick.repository import format as form
from freezer_osbrick.repository import repository as repositories
from freezer_osbrick.repository.maps import MapReader
from freezer_osbrick.store import address
from tests.unit.care.conftest import BLOCK, CHUNK, CHUNK_BLOCKS, DAY, SECRET, Shelf
from tests.unit.commands.conftest import Terminal, command_line  # noqa: F401

SIZE = CHUNK * 3


@pytest.fixture(params=[False, True], ids=["unsealed", "sealed"])
def folder(request, tmp_path) -> Shelf:
    """A repository in a folder, with a backup of each of five days."""
    store = address.open_store(f"file://{tmp_path}/backups", create=True)
    secret = SECRET if request.param else None
    options = {"block_size": BLOCK, "chunk_blocks": CHUNK_BLOCKS, "secret": secret}
    shelf = Shelf(repositories.create(store, **options), store)
    if secret:
        (tmp_path / "key").write_bytes(secret + b"\n")
    content = bytearray(random.Random(1).randbytes(SIZE))
    midnight = int(time.time()) // DAY * DAY
    made: list[str] = []
    for day in range(5):
        content[day * BLOCK : day * BLOCK + 4] = b"%04d" % day
        parent = made[-1] if made else None
        made.append(shelf.backup(bytes(content), time=midnight - (5 - day) * DAY, parent=parent))
    shelf.made = made
    shelf.folder = tmp_path / "backups"
    shelf.key = tmp_path / "key" if secret else None
    return shelf


@pytest.fixture
def freezer_osbrick(command_line, folder, monkeypatch):  # noqa: F811
    """Run a command line; the environment names the folder and its key."""
    monkeypatch.setenv("FREEZER_OSBRICK_REPOSITORY", folder.store.url)
    if folder.key:
        monkeypatch.setenv("FREEZER_OSBRICK_KEY_FILE", str(folder.key))
    return command_line


def damage(folder, position: int | None = None) -> pathlib.Path:
    """Flip a byte of the first backup's pack, in the volume's first block if not elsewhere."""
    manifest = folder.manifest(folder.made[0])
    [pack] = [pack for pack, use in manifest.packs.items() if use.kind == form.KIND_BLOCKS]
    if position is None:
        position = MapReader(folder.repository, manifest).load(0).offsets[0] + 5
    path = folder.folder / form.pack_name(pack)
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
    return path


def test_prune(folder, freezer_osbrick) -> None:
    told = freezer_osbrick(*"prune --keep-daily 2 --dry-run -f json".split())
    assert told.status == 0
    assert [row["action"] for row in told.json] == ["delete"] * 3 + ["keep"] * 2
    assert told.json[4]["reasons"][-1] == "newest backup of the volume"
    assert told.json[0]["reasons"] == ["no rule keeps it"]
    done = freezer_osbrick(*"prune --keep-daily 2 --yes -f json".split())
    assert done.json == told.json
    left = freezer_osbrick(*"list -f value -c backup_id".split()).out.split()
    assert left == folder.made[3:]
    again = freezer_osbrick(*"prune --keep-daily 2 --yes".split())
    assert again.status == 0 and "delete" not in again.out


@pytest.mark.parametrize("answer, left", [("y\n", 1), ("n\n", 5)])
def test_prune_asks(folder, freezer_osbrick, monkeypatch, answer, left) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    outcome = freezer_osbrick("prune", "--keep-last", "1")
    assert "Remove 4 of 5 backups" in outcome.err
    assert outcome.status == (0 if left == 1 else 2)
    assert len(list((folder.folder / "manifests").iterdir())) == left


@pytest.mark.parametrize(
    "line, told",
    [
        ("prune --yes", "No retention rule is given"),
        ("prune --keep-last 3", "Nobody is here to be asked"),
        ("prune --keep-last -1 --yes", "no number of backups"),
        ("prune --keep-within 5x --yes", "'5x' is no duration"),
        ("verify --sample 0", "'0' is no share"),
        ("verify --sample 101%", "'101%' is no share"),
        ("verify --not-verified-for -2", "is not a number of days above 0"),
    ],
)
def test_what_makes_no_sense(folder, freezer_osbrick, monkeypatch, line, told) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    outcome = freezer_osbrick(*line.split())
    assert outcome.status == 2 and told in outcome.err
    assert len(list((folder.folder / "manifests").iterdir())) == 5


@pytest.mark.parametrize(
    "verb", ["prune --keep-last 1 --yes", "verify", "check", "repair", "stats"]
)
def test_no_repository(command_line, verb) -> None:  # noqa: F811
    outcome = command_line(*verb.split())
    assert outcome.status == 2 and "--repository" in outcome.error_lines[0]
    outcome = command_line(*verb.split(), "--repository", "/nowhere/at/all")
    assert outcome.status == 1 and len(outcome.error_lines) == 1
    assert "There is no repository at" in outcome.error_lines[0]


def test_verify(folder, freezer_osbrick) -> None:
    outcome = freezer_osbrick("verify")
    assert outcome.status == 0 and outcome.out.count(" ok ") == 5
    rows = freezer_osbrick("list", "-f", "json").json
    assert {row["state"] for row in rows} == {"verified"}
    outcome = freezer_osbrick("verify", "--not-verified-for", "1")
    assert outcome.status == 0 and " ok " not in outcome.out


def test_verify_names_what_is_damaged(folder, freezer_osbrick) -> None:
    damage(folder)
    outcome = freezer_osbrick("verify", "-f", "json")
    assert outcome.status == 1
    rows = {row["backup_id"]: row for row in outcome.json}
    assert rows[folder.made[0]]["ranges"] == [[0, BLOCK]]
    assert rows[folder.made[4]]["ranges"] == [[0, BLOCK]]
    outcome = freezer_osbrick("verify", "--backup", folder.made[0][:10])
    assert outcome.status == 1 and f"0+{BLOCK}" in outcome.out
    shown = freezer_osbrick("show", folder.made[0], "-f", "json").json
    assert shown["state"] == "damaged" and shown["damage"]["ranges"] == [[0, BLOCK]]


def test_a_sample(folder, freezer_osbrick) -> None:
    outcome = freezer_osbrick("verify", "--sample", "5%", "-f", "json")
    assert outcome.status == 0
    assert {row["share"] for row in outcome.json} == {1.0}  # small ones are read whole


def test_check(folder, freezer_osbrick) -> None:
    outcome = freezer_osbrick("check", "-f", "json")
    assert outcome.status == 0 and outcome.json["ok"] is True
    assert outcome.json["backups"] == 5 and outcome.json["problems"] == []
    path = damage(folder, -1)
    outcome = freezer_osbrick("check", "-f", "json")
    assert outcome.status == 1 and path.name in outcome.json["problems"][0]["text"]
    outcome = freezer_osbrick("check")
    assert outcome.status == 1 and path.name in outcome.out.replace("\n", "")


def test_repair(folder, freezer_osbrick) -> None:
    assert freezer_osbrick("repair").status == 0
    damage(folder, -1)
    told = freezer_osbrick("repair", "--dry-run", "-f", "json")
    assert freezer_osbrick("check").status == 1
    outcome = freezer_osbrick("repair", "-f", "json")
    assert outcome.status == 0 and outcome.json == told.json
    assert {row["state"] for row in outcome.json} == {"repaired"}
    assert freezer_osbrick("check").status == 0
    assert all(folder.restores(backup_id) for backup_id in folder.made)


def test_repair_names_what_is_lost(folder, freezer_osbrick) -> None:
    damage(folder)
    assert freezer_osbrick("verify").status == 1
    outcome = freezer_osbrick("repair")
    assert outcome.status == 1 and f"0+{BLOCK}" in outcome.out


def test_stats(folder, freezer_osbrick) -> None:
    outcome = freezer_osbrick("stats", "-f", "json")
    volume, total = outcome.json
    assert (volume["of"], volume["volume_id"], volume["backups"]) == ("volume", "v1", 5)
    assert total["of"] == "total" and total["stored"] >= volume["frees"] > 0
    assert len(freezer_osbrick("stats", "--by-backup", "-f", "json").json) == 7
    assert "volume v1" in freezer_osbrick("stats").out


@pytest.mark.parametrize("verb", ["prune", "verify", "check", "repair", "stats"])
def test_help_can_be_read(freezer_osbrick, verb) -> None:
    outcome = freezer_osbrick(verb, "--help")
    assert outcome.status == 0 and "--repository" in outcome.out
    assert "%%" not in outcome.out
