# SPDX-License-Identifier: Apache-2.0
"""What a server's guest does with its volume: a file system, real files, and steady writing.

Where volumes are block devices, root mounts the file system as a guest would. Where they are files
nothing can be mounted: the file system is made with the files in it, over seven eighths of the
volume, and the guest writes to the rest.
"""

from __future__ import annotations

import abc
import contextlib
import os
import pathlib
import random
import shutil
import threading
from collections.abc import Iterator, Sequence

from . import system
from .errors import DemoError

MIB = 1 << 20
SOURCES = ("/usr/lib", "/usr/share", "/usr/bin", "/etc")
LARGEST_FILE = 48 * MIB
PAGE = 4096
MOUNT_POINT = "mnt"


def real_files(limit: int, turn: int) -> list[pathlib.Path]:
    """Files of this machine, up to ``limit`` bytes in all.

    :param turn: 0 or 1: two calls with different turns return no file twice.
    """
    chosen, total = [], 0
    for path in _walk():
        if _turn_of(path) != turn:
            continue
        size = path.lstat().st_size
        if total + size <= limit:
            chosen.append(path)
            total += size
    return chosen


def _walk() -> Iterator[pathlib.Path]:
    for source in SOURCES:
        for folder, folders, names in os.walk(source):
            folders.sort()
            for name in sorted(names):
                path = pathlib.Path(folder, name)
                # mkfs.xfs reads a list of names between blanks
                if not path.is_file() or path.is_symlink() or len(str(path).split()) != 1:
                    continue
                if 0 < path.lstat().st_size <= LARGEST_FILE and os.access(path, os.R_OK):
                    yield path


def _turn_of(path: pathlib.Path) -> int:
    return sum(str(path).encode()) % 2


