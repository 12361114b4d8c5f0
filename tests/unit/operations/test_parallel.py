# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import signal
import threading

import pytest

from freezer_osbrick import errors, interruption
from freezer_osbrick.operations import memory, parallel, report, signals
from freezer_osbrick.operations.report import RunReport
from freezer_osbrick.pipeline import workers
from freezer_osbrick.pipeline.progress import Progress

TEN = [f"v{number}" for number in range(10)]


@pytest.fixture(autouse=True)
def plenty_of_memory(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: None)


def states(run):
    return {volume.volume_id: volume.state for volume in run.volumes}


def test_so_many_at_a_time_and_no_more():
    """None goes on before as many as wanted are at work."""
    together = threading.Barrier(5)
    at_work = []
    most = []

    def one(volume):
        at_work.append(volume)
        most.append(len(at_work))
        together.wait()
        at_work.remove(volume)

    run = parallel.each(RunReport.of(TEN), one, parallel=5)
    assert run.ok
    assert max(most) == 5
    assert [volume.volume_id for volume in run.volumes] == TEN


def test_one_failure_does_not_stop_the_others():
    def one(volume):
        if volume.volume_id == "v3":
            raise errors.QuotaExceeded("The quota is used up.")
        if volume.volume_id == "v4":
            raise ZeroDivisionError("a fault of ours")

    run = parallel.each(RunReport.of(TEN), one, parallel=3)
    assert not run.ok
    reasons = {volume.volume_id: volume.reason for volume in run.volumes if volume.reason}
    assert reasons == {
        "v3": "The quota is used up.",
        "v4": "Unexpected ZeroDivisionError: a fault of ours",
    }
    assert sorted(states(run).values()) == ["error"] * 2 + ["success"] * 8
    assert all(volume.seconds is not None for volume in run.volumes)


def test_memory_bounds_the_number(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 3 * parallel.VOLUME_MEMORY + 1)
    assert parallel.within_memory(10) == 3
    assert parallel.within_memory(2) == 2
    monkeypatch.setattr(memory, "available", lambda: 1)
    assert parallel.within_memory(10) == 1


def test_what_is_done_already_is_left_alone():
    run = RunReport.of(TEN)
    run.volumes[0].state = report.ERROR
    worked_on = []
    parallel.each(run, lambda volume: worked_on.append(volume.volume_id), parallel=1)
    assert worked_on == TEN[1:]


def test_each_volume_is_heard_of():
    events = []

    def one(volume):
        Progress(volume.volume_id, events.append).enter("read", 1)

    parallel.each(RunReport.of(TEN), one, parallel=4, listener=events.append)
    for volume_id in TEN:
        phases = [event.phase for event in events if event.volume_id == volume_id]
        assert phases == ["waiting", "read", "ended"]


class Volumes:
    """Volumes that are at work until the run is ended, each at another kind of step."""

    def __init__(self, count):
        self.all_at_work = threading.Barrier(count + 1)
        self.taken_down = []

    def one(self, volume):
        try:
            self.all_at_work.wait()
            if volume.volume_id == "v0":
                while True:
                    interruption.sleep(3600)
            elif volume.volume_id == "v1":
                progress = Progress(volume.volume_id)
                while True:
                    progress.enter("snapshot")
            elif volume.volume_id == "v2":
                interruption.wait(threading.Event())
            else:
                workers.run(1 << 62, 2, lambda: lambda number: None)
        finally:
            with interruption.shielded():
                interruption.sleep(0.01)
                interruption.check()
            self.taken_down.append(volume.volume_id)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_in_order(number, tmp_path):
    path = tmp_path / "report.json"
    volumes = Volumes(4)
    run = RunReport.of(TEN, str(path))

    def send():
        volumes.all_at_work.wait()
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    with pytest.raises(signals.Ended) as ended, signals.ending_in_order(lambda line: None):
        sender.start()
        parallel.each(run, volumes.one, parallel=4)
    sender.join()
    assert ended.value.exit_status == 128 + number
    assert sorted(volumes.taken_down) == TEN[:4]
    assert set(states(run).values()) == {"interrupted"}
    assert not interruption.requested()
    assert report.not_done(str(path)) == report.NotDone(tuple(TEN), of_several=True)
    assert [volume["reason"] for volume in json.loads(path.read_text())["volumes"]] == [
        *["The run was ended before the volume was done."] * 4,
        *["The run was ended before its turn."] * 6,
    ]


