# SPDX-License-Identifier: Apache-2.0
"""Folders laid out in an address space, and brought back; as any user, on any file system."""

from __future__ import annotations

import errno
import os
import pathlib
import random
import stat
from typing import Any

import pytest

from freezer_osbrick import errors
from freezer_osbrick.filesystem import file_volume
from freezer_osbrick.filesystem.source import UnreadFiles
from tests.unit.filesystem.laying import BLOCK, back_up, content, laid_out, restore

MIB = 1 << 20


def data_of(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.fixture
def source(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder with some of everything that any user can make."""
    root = tmp_path / "source"
    (root / "a" / "b").mkdir(parents=True)
    (root / "empty folder").mkdir()
    for number in range(40):
        (root / "a" / f"f{number}").write_bytes(data_of(number, number * 97))
    (root / "big").write_bytes(data_of(1, 3 * MIB + 5))
    os.link(root / "big", root / "a" / "b" / "big too")
    with open(root / "sparse", "wb") as file:
        file.seek(5 * MIB)
        file.write(b"x")
        file.truncate(9 * MIB)
    (root / "empty").touch()
    os.symlink("/nowhere", root / "link")
    os.mkfifo(root / "fifo", 0o640)
    with open(os.fsencode(root) + b"/\xff\n", "wb") as file:
        file.write(b"odd")
    os.chmod(root / "a" / "f3", 0o4751)
    os.utime(root / "a" / "f4", ns=(5, 1_234_567_890_123_456_789))
    os.utime(root / "link", ns=(5, 6), follow_symlinks=False)
    os.utime(root / "a", ns=(7, 8))
    return root


def test_all_comes_back(source: pathlib.Path, tmp_path: pathlib.Path) -> None:
    backup = back_up(source)
    restoring, problems = restore(backup, tmp_path / "target")
    assert problems == []
    assert content(tmp_path / "target") == content(source)
    assert restoring.made == backup.trees[0].entries - 1
    assert (tmp_path / "target" / "sparse").stat().st_blocks * 512 < MIB


def test_an_unchanged_folder_is_not_read(source: pathlib.Path) -> None:
    full = back_up(source)
    again = back_up(source, full)
    assert again.read_bytes <= BLOCK  # of the tree: this folder is not mounted without atimes
    assert again.image[: full.trees[0].place] == full.image[: full.trees[0].place]


def test_what_changed_is_read_and_stays_in_its_place(
    source: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    full = back_up(source)
    with open(source / "big", "r+b") as file:
        file.seek(MIB)
        file.write(b"changed")
    changed = back_up(source, full)
    size = (source / "big").stat().st_size
    assert changed.read_bytes <= -(-size // BLOCK) * BLOCK + 2 * BLOCK
    before = set(range(0, full.size, BLOCK))
    same = {o for o in before if full.image[o : o + BLOCK] == changed.image[o : o + BLOCK]}
    assert len(before - same) <= 3  # one block of the file, and of the tree
    restore(changed, tmp_path / "target")
    assert content(tmp_path / "target") == content(source)


def test_a_long_life(source: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Files come, grow, shrink, move and go; each backup is what was there, and what an incremental
    one did not read is right."""
    dice = random.Random(11)
    backup = back_up(source)
    for generation in range(12):
        names = sorted((source / "a").glob("f*"))
        for path in dice.sample(names, min(5, len(names))):
            match dice.randrange(5):
                case 0:
                    path.unlink()
                case 1:
                    with open(path, "ab") as file:
                        file.write(dice.randbytes(dice.randrange(200_000)))
                case 2:
                    os.truncate(path, dice.randrange(300_000))
                case 3:
                    path.rename(path.with_name(f"f{generation} {path.name}"))
                case _:
                    path.write_bytes(dice.randbytes(dice.randrange(1000)))
        for number in range(4):
            path = source / "a" / f"f new {generation} {number}"
            path.write_bytes(dice.randbytes(dice.choice((10, 5000, 70_000, 900_000))))
        with open(source / "sparse", "r+b") as file:
            file.seek(dice.randrange(9 * MIB))
            file.write(dice.randbytes(3000))
        backup = back_up(source, backup)
        target = tmp_path / f"target {generation}"
        _, problems = restore(backup, target)
        assert problems == []
        assert content(target) == content(source)


def test_freed_room_is_used_again(source: pathlib.Path) -> None:
    backup = back_up(source)
    for number in range(10):
        (source / "big").unlink()
        (source / "a" / "b" / "big too").unlink(missing_ok=True)
        (source / "big").write_bytes(data_of(number, 3 * MIB))
        backup = back_up(source, backup)
    assert backup.size < 14 * MIB


def test_what_may_have_been_written_to_in_the_same_tick_is_read(source: pathlib.Path) -> None:
    (source / "last").write_bytes(b"x" * 100_000)
    now = (source / "last").stat().st_ctime_ns
    assert now >= (source / "big").stat().st_ctime_ns
    full = back_up(source, time=now // 10**9)
    assert back_up(source, full).read_bytes >= 100_000


def test_patterns(source: pathlib.Path) -> None:
    backup = back_up(source, patterns=["/a/f1*", "b/", "!f12", "*.log"])
    paths = backup.paths()
    assert b"a/f12" in paths and b"a/f2" in paths and b"big" in paths
    assert b"a/f11" not in paths and b"a/b" not in paths and b"a/b/big too" not in paths
    with pytest.raises(errors.BadRequest, match="cannot be used"):
        back_up(source, patterns=["!"])


# -- what cannot be read -------------------------------------------------------------------------


def broken_reads(monkeypatch: pytest.MonkeyPatch, bad: dict[int, range]) -> None:
    """Let reading fail: offsets by inode."""
    real = os.preadv

    def preadv(descriptor: int, buffers: list[Any], offset: int, *more: Any) -> int:
        places = bad.get(os.fstat(descriptor).st_ino, range(0))
        if places and offset < places.stop and places.start < offset + len(buffers[0]):
            raise OSError(errno.EIO, "Input/output error")
        return real(descriptor, buffers, offset, *more)

    monkeypatch.setattr(file_volume.os, "preadv", preadv)


def test_bad_blocks_cost_no_more_than_themselves(
    source: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = (source / "big").stat()
    broken_reads(monkeypatch, {status.st_ino: range(MIB, MIB + 4096)})
    backup = back_up(source)
    (unread,) = backup.unread
    assert unread["path"] == "/a/b/big too" or unread["path"] == "/big"
    assert unread["reason"] == "Input/output error"
    restore(backup, tmp_path / "target")
    whole = (source / "big").read_bytes()
    expected = whole[:MIB] + bytes(4096) + whole[MIB + 4096 :]
    assert (tmp_path / "target" / "big").read_bytes() == expected

    # The next one does not take the gap for content.
    monkeypatch.undo()
    again = back_up(source, backup)
    assert again.unread == []
    restore(again, tmp_path / "again")
    assert content(tmp_path / "again") == content(source)


def test_a_file_that_changes_while_it_is_read(source: pathlib.Path) -> None:
    unread = UnreadFiles()
    with laid_out(source, unread=unread) as laid:
        with open(source / "big", "ab") as file:
            file.write(b"more")
        (source / "a" / "f9").unlink()
        (source / "a" / "f10").write_bytes(b"")
        laid.volume.readinto(0, memoryview(bytearray(laid.volume.size)))
    found = {one.path: one.reason for one in unread}
    assert found.pop("/big", None) or found.pop("/a/b/big too")
    assert found == {
        "/a/f9": "No such file or directory",
        "/a/f10": "it changed while it was read",
    }


def test_a_file_that_became_a_link_is_not_followed(source: pathlib.Path) -> None:
    unread = UnreadFiles()
    with laid_out(source, unread=unread) as laid:
        (source / "a" / "f9").unlink()
        (source / "a" / "f9").symlink_to("/etc/passwd")
        (source / "a" / "b").rename(source / "a" / "c")
        laid.volume.readinto(0, memoryview(bytearray(laid.volume.size)))
    assert {one.path for one in unread} >= {"/a/f9"}


def test_a_volume_that_is_gone_is_no_matter_of_single_files(
    source: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_reads(monkeypatch, {(source / "big").stat().st_ino: range(MIB)})
    with laid_out(source) as laid:
        monkeypatch.setattr("tests.unit.fakes.MemoryDevice._readinto", _fail, raising=True)
        with pytest.raises(errors.DeviceError, match="gone"):
            laid.volume.readinto(0, memoryview(bytearray(laid.volume.size)))


def _fail(*_: Any) -> None:
    raise errors.DeviceError("The device is gone.")


# -- into a folder where something is ------------------------------------------------------------


def test_only_what_differs_is_replaced(source: pathlib.Path) -> None:
    backup = back_up(source)
    before = content(source)
    kept = (source / "a" / "f7").stat().st_ctime_ns
    (source / "a" / "f5").write_bytes(b"other")
    (source / "a" / "added").mkdir()
    (source / "a" / "added" / "too").write_bytes(b"")
    (source / "empty folder" / "x").write_bytes(b"")
    (source / "fifo").unlink()
    (source / "fifo").mkdir()
    (source / "a" / "b" / "big too").unlink()
    (source / "link").unlink()
    restoring, problems = restore(backup, source, trust_inodes=True, remove=True)
    assert problems == []
    assert content(source) == before
    assert (source / "a" / "f7").stat().st_ctime_ns == kept
    assert restoring.removed == 2


def test_nothing_outside_is_reached(source: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A folder of the target was replaced by a link that leads out of it."""
    backup = back_up(source)
    outside = tmp_path / "outside"
    (outside / "b").mkdir(parents=True)
    (outside / "precious").write_bytes(b"precious")
    target = tmp_path / "target"
    target.mkdir()
    (target / "a").symlink_to(outside)
    restore(backup, target, remove=True)
    assert content(target) == content(source)
    assert sorted(one.name for one in outside.iterdir()) == ["b", "precious"]
    assert (outside / "precious").read_bytes() == b"precious"


def test_a_name_that_is_there_is_not_overwritten(
    source: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    backup = back_up(source)
    target = tmp_path / "target"
    target.mkdir()
    (target / "big").write_bytes(b"mine")
    _, problems = restore(backup, target)
    assert (target / "big").read_bytes() == b"mine"
    assert [one for one in problems if one.startswith("big:")]


def test_an_acl_of_the_target_is_not_passed_on(
    source: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    backup = back_up(source)
    target = tmp_path / "target"
    target.mkdir()
    try:
        os.setxattr(target, "user.own", b"x")
    except OSError:
        pytest.skip("no extended attributes here")
    _, problems = restore(backup, target)
    assert problems == []
    assert content(target) == content(source)


def test_a_damaged_backup_is_told_by_its_files(
    source: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    backup = back_up(source)
    tree = backup.trees[0]

    def read(offset: int, length: int) -> bytes:
        if offset < tree.place:
            raise errors.DamagedRanges("A block is damaged.", [(offset, length)])
        return backup.image[offset : offset + length]

    backup._read = read
    _, problems = restore(backup, tmp_path / "target")
    assert any(one.startswith("big: damaged at 0") for one in problems) or any(
        one.startswith("a/b/big too: damaged at 0") for one in problems
    )
    assert (tmp_path / "target" / "fifo").exists()
    assert stat.S_ISFIFO((tmp_path / "target" / "fifo").lstat().st_mode)


def test_a_path_longer_than_the_kernel_takes(tmp_path: pathlib.Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    folder = os.open(source, os.O_RDONLY)
    for _ in range(30):
        os.mkdir("d" * 200, dir_fd=folder)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    leaf = os.open("leaf", os.O_CREAT | os.O_WRONLY, dir_fd=folder)
    os.write(leaf, b"leaf")
    os.close(leaf)
    os.close(folder)
    backup = back_up(source)
    _, problems = restore(backup, tmp_path / "target")
    assert problems == []
    again = back_up(tmp_path / "target")
    assert again.paths() == backup.paths()
    assert len(again.paths()[-1]) > 6000
    # And away again.
    restoring, problems = restore(back_up(_empty(tmp_path)), source, remove=True)
    assert (restoring.removed, problems) == (1, [])
    restore(back_up(_empty(tmp_path)), tmp_path / "target", remove=True)


def _empty(tmp_path: pathlib.Path) -> pathlib.Path:
    folder = tmp_path / "empty"
    folder.mkdir(exist_ok=True)
    return folder
