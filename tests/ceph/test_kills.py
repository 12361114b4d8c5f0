# SPDX-License-Identifier: Apache-2.0
"""``kill -9`` of backups at random moments: one cleanup, and only what is kept by policy stays."""

from __future__ import annotations

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

from tests.ceph.ceph_bench import MIB, CephBench
from tests.functional.workbench import CHECKOUT

KILLS = int(os.environ.get("FREEZER_OSBRICK_KILLS", "10"))

SETTINGS = """\
[osbrick]
state_path = {bench.state_path}
[cloud]
poll_interval = 0.2
[device]
my_ip = 127.0.0.1
ceph_keyring = {bench.conf.device.ceph_keyring}
"""


def start(bench: CephBench, folder: pathlib.Path, volume_id: str) -> subprocess.Popen[bytes]:
    """The command, as a person runs it."""
    configuration = folder / "freezer-osbrick.conf"
    configuration.write_text(SETTINGS.format(bench=bench))
    env = {key: value for key, value in os.environ.items() if not key.startswith("OS_")}
    env.update(
        bench.embedded.env("demo"),
        PYTHONPATH=os.pathsep.join([str(CHECKOUT), bench.modules]),
        PYTHONWARNINGS="ignore",
        TMPDIR=str(folder / "tmp"),
    )
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "freezer_osbrick.commands.main"),
            *("--config-file", str(configuration), "backup", volume_id),
            *("--incremental", "--keep-snapshot", "--repository", bench.repository),
            *("--backup-name", "nightly", "--hostname", "here"),
        ],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=open(folder / "errors", "ab"),
    )


def test_random_kills(bench: CephBench, tmp_path: pathlib.Path) -> None:
    (tmp_path / "tmp").mkdir()
    volume_id = bench.volume(volume_type="rbd").id
    bench.write(volume_id, 0, os.urandom(128 * MIB))
    begun = time.monotonic()
    assert start(bench, tmp_path, volume_id).wait() == 0, (tmp_path / "errors").read_text()
    duration = time.monotonic() - begun

    chance = random.Random(7)
    killed = 0
    for number in range(KILLS):
        bench.write(volume_id, number * 16 * MIB, os.urandom(24 * MIB))
        process = start(bench, tmp_path, volume_id)
        time.sleep(chance.uniform(0.15, 1.0) * duration)
        process.kill()
        killed += process.wait() == -signal.SIGKILL
    print(f"{killed} of {KILLS} backups were killed; one takes {duration:.1f} s")
    assert killed

    report = bench.clean()
    assert not report.failed, report
    assert len(bench.kept()) == 1
    left = bench.leftovers()
    assert set(left) == {"snapshots"}, left
    assert list((tmp_path / "tmp").glob("brickrbd_*")) == []
    told = bench.back_up(volume_id)
    assert told.hints in ("used", "unfit")  # by whether the last one was killed after its commit
    assert bench.content(bench.restored(volume_id)) == bench.content(volume_id)
    bench.clean(kept_snapshots=True)
    assert bench.leftovers() == {}
