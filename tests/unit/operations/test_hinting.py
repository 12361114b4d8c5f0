# SPDX-License-Identifier: Apache-2.0
"""What a backup leaves unread, which snapshot it keeps, and what it says of both."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
from cinderclient import exceptions

from freezer_osbrick import errors
from freezer_osbrick.cloud import kept, tags
from freezer_osbrick.device.hints import Extents, FrozenState, Mark
from freezer_osbrick.operations.backup import BackupRequest, backup
from freezer_osbrick.operations.cleanup import cleanup
from freezer_osbrick.operations.hinting import HintPolicy
from freezer_osbrick.operations.report import VolumeReport
from freezer_osbrick.operations.trust import trust
from freezer_osbrick.repository import catalogue
from tests.unit.fakes import MemoryDevice
from tests.unit.operations.restoring import NEW, Bench
from tests.unit.pipeline.flow import BLOCK

SIZE = len(NEW)


class TellingDevice(MemoryDevice):
    """A device whose storage remembers its snapshots, and may lie."""

    hearsay = True

    def __init__(self, bench: HintBench, writable: bool) -> None:
        super().__init__(b"", writable=writable)
        self.bench = bench

    def _mark(self, state: FrozenState) -> Mark | None:
        assert state.volume_id == self.bench.volume.id
        self.bench.frozen[state.snapshot_id] = bytes(self.content)
        return {"kind": "memory", "snapshot": state.snapshot_id} if self.bench.tells else None

    def _unchanged(self, state: FrozenState, since: Mark) -> Extents:
        if since["snapshot"] not in self.bench.cloud.cinder.volume_snapshots.all:
            raise errors.HintsUnfit("The snapshot is gone.")
        before = self.bench.frozen[since["snapshot"]]
        return Extents(
            (offset, BLOCK)
            for offset in range(0, SIZE, BLOCK)
            if self.bench.lies
            or before[offset : offset + BLOCK] == self.content[offset : offset + BLOCK]
        )


class HintBench(Bench):
    def __init__(self, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.frozen: dict[str, bytes] = {}
        self.tells = True
        self.lies = False
        super().__init__(folder, monkeypatch)

    def _open_device(self, device_info: Any, *, size: int, writable: bool, connection_info: Any):
        device = TellingDevice(self, writable)
        device.content = self._content(connection_info["device_path"].rpartition("/")[2])
        device.size = len(device.content)
        return device

    def back_up(self, keep: bool | None = True, cold: bool = False, **policy: Any) -> VolumeReport:
        request = BackupRequest(
            volume_ids=(self.volume.id,),
            backup_name="series",
            hostname="host",
            incremental=True,
            cold=cold,
            hints=HintPolicy(keep=keep, **policy),
        )
        (told,) = backup(self.context(), "memory:", request).volumes
        assert told.state == "success", told.reason
        return told

    def change(self, block: int) -> None:
        self.contents[self.volume.id][block * BLOCK] ^= 1

    @property
    def kept(self) -> list[str]:
        return list(self.cloud.cinder.volume_snapshots.all)


@pytest.fixture
def bench(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, sleeps: Any) -> HintBench:
    bench = HintBench(tmp_path, monkeypatch)
    bench.back_up()  # the volume was backed up without a mark before
    return bench


def test_one_snapshot_stays_and_says_what_it_is_for(bench: HintBench) -> None:
    (first,) = bench.kept
    made = bench.cloud.cinder.volume_snapshots.all[first]
    assert made.metadata[tags.PREFIX] == "kept"
    assert "cleanup --kept-snapshots" in made.description
    assert not bench.ledger.runs()
    bench.change(3)
    told = bench.back_up()
    assert (told.hints, told.notes) == ("used", [])
    assert told.blocks_audited == SIZE // BLOCK - 1  # fewer than the least
    assert told.bytes_read == SIZE
    (second,) = bench.kept
    assert second != first


def test_heads_say_what_the_next_one_needs(bench: HintBench) -> None:
    bench.back_up()
    bench.back_up(keep=None)
    heads = [one.head for one in catalogue.backups(bench.repository)]
    assert [head.get("hints", {}).get("word") for head in heads] == [None, "unfit", "used", "used"]
    assert [head.get("hints", {}).get("in_a_row") for head in heads] == [None, None, 1, 2]
    assert heads[2]["mark"]["snapshot"] == bench.kept[0]
    assert "mark" not in heads[3]


def test_hints_need_a_mark_in_the_parent(bench: HintBench) -> None:
    bench.back_up(keep=None)
    told = bench.back_up()
    assert told.hints == "unfit" and "No snapshot was kept for it" in told.notes[0]
    told = bench.back_up(use=False)
    assert (told.hints, told.blocks_audited, told.notes) == (None, None, [])


def test_a_whole_read_now_and_then(bench: HintBench) -> None:
    words = [bench.back_up(full_read_every=3).hints for _ in range(6)]
    assert words == ["used", "used", "whole read"] * 2
    assert bench.back_up(full_read_every=1).hints == "whole read"


def test_one_lie_and_hints_are_off_until_somebody_trusts_them(bench: HintBench) -> None:
    bench.lies = True
    bench.change(5)
    told = bench.back_up()
    assert told.hints == "wrong"
    assert f"{5 * BLOCK}+{BLOCK}" in told.notes[0]
    assert told.bytes_new == BLOCK  # everything was read
    assert bench.kept == []
    wrong = bench.now(bench.volume.id).metadata[tags.DISTRUSTED]
    assert wrong == told.backup_id

    bench.lies = False
    told = bench.back_up()
    assert (told.hints, bench.kept) == ("off", [])
    assert f"backup {wrong} found the change hints" in told.notes[0]
    (trusted,) = trust(bench.context(), [bench.volume.id])
    assert trusted.found_wrong_by == wrong
    (trusted,) = trust(bench.context(), [bench.volume.id])
    assert trusted.found_wrong_by is None
    assert [bench.back_up().hints, bench.back_up().hints] == ["unfit", "used"]


def test_what_cannot_be_kept_is_said(bench: HintBench) -> None:
    told = bench.back_up(cold=True)
    assert "A cold backup makes no snapshot" in told.notes[0]
    bench.tells = False
    told = bench.back_up()
    assert "does not tell what changes" in told.notes[0]
    assert len(bench.kept) == 1  # of before


def test_a_snapshot_that_cannot_be_tagged_goes(bench: HintBench) -> None:
    (before,) = bench.kept
    snapshots = bench.cloud.cinder.volume_snapshots

    def refuse(identifier: str, metadata: dict[str, str]) -> None:
        raise exceptions.Forbidden(403, "no")

    snapshots.set_metadata = refuse  # type: ignore[method-assign]
    bench.back_up()
    del snapshots.set_metadata
    assert bench.kept == [before]
    assert not bench.ledger.runs()
    assert bench.back_up().hints == "unfit"


def clean(bench: HintBench, **options: Any) -> list[tuple[str, str]]:
    context = bench.context()
    report = cleanup(context.cloud, context.host, context.ledger, **options)
    return [(item.state, item.id) for item in report.items]


def test_cleanup_takes_what_is_superseded_and_the_rest_when_asked(bench: HintBench) -> None:
    (older,) = bench.kept
    made = bench.cloud.cinder.volume_snapshots.all[older]
    newer = bench.cloud.cinder.volume_snapshots.create(bench.volume.id, metadata=made.metadata)
    assert clean(bench, dry_run=True) == [("would remove", older), ("kept", newer.id)]
    assert clean(bench) == [("removed", older), ("kept", newer.id)]
    assert clean(bench, kept_snapshots=True) == [("removed", newer.id)]
    assert clean(bench) == []


def test_kept_ones_of_other_volumes_stay(bench: HintBench) -> None:
    other = bench.cloud.volume()
    made = bench.cloud.cinder.volume_snapshots.all[bench.kept[0]]
    theirs = bench.cloud.cinder.volume_snapshots.create(other.id, metadata=made.metadata)
    kept.remove_of(bench.cloud, bench.volume.id)  # type: ignore[arg-type]
    assert bench.kept == [theirs.id]
