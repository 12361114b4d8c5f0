# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pathlib

import pytest

from freezer_osbrick.operations import memory

MIB = 1 << 20
HOST = {"proc/meminfo": "MemTotal:  8388608 kB\nMemAvailable:    4194304 kB\n"}
V2 = {
    "proc/self/cgroup": "0::/a/b\n",
    "sys/fs/cgroup/a/memory.max": f"{1024 * MIB}\n",
    "sys/fs/cgroup/a/memory.current": f"{512 * MIB}\n",
    "sys/fs/cgroup/a/memory.stat": f"anon 1\ninactive_file {100 * MIB}\n",
    "sys/fs/cgroup/a/b/memory.max": "max\n",
    "sys/fs/cgroup/a/b/memory.current": "5\n",
}
V1 = {
    "proc/self/cgroup": "9:cpu:/\n4:memory:/x\n0::/\n",
    "sys/fs/cgroup/memory/x/memory.limit_in_bytes": f"{300 * MIB}\n",
    "sys/fs/cgroup/memory/x/memory.usage_in_bytes": f"{400 * MIB}\n",
    "sys/fs/cgroup/memory/x/memory.stat": f"total_inactive_file {120 * MIB}\n",
}


@pytest.mark.parametrize(
    "files, expected",
    [
        ({}, None),
        (HOST, 4096 * MIB),
        ({**HOST, **V2}, 612 * MIB),
        ({**HOST, **V1}, 20 * MIB),
        (V2, 612 * MIB),
    ],
    ids=["nothing", "host", "version 2", "version 1", "group alone"],
)
def test_the_least_of_host_and_groups(
    tmp_path: pathlib.Path, files: dict[str, str], expected: int | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert memory.available(tmp_path) == expected


def test_of_this_host() -> None:
    found = memory.available()
    assert found is not None and found > MIB
