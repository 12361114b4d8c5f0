# SPDX-License-Identifier: Apache-2.0
"""What change hints save: incremental backups of volumes in a real Ceph, with them and without.

Usage: python -m benchmarks.change_hints [--data GIB] [--objects NUMBER] [--cloud FOLDER], from the
checkout's folder. It brings up an embedded cloud with Ceph (root, and Ceph's packages), or uses the
running one in FOLDER, and removes what it made.

Two volumes. One of 20 GiB, of which 200 MB change: an incremental backup with hints; then as much
changes again, and one audits less; and again, and one reads everything. One of 1 TiB, sparse, with
so many objects that hold something, of which nothing changes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

from devstack.embedded.embedded_cloud.client import EmbeddedCloud
from tests.ceph.ceph_bench import GIB, MIB, CephBench, Images, load_modules

CHANGED = 200_000_000
SMALL = 65536


def main(argv: Sequence[str] | None = None) -> int:
    args = _parse(argv)
    with tempfile.TemporaryDirectory(prefix="change-hints-") as name, _bench(name, args) as bench:
        rows = [*busy(bench, int(args.data * GIB)), *quiet(bench, args.objects)]
    print(f"{'volume':<28}{'backup':<24}{'seconds':>8}{'CPU s':>8}{'read MB':>10}{'audited':>9}")
    for volume, backup, seconds, cpu, told in rows:
        print(
            f"{volume:<28}{backup:<24}{seconds:>8.1f}{cpu:>8.1f}{told.bytes_read / 1e6:>10.1f}"
            f"{told.blocks_audited or 0:>9}"
        )
    hinted, whole = rows[1], rows[3]
    print(f"With hints {hinted[2] / whole[2]:.3f} of the time of reading everything.")
    return 0


def busy(bench: CephBench, data: int) -> Iterator[tuple[str, str, float, float, Any]]:
    """20 GiB, of which 200 MB change."""
    name = f"20 GiB, {data / GIB:g} GiB of data"
    volume_id = bench.volume(20, volume_type="rbd").id
    step = 20 * GIB // (data // (4 * MIB)) // (4 * MIB) * (4 * MIB)
    for number in range(data // (4 * MIB)):
        bench.write(volume_id, number * step, os.urandom(4 * MIB))
    yield (name, "full", *timed(bench, volume_id, incremental=False))
    _change(bench, volume_id, 1)
    yield (name, "200 MB changed, hints", *timed(bench, volume_id))
    _change(bench, volume_id, 2)
    yield (name, "the same, --audit 0.3%", *timed(bench, volume_id, audit=0.003))
    _change(bench, volume_id, 3)
    yield (name, "200 MB changed, none", *timed(bench, volume_id, use=False))


def quiet(bench: CephBench, objects: int) -> Iterator[tuple[str, str, float, float, Any]]:
    """1 TiB, of which nothing changes."""
    name = f"1 TiB, {objects * 4 / 1024:g} GiB allocated"
    volume_id = bench.volume(1024, volume_type="rbd").id
    with bench.images.volume(volume_id) as image:
        for number in range(objects):
            image.write(os.urandom(4096), number * (1024 * GIB // objects) // (4 * MIB) * 4 * MIB)
    yield (name, "full", *timed(bench, volume_id, incremental=False))
    yield (name, "nothing changed, hints", *timed(bench, volume_id))


def timed(bench: CephBench, volume_id: str, **options: Any) -> tuple[float, float, Any]:
    """Seconds, seconds of this process's CPU, and what the backup told."""
    begun, cpu = time.monotonic(), time.process_time()
    told = bench.back_up(volume_id, **options)
    return time.monotonic() - begun, time.process_time() - cpu, told


def _change(bench: CephBench, volume_id: str, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(4):
        bench.write(volume_id, chance.randrange(19_000) * MIB, os.urandom(40 * MIB))
    for _ in range((CHANGED - 160 * MIB) // SMALL):
        place = chance.randrange(19_000 * MIB // 4096) * 4096
        bench.write(volume_id, place, os.urandom(SMALL))


@contextlib.contextmanager
def _bench(name: str, args: argparse.Namespace) -> Iterator[CephBench]:
    folder = pathlib.Path(name)
    (folder / "modules").mkdir()
    load_modules(folder / "modules")
    cloud = EmbeddedCloud(args.cloud or folder / "cloud")
    if not args.cloud:
        cloud.up("--ceph")
    try:
        keyring = cloud.status()["ceph_keyring"]
        images = Images(cloud.status()["ceph_conf"], keyring)
        bench = CephBench(cloud, folder, images)
        bench.use_ceph(keyring, folder / "modules")
        try:
            yield bench
        finally:
            bench.close()
            images.close()
    finally:
        if not args.cloud:
            cloud.down(wipe=True)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=float, default=20, help="GiB that the first volume holds")
    parser.add_argument(
        "--objects", type=int, default=5120, help="objects of 4 MiB that the second one has"
    )
    parser.add_argument("--cloud", help="state folder of an embedded cloud with Ceph that runs")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
