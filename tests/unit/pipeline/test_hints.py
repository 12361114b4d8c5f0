# SPDX-License-Identifier: Apache-2.0
"""Backups that do not read what hints tell of: the same backup as without them."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from freezer_osbrick.device.hints import Extents, Hints
from tests.unit.fakes import MemoryDevice
from tests.unit.pipeline.flow import BLOCK, CHUNK, backup, mixed, new_repository, restore


def true_hints(before, after, grain=1):
    """What really is zero, and what really did not change, in pieces of ``grain`` bytes."""
    zeros, unchanged = [], []
    for start in range(0, len(after), grain):
        piece = after[start : start + grain]
        if not any(piece):
            zeros.append((start, len(piece)))
        if before[start : start + grain] == piece:
            unchanged.append((start, len(piece)))
    return Hints(Extents(zeros), Extents(unchanged))


def restored(repo, manifest):
    target = MemoryDevice(random.Random(3).randbytes(manifest.size))
    restore(repo, manifest, target)
    return target.content


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, CHUNK * 5),
    later_size=st.integers(1, CHUNK * 5),
    changes=st.lists(st.tuples(st.integers(0, CHUNK * 5), st.booleans()), max_size=6),
    grain=st.sampled_from([100, BLOCK, BLOCK * 3, CHUNK]),
    keep=st.sampled_from(["both", "zeros", "unchanged"]),
)
def test_true_hints_change_nothing_but_what_is_read(size, later_size, changes, grain, keep):
    repo = new_repository()
    before = MemoryDevice(mixed(size))
    parent, _ = backup(repo, before)
    content = bytearray((bytes(before.content) + mixed(later_size, seed=2))[:later_size])
    for place, zero in changes:
        part = content[place : place + 5000]
        content[place : place + 5000] = bytes(len(part)) if zero else b"!" * len(part)
    hints = true_hints(bytes(before.content), bytes(content), grain)
    if keep != "both":
        hints = Hints(**{keep: getattr(hints, keep)})

    plain, without = backup(repo, MemoryDevice(content), parent=parent)
    device = MemoryDevice(content)
    hinted, amounts = backup(repo, device, parent=parent, hints=hints)

    assert restored(repo, hinted) == content
    assert [entry.chunk_id for entry in hinted.entries()] == [
        entry.chunk_id for entry in plain.entries()
    ]
    assert amounts.read == sum(length for _, length in device.reads) <= without.read
    assert (amounts.zeros, amounts.reused, amounts.new) == (
        without.zeros,
        without.reused,
        without.new,
    )
    uses = {pack: use.live for pack, use in hinted.packs.items() if pack in parent.packs}
    assert uses == {pack: use.live for pack, use in plain.packs.items() if pack in parent.packs}


def test_hints_that_tell_all_leave_nothing_to_read():
    repo = new_repository()
    content = mixed(CHUNK * 6 + 77)
    parent, _ = backup(repo, MemoryDevice(content))
    device = MemoryDevice(content)
    hints = Hints(unchanged=Extents([(0, len(content))]))
    manifest, amounts = backup(repo, device, parent=parent, hints=hints)
    assert not device.reads and amounts.read == 0 and amounts.new == 0
    assert restored(repo, manifest) == content


def test_only_the_changed_blocks_of_a_chunk_are_read():
    repo = new_repository()
    content = bytearray(mixed(CHUNK * 3))
    parent, _ = backup(repo, MemoryDevice(content))
    content[CHUNK + BLOCK + 5] ^= 1
    device = MemoryDevice(content)
    changed = Extents([(CHUNK + BLOCK + 5, 1)])
    hints = Hints(unchanged=changed.complement(len(content)))
    manifest, amounts = backup(repo, device, parent=parent, hints=hints)
    assert device.reads == [(CHUNK + BLOCK, BLOCK)]
    assert amounts.read == amounts.new == BLOCK
    assert restored(repo, manifest) == content


def test_without_a_parent_nothing_is_unchanged():
    repo = new_repository()
    content = mixed(CHUNK * 2)
    device = MemoryDevice(content)
    hints = Hints(unchanged=Extents([(0, len(content))]))
    manifest, amounts = backup(repo, device, hints=hints)
    assert amounts.read == len(content)
    assert restored(repo, manifest) == content


def test_a_volume_that_shrank_ends_in_another_block():
    """The last block is shorter than the parent's at the same place, and not the same."""
    repo = new_repository()
    content = mixed(CHUNK * 2, seed=4)
    parent, _ = backup(repo, MemoryDevice(content))
    shorter = content[: CHUNK + BLOCK + 100]
    hints = Hints(unchanged=Extents([(0, len(shorter))]))
    manifest, _ = backup(repo, MemoryDevice(shorter), parent=parent, hints=hints)
    assert restored(repo, manifest) == shorter


def test_holes_are_not_read():
    repo = new_repository()
    content = mixed(BLOCK * 2) + bytes(CHUNK * 4) + mixed(100)
    device = MemoryDevice(content)
    holes = Extents([(BLOCK * 2, CHUNK * 4)])
    manifest, amounts = backup(repo, device, hints=Hints(zeros=holes))
    assert amounts.read == sum(length for _, length in device.reads) < BLOCK * 3
    assert restored(repo, manifest) == content


def test_what_a_restore_leaves_empty_is_not_read():
    """Holes of the target are known to be zeros; what has been written is looked at."""
    repo = new_repository()
    content = bytearray(CHUNK * 40)
    content[CHUNK : CHUNK + 5000] = b"!" * 5000
    manifest, _ = backup(repo, MemoryDevice(content))
    target = HoledDevice(bytes(len(content)), Extents([(0, CHUNK * 30)]))
    target.content[CHUNK * 35] = 1
    amounts = restore(repo, manifest, target)
    assert target.content == content
    assert sum(length for _, length in target.reads) <= CHUNK * 11
    assert amounts.kept + amounts.written + amounts.zeroed == len(content)


class HoledDevice(MemoryDevice):
    """A device that knows where it is empty."""

    def __init__(self, content, holes):
        super().__init__(content)
        self._known = holes

    def _holes(self):
        return self._known
