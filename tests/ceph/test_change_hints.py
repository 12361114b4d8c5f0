# SPDX-License-Identifier: Apache-2.0
"""Backups that read only what Ceph says has changed, and do not believe all of it."""

from __future__ import annotations

import os
import random

import pytest

from freezer_osbrick.device import rbd_changes
from freezer_osbrick.device.hints import Extents, FrozenState
from freezer_osbrick.operations.trust import trust
from tests.ceph.ceph_bench import GIB, MIB, CephBench, Images

LEAST = 64 * 65536  # bytes of the smallest sample


def test_reads_what_has_changed_and_restores_it(bench: CephBench) -> None:
    volume_id = bench.volume(volume_type="rbd").id
    bench.write(volume_id, 0, os.urandom(64 * MIB))
    bench.write(volume_id, 900 * MIB, os.urandom(MIB))
    first = bench.back_up(volume_id, incremental=False)
    assert first.hints is None
    assert first.bytes_read <= 68 * MIB + LEAST  # of 1 GiB, the objects that are there
    (kept,) = bench.kept()

    bench.write(volume_id, 10 * MIB + 4096, os.urandom(5000))
    bench.write(volume_id, 500 * MIB, os.urandom(100))
    bench.write(volume_id, 8 * MIB, bytes(MIB))
    second = bench.back_up(volume_id)
    assert (second.hints, second.notes) == ("used", [])
    assert second.bytes_read <= 2 * MIB + 2 * LEAST
    (newer,) = bench.kept()
    assert newer != kept
    assert bench.content(bench.restored(volume_id)) == bench.content(volume_id)

    third = bench.back_up(volume_id, keep=None)
    assert (third.hints, third.bytes_new) == ("used", 0)
    assert third.bytes_read <= 2 * LEAST
    assert bench.kept() == [newer]  # the policy was not asked: what is there stays
    fourth = bench.back_up(volume_id)
    assert fourth.hints == "unfit"  # the third kept no snapshot
    assert "No snapshot was kept for it" in fourth.notes[0]


def test_only_one_is_kept_and_cleanup_says_why(bench: CephBench) -> None:
    volume_id = bench.volume(volume_type="rbd").id
    bench.write(volume_id, 0, os.urandom(MIB))
    for _ in range(3):
        bench.back_up(volume_id)
    (kept,) = bench.kept()
    (item,) = bench.clean().items
    assert (item.id, item.state) == (kept, "kept")
    assert "--kept-snapshots" in item.reason
    (item,) = bench.clean(dry_run=True, kept_snapshots=True).items
    assert (item.id, item.state) == (kept, "would remove")
    (item,) = bench.clean(kept_snapshots=True).items
    assert (item.id, item.state) == (kept, "removed")
    assert bench.leftovers() == {}
    told = bench.back_up(volume_id)
    assert (told.hints, told.bytes_new) == ("unfit", 0)
    assert f"The snapshot {kept}, which was kept for it, is gone" in told.notes[0]


def test_hints_that_do_not_fit(bench: CephBench) -> None:
    """The volume is another, or another size, or was restored in between."""
    volume_id = bench.volume(volume_type="rbd").id
    bench.write(volume_id, 0, os.urandom(MIB))
    bench.back_up(volume_id)
    bench.embedded.cinder("POST", f"/volumes/{volume_id}/action", {"os-extend": {"new_size": 2}})
    bench.embedded.wait(f"/volumes/{volume_id}", "available")
    told = bench.back_up(volume_id)
    assert told.hints == "unfit"
    assert "resized" in told.notes[0]
    assert bench.back_up(volume_id).hints == "used"
    assert bench.back_up(volume_id, use=False).hints is None
    assert bench.back_up(volume_id).hints == "used"
    assert bench.back_up(volume_id, full_read_every=2).hints == "whole read"


def test_mirror_with_parents_of_its_own_each(bench: CephBench, tmp_path) -> None:
    volume_id = bench.volume(volume_type="rbd").id
    bench.write(volume_id, 0, os.urandom(MIB))
    sides = [str(tmp_path / "one"), str(tmp_path / "two")]
    bench.back_up(volume_id, repository=sides)
    bench.back_up(volume_id, repository=sides[0])
    told = bench.back_up(volume_id, repository=sides)
    assert [copy.hints for copy in told.copies] == ["used", "unfit"]
    told = bench.back_up(volume_id, repository=sides)
    assert [copy.hints for copy in told.copies] == ["used", "used"]


