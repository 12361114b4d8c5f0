# SPDX-License-Identifier: Apache-2.0
"""From the tree of a backup to a folder: what is missing is made, what differs is replaced, and
what the backup has not is removed.

Nothing outside of the folder can be reached: paths are opened below it without following symbolic
links, and every name is made within its opened folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator

from freezer_osbrick import errors
from freezer_osbrick.filesystem import dressing
from freezer_osbrick.filesystem import tree as trees
from freezer_osbrick.filesystem.subvolumes import (
    is_read_only,
    make_subvolume,
    set_read_only,
    subvolume_of,
)
from freezer_osbrick.filesystem.syscalls import open_beneath
from freezer_osbrick.filesystem.tree import KINDS, Entry, Kind
from freezer_osbrick.filesystem.walk import Excluded

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE = 1 << 20
_PAGE = 4096
_ZEROS = bytes(_PIECE)
_FULL = {errno.ENOSPC, errno.EDQUOT}

_NODES = {
    Kind.CHARACTER_DEVICE: stat.S_IFCHR,
    Kind.BLOCK_DEVICE: stat.S_IFBLK,
    Kind.FIFO: stat.S_IFIFO,
    Kind.SOCKET: stat.S_IFSOCK,
}

Report = Callable[[bytes, str], None]
"""Told of what could not be restored: path and reason."""


class Restoring:
    """One tree on its way into a folder.

    :ivar kept: entries that were there already.
    :ivar made: entries that were made.
    :ivar removed: names that were removed.
    :ivar written: bytes of content that were written.
    """

    def __init__(
        self,
        entries: Iterable[tuple[bytes, Entry]],
        read: Callable[[int, int], bytes],
        root: int,
        *,
        report: Report,
        trust_inodes: bool = False,
        remove: bool = False,
        excluded: Excluded = lambda path, is_folder: False,
        subvolumes: bool = False,
        step: Callable[[int], object] = lambda _: None,
    ) -> None:
        """
        :param entries: the tree with its paths, as :meth:`tree.TreeReader.walk` gives it.
        :param read: bytes of the backup's address space, by offset and length.
        :param root: descriptor of the folder.
        :param trust_inodes: the folder is the root of the same file system, or of a clone of it:
            what has the inode, size, mtime and ctime of the backup is the same.
        :param remove: remove what the tree has not.
        :param excluded: what the backup left out, and is left alone.
        :param subvolumes: the folder lies in a btrfs, and gets its subvolumes back.
        :param step: called with the bytes of content of each entry that is done; may raise.
        """
        self.kept = self.made = self.removed = self.written = 0
        self._entries = entries
        self._read = read
        self._root = root
        self._report = report
        self._trust_inodes = trust_inodes
        self._remove = remove
        self._excluded = excluded
        self._subvolumes = subvolumes
        self._step = step
        self._folders: list[tuple[bytes, Entry]] = []  # get their attributes last
        self._unvisited: dict[int, bytes] = {}  # folders that were there
        self._skipped: set[int] = set()  # folders that could not be made
        self._linked: dict[int, bytes] = {}  # paths of what has more names

    def run(self) -> None:
        """Restore.

        :raises errors.Damaged: the tree cannot be read.
        :raises errors.DeviceError: there is no room left.
        :raises errors.StoreError: the store failed.
        """
        with contextlib.ExitStack() as stack:
            folder = _Folder(self._root, b"")
            stack.callback(lambda: folder.close())
            for path, entry in self._entries:
                if not entry.number:
                    self._folders.append((path, entry))
                    self._visit(folder, 0)
                    continue
                if entry.parent in self._skipped:
                    self._skip(entry)
                    continue
                above, _, name = path.rpartition(b"/")
                if above != folder.path:
                    self._leave(folder)
                    folder.close()
                    folder = _Folder(self._root, above)
                    self._visit(folder, entry.parent)
                with self._told(path, entry):
                    self._restore(folder, name, path, entry)
            self._leave(folder)
        if self._remove:
            for path in self._unvisited.values():
                self._purge(path)
        for path, entry in reversed(self._folders):
            with self._told(path, entry):
                self._dress_folder(path, entry)

    # -- folders -----------------------------------------------------------------------------------

    def _visit(self, folder: _Folder, number: int) -> None:
        self._unvisited.pop(number, None)
        if self._remove:
            folder.list()

    def _leave(self, folder: _Folder) -> None:
        if self._remove:
            self._remove_rest(folder)

    def _purge(self, path: bytes) -> None:
        folder = _Folder(self._root, path)
        try:
            folder.list()
            self._remove_rest(folder)
        finally:
            folder.close()

    def _remove_rest(self, folder: _Folder) -> None:
        for name, is_folder in folder.rest.items():
            path = folder.path + b"/" + name if folder.path else name
            if self._excluded(path, is_folder):
                continue
            try:
                remove(folder.descriptor, name)
                self.removed += 1
            except OSError as error:
                self._report(path, f"it cannot be removed: {error.strerror}")

    def _dress_folder(self, path: bytes, entry: Entry) -> None:
        descriptor = open_beneath(self._root, path, _FOLDER)
        try:
            self._dress(descriptor, path, entry)
            if self._subvolumes and entry.flags & trees.READ_ONLY:
                set_read_only(descriptor, True)
        finally:
            os.close(descriptor)

    # -- one entry ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _told(self, path: bytes, entry: Entry) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in _FULL:
                raise errors.DeviceError(
                    f"There is no room left to restore {_text(path)}: {error.strerror}."
                ) from error
            self._report(path, str(error.strerror))
            self._skip(entry)

    def _skip(self, entry: Entry) -> None:
        if entry.kind is Kind.FOLDER:
            self._skipped.add(entry.number)

    def _restore(self, folder: _Folder, name: bytes, path: bytes, entry: Entry) -> None:
        is_there = folder.rest.pop(name, None) is not None
        if is_there or not self._remove:
            found = _look(folder.descriptor, name)
            if found and self._fits(found, folder.descriptor, path, entry):
                self.kept += 1
                self._step(entry.content_size)
                return
            if found:
                if not self._remove:
                    raise FileExistsError(errno.EEXIST, "something of that name is there already")
                remove(folder.descriptor, name)
        self._make(folder.descriptor, name, path, entry)
        self.made += 1
        self._step(entry.content_size)

    def _fits(self, found: os.stat_result, folder: int, path: bytes, entry: Entry) -> bool:
        """Whether what is there may stay."""
        if KINDS.get(stat.S_IFMT(found.st_mode)) is not entry.kind:
            return False
        if entry.kind is Kind.FOLDER:
            if not self._remove:
                return False
            self._folders.append((path, entry))
            self._unvisited[entry.number] = path
            if self._subvolumes and entry.flags & trees.SUBVOLUME:
                self._make_writable(path)
            return True
        if entry.is_link:
            first = self._linked.get(entry.link)
            there = self._look_beneath(first) if first else None
            return there is not None and os.path.samestat(there, found)
        same = (
            self._trust_inodes
            and found.st_ino == entry.inode
            and found.st_mtime_ns == entry.mtime
            and found.st_ctime_ns == entry.ctime
            and (entry.kind is not Kind.FILE or found.st_size == entry.size)
        )
        if same and entry.flags & trees.LINKED:
            self._linked[entry.number] = path
        return same

    def _make_writable(self, path: bytes) -> None:
        descriptor = open_beneath(self._root, path, _FOLDER)
        try:
            if subvolume_of(descriptor, os.fstat(descriptor)) and is_read_only(descriptor):
                set_read_only(descriptor, False)
        finally:
            os.close(descriptor)

    def _look_beneath(self, path: bytes) -> os.stat_result | None:
        try:
            descriptor = open_beneath(self._root, path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return os.fstat(descriptor)
        finally:
            os.close(descriptor)

    def _make(self, folder: int, name: bytes, path: bytes, entry: Entry) -> None:
        if entry.kind is Kind.FOLDER:
            if not (self._subvolumes and entry.flags & trees.SUBVOLUME):
                os.mkdir(name, 0o700, dir_fd=folder)
            else:
                make_subvolume(folder, name)
            self._folders.append((path, entry))
            return
        if entry.is_link:
            self._link(folder, name, entry)
            return
        if entry.flags & trees.LINKED:
            self._linked[entry.number] = path
        if entry.kind is Kind.FILE:
            descriptor = os.open(name, _NEW_FILE, 0o600, dir_fd=folder)
            try:
                self._fill(descriptor, path, entry)
                self._dress(descriptor, path, entry)
            finally:
                os.close(descriptor)
        elif entry.kind is Kind.SYMLINK:
            os.symlink(entry.target, name, dir_fd=folder)
            for problem in dressing.dress_symlink(folder, name, entry):
                self._report(path, problem)
        else:
            device = os.makedev(entry.size >> 32, entry.size & 0xFFFFFFFF)
            os.mknod(name, _NODES[entry.kind] | 0o600, device, dir_fd=folder)
            descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            try:
                self._dress(descriptor, path, entry)
            finally:
                os.close(descriptor)

    def _link(self, folder: int, name: bytes, entry: Entry) -> None:
        first = self._linked.get(entry.link)
        if first is None:
            raise OSError(errno.ENOENT, "the file that it is a further name of is not there")
        above, _, last = first.rpartition(b"/")
        source = open_beneath(self._root, above, _FOLDER)
        try:
            os.link(last, name, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
        finally:
            os.close(source)

    def _fill(self, descriptor: int, path: bytes, entry: Entry) -> None:
        for extent in entry.extents:
            for start in range(0, extent.length, _PIECE):
                length = min(_PIECE, extent.length - start)
                self._step(0)
                try:
                    data = self._read(extent.place + start, length)
                except errors.Damaged as error:
                    self._report(path, f"damaged at {extent.start + start}: {error}")
                    continue
                if entry.flags & trees.SPARSE:
                    self._write_sparsely(descriptor, extent.start + start, data)
                else:
                    self._write(descriptor, extent.start + start, data)
        os.ftruncate(descriptor, entry.size)

    def _write_sparsely(self, descriptor: int, start: int, data: bytes) -> None:
        """Write what is not zeros."""
        begin = 0
        while begin < len(data):
            end = begin + _PAGE
            if data[begin:end].count(0) < len(data[begin:end]):
                while end < len(data) and data[end : end + _PAGE].strip(b"\0"):
                    end += _PAGE
                self._write(descriptor, start + begin, data[begin:end])
            begin = end

    def _write(self, descriptor: int, start: int, data: bytes) -> None:
        view, done = memoryview(data), 0
        while done < len(data):
            done += os.pwrite(descriptor, view[done:], start + done)
        self.written += len(data)

    def _dress(self, descriptor: int, path: bytes, entry: Entry) -> None:
        for problem in dressing.dress(descriptor, entry):
            self._report(path, problem)


class _Folder:
    """An opened folder of the target.

    :ivar rest: names in it that were not met in the tree so far, and whether they are folders.
    """

    def __init__(self, root: int, path: bytes) -> None:
        self.path = path
        self.descriptor = open_beneath(root, path, _FOLDER)
        self.rest: dict[bytes, bool] = {}

    def list(self) -> None:
        with os.scandir(self.descriptor) as listing:
            self.rest = {
                os.fsencode(item.name): item.is_dir(follow_symlinks=False) for item in listing
            }

    def close(self) -> None:
        os.close(self.descriptor)


def remove(folder: int, name: bytes) -> None:
    """Remove a name from an opened folder, and all that is below it.

    :raises OSError: something could not be removed.
    """
    try:
        os.unlink(name, dir_fd=folder)
        return
    except IsADirectoryError:
        pass
    found = [name]
    for path in found:  # grows
        descriptor = open_beneath(folder, path, _FOLDER)
        try:
            with os.scandir(descriptor) as listing:
                names = [
                    (os.fsencode(item.name), item.is_dir(follow_symlinks=False)) for item in listing
                ]
            for inner, is_folder in names:
                if is_folder:
                    found.append(path + b"/" + inner)
                else:
                    os.unlink(inner, dir_fd=descriptor)
        finally:
            os.close(descriptor)
    for path in reversed(found):
        above, _, last = path.rpartition(b"/")
        descriptor = open_beneath(folder, above, _FOLDER)
        try:
            os.rmdir(last, dir_fd=descriptor)
        finally:
            os.close(descriptor)


def _look(folder: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _text(path: bytes) -> str:
    return repr("/" + os.fsdecode(path))
