# SPDX-License-Identifier: Apache-2.0
"""Any history of changes, backups, removals, collections and restores, against a model: a dict of
contents."""

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)

from freezer_osbrick.repository import catalogue, collection, repository
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository.manifest import Manifest
from tests.unit.fakes import MemoryDevice, MemoryStore
from tests.unit.pipeline.flow import backup, restore

BLOCK, CHUNK_BLOCKS = 4096, 3
CHUNK = BLOCK * CHUNK_BLOCKS

places = st.integers(0, 1 << 17)
lengths = st.sampled_from([1, 100, BLOCK, BLOCK + 1, CHUNK, CHUNK * 3])


class Volumes(RuleBasedStateMachine):
    """One volume, one repository, and volumes that were restored earlier."""

    kept = Bundle("kept")
    restored = Bundle("restored")

    @initialize(size=st.integers(0, CHUNK * 6), level=st.sampled_from([0, 1]))
    def begin(self, size, level):
        store = MemoryStore()
        self.time = 1e9
        store.now = lambda: self.time
        self.repo = repository.create(store, block_size=BLOCK, chunk_blocks=CHUNK_BLOCKS)
        self.level = level
        self.device = MemoryDevice(os.urandom(size))
        self.contents = {}

    # -- the volume changes ------------------------------------------------------------------------

    @rule(place=places, length=lengths, text=st.sampled_from([b"", b"text", b"\0\1"]))
    def write(self, place, length, text):
        content = self.device.content
        start = place % max(len(content), 1)
        length = min(length, len(content) - start)
        content[start : start + length] = (text * length)[:length] or os.urandom(length)

    @rule(place=places, length=lengths)
    def discard(self, place, length):
        content = self.device.content
        start = place % max(len(content), 1)
        length = min(length, len(content) - start)
        content[start : start + length] = bytes(length)

    @precondition(lambda self: self.device.size < CHUNK * 12)
    @rule(length=lengths, zeros=st.booleans())
    def grow(self, length, zeros):
        more = bytes(length) if zeros else os.urandom(length)
        self.device = MemoryDevice(self.device.content + more)

    @rule(length=lengths)
    def shrink(self, length):
        self.device = MemoryDevice(self.device.content[: max(self.device.size - length, 0)])

    @rule(backup_id=kept)
    def revert(self, backup_id):
        """As it was at an earlier backup."""
        self.device = MemoryDevice(self.contents[backup_id])

    # -- backups come and go -----------------------------------------------------------------------

    @rule(target=kept, threads=st.integers(1, 3))
    def full(self, threads):
        return self._backup(None, threads)

    @rule(target=kept, parent=kept, threads=st.integers(1, 3))
    def incremental(self, parent, threads):
        return self._backup(Manifest(self.repo, parent), threads)

    def _backup(self, parent, threads):
        manifest, amounts = backup(
            self.repo,
            self.device,
            parent=parent,
            threads=threads,
            compression_level=self.level,
        )
        assert amounts.read == self.device.size
        assert amounts.zeros + amounts.reused + amounts.new == amounts.read
        if parent is not None and self.contents[parent.backup_id] == self.device.content:
            assert amounts.new == 0
        self.contents[manifest.backup_id] = bytes(self.device.content)
        return manifest.backup_id

    @rule(backup_id=consumes(kept))
    def remove(self, backup_id):
        del self.contents[backup_id]
        catalogue.remove(self.repo, catalogue.find(self.repo, backup_id.hex()))

    @rule(hours=st.integers(0, 30))
    def collect(self, hours):
        collection.collect(self.repo)
        self.time += hours * 3600
        collection.collect(self.repo)

    # -- and are restored --------------------------------------------------------------------------

    @rule(target=restored, backup_id=kept, extra=st.sampled_from([0, 1, CHUNK]))
    def restore_into_a_new_volume(self, backup_id, extra):
        content = self.contents[backup_id]
        device = MemoryDevice(os.urandom(len(content) + extra))
        restore(self.repo, Manifest(self.repo, backup_id), device)
        assert device.content == content + bytes(extra)
        return device

    @rule(backup_id=kept, device=restored)
    def restore_over_an_earlier_state(self, backup_id, device):
        content = self.contents[backup_id]
        if device.size < len(content):
            return
        tail = device.content[len(content) :]
        same = device.content[: len(content)] == content
        device.writes.clear()
        restore(self.repo, Manifest(self.repo, backup_id), device, compare=True)
        assert device.content == content + tail
        assert not (same and device.writes)

    @invariant()
    def the_catalogue_lists_exactly_what_is_kept(self):
        if hasattr(self, "repo"):
            listed = {backup.id: backup.size for backup in catalogue.backups(self.repo)}
            assert listed == {key.hex(): len(text) for key, text in self.contents.items()}

    def teardown(self):
        """At the end all of them restore, and after two collections nothing else remains."""
        if not hasattr(self, "repo"):
            return
        for _ in range(2):
            collection.collect(self.repo)
            self.time += collection.DEFAULT_GRACE
        collection.collect(self.repo)
        used = set()
        for backup_id, content in self.contents.items():
            device = MemoryDevice(os.urandom(len(content)))
            manifest = Manifest(self.repo, backup_id)
            restore(self.repo, manifest, device)
            assert device.content == content
            used |= {form.pack_name(pack) for pack in manifest.packs}
        assert {info.name for info in self.repo.store.list(form.PACKS)} == used


Volumes.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestVolumes = Volumes.TestCase
