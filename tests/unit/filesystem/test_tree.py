# SPDX-License-Identifier: Apache-2.0
"""Records of a tree, and what is no tree."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freezer_osbrick import errors
from freezer_osbrick.filesystem import stored, tree
from freezer_osbrick.filesystem.tree import Entry, Extent, Kind, TreeReader

ROOT = Entry(0, 0, b"", Kind.FOLDER, 0o755)
FILE = Entry(
    number=1,
    parent=0,
    name=b"\xff\n",
    kind=Kind.FILE,
    mode=0o6751,
    uid=4294967295,
    gid=70000,
    inode=1 << 63,
    subvolume=256,
    size=1 << 40,
    mtime=-1_500_000_000,
    ctime=1 << 62,
    atime=0,
    flags=tree.SPARSE | tree.LINKED,
    xattrs=((b"user.x", b"\0" * 300), (b"user.y", b"")),
    extents=(Extent(0, 65536, 100), Extent(1 << 39, 0, 512)),
)
LINK = Entry(2, 0, b"link", Kind.SYMLINK, 0o777, target=b"../\xff")
FOLDER = Entry(3, 0, b"sub", Kind.FOLDER, 0o700)
INNER = Entry(4, 3, b"further", Kind.FILE, 0o644, link=1)


def reader(*entries: Entry) -> TreeReader:
    return of_bytes(b"".join(entry.encode() for entry in entries))


def of_bytes(data: bytes) -> TreeReader:
    return TreeReader(lambda offset, length: data[offset - 7 : offset - 7 + length], 7, len(data))


def test_what_is_written_is_read() -> None:
    found = list(reader(ROOT, FILE, LINK, FOLDER, INNER).walk())
    assert [path for path, _ in found] == [b"", b"\xff\n", b"link", b"sub", b"sub/further"]
    link = dataclasses.replace(LINK, size=len(LINK.target))
    assert [entry for _, entry in found] == [ROOT, FILE, link, FOLDER, INNER]


def test_a_large_tree_is_read_in_pieces() -> None:
    many = [dataclasses.replace(FILE, number=n, name=b"%06d" % n) for n in range(1, 9000)]
    assert sum(1 for _ in reader(ROOT, *many).walk()) == 9000


@pytest.mark.parametrize(
    "entries",
    [
        [FILE],
        [ROOT, dataclasses.replace(FILE, parent=1)],
        [ROOT, FOLDER, dataclasses.replace(FILE, parent=7)],
        [ROOT, dataclasses.replace(FILE, name=b"..")],
        [ROOT, dataclasses.replace(FILE, name=b"a/b")],
        [ROOT, dataclasses.replace(FILE, name=b"")],
        [ROOT, dataclasses.replace(FILE, name=b"a\0b")],
        [ROOT, dataclasses.replace(FILE, size=10)],
        [ROOT, dataclasses.replace(FILE, extents=(Extent(5, 0, 10), Extent(0, 0, 10)))],
    ],
    ids=["root", "file above", "none above", "up", "slash", "empty", "zero", "size", "order"],
)
def test_what_is_no_tree(entries: list[Entry]) -> None:
    with pytest.raises(errors.Damaged, match="tree of files in the backup cannot be read"):
        list(reader(*entries).walk())


@settings(deadline=None)
@given(st.integers(0, 900), st.binary(min_size=1, max_size=8))
def test_any_bytes_are_read_or_refused(place: int, noise: bytes) -> None:
    data = bytearray(b"".join(one.encode() for one in (ROOT, FILE, LINK, FOLDER, INNER)))
    place %= len(data)
    data[place : place + len(noise)] = noise
    try:
        paths = [path for path, _ in of_bytes(bytes(data)).walk()]
    except errors.Damaged:
        return
    assert all(b".." not in path.split(b"/") for path in paths)


def test_a_tree_that_is_cut_off() -> None:
    data = b"".join(one.encode() for one in (ROOT, FILE, LINK))
    for length in range(1, len(data)):
        if length not in (len(ROOT.encode()), len(ROOT.encode() + FILE.encode())):
            with pytest.raises(errors.Damaged):
                list(of_bytes(data[:length]).walk())


@pytest.mark.parametrize("head", [{}, {"files": {}}, {"files": {"file_systems": [{}]}, "size": 1}])
def test_a_head_that_says_nothing_of_files(head: dict[str, object]) -> None:
    with pytest.raises(errors.Damaged, match="cannot be read"):
        stored.StoredFiles(head, lambda offset, length: b"")
