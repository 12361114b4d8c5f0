# SPDX-License-Identifier: Apache-2.0
"""The embedded cloud's Ceph: what the other tests of this folder rely on."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess

from devstack.embedded.embedded_cloud.client import EmbeddedCloud
from tests.functional.test_embedded_cloud import delete_snapshot, make_snapshot


def test_ceph_is_a_second_backend(
    modules: pathlib.Path, ceph_cloud: EmbeddedCloud, tmp_path: pathlib.Path
) -> None:
    own = EmbeddedCloud(tmp_path / "state")
    venv = ceph_cloud.status()["venv"]
    try:
        own.up("--venv", venv, "--ceph")
        conf = own.status()["ceph_conf"]

        def rbd(*arguments: str) -> bytes:
            line = ["rbd", "-c", conf, "-n", "client.cinder", *arguments]
            return subprocess.run(line, stdout=subprocess.PIPE, check=True).stdout

        def bench(image: str) -> None:
            how = ("--io-type", "write", "--io-pattern", "rand", "--io-size", "64K")
            line = ["rbd", "-c", conf, "-n", "client.cinder", "bench", *how, "--io-total", "4M"]
            line.append(image)
            subprocess.run(line, stdout=subprocess.DEVNULL, check=True)

        volume = own.create_volume(1, volume_type="rbd")
        guest = own.pretend_server(volume["id"])
        assert guest["device"] == f"rbd:volumes/volume-{volume['id']}"
        image = guest["device"].removeprefix("rbd:")
        bench(image)
        before = rbd("export", "--no-progress", image, "-")
        snapshot = make_snapshot(own, volume["id"])
        own.wait(f"/snapshots/{snapshot['id']}", "available")
        bench(image)
        clone = own.create_volume(1, snapshot_id=snapshot["id"])
        assert clone["volume_type"] == "rbd"
        assert rbd("export", "--no-progress", f"volumes/volume-{clone['id']}", "-") == before
        own.release_server(volume["id"])
        for part in ("cinder", "ceph-osd"):  # the cluster comes back as well
            os.kill(own.status()["pids"][part], signal.SIGKILL)
        own.up("--venv", venv)
        own.delete_volume(clone["id"])
        delete_snapshot(own, snapshot["id"])
        own.delete_volume(volume["id"])
        assert rbd("ls", "volumes") == b""
        pids = own.status()["pids"]
        assert set(pids) == {"keystone", "cinder", "ceph-mon", "ceph-osd"}
    finally:
        own.down(wipe=True)
    assert not own.state.folder.exists()
    assert not [pid for pid in pids.values() if pathlib.Path(f"/proc/{pid}/root").exists()]