def test_a_lie_is_caught_and_not_forgotten(
    bench: CephBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume_id = bench.volume(volume_type="rbd").id
    bench.write(volume_id, 0, os.urandom(32 * MIB))
    bench.back_up(volume_id)
    bench.write(volume_id, 8 * MIB, os.urandom(8 * MIB))

    def nothing(image, size: int, state: FrozenState, since) -> Extents:
        return Extents([(0, size)])

    with monkeypatch.context() as lying:
        lying.setattr(rbd_changes, "unchanged", nothing)
        told = bench.back_up(volume_id, audit=0.5)
    assert told.hints == "wrong"
    assert any("WRONG" in note for note in told.notes)
    assert told.bytes_read >= GIB  # everything, and the sample
    assert bench.content(bench.restored(volume_id)) == bench.content(volume_id)
    assert bench.kept(volume_id) == []

    told = bench.back_up(volume_id)
    assert (told.hints, bench.kept(volume_id)) == ("off", [])
    assert told.bytes_read == GIB
    assert "hints trust" in told.notes[0]
    (trusted,) = trust(bench.context, [volume_id])
    assert trusted.found_wrong_by
    assert bench.back_up(volume_id).hints == "unfit"
    assert bench.back_up(volume_id).hints == "used"


def test_a_clone_of_an_image_and_a_flattened_one(bench: CephBench) -> None:
    """What a volume was made of is read through it, and stays what it was when it is flattened."""
    base = bench.volume(volume_type="rbd").id
    bench.write(base, 0, os.urandom(16 * MIB))
    volume_id = bench.volume(volume_type="rbd", source_volid=base).id
    first = bench.back_up(volume_id)
    assert 16 * MIB <= first.bytes_read <= 16 * MIB + LEAST
    bench.write(volume_id, 5 * MIB, os.urandom(MIB))
    assert bench.back_up(volume_id).hints == "used"
    with bench.images.volume(volume_id) as image:
        assert image.parent_info()
        image.flatten()
    with bench.images.volume(base) as image:  # as Cinder does, which could never delete it else
        for snapshot in list(image.list_snaps()):
            image.unprotect_snap(snapshot["name"])
            image.remove_snap(snapshot["name"])
    bench.write(volume_id, 900 * MIB, os.urandom(MIB))
    told = bench.back_up(volume_id)
    assert told.hints == "used"
    assert bench.content(bench.restored(volume_id)) == bench.content(volume_id)


@pytest.mark.parametrize("features", [61, 1], ids=["object map", "none"])
@pytest.mark.parametrize("seed", range(6))
def test_ceph_never_omits_a_change(images: Images, features: int, seed: int) -> None:
    """Writes, zeros and discards of all sizes, and snapshots of others in between: the release of
    Ceph that is installed here names at least what differs."""
    chance = random.Random(seed)
    size = 32 * MIB
    with images.new("source", size, features) as image:
        for offset in range(0, size, 4 * MIB):
            if chance.random() < 0.7:
                image.write(chance.randbytes(4 * MIB), offset)
        contents, names = [], []
        for number in range(6):
            for _ in range(chance.randrange(8)):
                offset = chance.randrange(size)
                length = min(chance.choice([512, 4096, 65536, MIB, 3 * MIB]), size - offset)
                what = chance.choice(["write", "zeroes", "discard"])
                if what == "write":
                    image.write(chance.randbytes(length), offset)
                elif what == "zeroes":
                    image.write_zeroes(offset, length)
                else:
                    image.discard(offset // 4096 * 4096, -(-length // 4096) * 4096)
            image.flush()
            names.append(f"snapshot-{number}")
            image.create_snap(names[-1])
            contents.append(image.read(0, size))
        for before in range(6):
            for after in range(before + 1, 6):
                told = Extents(changes(images, names[before], names[after], size))
                omitted = [
                    byte
                    for start in range(0, size, 4096)
                    if not told.cover(start, 4096)
                    and contents[before][start : start + 4096]
                    != contents[after][start : start + 4096]
                    for byte in range(start, start + 4096)
                    if contents[before][byte] != contents[after][byte] and not told.cover(byte, 1)
                ]
                assert not omitted, (before, after, omitted[:5])


def changes(images: Images, before: str, after: str, size: int) -> list[tuple[int, int]]:
    """What Ceph says has changed between two snapshots of an image."""
    told: list[tuple[int, int]] = []
    with images.open("source", after) as image:
        image.diff_iterate(
            0, size, before, lambda offset, length, _: told.append((offset, length)), True, False
        )
    return told
