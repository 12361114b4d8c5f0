# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import pathlib
import signal
import stat
import subprocess
import sys
import threading
import time

import pytest

from freezer_osbrick import errors
from freezer_osbrick.cloud import journal, scratch
from freezer_osbrick.cloud.ledger import Ledger
from freezer_osbrick.cloud.tags import EXPIRES, MARK, Tags, users_own

CHECKOUT = pathlib.Path(__file__).resolve().parents[3]

CREATED = {"resource": "volume", "token": "t", "id": "v1", "project_id": "p1"}


def test_a_run_that_leaves_nothing_removes_its_journal(ledger: Ledger) -> None:
    with ledger.start("backup") as run:
        assert ledger.runs() == [run.id]
        run.record("creating", resource="volume", token="t", project_id="p1")
        run.record("created", **CREATED)
        run.record("removed", resource="volume", id="v1")
        pathlib.Path(run.scratch(), "file").write_text("x")
    assert os.listdir(ledger.folder) == ["id"]
    run.end()


def test_a_run_that_leaves_something_keeps_it(ledger: Ledger) -> None:
    with pytest.raises(ZeroDivisionError), ledger.start("restore") as run:
        run.record("created", **CREATED)
        raise ZeroDivisionError
    dead = ledger.adopt(run.id)
    assert dead is not None
    assert dead.outstanding.purpose == "restore"
    assert dead.outstanding.host == "here"
    assert dead.outstanding.resources == {"v1": journal.Resource("volume", "v1", "p1")}
    dead.record("removed", resource="volume", id="v1")
    assert not dead.outstanding
    dead.remove()
    assert ledger.runs() == []


def test_a_living_run_cannot_be_adopted(ledger: Ledger) -> None:
    with ledger.start("backup") as run:
        assert ledger.adopt(run.id) is None
        assert ledger.is_alive(run.id)
    assert not ledger.is_alive(run.id)
    assert ledger.adopt(run.id) is None


def test_adopted_once(ledger: Ledger) -> None:
    with ledger.start("backup") as run:
        run.record("created", **CREATED)
    first = ledger.adopt(run.id)
    assert first is not None
    assert ledger.adopt(run.id) is None
    first.release()
    assert ledger.adopt(run.id) is not None


