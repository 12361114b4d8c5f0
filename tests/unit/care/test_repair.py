# SPDX-License-Identifier: Apache-2.0
"""Repair finds what is elsewhere, proves it, and names what is lost."""

from __future__ import annotations

import random

import pytest

from freezer_osbrick import errors
from freezer_osbrick.operations.check import check
from freezer_osbrick.operations.repair import repair
from freezer_osbrick.operations.verify import VerifyRequest, verify
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository import manifest as manifests
from freezer_osbrick.repository import verifications
from freezer_osbrick.repository.manifest_start import read_start
from freezer_osbrick.repository.maps import MapReader
from freezer_osbrick.store.base import Capabilities
from tests.unit.care.conftest import BLOCK, CHUNK, DAY, URL


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


CONTENT = noise(CHUNK * 4) + bytes(CHUNK + BLOCK) + noise(CHUNK - BLOCK, 3) + noise(BLOCK + 100, 2)


@pytest.fixture
def single(shelf) -> str:
    """One backup of a volume, and nothing else."""
    return shelf.backup(CONTENT, time=shelf.store.clock - DAY)


@pytest.fixture
def twin(shelf, single) -> str:
    """A full backup of the same content: everything is there twice."""
    return shelf.backup(CONTENT, time=shelf.store.clock)


def packs(shelf, backup_id: str, kind: int) -> list[str]:
    """Names of the packs of a kind that a backup uses."""
    uses = shelf.manifest(backup_id).packs
    return [form.pack_name(pack) for pack, use in uses.items() if use.kind == kind]


def change(shelf, name: str, position: int) -> None:
    data = bytearray(shelf.store.objects[name])
    data[position] ^= 1
    shelf.store.objects[name] = bytes(data)


