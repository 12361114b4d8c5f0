# SPDX-License-Identifier: Apache-2.0
"""Single files of a backup in file mode."""

import os

import pytest

from freezer_osbrick import errors
from freezer_osbrick.guest.placing import Placing
from freezer_osbrick.guest.volume import GuestVolume
from tests.unit.filesystem.laying import back_up
from tests.unit.guest import images


def test_files_of_a_tree(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    images.fill(source)
    os.link(source / "etc" / "hosts", source / "again")
    os.symlink("etc/hosts", source / "link")
    with open(source / "sparse", "wb") as file:
        file.truncate(1 << 20)
    backup = back_up(source)
    head = {"size": backup.size, "time": backup.time, "files": None}
    head["files"] = {
        **backup.disk.to_dict(),
        "raw": [],
        "excluded": [],
        "unread": [{"partition": 0, "path": "/x", "reason": "bad blocks", "entry": None}],
        "file_systems": [tree.to_dict() for tree in backup.trees],
    }
    volume = GuestVolume.of_files(head, images.reader(backup.image), len(backup.image))
    assert volume.notes == ["The volume: '/x' was not fully read when it was backed up: bad blocks"]
    paths = [os.fsdecode(path) for path, _ in volume.walk(volume.find(b"/"))]
    assert sorted(paths) == sorted(str(path.relative_to(source)) for path in source.rglob("*"))
    with pytest.raises(errors.BadRequest, match="no /etc/nothing"):
        volume.find(b"etc/nothing")
    told = []
    root = os.open(target, os.O_RDONLY)
    try:
        placing = Placing(volume, root, lambda path, reason: told.append((path, reason)))
        placing.place(volume.find(b"/"))
        placing.finish()
    finally:
        os.close(root)
    assert told == []
    assert (target / "large").read_bytes() == (source / "large").read_bytes()
    assert (target / "sparse").stat().st_size == 1 << 20
    assert os.readlink(target / "link") == "etc/hosts"
    assert (target / "again").stat().st_ino == (target / "etc" / "hosts").stat().st_ino
    for path in source.rglob("*"):
        mirrored = target / path.relative_to(source)
        assert mirrored.lstat().st_mtime_ns == path.lstat().st_mtime_ns
        assert mirrored.lstat().st_mode == path.lstat().st_mode
