# SPDX-License-Identifier: Apache-2.0
"""Volumes of each kind, and the pretended parts that some need."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from oslo_config import cfg

from freezer_osbrick import opts

MIB = 1 << 20
SIZE = 8 * MIB


class FakeImage:
    """What librbd's image does, in memory. It takes bytes only, as librbd's binding does."""

    def __init__(self, content: bytes, name: str = "volume-1") -> None:
        self.content = bytearray(content)
        self.name = name
        self.flushes = 0
        self.short = 0
        self.error: Exception | None = None

    def size(self) -> int:
        return len(self.content)

    def read(self, offset: int, length: int) -> bytes:
        if self.error:
            raise self.error
        return bytes(self.content[offset : offset + length - self.short])

    def write(self, data: bytes, offset: int) -> int:
        if not isinstance(data, bytes):
            raise TypeError("data must be bytes")
        self.content[offset : offset + len(data)] = data
        return len(data) - self.short

    def write_zeroes(self, offset: int, length: int) -> None:
        self.content[offset : offset + length] = bytes(length)

    def flush(self) -> None:
        self.flushes += 1


class FakeHandle:
    """os-brick's RBDVolumeIOWrapper."""

    def __init__(self, image: FakeImage) -> None:
        self.rbd_image = image
        self.rbd_pool = "volumes"
        self.closed = False

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def conf(tmp_path: pathlib.Path) -> cfg.ConfigOpts:
    conf = cfg.ConfigOpts()
    opts.register(conf)
    conf([], project="test", default_config_files=[], default_config_dirs=[])
    conf.set_override("state_path", str(tmp_path / "state"), "osbrick")
    return conf


@pytest.fixture
def loop_device(tmp_path: pathlib.Path) -> Iterator[Any]:
    """Makes a loop device of a file of SIZE bytes; read-only where asked."""
    if os.geteuid() != 0 or shutil.which("losetup") is None:
        pytest.skip("loop devices need root and losetup")
    made = []

    def make(path: pathlib.Path, *options: str) -> str:
        command = ["losetup", "--find", "--show", *options, str(path)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no loop device: {done.stderr}")
        made.append(done.stdout.strip())
        return made[-1]

    yield make
    for device in made:
        subprocess.run(["losetup", "-d", device], check=True)
