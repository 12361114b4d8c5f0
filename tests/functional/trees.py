# SPDX-License-Identifier: Apache-2.0
"""File systems with all kinds of files in them, and how two are compared."""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
import random
import shutil
import stat
import struct
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

MIB = 1 << 20
SEED = 7

Sizes = Callable[[random.Random], int]
"""Casts the size of one file, in bytes."""


def small(dice: random.Random) -> int:
    """6 KB on average, few of more than 30 KB."""
    return int(dice.expovariate(1 / 6000))


def usual(dice: random.Random) -> int:
    """About as /usr, /etc and /var/lib of a Debian with compilers and a browser hold them, where
    half of the files have less than 2 KB and the average is 51 KB."""
    return min(int(dice.lognormvariate(math.log(2009), 2.546)), 64 * MIB)


_MAKE = {
    "ext2": ("mkfs.ext2", "-q", "-F", "-L", "data"),
    "ext3": ("mkfs.ext3", "-q", "-F", "-L", "data"),
    "ext4": ("mkfs.ext4", "-q", "-F", "-L", "data", "-i", "8192"),
    "xfs": ("mkfs.xfs", "-q", "-f", "-L", "data"),
    "btrfs": ("mkfs.btrfs", "-q", "-f", "-L", "data"),
}
ENV = {**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin", "LC_ALL": "C"}


def run(*command: str | os.PathLike[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=ENV)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def need(*programs: str) -> None:
    """Skip the test where root rights or a program are missing."""
    if os.geteuid():
        pytest.skip("mounting needs root rights")
    for program in programs:
        if shutil.which(program, path=ENV["PATH"]) is None:
            pytest.skip(f"{program} is not installed")


def make(kind: str, path: pathlib.Path) -> None:
    need(_MAKE[kind][0], "rsync")
    run(*_MAKE[kind], path)


def copy(path: pathlib.Path, to: pathlib.Path) -> None:
    """Copy an image, and no more of it than there is."""
    run("cp", "--sparse=always", "--reflink=auto", path, to)


@contextlib.contextmanager
def mounted(
    path: pathlib.Path, folder: pathlib.Path, *options: str, offset: int = 0
) -> Iterator[pathlib.Path]:
    folder.mkdir(parents=True, exist_ok=True)
    run("mount", "-o", ",".join(("loop", f"offset={offset}", *options)), path, folder)
    try:
        yield folder
    finally:
        run("umount", folder)


def fill(root: pathlib.Path, count: int, sizes: Sizes = small) -> None:
    """Put ``count`` files and one or several of every other kind into a folder."""
    dice = random.Random(SEED)
    (root / "unread").mkdir()  # the last thing that is touched is a folder
    for number in range(count):
        folder = root / f"d{number // 1000:03}" / f"e{number % 7}"
        if number % 1000 < 7:
            folder.mkdir(parents=True)
        data = dice.randbytes(sizes(dice))
        (folder / f"f{number}").write_bytes(data)
    (root / "big").write_bytes(dice.randbytes(9 * MIB + 17))
    os.link(root / "big", root / "d000" / "big too")
    _sparse_files(root, dice)
    _odd_names(root)
    _nodes(root)
    _attributes(root)
    time.sleep(0.1)  # a file that may change in the tick of the newest one is read again
    os.utime(root / "unread", ns=(1, 2_000_000_001))


def _sparse_files(root: pathlib.Path, dice: random.Random) -> None:
    with open(root / "sparse", "wb") as file:
        file.seek(100 * MIB)
        file.write(dice.randbytes(5000))
        file.seek(300 * MIB)
        file.write(b"z")
        file.truncate(400 * MIB)
    with open(root / "all hole", "wb") as file:
        file.truncate(5 * MIB)
    (root / "empty").touch()


def _odd_names(root: pathlib.Path) -> None:
    for name in (b"new\nline", b"\x80\xff", b" ", b"-rf", b"*", b"'\"", b"\xc3\xa9", b"n" * 255):
        with open(os.fsencode(root) + b"/" + name, "wb") as file:
            file.write(name)
    os.symlink(b"../\xff/etc/passwd", os.fsencode(root) + b"/sym\xfe")
    os.symlink("/etc", root / "out")
    deep = root
    for _ in range(12):
        deep = deep / ("deep" * 50)
    deep.mkdir(parents=True)
    (deep / "leaf").write_bytes(b"leaf")


def _nodes(root: pathlib.Path) -> None:
    os.mkfifo(root / "fifo")
    os.mknod(root / "character", stat.S_IFCHR | 0o640, os.makedev(1, 300))
    os.mknod(root / "block", stat.S_IFBLK | 0o600, os.makedev(259, 70000))
    os.mknod(root / "socket", stat.S_IFSOCK | 0o755)


def acl(*entries: tuple[int, int, int]) -> bytes:
    """An ACL as the kernel has it; entries of tag, permissions and id."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def _attributes(root: pathlib.Path) -> None:
    path = root / "d000" / "attributes"
    path.write_bytes(b"attributes")
    os.chown(path, 1234, 70000)
    os.chmod(path, 0o6751)
    nobody = 0xFFFFFFFF
    access = acl((1, 7, nobody), (2, 6, 77), (4, 5, nobody), (16, 7, nobody), (32, 1, nobody))
    os.setxattr(path, "system.posix_acl_access", access)
    os.setxattr(path, "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0))
    os.setxattr(path, "user.x", b"\0\1")
    os.setxattr(path, "trusted.x", b"t" * 200)
    os.setxattr(root / "d000", "system.posix_acl_default", access)
    os.setxattr(root / "out", "trusted.link", b"x", follow_symlinks=False)
    os.utime(path, ns=(1, 123_456_789_012_345_678))
    os.utime(root / "out", ns=(5, 7), follow_symlinks=False)
    os.utime(root / "empty", ns=(0, 1))
    os.chmod(root / "d000", 0o1777)


def difference(one: pathlib.Path, other: pathlib.Path, *options: str) -> str:
    """What rsync would have to do to make the second folder like the first; nothing is right."""
    return run(
        *("rsync", "-aHAXn", "--checksum", "--delete", "--itemize-changes", *options),
        *(f"{one}/", f"{other}/"),
    )


def differ(
    one: pathlib.Path, other: pathlib.Path, folder: pathlib.Path, *options: str, offset: int = 0
) -> str:
    """The same for two images of file systems."""
    with mounted(one, folder / "one", "ro", *options, offset=offset) as first:
        with mounted(other, folder / "other", "ro", *options, offset=offset) as second:
            return difference(first, second)