class Guest(abc.ABC):
    """Uses one volume while it is attached.

    :param device: where the volume is on this machine, a block device or a file.
    :param kind: ``ext4`` or ``xfs``.
    :param folder: of this guest alone, for what it needs to work.
    """

    def __init__(self, device: str, kind: str, folder: pathlib.Path) -> None:
        self.device = device
        self.kind = kind
        self.folder = folder
        self.random = random.Random(f"{kind} {folder.name}")
        folder.mkdir(parents=True, exist_ok=True)
        self._writer: threading.Thread | None = None
        self._enough = threading.Event()
        self._written = 0

    @abc.abstractmethod
    def fill(self, files: Sequence[pathlib.Path], random_bytes: int) -> None:
        """Make the file system, with the files and with random data."""

    @abc.abstractmethod
    def arrive(self) -> None:
        """Take the volume into use."""

    @abc.abstractmethod
    def leave(self) -> None:
        """Give the volume up, with everything on it."""

    @abc.abstractmethod
    def change(self) -> None:
        """A day's work: files removed, changed, added; scattered and contiguous writes."""

    @abc.abstractmethod
    def hold_still(self) -> None:
        """Bring everything to the volume, and change nothing until ``go_on``."""

    @abc.abstractmethod
    def go_on(self) -> None:
        """The end of ``hold_still``."""

    @abc.abstractmethod
    def scratch(self) -> tuple[pathlib.Path, int, int]:
        """Where the steady writing goes: a file, and a range of it in bytes."""

    def write_steadily(self) -> None:
        """Begin to write now and then until ``stop``."""
        self._enough.clear()
        self._written = 0
        self._writer = threading.Thread(target=self._write, daemon=True)
        self._writer.start()

    def stop(self) -> int:
        """End the steady writing; returns the bytes written."""
        if self._writer is not None:
            self._enough.set()
            self._writer.join()
            self._writer = None
        return self._written

    def _write(self) -> None:
        path, begin, length = self.scratch()
        descriptor = os.open(path, os.O_WRONLY)
        try:
            while not self._enough.wait(0.05):
                place = begin + self.random.randrange(length // PAGE - 16) * PAGE
                self._written += os.pwrite(descriptor, self.random.randbytes(16 * PAGE), place)
                os.fdatasync(descriptor)
        finally:
            os.close(descriptor)


class MountedGuest(Guest):
    """The volume is a block device, and its file system is mounted."""

    RANDOM_FILE = "random data"

    @property
    def _mount_point(self) -> pathlib.Path:
        return self.folder / MOUNT_POINT

    def fill(self, files: Sequence[pathlib.Path], random_bytes: int) -> None:
        system.run(f"mkfs.{self.kind}", "-q", self.device)
        self.arrive()
        for path in files:
            target = self._mount_point / path.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        self._add_random(self.RANDOM_FILE, random_bytes)
        os.sync()

    def _add_random(self, name: str, size: int) -> None:
        with open(self._mount_point / name, "wb") as file:
            for _ in range(size // MIB):
                file.write(self.random.randbytes(MIB))

    def arrive(self) -> None:
        self._mount_point.mkdir(exist_ok=True)
        system.run("mount", "-t", self.kind, self.device, self._mount_point)

    def leave(self) -> None:
        if self._mount_point.is_mount():
            system.run("umount", self._mount_point)

    def change(self) -> None:
        paths = sorted(path for path in self._mount_point.rglob("*.py") if path.is_file())
        for number, path in enumerate(paths[:2000]):
            if number % 10 == 0:
                path.unlink()
            elif number % 10 == 1:
                with open(path, "ab") as file:
                    file.write(b"# changed\n")
        with open(self._mount_point / self.RANDOM_FILE, "r+b") as file:
            pages = os.path.getsize(file.fileno()) // PAGE
            for page in self.random.sample(range(pages), 500):
                file.seek(page * PAGE)
                file.write(self.random.randbytes(PAGE))
        self._add_random("new random data", 24 * MIB)
        os.sync()

    def hold_still(self) -> None:
        system.run("fsfreeze", "--freeze", self._mount_point)

    def go_on(self) -> None:
        system.run("fsfreeze", "--unfreeze", self._mount_point)

    def scratch(self) -> tuple[pathlib.Path, int, int]:
        path = self._mount_point / self.RANDOM_FILE
        return path, 0, path.stat().st_size


class FileGuest(Guest):
    """The volume is a file, and nothing is mounted."""

    def fill(self, files: Sequence[pathlib.Path], random_bytes: int) -> None:
        size = os.path.getsize(self.device)
        {"ext4": self._make_ext4, "xfs": self._make_xfs}[self.kind](files, size // 8 * 7)
        os.truncate(self.device, size)
        self._write_random(min(random_bytes, size // 8))

    def _make_ext4(self, files: Sequence[pathlib.Path], size: int) -> None:
        tree = self.folder / "tree"
        for path in files:
            target = tree / path.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        system.run(
            "mkfs.ext4", "-q", "-F", "-b", str(PAGE), "-d", tree, self.device, str(size // PAGE)
        )
        shutil.rmtree(tree)

    def _make_xfs(self, files: Sequence[pathlib.Path], size: int) -> None:
        prototype = self.folder / "prototype"
        prototype.write_text(
            "\n".join(["/", "0 0", *_prototype(files), ""]),
            encoding="utf-8",
            errors="surrogateescape",
        )
        system.run(
            "mkfs.xfs", "-q", "-f", "-p", prototype, "-d", f"file=1,name={self.device},size={size}"
        )

    def _write_random(self, size: int) -> None:
        path, begin, _ = self.scratch()
        with open(path, "r+b") as file:
            file.seek(begin)
            for _ in range(size // MIB):
                file.write(self.random.randbytes(MIB))

    def arrive(self) -> None:
        """Nothing to do: nothing is mounted."""

    def leave(self) -> None:
        """Nothing to do: nothing is mounted."""

    def change(self) -> None:
        path, begin, length = self.scratch()
        self._write_random(24 * MIB)
        with open(path, "r+b") as file:
            for page in self.random.sample(range(length // PAGE), 500):
                file.seek(begin + page * PAGE)
                file.write(self.random.randbytes(PAGE))

    def hold_still(self) -> None:
        with open(self.device, "rb") as file:
            os.fsync(file.fileno())

    def go_on(self) -> None:
        """Nothing to do: ``hold_still`` stopped nothing."""

    def scratch(self) -> tuple[pathlib.Path, int, int]:
        size = os.path.getsize(self.device)
        return pathlib.Path(self.device), size // 8 * 7, size // 8


def _prototype(files: Sequence[pathlib.Path]) -> list[str]:
    """The files as ``mkfs.xfs -p`` reads them: a tree, each folder ended by ``$``."""
    tree: dict[str, object] = {}
    for path in files:
        folder = tree
        for name in path.parts[1:-1]:
            folder = folder.setdefault(name, {})  # type: ignore[assignment]
        folder[path.name] = path
    return ["d--755 0 0", *_entries(tree), "$"]


def _entries(folder: dict[str, object]) -> Iterator[str]:
    for name, entry in folder.items():
        if isinstance(entry, dict):
            yield f"{name} d--755 0 0"
            yield from _entries(entry)
            yield "$"
        else:
            yield f"{name} ---644 0 0 {entry}"


def unmount_all(folder: pathlib.Path) -> None:
    """Unmount the guests' file systems below a folder, also those of a demo that was killed."""
    mounts = pathlib.Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    for line in reversed(mounts):
        target = pathlib.Path(line.split(" ")[1].encode().decode("unicode_escape"))
        if folder in target.parents and target.name == MOUNT_POINT:
            # A frozen one would be out of sight after the unmounting, and hold its device for ever.
            with contextlib.suppress(DemoError):  # it was not frozen
                system.run("fsfreeze", "--unfreeze", target)
            system.run("umount", target)
