# SPDX-License-Identifier: Apache-2.0
"""The sample that proves hints: what it reads, and how often it catches a lie."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freezer_osbrick.device.hints import Extents, Hints
from freezer_osbrick.pipeline.audit import LEAST, audit, sample_size
from tests.unit.fakes import MemoryDevice
from tests.unit.pipeline.flow import BLOCK, CHUNK, backup, mixed, new_repository

REPEATS = 200


def everything(size):
    return Hints(unchanged=Extents([(0, size)]))


def seen(repo, content, parent, hints, share=1.0, seed=1):
    device = MemoryDevice(content)
    return audit(repo, device, parent, hints, share, chance=random.Random(seed)), device


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, CHUNK * 5),
    later_size=st.integers(1, CHUNK * 5),
    changes=st.lists(st.integers(0, CHUNK * 5), max_size=4),
)
def test_a_whole_audit_finds_exactly_the_lies(size, later_size, changes):
    repo = new_repository()
    before = (mixed(size) + bytes(CHUNK * 2))[:size]
    parent, _ = backup(repo, MemoryDevice(before))
    content = bytearray((before + mixed(later_size, seed=2))[:later_size])
    for place in changes:
        content[place : place + 300] = b"!" * len(content[place : place + 300])
    found, device = seen(repo, content, parent, everything(later_size))

    def comparable(offset):
        # What the parent ends within is another block, unless both end there.
        return min(BLOCK, size - offset) == min(BLOCK, later_size - offset)

    blocks = [offset for offset in range(0, later_size, BLOCK) if comparable(offset)]
    wrong = [
        (offset, min(BLOCK, later_size - offset))
        for offset in blocks
        if before[offset : offset + BLOCK] != bytes(content[offset : offset + BLOCK])
    ]
    assert list(found.lies) == wrong
    assert found.blocks == found.of == len(blocks)
    assert found.read == sum(length for _, length in device.reads)


def test_only_blocks_that_hints_tell_of_as_a_whole_are_looked_at():
    repo = new_repository()
    content = mixed(CHUNK * 4)
    parent, _ = backup(repo, MemoryDevice(content))
    hints = Hints(unchanged=Extents([(BLOCK + 1, BLOCK * 3)]))
    found, device = seen(repo, content, parent, hints)
    assert (found.of, sorted(device.reads)) == (2, [(BLOCK * 2, BLOCK), (BLOCK * 3, BLOCK)])


def test_what_is_said_to_be_empty_is_looked_at_too():
    repo = new_repository()
    content = bytearray(CHUNK * 4)
    hints = Hints(zeros=Extents([(0, len(content))]))
    assert seen(repo, content, None, hints)[0].lies == ()
    content[CHUNK * 3 - 1] = 1
    found, _ = seen(repo, content, None, hints)
    assert found.lies == ((CHUNK * 3 - BLOCK, BLOCK),)
    assert found.blocks == len(content) // BLOCK


def test_size_of_the_sample():
    assert sample_size(0.01, 327_680, 16_449_536) == (3277, LEAST)  # 20 GiB of 1 TiB
    assert sample_size(0.1, 327_680, 16_449_536) == (32_768, 3277)
    assert sample_size(0.01, 100_000, 0) == (1000, 0)
    assert sample_size(0.01, 1000, 100_000) == (LEAST, LEAST)
    assert sample_size(0.01, 10, 20) == (10, 20)
    assert sample_size(0.01, 0, 1_000_000) == (0, LEAST)
    assert sample_size(1.0, 5000, 3000) == (5000, 3000)


def caught(population, lies, sample):
    """The chance that a sample holds at least one of so many lies."""
    missed = math.comb(population - lies, sample) / math.comb(population, sample)
    return 1 - missed


@pytest.mark.parametrize(
    ("share", "lies"), [(0.01, 1), (0.01, 16), (0.01, 64), (0.10, 16), (0.25, 16), (1.0, 1)]
)
def test_catch_rate(share, lies):
    """A diff that omits so many changed blocks of 2048, 200 times: as often caught as arithmetic
    says, and no more often cried out than there is a lie."""
    repo = new_repository()
    count = 2048
    size = BLOCK * count
    before = random.Random(5).randbytes(size)
    parent, _ = backup(repo, MemoryDevice(before))
    sample = max(LEAST, math.ceil(share * count))
    hits = 0
    for seed in range(REPEATS):
        chance = random.Random(seed)
        first = chance.randrange(count - lies + 1)
        content = bytearray(before)
        for block in range(first, first + lies):
            content[block * BLOCK] ^= 1
        found, _ = seen(repo, content, parent, everything(size), share, seed=seed + 10_000)
        assert found.blocks == sample
        hits += bool(found.lies)
        assert all(first <= offset // BLOCK < first + lies for offset, _ in found.lies)
    expected = caught(count, lies, sample)
    # Four standard deviations: the seeds are fixed, so this passes always or never.
    deviation = math.sqrt(REPEATS * expected * (1 - expected))
    assert abs(hits - REPEATS * expected) <= 4 * deviation
    print(f"{share:.0%}: {sample} of {count}, {lies} lies: {hits / REPEATS:.1%} ({expected:.1%})")


def test_two_samples_differ():
    repo = new_repository()
    content = mixed(CHUNK * 100)
    parent, _ = backup(repo, MemoryDevice(content))
    reads = []
    for _ in range(2):
        device = MemoryDevice(content)
        audit(repo, device, parent, everything(len(content)), 0.1)
        reads.append(sorted(device.reads))
    assert reads[0] != reads[1]