def test_a_second_signal_does_not_end_the_taking_down():
    at_work, told_twice = threading.Event(), threading.Event()
    told, taken_down = [], []

    def tell(line):
        told.append(line)
        if len(told) == 2:
            told_twice.set()

    def one(volume):
        try:
            at_work.set()
            interruption.sleep(3600)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            told_twice.wait()
            taken_down.append(volume.volume_id)

    def send():
        at_work.wait()
        os.kill(os.getpid(), signal.SIGINT)

    sender = threading.Thread(target=send)
    with pytest.raises(signals.Ended) as ended, signals.ending_in_order(tell):
        sender.start()
        parallel.each(RunReport.of(["v1"]), one, parallel=1)
    sender.join()
    assert ended.value.exit_status == 130
    assert taken_down == ["v1"]


def test_a_budget_is_shared():
    """Three volumes with four threads each have no more than two steps under way."""
    budget = workers.Budget(2)
    lock = threading.Lock()
    under_way, most = 0, 0

    def step(number):
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        threading.Event().wait(0.001)
        with lock:
            under_way -= 1

    run = RunReport.of(TEN[:3])
    parallel.each(run, lambda volume: workers.run(40, budget, lambda: step), parallel=3)
    assert run.ok
    assert most == 2


class TestReportFile:
    def test_it_is_there_from_the_beginning(self, tmp_path):
        path = tmp_path / "report.json"
        seen = []

        def one(volume):
            seen.append(json.loads(path.read_text()))
            volume.backup_id = "b"

        parallel.each(RunReport.of(TEN, str(path)), one, parallel=1)
        assert [volume["state"] for volume in seen[0]["volumes"]] == ["waiting"] * 10
        assert [volume["state"] for volume in seen[9]["volumes"]] == ["success"] * 9 + ["waiting"]
        document = json.loads(path.read_text())
        assert document["ok"] is True
        assert {volume["backup_id"] for volume in document["volumes"]} == {"b"}
        assert os.listdir(tmp_path) == ["report.json"]

    def test_one_that_cannot_be_written_keeps_the_run_from_beginning(self, tmp_path):
        run = RunReport.of(TEN, str(tmp_path / "nowhere" / "report.json"))
        with pytest.raises(errors.ConfigurationError, match="No such file"):
            parallel.each(run, lambda volume: pytest.fail("begun"), parallel=1)

    @pytest.mark.parametrize("text", ["", "7", "{}", "[1]", '{"volumes": [{}]}', "[" * 100000])
    def test_what_is_no_report(self, tmp_path, text):
        (tmp_path / "r").write_text(text)
        with pytest.raises(errors.BadRequest, match="is no report|are done"):
            report.not_done(str(tmp_path / "r"))

    def test_nothing_is_left_to_do(self, tmp_path):
        path = str(tmp_path / "r")
        parallel.each(RunReport.of(TEN, path), lambda volume: None, parallel=2)
        with pytest.raises(errors.BadRequest, match="All volumes of the report .* are done"):
            report.not_done(path)

    def test_what_the_command_printed_will_do(self, tmp_path):
        rows = [{"volume_id": "a", "state": "success"}, {"volume_id": "b", "state": "error"}]
        (tmp_path / "r").write_text(json.dumps(rows))
        assert report.not_done(str(tmp_path / "r")) == report.NotDone(("b",), of_several=True)

    def test_what_is_left_of_several_stays_that(self, tmp_path):
        """A second try that keeps its report in the same file, and a third."""
        path = str(tmp_path / "r")
        RunReport.of(["a"], path, of_several=True).keep()
        assert report.not_done(path) == report.NotDone(("a",), of_several=True)
        RunReport.of(["a"], path).keep()
        assert report.not_done(path) == report.NotDone(("a",), of_several=False)
