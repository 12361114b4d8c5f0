# SPDX-License-Identifier: Apache-2.0
"""The files on a volume, read from images that mkfs has made."""

import os
import pathlib
import shutil

import pytest

from freezer_osbrick import errors
from freezer_osbrick.guest.filesystem import BrokenFileSystem
from freezer_osbrick.guest.volume import GuestVolume, os_text
from tests import physical_volume
from tests.physical_volume import Sparse
from tests.unit.guest import images
from tests.unit.guest.images import MIB, reader

KINDS = ("ext2", "ext4", "xfs", "btrfs", "vfat")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("source")
    images.fill(folder)
    return folder


def read_all(volume: GuestVolume, path: bytes) -> dict[str, bytes | None]:
    """Files with their content, folders without."""
    found = {}
    _, files, _ = volume.find(path)
    for name, node in volume.walk(volume.find(path)):
        if isinstance(node, BrokenFileSystem):
            raise node
        content = None
        if node.is_file:
            content = bytearray(node.size)
            for start, data in files.content(node):
                content[start : start + len(data)] = data
        found[os.fsdecode(name)] = None if content is None else bytes(content)
    return found


def expected(folder: pathlib.Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_each_file_system(kind, source, tmp_path):
    image = tmp_path / "image"
    images.make(kind, image, source)
    with open(image, "rb") as file:

        def read(offset, length):
            return os.pread(file.fileno(), length, offset)

        volume = GuestVolume.of_blocks(read, image.stat().st_size)
        assert [part.kind for part in volume.parts] == [kind]
        found = read_all(volume, b"/")
        found.pop("lost+found", None)
        assert found == expected(source)
        path, _, node = volume.find(b"//etc/./hosts")
        assert path == b"etc/hosts"
        assert node.is_file
        assert node.size == 20
        with pytest.raises(errors.BadRequest, match="no /etc/nothing"):
            volume.find(b"etc/nothing")
        with pytest.raises(errors.BadRequest, match="/etc/hosts is no folder"):
            volume.find(b"etc/hosts/x")
        with pytest.raises(errors.BadRequest, match=r"no '\.\.'"):
            volume.find(b"../etc")


def test_metadata_and_links(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "file").write_bytes(b"x")
    os.utime(folder / "file", ns=(1_500_000_000_000_000_000, 1_600_000_000_000_000_000))
    os.chmod(folder / "file", 0o640)
    os.link(folder / "file", folder / "again")
    os.symlink("etc/passwd", folder / "short")
    os.symlink("x/" * 100, folder / "long")
    with open(folder / "sparse", "wb") as file:
        file.seek(3 * MIB)
        file.write(b"end")
    (folder / os.fsdecode(b"odd \xff\n")).write_bytes(b"odd")
    images.make("ext4", tmp_path / "image", folder)
    content = (tmp_path / "image").read_bytes()
    volume = GuestVolume.of_blocks(reader(content), len(content))
    _, files, node = volume.find(b"file")
    assert (node.mode & 0o7777, node.links, node.uid) == (0o640, 2, os.getuid())
    assert node.mtime // 10**9 == 1_600_000_000
    assert volume.find(b"again")[2].inode == node.inode
    assert files.target(volume.find(b"short")[2]) == b"etc/passwd"
    assert files.target(volume.find(b"long")[2]) == b"x/" * 100
    sparse = list(files.content(volume.find(b"sparse")[2]))
    assert sparse == [(3 * MIB, b"end")]
    assert volume.find(b"odd \xff\n")[2].size == 3
    with pytest.raises(errors.BadRequest, match="/short is a symbolic link to etc/passwd"):
        volume.find(b"short/x")


@pytest.mark.parametrize("label", ["gpt", "dos"])
def test_partitions(label, source, tmp_path):
    if not shutil.which("sfdisk"):
        pytest.skip("sfdisk is not installed")
    disk = tmp_path / "disk"
    with open(disk, "wb") as file:
        file.truncate(100 * MIB)
    table = tmp_path / "table"
    table.write_text(f"label: {label}\nsize=34MiB\nsize=34MiB\nsize=8MiB\n")
    with open(table) as lines:
        images.subprocess.run(
            ["sfdisk", "-q", disk], stdin=lines, check=True, stdout=images.subprocess.DEVNULL
        )
    with open(disk, "r+b") as file:
        for place, kind in ((1, "ext4"), (35, "vfat")):
            images.make(kind, tmp_path / kind, source)
            file.seek(place * MIB)
            file.write((tmp_path / kind).read_bytes())
    content = disk.read_bytes()
    volume = GuestVolume.of_blocks(reader(content), len(content))
    assert [(part.name, part.kind) for part in volume.parts] == [
        (b"partition-1", "ext4"),
        (b"partition-2", "vfat"),
        (b"partition-3", "unknown"),
    ]
    assert volume.find(b"/partition-2/etc/hosts")[2].size == 20
    assert "partition-1/etc/hosts" in read_all(volume, b"partition-1")
    with pytest.raises(errors.BadRequest, match="begins with one of: partition-1, partition-2"):
        volume.find(b"/etc/hosts")
    with pytest.raises(errors.BadRequest, match="Partition 3 is nothing that is known here"):
        volume.find(b"/partition-3/x")


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        (b"", "the volume is nothing that is known here"),
        (b"LUKS\xba\xbe" + bytes(600), r"the volume is encrypted \(LUKS\)"),
        (bytes(512) + b"LABELONE" + bytes(16) + b"LVM2 001", "a physical volume of LVM"),
    ],
)
def test_no_file_system(start, reason):
    content = start.ljust(MIB, b"\0")
    with pytest.raises(errors.NoFileSystem, match=reason):
        GuestVolume.of_blocks(reader(content), len(content))


