# SPDX-License-Identifier: Apache-2.0
"""The check of the structure: clean where all is well, and a sentence for everything else."""

from __future__ import annotations

import random

import pytest

from freezer_osbrick import errors
from freezer_osbrick.operations.check import check
from freezer_osbrick.repository import catalogue, verifications
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository.leases import Lease
from freezer_osbrick.repository.manifest import ManifestWriter
from freezer_osbrick.repository.verifications import Verification
from tests.unit.care.conftest import BLOCK, CHUNK, DAY, URL


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.fixture
def chain(shelf) -> list[str]:
    content = bytearray(noise(CHUNK * 4) + bytes(CHUNK) + noise(100, 2))
    made: list[str] = []
    for number in range(3):
        content[number * CHUNK : number * CHUNK + 5] = b"%05d" % number
        made.append(
            shelf.backup(
                bytes(content),
                time=shelf.store.clock - (4 - number) * DAY,
                parent=made[-1] if made else None,
            )
        )
    return made


def packs(shelf, backup_id: str, kind: int = form.KIND_BLOCKS) -> list[bytes]:
    uses = shelf.manifest(backup_id).packs
    return [pack for pack, use in uses.items() if use.kind == kind]


def change(shelf, name: str, position: int) -> None:
    data = bytearray(shelf.store.objects[name])
    data[position] ^= 1
    shelf.store.objects[name] = bytes(data)


def harmed(report) -> set[str | None]:
    return {problem.backup for problem in report.problems}


def test_a_sound_repository(shelf, context, chain) -> None:
    report = check(context, URL)
    assert report.ok and not report.problems
    census = report.census
    names = [name for name in shelf.store.objects if name.startswith(form.PACKS)]
    assert (census.backups, census.packs) == (3, len(names))
    assert census.pack_bytes == sum(len(shelf.store.objects[name]) for name in names)
    assert (census.unneeded, census.unneeded_bytes, census.unknown, census.stale) == (0, 0, 0, 0)


def test_no_block_is_read(shelf, context, chain) -> None:
    name = form.pack_name(packs(shelf, chain[0])[0])
    change(shelf, name, form.HEADER.size + 5)  # in the first block
    assert check(context, URL).ok


def test_what_nobody_needs_is_counted(shelf, context, chain) -> None:
    backup = catalogue.find(shelf.repository, chain[-1])
    own = set(packs(shelf, chain[-1])) | set(packs(shelf, chain[-1], form.KIND_MAPS))
    for other in chain[:-1]:
        own -= shelf.manifest(other).packs.keys()
    verifications.add(shelf.repository, Verification(chain[-1], 1.0, 1.0))
    shelf.store.delete(form.manifest_name(bytes.fromhex(backup.id)))
    shelf.store.objects["something/else"] = b""
    shelf.store.objects["manifests/else"] = b""
    shelf.store.objects["doomed/0123"] = b'{"packs": []}'
    with Lease(shelf.repository, "backup"):
        report = check(context, URL)
    census = report.census
    assert report.ok
    assert (census.unneeded, census.stale, census.unknown) == (len(own), 1, 2)
    sizes = [len(shelf.store.objects[form.pack_name(pack)]) for pack in own]
    assert census.unneeded_bytes == sum(sizes)
    assert census.leases == 1 and census.doomed == 1


def test_a_pack_that_is_gone(shelf, context, chain) -> None:
    first = packs(shelf, chain[0])[0]
    shelf.store.delete(form.pack_name(first))
    report = check(context, URL)
    assert harmed(report) == set(chain)
    text = f"Object {form.pack_name(first)} is missing."
    assert {problem.text for problem in report.problems} == {text}
    lost = {problem.backup: sum(n for _, n in problem.ranges) for problem in report.problems}
    assert lost[chain[0]] == CHUNK * 4 + 100
    assert lost[chain[2]] == CHUNK * 4 + 100 - 2 * BLOCK
    with pytest.raises(errors.DamagedRanges) as caught:
        shelf.restores(chain[2])
    told = next(p.ranges for p in report.problems if p.backup == chain[2])
    assert tuple(caught.value.ranges) == told


