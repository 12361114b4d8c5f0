# SPDX-License-Identifier: Apache-2.0
"""File mode: volumes of the embedded cloud with real file systems, backed up file by file."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from freezer_osbrick.filesystem import superblocks
from freezer_osbrick.filesystem.superblocks import FileSystem
from tests import physical_volume
from tests.functional import trees
from tests.functional.backup_host import MIB, BackupHost, data_of

pytest.importorskip("freezer")

# How many files. Of many the cost of a file shows, and not that of a run: they are as
# large as files usually are, 5 GB together, and take minutes and five times that room.
COUNT = int(os.environ.get("FREEZER_OSBRICK_TEST_FILES", "2000"))
MANY = 100_000
SIZES = trees.usual if COUNT >= MANY else trees.small
VOLUME = 8 if COUNT >= MANY else 2  # GiB
KINDS = ("ext4", "xfs", "btrfs")
FILES = ("--content", "files")


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path


@pytest.fixture(autouse=True)
def nothing_left(host: BackupHost) -> Iterator[None]:
    yield
    assert host.leftovers() == {}


def options_of(kind: str) -> tuple[str, ...]:
    return ("nouuid",) if kind == "xfs" else ()


def new_volume(host: BackupHost, kind: str, size: int = 2) -> tuple[str, pathlib.Path]:
    volume_id = host.bench.volume(size, name="files").id
    path = host.bench.file_of(volume_id)
    trees.make(kind, path)
    return volume_id, path


def identified(path: pathlib.Path) -> FileSystem | None:
    with open(path, "rb") as file:
        return superblocks.identify(lambda offset, length: os.pread(file.fileno(), length, offset))


def restored(host: BackupHost, *words: str) -> tuple[dict[str, object], pathlib.Path]:
    (told,) = host.command("restore", "-f", "json", *words).rows
    host.bench.users_own(str(told["restored_volume_id"]))
    return told, host.bench.file_of(str(told["restored_volume_id"]))


@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back(host: BackupHost, folder: pathlib.Path, kind: str) -> None:
    """Full, unchanged, changed; into a clone of the volume, and into a new one."""
    volume_id, path = new_volume(host, kind, VOLUME)
    with trees.mounted(path, folder / "source") as root:
        trees.fill(root, COUNT, SIZES)
    full, full_took = measured(host, volume_id)
    assert full["content"] == "files"
    assert full["state"] == "success"

    unchanged, unchanged_took = measured(host, volume_id, "--incremental")
    print(
        f"{kind}, {COUNT} files, {full['bytes_read'] >> 20} MiB: processor seconds of a full "
        f"backup {full_took:.2f}, of an unchanged one {unchanged_took:.2f}"
    )
    if COUNT >= MANY:
        assert unchanged_took < full_took / 10
    assert unchanged["level"] == 1
    assert unchanged["bytes_read"] == unchanged["bytes_new"] == 0
    assert unchanged["bytes_stored"] < 64 * 1024

    before = folder / "before"
    trees.copy(path, before)
    with trees.mounted(path, folder / "source") as root:
        change(root)
    changed = host.backup(volume_id, *FILES, "--incremental")
    # With files gone the numbers of all behind them change, and so does the tree.
    assert 3 * MIB < changed["bytes_new"] < 9 * MIB + 200 * COUNT
    after = folder / "after"
    trees.copy(path, after)

    # Into a clone of the volume as it is now.
    told, clone = restored(host, "--backup", full["backup_id"])
    assert told["target"] == "clone"
    assert trees.differ(before, clone, folder, *options_of(kind)) == ""
    host.drop(str(told["restored_volume_id"]))
    before.unlink()
    assert trees.differ(after, path, folder, *options_of(kind)) == ""

    # Into a new volume.
    like = identified(path)
    host.drop(volume_id)
    told, new = restored(host, "--backup", changed["backup_id"])
    assert told["target"] == "new"
    assert trees.differ(after, new, folder, *options_of(kind)) == ""
    made = identified(new)
    assert like and made
    assert (made.kind, made.label, made.uuid) == (like.kind, like.label, like.uuid)
    assert made.block_size == like.block_size
    host.drop(str(told["restored_volume_id"]))


def measured(host: BackupHost, volume_id: str, *words: str) -> tuple[dict[str, Any], float]:
    """A backup of files, and the processor seconds from when the volume was attached to when the
    backup was complete: the rest is the program's start and Cinder's, whatever is in the volume."""
    begin = host.log_file.stat().st_size if host.log_file.exists() else 0

    def told(phase: str) -> bool:
        if not host.log_file.exists():
            return False
        with open(host.log_file, encoding="utf-8") as log:
            log.seek(begin)
            return f"Volume {volume_id}: {phase}\n" in log.read()

    running = host.start_agent("backup", volume_id, *FILES, *words)
    running.until(lambda: told("look"))
    before = running.processor_seconds
    running.until(lambda: told("detach"))
    took = running.processor_seconds - before
    return running.wait().record, took


def change(root: pathlib.Path) -> None:
    shutil.rmtree(root / "d000" / "e1")
    with open(root / "big", "r+b") as file:
        file.seek(4 * MIB)
        file.write(data_of(3, 2 * MIB))
    with open(root / "sparse", "r+b") as file:
        file.seek(200 * MIB)
        file.write(data_of(4, MIB))
    with open(root / "d000" / "e2" / "f2", "ab") as file:
        file.write(b"more" * 20000)
    (root / "d000" / "e3" / "f3").rename(root / "moved")
    (root / "new").write_bytes(data_of(5, 100_000))
    (root / "empty").unlink()
    (root / "empty").mkdir()
    os.chmod(root / "d000" / "e4" / "f4", 0o4711)
    os.truncate(root / "d000" / "attributes", 3)
    time.sleep(0.1)
    os.utime(root / "unread")


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_system_in_use(host: BackupHost, folder: pathlib.Path, kind: str) -> None:
    """Its journal is replayed on the clone: what was made durable is there, the source stays as it
    is."""
    volume_id, path = new_volume(host, kind)
    with trees.mounted(path, folder / "source") as root:
        (root / "synced").mkdir()
        for number in range(50):
            with open(root / "synced" / str(number), "wb") as file:
                file.write(data_of(number, 5000))
                os.fsync(file.fileno())
        told = host.backup(volume_id, *FILES)
        assert told["state"] == "success"
    into = folder / "restored"
    assert host.command("restore", volume_id, "--to-folder", str(into)).status == 0
    for number in range(50):
        assert (into / "synced" / str(number)).read_bytes() == data_of(number, 5000)
    host.drop(volume_id)


def test_partitions(host: BackupHost, folder: pathlib.Path) -> None:
    """A boot loader, an ext4, an xfs, swap and a partition that holds nothing known."""
    trees.need("sfdisk", "mkswap", "mkfs.xfs", "rsync")
    volume_id = host.bench.volume(2, name="disk").id
    path = host.bench.file_of(volume_id)
    script = "label: gpt\n,1M\n,400M\n,500M\n,64M,S\n,16M\n"
    partition(path, script)
    starts = {2: 2 * MIB, 3: 402 * MIB, 4: 902 * MIB, 5: 966 * MIB}
    swap = str(uuid.uuid4())
    for number, size, command in (
        (2, 400, ("mkfs.ext4", "-q", "-F", "-L", "boot")),
        (3, 500, ("mkfs.xfs", "-q", "-f", "-L", "root")),
        (4, 64, ("mkswap", "-q", "-U", swap)),
    ):
        make_at(path, starts[number], size * MIB, folder / "part", *command)
    host.write(volume_id, 600, b"boot loader")
    host.write(volume_id, MIB + 5, b"second stage")
    host.write(volume_id, starts[5] + 12345, data_of(1, MIB))
    for number in (2, 3):
        with trees.mounted(path, folder / "source", offset=starts[number]) as root:
            (root / f"file {number}").write_bytes(data_of(number, 50_000))
    told = host.backup(volume_id, *FILES)
    assert told["notes"] == [
        "Partition 1 is stored as blocks: it is nothing that is known here.",
        "Partition 5 is stored as blocks: it is nothing that is known here.",
    ]
    source = folder / "source.img"
    trees.copy(path, source)

    host.drop(volume_id)
    told, new = restored(host, volume_id)
    assert table(new) == table(source)
    for number, kind in ((2, "ext4"), (3, "xfs")):
        start = starts[number]
        assert trees.differ(source, new, folder, *options_of(kind), offset=start) == ""
    with open(new, "rb") as one, open(source, "rb") as other:
        for offset, length in ((0, 2 * MIB), (starts[4], 4096), (starts[5], 16 * MIB)):
            assert os.pread(one.fileno(), length, offset) == os.pread(
                other.fileno(), length, offset
            )

    # Each file system gets a folder of its own.
    into = folder / "restored"
    assert host.command("restore", volume_id, "--to-folder", str(into)).status == 0
    assert (into / "partition-2" / "file 2").read_bytes() == data_of(2, 50_000)
    assert (into / "partition-3" / "file 3").read_bytes() == data_of(3, 50_000)
    host.drop(str(told["restored_volume_id"]))


def test_logical_volumes(host: BackupHost, folder: pathlib.Path) -> None:
    """A partition that LVM uses: an ext4, an xfs, swap, and one volume in two pieces."""
    trees.need("sfdisk", "mkswap", "mkfs.xfs", "rsync")
    volume_id = host.bench.volume(2, name="disk").id
    path = host.bench.file_of(volume_id)
    partition(path, "label: gpt\n,1M\n,1200M,V\n")
    start = 2 * MIB
    host.write(volume_id, start, physical_volume.beginning())
    names = {"root": physical_volume.ROOT, "home": physical_volume.HOME}
    for (offset, size), command in (
        (physical_volume.ROOT, ("mkfs.ext4", "-q", "-F")),
        (physical_volume.HOME, ("mkfs.xfs", "-q", "-f")),
        (physical_volume.SWAP, ("mkswap", "-q")),
    ):
        make_at(path, start + offset, size, folder / "part", *command)
    host.write(volume_id, start + physical_volume.DATA[1][0], data_of(9, MIB))
    for name, (offset, _) in names.items():
        with trees.mounted(path, folder / "source", offset=start + offset) as root:
            (root / name).write_bytes(data_of(1, 500_000))
    told = host.backup(volume_id, *FILES)
    assert told["notes"] == [
        "Partition 1 is stored as blocks: it is nothing that is known here.",
        "Logical volume guest/my-data is stored as blocks: it is in 2 pieces.",
    ]
    source = folder / "source.img"
    trees.copy(path, source)

    # Into a clone of the volume, whose files have changed; then into a new one.
    with trees.mounted(path, folder / "source", offset=start + physical_volume.ROOT[0]) as root:
        (root / "root").write_bytes(b"changed")
        (root / "another").write_bytes(b"another")
    unchanged, _ = measured(host, volume_id, "--incremental")
    assert 0 < unchanged["bytes_new"] < 2 * MIB
    for gone in (False, True):
        if gone:
            host.drop(volume_id)
        back, new = restored(host, "--backup", str(told["backup_id"]))
        for kind, (offset, _) in zip(("ext4", "xfs"), names.values(), strict=True):
            place = start + offset
            assert trees.differ(source, new, folder, *options_of(kind), offset=place) == ""
        with open(new, "rb") as one, open(source, "rb") as other:
            for offset, length in ((start, MIB), (start + physical_volume.DATA[1][0], MIB)):
                assert os.pread(one.fileno(), length, offset) == os.pread(
                    other.fileno(), length, offset
                )
        host.drop(str(back["restored_volume_id"]))
    into = folder / "restored"
    words = ("--backup", str(told["backup_id"]), "--to-folder", str(into))
    assert host.command("restore", *words).status == 0
    assert (into / "volume-guest-root" / "root").read_bytes() == data_of(1, 500_000)
    assert (into / "volume-guest-home" / "home").read_bytes() == data_of(1, 500_000)


def make_at(path: pathlib.Path, start: int, size: int, part: pathlib.Path, *command: str) -> None:
    """Let a program make a file system of a file, and put it at a whole MiB of a volume."""
    with open(part, "wb") as file:
        file.truncate(size)
    trees.run(*command, part)
    trees.run(
        *("dd", f"if={part}", f"of={path}", "bs=1M", f"seek={start // MIB}"),
        *("conv=notrunc,sparse",),
    )


def table(path: pathlib.Path) -> dict[str, object]:
    """The partition table, without the names that the file gives it."""
    found = json.loads(trees.run("sfdisk", "-J", path))["partitiontable"]
    del found["device"]
    for one in found["partitions"]:
        del one["node"]
    return dict(found)


def partition(path: pathlib.Path, script: str) -> None:
    (path.parent / "script").write_text(script)
    trees.run("sh", "-c", f"sfdisk -q {path} < {path.parent}/script")
    (path.parent / "script").unlink()


def test_what_is_left_out_is_left_alone(host: BackupHost, folder: pathlib.Path) -> None:
    volume_id, path = new_volume(host, "ext4")
    with trees.mounted(path, folder / "source") as root:
        for name in ("keep.txt", "cache/a", "cache/b/c", "logs/x.log", "logs/y.txt"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(name)
    told = host.backup(volume_id, *FILES, "--exclude", "/cache/,*.log,/lost+found/")
    into = folder / "restored"
    assert host.command("restore", volume_id, "--to-folder", str(into)).status == 0
    found = {str(one.relative_to(into)) for one in into.rglob("*")}
    assert found == {"keep.txt", "logs", "logs/y.txt"}
    with trees.mounted(path, folder / "source") as root:
        (root / "keep.txt").write_text("changed")
        (root / "cache" / "a").write_text("newer")
        (root / "added").write_text("added")
    told, clone = restored(host, volume_id)
    with trees.mounted(clone, folder / "clone", "ro") as root:
        assert (root / "keep.txt").read_text() == "keep.txt"
        assert (root / "cache" / "a").read_text() == "newer"
        assert (root / "logs" / "x.log").exists()
        assert not (root / "added").exists()
    host.drop(str(told["restored_volume_id"]))
    host.drop(volume_id)


def test_a_volume_without_a_file_system(host: BackupHost) -> None:
    trees.need()
    volume_id = host.bench.volume(1, name="raw").id
    host.write(volume_id, 5 * MIB, data_of(1, MIB))
    refused = host.agent("backup", volume_id, *FILES)
    assert "The volume holds no file system that can be read as files" in refused.error
    assert "--fallback-to-blocks" in refused.error
    told = host.backup(volume_id, *FILES, "--fallback-to-blocks")
    assert told["content"] == "blocks"
    assert "It was backed up as blocks" in told["notes"][0]
    digest = host.digest(volume_id)
    host.drop(volume_id)
    back = host.restore(volume_id)
    assert host.digest(back["restored_volume_id"]) == digest
    host.drop(back["restored_volume_id"])


def test_a_restore_is_refused_before_anything_is_lost(
    host: BackupHost, folder: pathlib.Path
) -> None:
    volume_id, path = new_volume(host, "ext4")
    host.backup(volume_id, *FILES)
    into = folder / "restored"
    into.mkdir()
    (into / "mine").write_text("mine")
    refused = host.command("restore", volume_id, "--to-folder", str(into))
    assert "is not empty" in refused.stdout + refused.stderr
    assert refused.status == 1
    assert [one.name for one in into.iterdir()] == ["mine"]
    trees.make("xfs", path)
    refused = host.command("restore", volume_id)
    assert refused.status == 1
    assert "which the volume does not have any more" in refused.stdout + refused.stderr
    host.drop(volume_id)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_backup_that_is_ended(host: BackupHost, folder: pathlib.Path, number: int) -> None:
    """While files are read: no mount, no loop device, nothing in the cloud is left."""
    volume_id, path = new_volume(host, "ext4")
    with trees.mounted(path, folder / "source") as root:
        (root / "large").write_bytes(data_of(1, 200 * MIB))
    before = host.objects()
    running = host.start_agent("backup", volume_id, *FILES)
    running.until(lambda: host.objects() - before)
    running.send(number)
    done = running.wait()
    if number == signal.SIGKILL:
        assert done.status == -9
        loops = host.bench.leftovers().get("loop devices", [])
        assert len(loops) <= 1  # the volume's own, that the cloud attached
        assert host.command("cleanup").status == 0
    else:
        assert done.status == -number  # as the signal would have ended it
    assert host.leftovers() == {}
    host.drop(volume_id)
