# SPDX-License-Identifier: Apache-2.0
"""Backups of files among restores: what is told, and what is kept."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import pytest

from freezer_osbrick import errors
from freezer_osbrick.filesystem.filling import Filled
from freezer_osbrick.operations import contents, file_restore
from freezer_osbrick.operations.choice import Selection
from freezer_osbrick.operations.report import RunReport
from freezer_osbrick.pipeline.backup import BackupWriter
from freezer_osbrick.pipeline.progress import Progress
from tests.unit.fakes import MemoryDevice
from tests.unit.operations.restoring import OLD, Bench
from tests.unit.pipeline import flow


class Pretended:
    """Stands in for what mounts file systems."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.filled = Filled(made=3, written=10)
        self.differences: list[str] = []
        self.existing: list[bool] = []
        monkeypatch.setattr(file_restore, "_filling", self._filling)
        monkeypatch.setattr(file_restore, "StoredFiles", lambda *_: None)
        monkeypatch.setattr(file_restore, "differences", lambda *_: iter(self.differences))

    def _filling(self, *_: Any) -> Any:
        return self

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: Any) -> None: ...

    def existing_volume(self, device: Any) -> Filled:
        self.existing.append(True)
        return self.filled

    def new_volume(self, device: Any) -> Filled:
        self.existing.append(False)
        return self.filled

    def folder(self, path: str) -> Filled:
        return self.filled


@pytest.fixture
def bench(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, sleeps: Any) -> Bench:
    bench = Bench(tmp_path, monkeypatch)
    backup_id = os.urandom(16)
    device = MemoryDevice(OLD * 3)  # the address space is larger than the volume
    writer = BackupWriter(bench.repository, backup_id, device, parent=None, progress=Progress("v"))
    record = bench.record().to_dict()
    writer.run(
        flow.new_head(backup_id, volume=record, time=1_700_000_100)
        | {"content": "files", "files": {}}
    )
    return bench


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    return Pretended(monkeypatch)


@pytest.mark.parametrize("gone", [False, True])
def test_the_volume_is_as_large_as_it_was(bench: Bench, pretended: Pretended, gone: bool) -> None:
    if gone:
        bench.lose_the_volume()
    told = bench.restore(verify=True)
    assert (told.state, told.verified, told.bytes_written) == ("success", True, 10)
    assert pretended.existing == [not gone]
    assert bench.now(told.restored_volume_id).size == 1
    assert bench.nothing_left


def test_a_partial_restore_is_no_success(bench: Bench, pretended: Pretended) -> None:
    pretended.filled.problems.append("'/a': its owner could not be set")
    told = bench.restore(remove_old_vol=True)
    assert told.state == "partial"
    assert told.reason == "Not everything could be restored: '/a': its owner could not be set."
    assert not RunReport([told]).ok
    assert told.removed_volume_id is None
    assert bench.volume.id in bench.volume_ids
    assert f"The old volume {bench.volume.id} is kept: not all was restored." in told.notes


def test_a_volume_that_reads_otherwise_is_refused(bench: Bench, pretended: Pretended) -> None:
    pretended.differences = ["'/a': it has other content"]
    told = bench.restore(verify=True)
    assert told.state == "error"
    assert "'/a': it has other content" in str(told.reason)
    assert bench.volume_ids == {bench.volume.id}


def test_what_is_left_of_several_has_the_folder_that_it_would_have_had(
    bench: Bench, pretended: Pretended
) -> None:
    told = bench.restore(to_folder="/some/folder", selection=Selection(of_several=True))
    assert told.target == f"/some/folder/{bench.volume.id}"


def test_into_a_folder_no_cloud_is_asked(bench: Bench, pretended: Pretended) -> None:
    before = len(bench.cloud.cinder.log)
    told = bench.restore(to_folder="/some/folder")
    assert (told.state, told.target) == ("success", "/some/folder")
    assert len(bench.cloud.cinder.log) == before


def test_what_makes_no_sense_with_a_folder(bench: Bench) -> None:
    with pytest.raises(errors.BadRequest, match="--new-name and --verify would mean nothing"):
        bench.restore(to_folder="/some/folder", new_name="x", verify=True)


def test_blocks_into_a_folder(bench: Bench, pretended: Pretended) -> None:
    told = bench.restore(to_folder="/some/folder", before=1_700_000_050)
    assert told.state == "error"
    assert "holds blocks and not files" in str(told.reason)


def test_content_of_a_later_version() -> None:
    assert contents.content_of({}) == "blocks"
    with pytest.raises(errors.UnknownFormat, match="'objects', which needs a later version"):
        contents.content_of({"content": "objects"})


def test_the_names_of_many_files_fit_into_a_sentence() -> None:
    unread = [contents.Unread(0, n, f"/f{n}", "broken") for n in range(30)]
    told = contents.told(unread)
    assert told.startswith("Of 30 files not everything could be read: '/f0' (broken), ")
    assert told.endswith("'/f19' (broken) and 10 more.")
