# SPDX-License-Identifier: Apache-2.0
"""Memory does not grow with the volume, nor with what changed in it."""

import json
import os
import subprocess
import sys

import pytest

GIB = 1 << 30

# 64 GiB take about a minute of processor time.
slow = pytest.mark.skipif(
    not os.environ.get("FREEZER_OSBRICK_SLOW_TESTS"), reason="FREEZER_OSBRICK_SLOW_TESTS is not set"
)

# In a process of its own, whose peak is the flow's and not the tests'.
CHILD = """
import json, os, sys, time
from freezer_osbrick.repository import repository
from tests.unit.fakes import MemoryStore, NullStore, SyntheticDevice
from tests.unit.pipeline.flow import backup, restore

size, noise, null, threads = json.loads(sys.argv[1])
noise = range(*noise)
repo = repository.create(NullStore(0.1) if null else MemoryStore())
began = time.monotonic()
manifest, amounts = backup(
    repo, SyntheticDevice(size, noise), threads=threads, compression_level=0 if null else 1
)
told = {"read": amounts.read, "new": amounts.new, "zeros": amounts.zeros, "blocks": len(noise)}
told["backup_seconds"] = time.monotonic() - began
if not null:
    second, amounts = backup(repo, SyntheticDevice(size, noise), parent=manifest, threads=threads)
    told["new_of_second"] = amounts.new
    began = time.monotonic()
    target = SyntheticDevice(size, noise, writable=True)
    restore(repo, second, target, threads=threads)
    told |= {"right": target.right, "wrong": target.wrong}
    told["restore_seconds"] = time.monotonic() - began
# Not ru_maxrss: Linux lets it begin with what the parent had.
status = open("/proc/self/status").read()
told["peak"] = int(status.split("VmHWM:")[1].split()[0]) * 1024
print(json.dumps(told))
"""


def flow(size, noise, *, null=False, threads=4):
    argument = json.dumps([size, noise, null, threads])
    child = subprocess.run(
        [sys.executable, "-c", CHILD, argument], stdout=subprocess.PIPE, check=True
    )
    told = json.loads(child.stdout)
    print(told)
    return told


@pytest.mark.parametrize("gib", [2, pytest.param(64, marks=slow)])
def test_a_large_sparse_volume(gib):
    """A block of data in each of 700 places among zeros, there and back."""
    size = gib * GIB
    blocks = size // 65536
    told = flow(size, [5, blocks, blocks // 700])
    assert told["new"] == told["blocks"] * 65536
    assert told["new"] + told["zeros"] == told["read"] == size
    assert told["new_of_second"] == 0
    assert (told["right"], told["wrong"]) == (told["blocks"], [])
    assert told["peak"] < 512 << 20


@pytest.mark.parametrize("threads", [4, 8])
def test_a_volume_all_of_which_is_new(threads):
    """1 GiB that cannot be compressed, into a store that is slower than the reading."""
    size = GIB
    told = flow(size, [0, size // 65536], null=True, threads=threads)
    assert told["new"] == size
    assert told["peak"] < 512 << 20
