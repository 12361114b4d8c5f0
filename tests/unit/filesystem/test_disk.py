# SPDX-License-Identifier: Apache-2.0
"""What is found on a volume, and what of it is kept as it is."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess

import pytest

from freezer_osbrick import errors
from freezer_osbrick.filesystem import disk, source
from freezer_osbrick.filesystem.disk import Disk
from freezer_osbrick.filesystem.exclusion import excluded
from freezer_osbrick.filesystem.source import UnreadFiles
from freezer_osbrick.filesystem.space import BLOCK, Space
from freezer_osbrick.filesystem.stored import StoredFiles, StoredTree
from tests import physical_volume
from tests.unit.fakes import MemoryDevice
from tests.unit.filesystem.test_partitions import MIB, SIZE, gpt, mbr

ALL = frozenset({"ext2", "ext4", "xfs", "btrfs", "vfat"})


@pytest.fixture(scope="module")
def small_ext2(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path: pathlib.Path = tmp_path_factory.mktemp("disk") / "ext2"
    with open(path, "wb") as file:
        file.truncate(MIB)
    env = {"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"}
    subprocess.run(["mkfs.ext2", "-q", "-F", str(path)], check=True, env=env)
    return path.read_bytes()


def partitioned(small_ext2: bytes) -> MemoryDevice:
    content = gpt((4096, 6143, "data"), (8192, 10239, "unknown"))
    content[4096 * 512 : 4096 * 512 + MIB] = small_ext2
    return MemoryDevice(content)


def test_a_partitioned_volume(small_ext2: bytes) -> None:
    found = disk.look(partitioned(small_ext2), ALL)
    assert [(one.number, one.start, one.file_system.kind) for one in found.places] == [
        (1, 4096 * 512, "ext2")
    ]
    assert found.notes == ("Partition 2 is stored as blocks: it is nothing that is known here.",)
    # The partition that holds nothing known, and a MiB at both ends of what lies between.
    assert found.raw == ((0, 2 * MIB), (3 * MIB, 3 * MIB), (SIZE - MIB, MIB))
    assert Disk.from_dict(found.to_dict()).places == found.places


def test_a_file_system_that_the_kernel_lacks(small_ext2: bytes) -> None:
    with pytest.raises(errors.NoFileSystem, match="ext2, which this host's kernel cannot read"):
        disk.look(partitioned(small_ext2), frozenset())
    with pytest.raises(errors.NoFileSystem, match="ext2, which this host's kernel cannot read"):
        disk.look(MemoryDevice(small_ext2), frozenset())


@pytest.mark.parametrize("content", [bytes(MIB), os.urandom(MIB), bytes(1)])
def test_a_volume_without_a_file_system(content: bytes) -> None:
    with pytest.raises(errors.NoFileSystem, match="--fallback-to-blocks"):
        disk.look(MemoryDevice(content), ALL)


def test_a_volume_without_a_device_of_the_kernel(small_ext2: bytes) -> None:
    with pytest.raises(errors.DeviceError, match="without a device of the kernel"):
        source.descriptor_of(MemoryDevice(small_ext2))


def test_too_many_unread_files_are_a_broken_volume() -> None:
    unread = UnreadFiles()
    report = unread.reporter(1)
    for number in range(10_000):
        report(number, b"%d" % number, "broken")
    report(0, b"0", "the same once more")
    assert len(list(unread)) == 10_000
    with pytest.raises(errors.DeviceError, match="More than 10000 files"):
        report(0, b"another", "broken")


def test_patterns() -> None:
    decide = excluded(["*.log", "/cache/", "!keep.log"])
    assert decide(b"a/x.log", False) and decide(b"cache", True)
    assert not decide(b"a/cache", True) and not decide(b"cache", False)
    assert not decide(b"keep.log", False) and not decide(b"\xff", False)
    assert not excluded([])(b"anything", True)


def test_places_do_not_overlap() -> None:
    space = Space([(BLOCK, 10), (5 * BLOCK, 3 * BLOCK)])
    taken = [(BLOCK, 10), (5 * BLOCK, 3 * BLOCK)]
    for length in (100, 3 * BLOCK + 1, 600, BLOCK, 20 * BLOCK, BLOCK - 1, 1):
        pieces = space.place(length)
        assert sum(size for _, size in pieces) == length
        taken += pieces
    taken.sort()
    for (place, size), (following, _) in zip(taken, taken[1:], strict=False):
        assert place + size <= following
    assert max(place + size for place, size in taken) <= space.end
    assert space.end % BLOCK == 0


class SparseDevice(MemoryDevice):
    """A volume of 1300 MiB that is zeros but for what was put on it."""

    def __init__(self) -> None:
        super().__init__(b"", writable=False)
        self.size = 1300 * MIB
        self.pieces: dict[int, bytes] = {}

    def _readinto(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = physical_volume.Sparse(self.pieces).read(offset, len(buffer))


PARTITION = 4096 * 512


@pytest.fixture
def with_group(small_ext2: bytes) -> SparseDevice:
    """A group in partition 1: a file system, swap, another file system in two pieces, nothing."""
    device = SparseDevice()
    device.pieces[0] = bytes(mbr((0x8E, 4096, physical_volume.SIZE // 512)))
    for start, data in (
        (0, physical_volume.beginning()),
        (physical_volume.ROOT[0], small_ext2),
        (physical_volume.SWAP[0] + 4086, b"SWAPSPACE2"),
        (physical_volume.DATA[0][0], small_ext2),
    ):
        device.pieces[PARTITION + start] = data
    return device


def test_logical_volumes(with_group: SparseDevice) -> None:
    found = disk.look(with_group, ALL)
    start = PARTITION
    assert [(one.label, one.start, one.size, one.folder) for one in found.places] == [
        ("ext2 on logical volume guest/root", start + MIB, 300 * MIB, "volume-guest-root")
    ]
    assert found.notes == (
        "Logical volume guest/home is stored as blocks: it is nothing that is known here.",
        "Logical volume guest/my-data is stored as blocks: it is in 2 pieces.",
    )
    # Both ends of the partition's surroundings, LVM's own MiB, swap's first page, and the two.
    assert [(offset - start, length) for offset, length in found.raw[:-1]] == [
        (-start, start + MIB),
        (physical_volume.SWAP[0], 4096),
        (physical_volume.HOME[0], (300 + 240) * MIB),
        (physical_volume.DATA[1][0], 80 * MIB),
        (physical_volume.SIZE, MIB),
    ]
    back = Disk.from_dict(json.loads(json.dumps(found.to_dict())))
    assert back.places == found.places and back.logical == found.logical


def test_a_group_that_is_not_looked_into_is_kept(with_group: SparseDevice) -> None:
    with_group.pieces[PARTITION + 600] = b"\xff"  # counts more than what was put before
    with pytest.raises(errors.NoFileSystem, match="volume of LVM, and its label is damaged"):
        disk.look(with_group, ALL)


def test_a_logical_volume_is_found_again_by_its_name(with_group: SparseDevice) -> None:
    """Another one before it moves its number."""
    (place,) = disk.look(with_group, ALL).places
    tree = StoredTree(place, 0, 0, 0, 0, 0)
    stored = object.__new__(StoredFiles)
    stored.trees = [tree]
    assert stored.tree(dataclasses.replace(place, number=place.number + 1)) is tree
    assert stored.tree(dataclasses.replace(place, name="guest/other")) is None
    assert stored.tree(dataclasses.replace(place, name="")) is None
