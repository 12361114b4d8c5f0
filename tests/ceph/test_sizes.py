# SPDX-License-Identifier: Apache-2.0
"""Large volumes: how much is read. What it takes in time, ``benchmarks/change_hints.py`` prints."""

from __future__ import annotations

import os
import random

from tests.ceph.ceph_bench import MIB, CephBench

BLOCK = 65536


def test_20_gib_of_which_200_mb_changed(bench: CephBench) -> None:
    """As a guest does it: large files in new places, and small writes all over what is there."""
    volume_id = bench.volume(20, volume_type="rbd").id
    places = [number * 1600 * MIB for number in range(12)]
    for place in places:
        bench.write(volume_id, place, os.urandom(64 * MIB))
    bench.back_up(volume_id, incremental=False)

    chance = random.Random(1)
    changed = 0
    for place in places[:4]:
        bench.write(volume_id, place + 800 * MIB, os.urandom(40 * MIB))
        changed += 40 * MIB
    while changed < 200_000_000:
        offset = chance.choice(places) + chance.randrange(63 * MIB // 4096) * 4096
        bench.write(volume_id, offset, os.urandom(BLOCK))
        changed += BLOCK
    told = bench.back_up(volume_id)
    assert (told.hints, told.notes) == ("used", [])
    assert 180_000_000 <= told.bytes_new <= told.bytes_read < 300_000_000
    again = bench.back_up(volume_id, use=False)  # reads everything, and finds nothing more
    assert (again.bytes_read, again.bytes_new) == (20 << 30, 0)
    print(f"hinted {told.seconds} s, {told.bytes_read} bytes; everything {again.seconds} s")


def test_1_tib_of_which_nothing_changed(bench: CephBench) -> None:
    """Sparse, with objects in some places: 2 GiB of them, each with one block."""
    volume_id = bench.volume(1024, volume_type="rbd").id
    objects = 512
    with bench.images.volume(volume_id) as image:
        for number in range(objects):
            image.write(os.urandom(4096), number * 2048 * MIB)
    first = bench.back_up(volume_id, incremental=False)
    assert first.bytes_read <= objects * 4 * MIB + 64 * BLOCK
    told = bench.back_up(volume_id)
    assert (told.hints, told.notes, told.bytes_new) == ("used", [], 0)
    of_full = max(64, -(-objects * 64 // 100))
    assert told.blocks_audited is not None
    assert told.blocks_audited <= 2 * of_full
    assert told.bytes_read == told.blocks_audited * BLOCK
    print(f"first {first.seconds} s; nothing changed {told.seconds} s, {told.bytes_read} bytes")
