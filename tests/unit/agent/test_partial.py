# SPDX-License-Identifier: Apache-2.0
"""A run of several volumes of which some fail: what was stored has its record all the same."""

from __future__ import annotations

import json
import pathlib
import types
from typing import Any

import pytest

from freezer_osbrick import errors
from freezer_osbrick.agent import jobs
from freezer_osbrick.operations.report import RunReport, VolumeReport


class Engine:
    def __init__(self, *volumes: VolumeReport) -> None:
        self.report: Any = None
        self.record: dict[str, Any] = {}
        self._volumes = list(volumes)

    def backup(self, **settings: Any) -> int:
        self.report = RunReport(self._volumes)
        raise errors.OsbrickError("1 of 2 volumes failed: b: no space")


def job_of(metadata_out: str | None, *volumes: VolumeReport) -> Any:
    conf = types.SimpleNamespace(
        incremental=True,
        encrypt_pass_file="",
        metadata_out=metadata_out,
        time_stamp=1,
        osbrick=types.SimpleNamespace(places=()),
    )
    return types.SimpleNamespace(engine=Engine(*volumes), conf=conf, backup_name="nightly")


def stock(job: Any) -> dict[str, Any]:
    """What Freezer's own execute does with the engine."""
    level = job.engine.backup(incremental=True)
    return {"curr_backup_level": level, "time_stamp": job.conf.time_stamp, "action": "backup"}


DONE = VolumeReport("a", backup_id="1", level=2, time_stamp=1_700_000_000)
FAILED = VolumeReport("b", state="error", reason="no space")


def test_what_was_stored_is_told_and_the_job_fails(capsys: Any) -> None:
    with pytest.raises(errors.OsbrickError, match="1 of 2 volumes failed"):
        jobs._execute_backup(stock, job_of("-", DONE, FAILED))
    told = json.loads(capsys.readouterr().out)
    assert (told["time_stamp"], told["level"], told["action"]) == (1_700_000_000, 2, "backup")
    states = {volume["volume_id"]: volume["state"] for volume in told["osbrick"]["volumes"]}
    assert states == {"a": "success", "b": "error"}
    assert told["osbrick"]["volumes"][1]["reason"] == "no space"


def test_it_goes_to_a_file_too(tmp_path: pathlib.Path, capsys: Any) -> None:
    path = tmp_path / "record"
    with pytest.raises(errors.OsbrickError):
        jobs._execute_backup(stock, job_of(str(path), DONE, FAILED))
    assert json.loads(path.read_text())["curr_backup_level"] == 2
    with pytest.raises(errors.OsbrickError):
        jobs._execute_backup(stock, job_of(None, DONE, FAILED))
    assert capsys.readouterr().out == ""


def test_where_nothing_was_stored_there_is_no_record(capsys: Any) -> None:
    with pytest.raises(errors.OsbrickError):
        jobs._execute_backup(stock, job_of("-", FAILED))
    assert capsys.readouterr().out == ""
