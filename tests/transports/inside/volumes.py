# SPDX-License-Identifier: Apache-2.0
"""Volumes of the guest's cloud, and what they hold, seen from the storage's side."""

from __future__ import annotations

import mmap
import os
import pathlib
import random

from . import storage
from .shell import run

MIB = 1 << 20
SIZE = 1 << 30
PART = 8 * MIB
_PLACES = (0, SIZE // 2, SIZE - PART)
_ZEROS = bytes(PART)


def create(kind: str, seed: int) -> str:
    """A volume of 1 GiB of a type; random data at its beginning, middle and end. Returns its id."""
    made = storage.cloud().create_volume(1, volume_type=kind, name=f"{kind}-{seed}")
    with open(path_of(made["id"]), "r+b", buffering=0) as device:
        for offset in _PLACES:
            device.seek(offset)
            device.write(_part(seed, offset))
        os.fsync(device.fileno())
    return str(made["id"])


def holds(volume_id: str, seed: int) -> bool:
    """Whether a volume holds what ``create`` wrote, and zeros everywhere else."""
    parts = {offset: _part(seed, offset) for offset in _PLACES}
    buffer = mmap.mmap(-1, PART)  # aligned, for direct reads: a copy less
    device = os.open(path_of(volume_id), os.O_RDONLY | os.O_DIRECT)
    try:
        for offset in range(0, SIZE, PART):
            if os.preadv(device, [buffer], offset) != PART:
                return False
            if buffer[:] != parts.get(offset, _ZEROS):
                return False
        return os.preadv(device, [buffer], SIZE) == 0
    finally:
        os.close(device)


def create_marked(kind: str, mark: str) -> str:
    """A volume of 1 GiB whose first 64 MiB hold nothing but a mark. Returns its id."""
    made = storage.cloud().create_volume(1, volume_type=kind, name=f"marked-{kind}")
    block = (mark.encode() * MIB)[:MIB]
    with open(path_of(made["id"]), "r+b") as device:
        for _ in range(64):
            device.write(block)
        os.fsync(device.fileno())
    return str(made["id"])


def change(volume_id: str, seed: int, offset: int, mebibytes: int = 1) -> None:
    """Write random data."""
    with open(path_of(volume_id), "r+b") as device:
        device.seek(offset)
        device.write(random.Random(seed).randbytes(mebibytes * MIB))
        os.fsync(device.fileno())


def delete(volume_id: str) -> None:
    """Delete a volume."""
    storage.cloud().delete_volume(volume_id)


def path_of(volume_id: str) -> str:
    """The logical volume."""
    path = f"/dev/{storage.GROUP}/volume-{volume_id}"
    if not pathlib.Path(path).exists():
        run("lvchange", "-ay", "-K", f"{storage.GROUP}/volume-{volume_id}")
    return path


def _part(seed: int, offset: int) -> bytes:
    return random.Random(f"{seed} {offset}").randbytes(PART)