def test_what_cannot_be_read_is_told_or_reads_as_zeros(source, tmp_path):
    images.make("ext4", tmp_path / "image", source)
    content = (tmp_path / "image").read_bytes()
    place = content.find(bytes(range(256)) * 16)
    lost = [(place, 4096)]

    def read(offset, length):
        if offset < place + 4096 and place < offset + length:
            raise errors.DamagedRanges("Lost.", lost)
        return content[offset : offset + length]

    volume = GuestVolume.of_blocks(read, len(content))
    _, files, node = volume.find(b"large")
    with pytest.raises(errors.DamagedRanges):
        list(files.content(node))
    volume.source.lost = []
    found = bytearray(node.size)
    for start, data in files.content(node):
        found[start : start + len(data)] = data
    whole = bytes(range(256)) * 8000
    assert bytes(found) == bytes(4096) + whole[4096:]
    assert volume.source.lost == ["Lost."]


def test_names_that_a_terminal_would_obey_are_escaped():
    assert os_text(b"plain \xc3\xa4") == "plain ä"
    assert os_text(b"a\x1b[31m\n\xff") == "a\\x1b[31m\\n\\xff"


def test_logical_volumes(source, tmp_path):
    image = tmp_path / "image"
    images.make("ext4", image, source)
    content = image.read_bytes()
    sparse = Sparse({0: physical_volume.beginning(), physical_volume.ROOT[0]: content})
    sparse.pieces[physical_volume.DATA[0][0]] = content
    volume = GuestVolume.of_blocks(sparse.read, physical_volume.SIZE)
    assert [(part.name, part.kind, part.size // MIB) for part in volume.parts] == [
        (b"volume-guest-home", "unknown", 300),
        (b"volume-guest-my--data", "ext4", 320),
        (b"volume-guest-root", "ext4", 300),
        (b"volume-guest-swap", "unknown", 40),
    ]
    wanted = {name for name in expected(source) if name.startswith("etc")}
    found = read_all(volume, b"/volume-guest-root/etc")
    assert {name.removeprefix("volume-guest-root/") for name in found} | {"etc"} == wanted
    with pytest.raises(errors.BadRequest, match="Logical volume guest/home is nothing that is"):
        volume.find(b"/volume-guest-home/etc")
    with pytest.raises(errors.BadRequest, match="several parts, so that a path begins with one of"):
        volume.find(b"/etc")
    sparse.pieces[600] = b"\xff"
    with pytest.raises(errors.NoFileSystem, match="is a physical volume of LVM, and its label is"):
        GuestVolume.of_blocks(sparse.read, physical_volume.SIZE)
