# SPDX-License-Identifier: Apache-2.0
"""A backup or a restore, as far as the cloud sees it, that kills itself at a step of its journal.

The step ``never`` waits, when the volume is attached, for standard input to end.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from typing import Any

from freezer_osbrick.cloud import staging, volumes
from freezer_osbrick.cloud.clients import Cloud
from freezer_osbrick.cloud.ledger import Ledger, Run
from freezer_osbrick.device.host import Host
from freezer_osbrick.operations.attach import attached
from tests.functional.workbench import configuration
from tests.staged import frozen_clone


def die_at(when: str, step: str, count: int) -> None:
    """Kill this process without a warning, before or after a line of the journal is written."""
    record = Run.record
    seen = 0

    def doomed(self: Run, this_step: str, **facts: Any) -> None:
        nonlocal seen
        seen += this_step == step
        mine = this_step == step and seen == count
        if mine and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        record(self, this_step, **facts)
        if mine:
            os.kill(os.getpid(), signal.SIGKILL)

    Run.record = doomed  # type: ignore[method-assign]


def main(
    state_path: str,
    volume_id: str,
    way: str,
    when: str,
    step: str,
    count: int,
    hostname: str | None,
    lease: float,
    ceph_keyring: str | None,
) -> None:
    die_at(when, step, count)
    conf = configuration(state_path)
    conf.set_override("hostname", hostname, "device")
    conf.set_override("ceph_keyring", ceph_keyring, "device")
    cloud = Cloud.from_environment(conf)
    host = Host(conf)
    record = volumes.capture(cloud, volume_id)
    ledger = Ledger(os.path.join(state_path, "ledger"), host.name, lease=lease)
    with ledger.start(way) as run:
        with open(os.path.join(run.scratch(), "something"), "wb") as file:
            file.write(b"temporary")
        stage = frozen_clone if way == "backup" else staging.kept_clone
        with stage(cloud, run, record) as clone_id:
            writable = way == "restore"
            with attached(
                cloud, host, run, clone_id, size_gib=record.size_gib, writable=writable
            ) as device:
                device.readinto(0, memoryview(bytearray(1 << 20)))
                if writable:
                    device.write(0, b"restored")
                if step == "never":
                    print("attached", flush=True)
                    sys.stdin.read()
            if writable:
                volumes.finish(cloud, run, clone_id, record, name="restored")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also in a shell's background
    parser = argparse.ArgumentParser()
    parser.add_argument("state_path")
    parser.add_argument("volume_id")
    parser.add_argument("way", choices=["backup", "restore"])
    parser.add_argument("when", choices=["before", "after"])
    parser.add_argument("step")
    parser.add_argument("count", type=int, nargs="?", default=1)
    parser.add_argument("--hostname")
    parser.add_argument("--lease", type=float, default=3600)
    parser.add_argument("--ceph-keyring")
    main(**vars(parser.parse_args()))