def test_a_killed_process(ledger: Ledger) -> None:
    script = """
import os, signal, sys
from freezer_osbrick.cloud.ledger import Ledger
run = Ledger(sys.argv[1], "here").start("backup")
run.record("created", resource="volume", token="t", id="v1", project_id="p1")
open(os.path.join(run.scratch(), "file"), "w").close()
print(run.id, flush=True)
sys.stdin.read()
"""
    child = subprocess.Popen(
        [sys.executable, "-c", script, ledger.folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
    )
    assert child.stdout is not None
    run_id = child.stdout.readline().strip()
    assert ledger.is_alive(run_id)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    child.communicate()
    dead = ledger.adopt(run_id)
    assert dead is not None
    assert list(dead.outstanding.resources) == ["v1"]
    dead.remove()
    assert os.listdir(ledger.folder) == ["id"]


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_last_line_that_is_cut_short(ledger: Ledger, cut: int) -> None:
    with ledger.start("backup") as run:
        run.record("created", **CREATED)
        run.record("created", **{**CREATED, "id": "v2"})
    path = os.path.join(ledger.folder, run.id + ".journal")
    os.truncate(path, os.path.getsize(path) - cut)
    dead = ledger.adopt(run.id)
    assert dead is not None
    assert "v1" in dead.outstanding.resources
    dead.record("created", **{**CREATED, "id": "v3"})
    dead.release()
    again = ledger.adopt(run.id)
    assert again is not None
    assert {"v1", "v3"} <= set(again.outstanding.resources)


def test_lines_that_make_no_sense(ledger: Ledger) -> None:
    entries = journal.decode(b'{"step":"created","id":"x"}\n[1]\nnonsense\n{"step":"later"}\n{}')
    assert len(entries) == 3
    outstanding = journal.Outstanding(entries)
    assert not outstanding
    outstanding.apply({"step": "connected", "attachment_id": "unknown", "device_info": {}})
    assert not outstanding


def test_an_attachment_step_by_step() -> None:
    outstanding = journal.Outstanding()
    steps = [
        {"step": "attaching", "volume_id": "v1", "project_id": "p1"},
        {"step": "attached", "volume_id": "v1", "attachment_id": "a1", "project_id": "p1"},
        {"step": "connecting", "attachment_id": "a1", "connection_info": {"x": 1}},
        {"step": "connected", "attachment_id": "a1", "device_info": {"path": "/dev/x"}},
    ]
    for step in steps:
        outstanding.apply(step)
        assert outstanding
    assert outstanding.attaching == {}
    assert outstanding.attachments["a1"] == journal.Attachment(
        "a1", "v1", "p1", {"x": 1}, {"path": "/dev/x"}
    )
    outstanding.apply({"step": "disconnected", "attachment_id": "a1"})
    assert outstanding.attachments["a1"].connection_info is None
    outstanding.apply({"step": "detached", "attachment_id": "a1"})
    assert not outstanding


def test_durable_before_it_returns(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    with ledger.start("backup") as run:
        path = os.path.join(ledger.folder, run.id + ".journal")
        synced: list[bytes] = []
        fsync = os.fsync

        def noting(descriptor: int) -> None:
            fsync(descriptor)
            synced.append(pathlib.Path(path).read_bytes())

        monkeypatch.setattr(os, "fsync", noting)
        run.record("attaching", volume_id="v1", project_id="p1")
        assert json.loads(synced[-1].splitlines()[-1])["step"] == "attaching"
        run.record("unattached", volume_id="v1")


def test_nobody_else_reads_it(tmp_path: pathlib.Path) -> None:
    ledger = Ledger(str(tmp_path / "private"), "here")
    with ledger.start("backup") as run:
        assert stat.S_IMODE(os.stat(ledger.folder).st_mode) == 0o700
        path = os.path.join(ledger.folder, run.id + ".journal")
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert stat.S_IMODE(os.stat(run.scratch()).st_mode) == 0o700


def test_lines_of_many_threads_stay_whole(ledger: Ledger) -> None:
    with ledger.start("backup") as run:

        def work(number: int) -> None:
            for step in range(20):
                run.record("created", **{**CREATED, "id": f"v{number}-{step}"})

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    dead = ledger.adopt(run.id)
    assert dead is not None
    assert len(dead.outstanding.resources) == 160


def test_a_ledger_has_one_id(tmp_path: pathlib.Path) -> None:
    folder = str(tmp_path / "ledger")
    ids: set[str] = set()
    threads = [
        threading.Thread(target=lambda: ids.add(Ledger(folder, "here").id)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 1
    assert os.listdir(folder) == ["id"]
    assert Ledger(str(tmp_path / "other"), "here").id not in ids


def test_a_folder_that_cannot_be_used(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.ConfigurationError, match="cannot be used"):
        Ledger(str(tmp_path / "file"), "here")


def test_sweeping_what_crashes_left(ledger: Ledger) -> None:
    folder = pathlib.Path(ledger.folder)
    (folder / "dead.scratch").mkdir()
    (folder / "dead.scratch" / "file").write_text("x")
    (folder / "old.new").write_text("")
    os.utime(folder / "old.new", (0, 0))
    (folder / "just now.new").write_text("")
    with ledger.start("backup") as run:
        run.scratch()
        swept = ledger.sweep()
        assert swept == [str(folder / "dead.scratch"), str(folder / "old.new")]
        assert os.path.isdir(run.scratch_path)


# -- leases ----------------------------------------------------------------------------------------


def test_the_lease_is_renewed_until_it_is_let_go(tmp_path: pathlib.Path) -> None:
    ledger = Ledger(str(tmp_path / "ledger"), "here", lease=0.2)
    renewed: list[float] = []
    twice = threading.Event()

    def renew(metadata: object) -> None:
        assert isinstance(metadata, dict)
        renewed.append(float(metadata[EXPIRES]))
        if len(renewed) == 1:
            raise errors.CloudUnavailable("later")
        twice.set()

    with ledger.start("backup") as run:
        run.hold("v1", renew)
        assert twice.wait(10)
        run.let_go("v1")
        count = len(renewed)
        time.sleep(0.2)
        assert len(renewed) == count
        assert renewed[-1] >= time.time() - 11
    assert not [thread for thread in threading.enumerate() if run.id in thread.name]


# -- tags ------------------------------------------------------------------------------------------


def test_tags_there_and_back(ledger: Ledger) -> None:
    with ledger.start("backup") as run:
        made, other = run.new_tags(), run.new_tags()
    assert made.run == run.id
    assert (made.host, made.ledger, made.purpose) == ("here", ledger.id, "backup")
    assert made.token != other.token
    assert abs(made.expires - time.time() - 3600) < 60
    metadata = made.to_metadata()
    assert Tags.of(metadata) == made
    assert MARK.items() <= metadata.items()
    assert all(isinstance(value, str) and len(value) <= 255 for value in metadata.values())


def test_what_is_not_ours() -> None:
    metadata = Tags("r", "backup", "here", "l", 1, "t").to_metadata()
    assert Tags.of(None) is None
    assert Tags.of({}) is None
    assert Tags.of({**metadata, EXPIRES: "soon"}) is None
    for key in set(metadata) - set(MARK):
        assert Tags.of({name: value for name, value in metadata.items() if name != key}) is None


def test_the_users_own_metadata() -> None:
    metadata = Tags("r", "backup", "here", "l", 1, "t").to_metadata()
    assert users_own({**metadata, "a": "b", "readonly": "True", "attached_mode": "rw"}) == {
        "a": "b"
    }
    assert users_own(None) == {}


# -- scratch ---------------------------------------------------------------------------------------


def test_mounts_below_a_folder(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "run with space.scratch"
    folder.mkdir()
    line = "36 35 98:0 / {} rw,noatime - ext3 /dev/root rw\n"
    escaped = str(folder).replace(" ", "\\040")
    points = ["/", str(tmp_path), f"{escaped}/a", f"{escaped}/a/b", f"{escaped}x/c"]
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text("".join(line.format(point) for point in points))
    assert scratch.mounts_below(str(folder), str(mountinfo)) == [f"{folder}/a/b", f"{folder}/a"]


def test_what_is_mounted_is_unmounted_and_not_emptied(tmp_path: pathlib.Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    outside, folder = tmp_path / "outside", tmp_path / "run.scratch"
    outside.mkdir()
    (outside / "precious").write_text("x")
    (folder / "mount").mkdir(parents=True)
    command = ["mount", "--bind", str(outside), str(folder / "mount")]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    scratch.clear(str(folder))
    assert not folder.exists()
    assert (outside / "precious").exists()
    scratch.clear(str(folder))


def test_what_cannot_be_unmounted_is_named(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "mounts_below", lambda folder: [str(tmp_path / "no mount")])
    (tmp_path / "file").write_text("x")
    with pytest.raises(errors.Leftovers, match="no mount cannot be unmounted"):
        scratch.clear(str(tmp_path))
    assert (tmp_path / "file").exists()
