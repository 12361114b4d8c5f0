# SPDX-License-Identifier: Apache-2.0
"""Files of a guest put into a folder: all of them, there, and nowhere else."""

import os
import stat

import pytest

from freezer_osbrick import errors
from freezer_osbrick.guest.filesystem import BrokenFileSystem, FileSystem, Node
from freezer_osbrick.guest.placing import Placing
from freezer_osbrick.guest.volume import GuestVolume, Part, Source

FOLDER, FILE, LINK = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o640, stat.S_IFLNK | 0o777
WHEN = 1_600_000_000_123_456_789


class Tree(FileSystem):
    """A file system that is a dictionary: folders are dictionaries, files bytes, links text."""

    kind = "tree"

    def __init__(self, tree):
        super().__init__(lambda offset, length: b"")
        self.tree = tree
        self.attributes = []

    def _root(self):
        return self._node(self.tree)

    def _node(self, number):
        if isinstance(number, Node):
            return number
        if isinstance(number, Exception):
            raise number
        mode = FOLDER if isinstance(number, dict) else LINK if isinstance(number, str) else FILE
        return Node(
            (id(number),),
            mode,
            os.getuid(),
            os.getgid(),
            len(number),
            mtime=WHEN,
            atime=WHEN,
            handle=number,
        )

    def _names(self, folder):
        yield from folder.handle.items()

    def _content(self, file):
        yield 0, file.handle

    def _target(self, symlink):
        return symlink.handle.encode()

    def _xattrs(self, node):
        yield from self.attributes if node.is_file else ()


def place(tree, folder, *paths):
    """Restore from a tree; what was told."""
    files = tree if isinstance(tree, Tree) else Tree(tree)
    source = Source(lambda offset, length: b"", 0)
    volume = GuestVolume(source, [Part(b"", "tree", "", 0, files)])
    told = []
    root = os.open(folder, os.O_RDONLY)
    try:
        placing = Placing(volume, root, lambda path, reason: told.append((path, reason)))
        for path in paths:
            placing.place(volume.find(path))
        placing.finish()
    finally:
        os.close(root)
    return told


def test_files_folders_and_links(tmp_path):
    content = os.urandom(5000) + bytes(20000) + b"end"
    tree = {b"a": {b"b": {b"file": content, b"link": "../../etc"}, b"empty": b""}, b"other": b"no"}
    assert place(tree, tmp_path, b"a") == []
    assert (tmp_path / "a" / "b" / "file").read_bytes() == content
    assert os.readlink(tmp_path / "a" / "b" / "link") == "../../etc"
    assert (tmp_path / "a" / "empty").read_bytes() == b""
    assert os.listdir(tmp_path) == ["a"]
    for path in (tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / "b" / "file"):
        assert path.stat().st_mtime_ns == WHEN
    assert stat.S_IMODE((tmp_path / "a" / "b" / "file").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o755


def test_the_top_comes_without_a_name(tmp_path):
    assert place({b"x": {b"y": b"1"}}, tmp_path, b"/") == []
    assert (tmp_path / "x" / "y").read_bytes() == b"1"


def test_a_single_file_of_a_folder(tmp_path):
    assert place({b"x": {b"y": b"1", b"z": b"2"}}, tmp_path, b"x/y") == []
    assert os.listdir(tmp_path) == ["y"]


def test_names_of_any_bytes(tmp_path):
    names = [b"\xff\xfe", b"new\nline", b"-rf", b"~", b"\x1b[0m", "ä".encode()]
    assert place({name: name for name in names}, tmp_path, b"/") == []
    assert sorted(os.listdir(os.fsencode(tmp_path))) == sorted(names)


@pytest.mark.parametrize("name", [b"..", b".", b"", b"a/b", b"/etc/x", b"../x", b"x\0y"])
def test_names_that_lead_elsewhere_are_refused(tmp_path, name):
    (tmp_path / "in").mkdir()
    told = place({b"folder": {name: b"evil", b"good": b"good"}}, tmp_path / "in", b"folder")
    assert [path for path, _ in told] == ([b"folder"] if name not in (b"..", b".") else [])
    assert os.listdir(tmp_path / "in" / "folder") == ["good"]
    assert os.listdir(tmp_path) == ["in"]


def test_a_link_in_the_target_is_not_followed(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    os.symlink(tmp_path / "out", tmp_path / "in" / "folder")
    os.symlink(tmp_path / "out" / "file", tmp_path / "in" / "file")
    told = place(
        {b"folder": {b"x": b"evil"}, b"file": b"evil"}, tmp_path / "in", b"folder", b"file"
    )
    assert [path for path, _ in told] == [b"folder", b"file"]
    assert os.listdir(tmp_path / "out") == []


def test_two_entries_of_one_name_cannot_lead_out(tmp_path):
    """A link, and then a folder of the same name: what a broken file system may hold."""

    class Twice(Tree):
        def _names(self, folder):
            if folder.handle is self.tree:
                yield b"x", str(tmp_path / "out")
                yield b"x", {b"evil": b"evil"}
            else:
                yield from super()._names(folder)

    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    told = place(Twice({b"x": 0}), tmp_path / "in", b"/")
    assert told == [(b"x", "File exists")]
    assert os.listdir(tmp_path / "out") == []


def test_nothing_that_is_there_is_touched(tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    assert place({b"file": b"theirs"}, tmp_path, b"file") == [(b"file", "File exists")]
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_what_cannot_be_read_is_told_and_the_rest_restored(tmp_path):
    tree = {b"a": BrokenFileSystem("there is no inode 7"), b"b": b"good"}
    assert place(tree, tmp_path, b"/") == [(b"a", "there is no inode 7")]
    assert os.listdir(tmp_path) == ["b"]


def test_hard_links_are_links_again(tmp_path):
    node = Node((1,), FILE, os.getuid(), os.getgid(), 3, links=2, handle=b"one")
    assert place({b"x": {b"1": node, b"2": node}}, tmp_path, b"x") == []
    first, second = tmp_path / "x" / "1", tmp_path / "x" / "2"
    assert first.stat().st_ino == second.stat().st_ino
    assert first.read_bytes() == b"one"


def test_attributes(tmp_path):
    try:
        os.setxattr(tmp_path, b"user.x", b"y")
    except OSError:
        pytest.skip("the temporary folder takes no attributes")
    tree = Tree({b"file": b"x"})
    tree.attributes = [(b"user.name", b"value\0")]
    assert place(tree, tmp_path, b"file") == []
    assert os.getxattr(tmp_path / "file", b"user.name") == b"value\0"


def test_who_is_not_root_gets_no_bits_of_others(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    node = Node((1,), stat.S_IFREG | 0o6755, 4321, 4321, 3, handle=b"one")
    assert place({b"x": node}, tmp_path, b"x") == []
    found = (tmp_path / "x").stat()
    assert stat.S_IMODE(found.st_mode) == 0o755
    assert found.st_uid == os.getuid()


def test_a_full_disk_ends_it(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(errors.DeviceError, match="No space left"):
        place({b"x": b"content"}, tmp_path, b"x")