def block_at(shelf, backup_id: str, offset: int) -> tuple[str, int]:
    """Where the block at an offset of the volume is stored."""
    manifest = shelf.manifest(backup_id)
    chunk_map = MapReader(shelf.repository, manifest).load(offset // CHUNK)
    index = offset % CHUNK // BLOCK
    return form.pack_name(chunk_map.packs[index]), chunk_map.offsets[index]


def states(report) -> dict[str, str]:
    return {backup.backup_id: backup.state for backup in report.backups}


def lost(report, backup_id: str) -> list[list[int]]:
    return next(backup.ranges for backup in report.backups if backup.backup_id == backup_id)


def sound(shelf, context, *backup_ids: str) -> None:
    """All is well again, to the last byte."""
    assert check(context, URL).ok
    assert verify(context, URL, VerifyRequest()).ok
    for backup_id in backup_ids:
        assert shelf.restores(backup_id)
        assert verifications.condition(shelf.repository, backup_id).word == "verified"


def test_nothing_to_do(shelf, context, single) -> None:
    before = dict(shelf.store.objects)
    report = repair(context, URL)
    assert report.ok and not report.backups and report.sound == 1
    assert shelf.store.objects == before


def test_lost_blocks_are_found_in_another_backup(shelf, context, single, twin) -> None:
    [name] = packs(shelf, single, form.KIND_BLOCKS)
    shelf.store.delete(name)
    assert not check(context, URL).ok
    told = repair(context, URL, dry_run=True)
    assert name not in shelf.store.objects and not check(context, URL).ok
    report = repair(context, URL)
    assert report == told
    assert states(report) == {single: "repaired"} and report.backups[0].blocks > 30
    sound(shelf, context, single, twin)


def test_a_block_that_verify_found_damaged(shelf, context, single, twin) -> None:
    """The check of the structure does not see it."""
    name, offset = block_at(shelf, single, CHUNK + BLOCK)
    change(shelf, name, offset + 5)
    assert not repair(context, URL).backups
    assert not verify(context, URL, VerifyRequest()).ok
    shelf.store.clock += 1
    report = repair(context, URL)
    assert states(report) == {single: "repaired"}
    assert (report.backups[0].blocks, report.backups[0].maps) == (1, 0)
    sound(shelf, context, single, twin)


def test_what_is_nowhere_is_lost_and_named(shelf, context, single) -> None:
    child = shelf.backup(CONTENT[:-50] + bytes(50), parent=single)
    name, offset = block_at(shelf, single, CHUNK + BLOCK)
    change(shelf, name, offset + 5)
    verify(context, URL, VerifyRequest(backup_ids=(single,)))
    verify(context, URL, VerifyRequest(backup_ids=(child,)))
    before = {n: d for n, d in shelf.store.objects.items() if n.startswith(form.MANIFESTS)}
    report = repair(context, URL)
    assert states(report) == {single: "damaged", child: "damaged"} and not report.ok
    assert lost(report, single) == lost(report, child) == [[CHUNK + BLOCK, BLOCK]]
    assert before.items() <= shelf.store.objects.items()
    for backup_id in (single, child):
        known = verifications.condition(shelf.repository, backup_id)
        assert known.damage.ranges == ((CHUNK + BLOCK, BLOCK),)
        with pytest.raises(errors.DamagedRanges) as caught:
            shelf.restores(backup_id)
        assert caught.value.ranges == [(CHUNK + BLOCK, BLOCK)]


def test_lost_maps_are_found_in_another_backup(shelf, context, single, twin) -> None:
    for name in packs(shelf, single, form.KIND_MAPS):
        shelf.store.delete(name)
    report = repair(context, URL)
    assert states(report) == {single: "repaired"} and report.backups[0].maps == 6
    sound(shelf, context, single, twin)


def test_lost_maps_are_made_of_what_packs_list(shelf, context, single) -> None:
    """Nobody else has them: the chunks' ids prove which blocks they were."""
    for name in packs(shelf, single, form.KIND_MAPS):
        shelf.store.delete(name)
    report = repair(context, URL)
    assert states(report) == {single: "repaired"} and report.backups[0].maps == 6
    sound(shelf, context, single)


def test_a_map_that_nothing_proves_stays_lost(shelf, context) -> None:
    """A block of zeros in the middle: the trailer does not say where it was."""
    content = bytearray(CONTENT)
    content[CHUNK + 2 * BLOCK : CHUNK + 3 * BLOCK] = bytes(BLOCK)
    backup_id = shelf.backup(bytes(content))
    for name in packs(shelf, backup_id, form.KIND_MAPS):
        shelf.store.delete(name)
    report = repair(context, URL)
    assert states(report) == {backup_id: "damaged"}
    assert lost(report, backup_id) == [[CHUNK, CHUNK]] and report.backups[0].maps == 5
    with pytest.raises(errors.DamagedRanges) as caught:
        shelf.restores(backup_id)
    assert caught.value.ranges == [(CHUNK, CHUNK)]
    # Its blocks are still needed, lest garbage collection take them.
    packs_now = shelf.manifest(backup_id).packs
    assert any(use.kind == form.KIND_BLOCKS for use in packs_now.values())
    again = repair(context, URL)
    assert lost(again, backup_id) == [[CHUNK, CHUNK]] and not again.backups[0].rewritten


def test_blocks_and_maps_lost_at_once(shelf, context, single, twin) -> None:
    for kind in (form.KIND_BLOCKS, form.KIND_MAPS):
        for name in packs(shelf, single, kind):
            shelf.store.delete(name)
    assert states(repair(context, URL)) == {single: "repaired"}
    sound(shelf, context, single, twin)


@pytest.mark.parametrize("where", ["header", "trailer", "footer", "longer"])
@pytest.mark.parametrize("kind", [form.KIND_BLOCKS, form.KIND_MAPS])
def test_what_is_good_in_a_broken_pack_is_moved(shelf, context, single, where, kind) -> None:
    child = shelf.backup(CONTENT[:-50] + bytes(50), parent=single)
    name = packs(shelf, single, kind)[0]
    if where == "longer":
        shelf.store.objects[name] += b"x"
    else:
        change(shelf, name, {"header": 30, "trailer": -20, "footer": -1}[where])
    report = repair(context, URL)
    assert states(report) == {single: "repaired", child: "repaired"}
    assert all(backup.moved for backup in report.backups)
    shelf.store.delete(name)  # as garbage collection will
    sound(shelf, context, single, child)


def test_an_index_that_is_lost(shelf, context, single) -> None:
    name = form.manifest_name(bytes.fromhex(single))
    before = shelf.manifest(single)
    entries = list(before.entries())
    _, _, head_length, _ = read_start(shelf.repository, bytes.fromhex(single))
    change(shelf, name, form.HEADER.size + 8 + head_length + 3)
    with pytest.raises(errors.Damaged):
        shelf.manifest(single)
    told = repair(context, URL, dry_run=True)
    report = repair(context, URL)
    assert told == report and states(report) == {single: "repaired"}
    after = shelf.manifest(single)
    assert list(after.entries()) == entries and after.packs == before.packs
    assert after.object_id != before.object_id and after.head == before.head
    sound(shelf, context, single)


def test_an_index_of_several_segments_is_lost(shelf, context, monkeypatch) -> None:
    monkeypatch.setattr(manifests, "SEGMENT_CHUNKS", 3)
    backup_id = shelf.backup(CONTENT + noise(CHUNK * 4, 8))
    name = form.manifest_name(bytes.fromhex(backup_id))
    _, _, head_length, _ = read_start(shelf.repository, bytes.fromhex(backup_id))
    change(shelf, name, form.HEADER.size + 8 + head_length + 3)
    assert states(repair(context, URL)) == {backup_id: "repaired"}
    sound(shelf, context, backup_id)


def test_an_index_and_maps_are_lost(shelf, context, single) -> None:
    """Then the chunks that nobody can place stay lost, with their ids."""
    name = form.manifest_name(bytes.fromhex(single))
    for pack in packs(shelf, single, form.KIND_MAPS):
        shelf.store.delete(pack)
    _, _, head_length, _ = read_start(shelf.repository, bytes.fromhex(single))
    change(shelf, name, form.HEADER.size + 8 + head_length + 3)
    assert states(repair(context, URL)) == {single: "repaired"}
    sound(shelf, context, single)


@pytest.mark.parametrize("position", [10, 60, -1])
def test_a_manifest_beyond_repair(shelf, context, single, twin, position) -> None:
    name = form.manifest_name(bytes.fromhex(single))
    change(shelf, name, position)
    broken = shelf.store.objects[name]
    report = repair(context, URL)
    assert shelf.store.objects[name] == broken
    if position == -1:
        assert lost(report, single) == [[0, len(CONTENT)]]
        assert states(report) == {single: "damaged"}
    else:
        assert states(report) == {single: "unreadable"}
    assert shelf.restores(twin)


def test_a_mark_that_is_wrong_is_taken_back(shelf, context, single) -> None:
    """The store had lost a pack and found it again."""
    mark = verifications.Verification(single, 1.0, 1.0, ((0, 1),), 1, "A pack is gone.")
    verifications.add(shelf.repository, mark)
    assert states(repair(context, URL)) == {single: "ok"}
    sound(shelf, context, single)


def test_a_store_that_cannot_replace_in_one_step(shelf, context, single, twin) -> None:
    for name in packs(shelf, single, form.KIND_MAPS):
        shelf.store.delete(name)
    shelf.store.capabilities = Capabilities(True, True, False, True)
    before = dict(shelf.store.objects)
    with pytest.raises(errors.BadRequest, match="in one step"):
        repair(context, URL)
    assert states(repair(context, URL, dry_run=True)) == {single: "repaired"}
    assert before.items() <= shelf.store.objects.items()


def test_a_removed_backup_is_not_brought_back(shelf, context, single) -> None:
    gone = form.manifest_name(bytes.fromhex(single))

    def fault(verb: str, name: str) -> None:
        if verb == "put" and name.startswith(form.PACKS):
            shelf.store.objects.pop(gone, None)

    for name in packs(shelf, single, form.KIND_BLOCKS):
        shelf.store.objects[name] += b"x"  # so that packs are put
    shelf.store.fault = fault
    assert not repair(context, URL).backups
    assert gone not in shelf.store.objects


def test_packs_that_are_doomed_are_not_built_upon(shelf, context, single, twin) -> None:
    import json

    doomed = [name.rsplit("/", 1)[1] for name in packs(shelf, twin, form.KIND_BLOCKS)]
    shelf.store.objects["doomed/0123"] = json.dumps({"packs": doomed}).encode()
    [name] = packs(shelf, single, form.KIND_BLOCKS)
    shelf.store.delete(name)
    report = repair(context, URL)
    assert states(report) == {single: "damaged"} and report.backups[0].blocks == 0


def test_a_repair_that_dies_anywhere_harms_nothing(shelf, context) -> None:
    """And is done by the next one."""
    content = noise(CHUNK) + bytes(CHUNK) + noise(3 * BLOCK, 2)
    single = shelf.backup(content, time=1)
    twin = shelf.backup(content, time=2)
    child = shelf.backup(content[:-50] + bytes(50), parent=twin)
    for kind in (form.KIND_BLOCKS, form.KIND_MAPS):
        for name in packs(shelf, single, kind):
            shelf.store.delete(name)
    shelf.store.objects[packs(shelf, twin, form.KIND_BLOCKS)[0]] += b"x"
    whole = dict(shelf.store.objects)
    number, died = 0, True
    while died:
        number += 1
        shelf.store.objects = dict(whole)
        calls = iter(range(number))

        def die(verb: str, name: str, calls=calls) -> None:
            if next(calls, None) is None:
                raise errors.StoreUnavailable("The store is gone.")

        shelf.store.fault = die
        died = False
        try:
            repair(context, URL)
        except errors.StoreUnavailable:
            died = True
        shelf.store.fault = lambda verb, name: None
        for backup_id in (twin, child):
            assert shelf.restores(backup_id)
        assert repair(context, URL).ok
        for backup_id in (single, twin, child):
            assert shelf.restores(backup_id)
    assert number > 50
    assert check(context, URL).ok


def test_random_damage(shelf, context) -> None:
    """Whatever is damaged: afterwards each backup restores, but for the ranges that are named."""
    randomness = random.Random(11)
    content = bytearray(CONTENT)
    made: list[str] = []
    for number in range(4):
        at = randomness.randrange(len(content) // BLOCK) * BLOCK
        content[at : at + 10] = b"%010d" % number
        parent = made[-1] if made and number != 2 else None  # the third is a full one
        made.append(shelf.backup(bytes(content), time=number, parent=parent))
    whole = dict(shelf.store.objects)
    for _ in range(25):
        shelf.store.objects = dict(whole)
        names = [name for name in whole if name.startswith(form.PACKS)]
        for name in randomness.sample(sorted(names), randomness.randrange(1, 4)):
            data = bytearray(whole[name])
            match randomness.randrange(4):
                case 0:
                    shelf.store.delete(name)
                    continue
                case 1:
                    data = data[: randomness.randrange(len(data))]
                case 2:
                    for _ in range(randomness.randrange(1, 30)):
                        data[randomness.randrange(len(data))] ^= 8
                case 3:
                    data += b"more"
            shelf.store.objects[name] = bytes(data)
        verify(context, URL, VerifyRequest())
        report = repair(context, URL)
        told = {backup.backup_id: backup.ranges for backup in report.backups}
        for backup_id in made:
            try:
                assert shelf.restores(backup_id)
                assert not told.get(backup_id)
            except errors.DamagedRanges as error:
                assert [list(pair) for pair in error.ranges] == told[backup_id]
        again = repair(context, URL)
        assert {b.backup_id: b.ranges for b in again.backups if b.ranges} == {
            name: ranges for name, ranges in told.items() if ranges
        }
