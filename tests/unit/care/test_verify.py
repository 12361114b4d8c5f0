# SPDX-License-Identifier: Apache-2.0
"""Verification reads every stored block once and names what is wrong with which backup."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from freezer_osbrick import errors
from freezer_osbrick.operations.verify import VerifyRequest, verify
from freezer_osbrick.pipeline import verify as verifying
from freezer_osbrick.pipeline import walk
from freezer_osbrick.pipeline.progress import Progress
from freezer_osbrick.pipeline.verify import BackupVerifier
from freezer_osbrick.repository import catalogue, verifications
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository.maps import MapReader
from freezer_osbrick.repository.ranges import merge
from tests.unit.care.conftest import BLOCK, CHUNK, DAY, URL


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.fixture
def chain(shelf) -> list[str]:
    """Four backups of a volume, a few blocks changed between two of them; oldest first."""
    content = bytearray(noise(CHUNK * 6) + bytes(CHUNK * 2) + noise(BLOCK + 100, 2))
    made: list[str] = []
    for number in range(4):
        content[number * CHUNK + 5 : number * CHUNK + 10] = b"%05d" % number
        made.append(
            shelf.backup(
                bytes(content),
                time=shelf.store.clock - (4 - number) * DAY,
                parent=made[-1] if made else None,
            )
        )
    return made


def boxes(shelf, backup_id: str) -> dict[tuple[bytes, int, int], int]:
    """The boxes of the blocks of a backup: pack, offset, length; and where on the volume."""
    manifest = shelf.manifest(backup_id)
    reader = MapReader(shelf.repository, manifest)
    found = {}
    for index, entry in enumerate(manifest.entries()):
        if entry.zeros:
            continue
        chunk_map = reader.load(index)
        for number, pack in enumerate(chunk_map.packs):
            if pack is not None:
                key = (pack, chunk_map.offsets[number], chunk_map.lengths[number])
                found[key] = index * CHUNK + number * BLOCK
    return found


def flip(shelf, pack: bytes, position: int) -> None:
    name = form.pack_name(pack)
    data = bytearray(shelf.store.objects[name])
    data[position] ^= 1
    shelf.store.objects[name] = bytes(data)


def states(report) -> dict[str, str]:
    return {backup.backup_id: backup.state for backup in report.backups}


def found(report, backup_id: str):
    return next(backup for backup in report.backups if backup.backup_id == backup_id)


def test_all_is_well(shelf, context, chain) -> None:
    report = verify(context, URL, VerifyRequest())
    assert report.ok
    assert [backup.backup_id for backup in report.backups] == chain
    every = {}
    for backup_id in chain:
        mine = boxes(shelf, backup_id)
        every.update(mine)
        told = found(report, backup_id)
        assert told.blocks == len(mine)
        assert told.bytes_stored == sum(length for _, _, length in mine)
        assert told.share == 1.0 and not told.ranges
    assert report.bytes_read == sum(length for _, _, length in every)
    told = {name: known.word for name, known in verifications.conditions(shelf.repository).items()}
    assert told == dict.fromkeys(chain, "verified")


def test_shared_blocks_are_read_once(shelf, context, chain) -> None:
    """Each byte of each pack of blocks is asked for at most once in a run."""
    clone = shelf.backup(shelf.contents[chain[-1]], volume="v2", parent=chain[-1])
    asked: Counter[str] = Counter()
    original = shelf.store.get

    def get(name, offset=0, length=None):
        if name.startswith(form.PACKS) and length:
            asked.update(f"{name} {byte}" for byte in range(offset, offset + length, 64))
        return original(name, offset, length)

    packs = {pack for backup_id in (*chain, clone) for pack, _, _ in boxes(shelf, backup_id)}
    shelf.store.get = get
    assert verify(context, URL, VerifyRequest()).ok
    names = {form.pack_name(pack) for pack in packs}
    assert max(count for key, count in asked.items() if key.split()[0] in names) == 1


def test_a_flipped_block_is_told_of_all_that_share_it(shelf, context, chain) -> None:
    first, last = boxes(shelf, chain[0]), boxes(shelf, chain[-1])
    shared = next(key for key in first if key in last)
    flip(shelf, shared[0], shared[1] + 3)
    report = verify(context, URL, VerifyRequest())
    assert not report.ok
    for backup_id in chain:
        expected = boxes(shelf, backup_id).get(shared)
        told = found(report, backup_id)
        assert (told.state == "damaged") == (expected is not None)
        if expected is not None:
            assert told.ranges == [[expected, BLOCK]] and told.lost_bytes == BLOCK
            assert form.pack_name(shared[0]) in told.reasons[0]
            with pytest.raises(errors.DamagedRanges) as caught:
                shelf.restores(backup_id)
            assert caught.value.ranges == [(expected, BLOCK)]


def test_damage_that_only_one_backup_has(shelf, context, chain) -> None:
    others = set().union(*(boxes(shelf, backup_id) for backup_id in chain[:-1]))
    own = next(key for key in boxes(shelf, chain[-1]) if key not in others)
    flip(shelf, own[0], own[1])
    report = verify(context, URL, VerifyRequest())
    assert states(report) == {**dict.fromkeys(chain[:-1], "ok"), chain[-1]: "damaged"}
    word = {name: known.word for name, known in verifications.conditions(shelf.repository).items()}
    assert word == {**dict.fromkeys(chain[:-1], "verified"), chain[-1]: "damaged"}


def test_a_pack_that_is_gone_or_cut(shelf, context, chain) -> None:
    pack = next(iter(boxes(shelf, chain[0])))[0]
    name = form.pack_name(pack)
    whole = shelf.store.objects[name]
    mine = {key: at for key, at in boxes(shelf, chain[0]).items() if key[0] == pack}
    shelf.store.objects[name] = whole[: len(whole) // 2]
    told = found(verify(context, URL, VerifyRequest()), chain[0])
    cut = [(at, BLOCK) for key, at in mine.items() if key[1] + key[2] > len(whole) // 2]
    assert [tuple(pair) for pair in told.ranges][:-1] == merge(cut)[:-1]
    del shelf.store.objects[name]
    told = found(verify(context, URL, VerifyRequest()), chain[0])
    assert told.lost_bytes == shelf.manifest(chain[0]).size - CHUNK * 2
    assert told.reasons == [f"Object {name} is missing."]


def test_a_chunk_map_that_is_gone(shelf, context, chain) -> None:
    entry = shelf.manifest(chain[0]).entry(5)
    flip(shelf, entry.pack, entry.offset + 1)
    report = verify(context, URL, VerifyRequest())
    told = found(report, chain[0])
    assert told.ranges == [[5 * CHUNK, CHUNK]]
    assert "chunk map" in told.reasons[0] or "damaged at byte" in told.reasons[0]


@pytest.mark.parametrize("position", [50, -1])
def test_a_damaged_manifest(shelf, context, chain, position) -> None:
    """Of a damaged head not even the volume is known; a damaged segment loses its chunks."""
    name = form.manifest_name(bytes.fromhex(chain[1]))
    data = bytearray(shelf.store.objects[name])
    data[position] ^= 1
    shelf.store.objects[name] = bytes(data)
    report = verify(context, URL, VerifyRequest())
    told = found(report, chain[1])
    assert told.state == "damaged"
    if position == 50:
        assert told.lost_bytes is None and told.volume_id is None
    else:
        assert told.ranges == [[0, len(shelf.contents[chain[1]])]]
    assert sorted(states(report).values()) == ["damaged", "ok", "ok", "ok"]


def test_choosing(shelf, context, chain) -> None:
    other = shelf.backup(noise(CHUNK, 9), volume="v2", name="other", hostname="h2", project="p2")
    for request, expected in (
        (VerifyRequest(backup_ids=(chain[1][:12], chain[2], chain[1])), {chain[1], chain[2]}),
        (VerifyRequest(volume_id="v2"), {other}),
        (VerifyRequest(backup_name="other"), {other}),
        (VerifyRequest(hostname="node1"), set(chain)),
        (VerifyRequest(project_id="p2"), {other}),
    ):
        assert set(states(verify(context, URL, request))) == expected
    with pytest.raises(errors.BackupMissing):
        verify(context, URL, VerifyRequest(backup_ids=("nothing",)))


def test_only_what_was_not_verified_for_some_days(shelf, context, chain) -> None:
    week = VerifyRequest(not_verified_for=7 * DAY)
    verify(context, URL, VerifyRequest(backup_ids=(chain[0],)))
    assert set(states(verify(context, URL, week))) == set(chain[1:])
    assert not verify(context, URL, week).backups
    shelf.store.clock += 6 * DAY
    assert not verify(context, URL, week).backups
    shelf.store.clock += DAY
    assert set(states(verify(context, URL, week))) == set(chain)


def test_a_sample_is_no_whole_verification(shelf, context, chain, monkeypatch) -> None:
    monkeypatch.setattr(verifying, "LEAST_SAMPLE", 4)
    verify(context, URL, VerifyRequest(share=0.2))
    conditions = verifications.conditions(shelf.repository)
    assert {known.word for known in conditions.values()} == {"sampled"}
    assert not verify(context, URL, VerifyRequest(share=0.2, not_verified_for=DAY)).backups
    assert len(verify(context, URL, VerifyRequest(not_verified_for=DAY)).backups) == 4


@pytest.mark.parametrize("share", [0.5, 0.05, 0.0001])
def test_samples(shelf, monkeypatch, share) -> None:
    monkeypatch.setattr(verifying, "LEAST_SAMPLE", 16)
    content = noise(CHUNK * 40)
    big = shelf.backup(content)
    small = shelf.backup(noise(CHUNK * 3, 7), volume="v2")
    backups = catalogue.backups(shelf.repository)
    verifier = BackupVerifier(shelf.repository, backups, share=share, progress=Progress("x"))
    results = {finding.backup.id: finding for finding in verifier.run()}
    assert results[small].share == 1.0 and results[small].blocks == 24
    assert results[big].share == share
    expected = max(16, share * 320)
    assert expected <= results[big].blocks <= expected * 1.3 + 1
    # Sooner or later every block has its turn.
    if share == 0.5:
        lost = next(iter(boxes(shelf, big)))
        flip(shelf, lost[0], lost[1])
        damaged = False
        while not damaged:
            again = BackupVerifier(shelf.repository, backups, share=share, progress=Progress("x"))
            damaged = any(finding.damaged for finding in again.run())


def test_few_manifests_are_open_at_a_time(shelf, context, chain, monkeypatch) -> None:
    monkeypatch.setattr(walk, "_MOST_OPENED", 1)
    groups = walk.groups(catalogue.backups(shelf.repository), 100)
    assert [len(group) for group in groups] == [1, 1, 1, 1]
    assert verify(context, URL, VerifyRequest()).ok


def test_a_backup_that_is_removed_meanwhile_is_no_damage(shelf, context, chain) -> None:
    packs = {pack for pack, _, _ in boxes(shelf, chain[3])}
    packs -= {pack for pack, _, _ in boxes(shelf, chain[2])}

    def fault(verb: str, name: str) -> None:
        if verb == "get" and name.startswith(form.PACKS):
            shelf.store.objects.pop(form.manifest_name(bytes.fromhex(chain[3])), None)
            for pack in packs:
                shelf.store.objects.pop(form.pack_name(pack), None)

    shelf.store.fault = fault
    report = verify(context, URL, VerifyRequest())
    assert states(report) == dict.fromkeys(chain[:3], "ok")


def test_a_store_that_fails_says_nothing_about_backups(shelf, context, chain) -> None:
    def fault(verb: str, name: str) -> None:
        if verb == "get" and name.startswith(form.PACKS):
            raise errors.StoreUnavailable("The store is gone.")

    shelf.store.fault = fault
    with pytest.raises(errors.StoreUnavailable):
        verify(context, URL, VerifyRequest())
    shelf.store.fault = lambda verb, name: None
    assert verifications.conditions(shelf.repository) == {}


def test_credentials_that_may_only_read(shelf, context, chain, caplog) -> None:
    def fault(verb: str, name: str) -> None:
        if verb in ("put", "delete"):
            raise errors.StoreAccessDenied(f"{name} may not be written.")

    shelf.store.fault = fault
    assert verify(context, URL, VerifyRequest()).ok
    assert "is not recorded" in caplog.text


def test_no_share_at_all_is_refused(context) -> None:
    with pytest.raises(errors.BadRequest):
        verify(context, URL, VerifyRequest(share=0.0))


def test_every_byte_of_the_stored_blocks_and_maps_matters(shelf, context) -> None:
    """Whatever byte is flipped where a restore would look: verify names the backup."""
    backup_id = shelf.backup(noise(BLOCK * 3) + b"text " * 3000 + bytes(CHUNK))
    manifest = shelf.manifest(backup_id)
    needed = set(boxes(shelf, backup_id))
    needed |= {(e.pack, e.offset, e.length) for e in manifest.entries() if not e.zeros}
    for pack, offset, length in needed:
        name = form.pack_name(pack)
        good = shelf.store.objects[name]
        for position in range(offset, offset + length, 97):
            flip(shelf, pack, position)
            assert not verify(context, URL, VerifyRequest()).ok
            shelf.store.objects[name] = good
    assert verify(context, URL, VerifyRequest()).ok


@pytest.mark.parametrize(
    "parts, merged",
    [
        ([], []),
        ([(4, 2), (0, 4)], [(0, 6)]),
        ([(0, 4), (2, 1), (5, 1)], [(0, 4), (5, 1)]),
    ],
)
def test_merging(parts, merged) -> None:
    assert merge(parts) == merged
