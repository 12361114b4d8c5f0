# SPDX-License-Identifier: Apache-2.0
"""What a walk takes over from the parent's tree, and what it does not."""

from __future__ import annotations

import dataclasses
import stat
from types import SimpleNamespace
from typing import Any

import pytest

from freezer_osbrick import errors
from freezer_osbrick.filesystem import tree
from freezer_osbrick.filesystem.previous import Named, Previous, key_of
from freezer_osbrick.filesystem.tree import Entry, Extent, Kind

DEVICE = 64
ROOT = Entry(0, 0, b"", Kind.FOLDER, 0o755, inode=2, mtime=5, ctime=6, atime=7)
FILES = [
    Entry(
        number=number,
        parent=0,
        name=b"f%d" % number,
        kind=Kind.FILE,
        mode=0o644,
        inode=10 + number,
        size=100,
        mtime=20,
        ctime=30 + number,
        atime=40,
        extents=(Extent(0, 512 * number, 100),),
    )
    for number in range(1, 5)
]
TREE = b"".join(entry.encode() for entry in (ROOT, *FILES))
RECORDS = [entry.encode() for entry in FILES]


def status(entry: Entry, **changed: Any) -> Any:
    """What the file system says of a file that is as the entry has it."""
    facts = {
        "st_ino": entry.inode,
        "st_dev": DEVICE,
        "st_mode": (stat.S_IFDIR if entry.kind is Kind.FOLDER else stat.S_IFREG) | entry.mode,
        "st_nlink": 1,
        "st_size": entry.size,
        "st_mtime_ns": entry.mtime,
        "st_ctime_ns": entry.ctime,
        "st_atime_ns": entry.atime,
    }
    return SimpleNamespace(**{**facts, **changed})


def listing(*entries: Entry) -> list[Named]:
    return [(entry.name, status(entry), None) for entry in entries]


def after_the_root(data: bytes = TREE, **how: Any) -> Previous:
    previous = Previous([data], **how)
    assert previous.take_folder(listing(ROOT), 0, 0, DEVICE) == ROOT.encode()
    return previous


def test_a_folder_as_it_was() -> None:
    previous = after_the_root()
    assert previous.take_folder(listing(*FILES), 0, 0, DEVICE) == b"".join(RECORDS)
    assert list(previous.left()) == []
    assert previous.take_folder(listing(*FILES), 0, 0, DEVICE) is None  # once


def test_pieces_may_end_anywhere() -> None:
    previous = Previous([TREE[:7], TREE[7:150], TREE[150:]])
    assert previous.take_folder(listing(ROOT), 0, 0, DEVICE) == ROOT.encode()
    assert previous.take_folder(listing(*FILES), 0, 0, DEVICE) == b"".join(RECORDS)


@pytest.mark.parametrize(
    "changed",
    [
        {"st_size": 101},
        {"st_mtime_ns": 21},
        {"st_ctime_ns": 1},
        {"st_ino": 99},
        {"st_mode": stat.S_IFIFO | 0o644},
        {"st_nlink": 2},
        {"st_dev": 65},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_one_that_differs(changed: dict[str, int]) -> None:
    previous = after_the_root()
    found = listing(*FILES)
    found[2] = found[2][0], status(FILES[2], **changed), None
    assert previous.take_folder(found, 0, 0, DEVICE) is None
    # The others can be taken one by one, and it itself is not lost.
    for index in (0, 1, 3):
        entry = FILES[index]
        key = key_of(0, entry.inode)
        assert previous.take_same(key, entry.name, 0, status(entry)) == RECORDS[index]
    assert list(previous.left()) == [(512 * 3, 100)]


def test_other_names() -> None:
    for name in (b"f9", b"f30", b"f"):
        found = listing(*FILES)
        found[2] = name, found[2][1], None
        assert after_the_root().take_folder(found, 0, 0, DEVICE) is None


def test_another_subvolume() -> None:
    assert after_the_root().take_folder(listing(*FILES), 0, 256, DEVICE) is None


def test_without_a_status() -> None:
    found = [*listing(*FILES[:3]), (FILES[3].name, None, None)]
    assert after_the_root().take_folder(found, 0, 0, DEVICE) is None


def test_what_may_have_changed_in_the_same_tick() -> None:
    previous = after_the_root(newest=FILES[3].ctime)
    assert previous.take_folder(listing(*FILES), 0, 0, DEVICE) is None
    last = FILES[3]
    assert previous.take_same(key_of(0, last.inode), last.name, 0, status(last)) is None


def test_what_was_not_fully_read() -> None:
    previous = after_the_root(distrusted=[3])
    assert previous.take_folder(listing(*FILES), 0, 0, DEVICE) is None
    third = FILES[2]
    assert previous.take_same(key_of(0, third.inode), third.name, 0, status(third)) is None
    assert previous.take_folder(listing(*FILES[:2]), 0, 0, DEVICE) == b"".join(RECORDS[:2])


def test_a_folder_after_others_came_and_went() -> None:
    previous = after_the_root()
    new = dataclasses.replace(FILES[0], inode=500)
    assert previous.take_same(key_of(0, new.inode), new.name, 0, status(new)) is None
    assert previous.take_folder(listing(*FILES[2:]), 0, 0, DEVICE) == b"".join(RECORDS[2:])
    assert list(previous.left()) == [(512, 100), (1024, 100)]


def test_numbers_and_access_times_are_brought_up_to_date() -> None:
    found = [*listing(*FILES[:3]), (FILES[3].name, status(FILES[3], st_atime_ns=77), None)]
    records = after_the_root().take_folder(found, 9, 0, DEVICE)
    assert records == b"".join(
        dataclasses.replace(one, parent=9, atime=77 if one is FILES[3] else one.atime).encode()
        for one in FILES
    )


def test_further_names_are_passed_over() -> None:
    further = dataclasses.replace(FILES[1], link=1, size=0, extents=(), flags=tree.LINKED)
    previous = after_the_root(b"".join((ROOT.encode(), further.encode(), *RECORDS)))
    assert previous.take_folder(listing(*FILES), 0, 0, DEVICE) == b"".join(RECORDS)


@pytest.mark.parametrize("cut", [1, 30, len(RECORDS[3]) - 1])
def test_a_tree_that_is_cut_off(cut: int) -> None:
    previous = after_the_root(TREE[:-cut])
    assert previous.take_folder(listing(*FILES), 0, 0, DEVICE) is None
    with pytest.raises(errors.Damaged, match="ends within a record|impossible length"):
        for entry in FILES:
            previous.take(key_of(0, entry.inode))