@pytest.mark.parametrize("where", ["header", "trailer", "footer", "cut", "longer", "another"])
@pytest.mark.parametrize("kind", [form.KIND_BLOCKS, form.KIND_MAPS])
def test_a_pack_that_is_not_as_it_was(shelf, context, chain, where, kind) -> None:
    pack = packs(shelf, chain[-1], kind)[-1]
    name = form.pack_name(pack)
    whole = shelf.store.objects[name]
    if where == "another":
        # The newest backup may need one pack of maps only, and the first backup the same.
        known = {p for backup_id in chain for p in packs(shelf, backup_id, kind)}
        other = next(p for p in known if p != pack)
        shelf.store.objects[name] = shelf.store.objects[form.pack_name(other)]
    elif where in ("cut", "longer"):
        shelf.store.objects[name] = whole[:-1] if where == "cut" else whole + b"x"
    else:
        change(shelf, name, {"header": 30, "trailer": -20, "footer": -1}[where])
    report = check(context, URL)
    assert chain[-1] in harmed(report)
    assert any(name in problem.text for problem in report.problems)


def test_a_chunk_map_that_is_damaged(shelf, context, chain) -> None:
    entry = shelf.manifest(chain[0]).entry(3)
    change(shelf, form.pack_name(entry.pack), entry.offset)
    report = check(context, URL)
    assert harmed(report) == set(chain)
    assert {problem.ranges for problem in report.problems} == {((3 * CHUNK, CHUNK),)}


@pytest.mark.parametrize("position", [10, 45, 60, -1])
def test_a_damaged_manifest(shelf, context, chain, position) -> None:
    change(shelf, form.manifest_name(bytes.fromhex(chain[1])), position)
    report = check(context, URL)
    assert harmed(report) == {chain[1]}
    assert report.census.backups == 3
    if 0 <= position < 60:
        assert report.census.unneeded is None


def rewritten(shelf, backup_id: str, uses: dict, sizes: dict) -> None:
    """Put the backup's manifest again, with another index."""
    manifest = shelf.manifest(backup_id)
    writer = ManifestWriter(shelf.repository, manifest.backup_id, manifest.size)
    for index, entry in enumerate(manifest.entries()):
        writer.set(index, entry)
    for pack, (kind, live) in uses.items():
        writer.count(pack, kind, live)
    writer.store(manifest.head, sizes, replace=True)
    writer.close()


def test_an_index_that_does_not_say_what_is_needed(shelf, context, chain) -> None:
    """Garbage collection would believe it."""
    uses = {pack: (use.kind, use.live) for pack, use in shelf.manifest(chain[1]).packs.items()}
    sizes = {pack: use.size for pack, use in shelf.manifest(chain[1]).packs.items()}
    rewritten(shelf, chain[1], uses, sizes)
    assert check(context, URL).ok
    shared = packs(shelf, chain[0])[0]
    for wrong in (
        {pack: use for pack, use in uses.items() if pack != shared},
        {**uses, shared: (form.KIND_BLOCKS, uses[shared][1] - 1)},
    ):
        rewritten(shelf, chain[1], wrong, sizes)
        report = check(context, URL)
        assert harmed(report) == {chain[1]}
        assert report.problems[0].text.startswith("The index of its manifest")


def test_a_sealed_repository_with_a_damaged_key(shelf, context, chain) -> None:
    names = [name for name in shelf.store.objects if name.startswith(form.KEYS)]
    if not names:
        pytest.skip("not sealed")
    shelf.store.objects[names[0]] = b"{}"
    report = check(context, URL)
    assert [problem.backup for problem in report.problems] == [None]
    assert names[0] in report.problems[0].text


def test_a_backup_that_ends_or_is_removed_meanwhile(shelf, context, chain) -> None:
    state = {"made": None}

    def fault(verb: str, name: str) -> None:
        if verb == "list" and name == "" and not state["made"]:
            state["made"] = shelf.backup(noise(CHUNK, 5), volume="v2")
        if verb == "stat" and name.startswith(form.PACKS):
            gone = form.manifest_name(bytes.fromhex(chain[2]))
            if gone in shelf.store.objects:
                own = set(packs_of(chain[2])) - set(packs_of(chain[1]))
                del shelf.store.objects[gone]
                for pack in own:
                    shelf.store.objects.pop(form.pack_name(pack), None)

    known = {backup_id: list(shelf.manifest(backup_id).packs) for backup_id in chain}
    packs_of = known.__getitem__
    shelf.store.fault = fault
    report = check(context, URL)
    assert state["made"] and report.ok
    shelf.store.fault = lambda verb, name: None
    assert check(context, URL).ok


def test_a_store_that_fails_says_nothing(shelf, context, chain) -> None:
    def fault(verb: str, name: str) -> None:
        if verb == "get" and name.startswith(form.PACKS):
            raise errors.StoreUnavailable("The store is gone.")

    shelf.store.fault = fault
    with pytest.raises(errors.StoreUnavailable):
        check(context, URL)
