# SPDX-License-Identifier: Apache-2.0
"""Every name of a mounted file system, and where the content of each file is to lie.

What has the inode, size, mtime and ctime that the parent knows is not looked at any further.
"""

from __future__ import annotations

import array
import dataclasses
import errno
import mmap
import operator
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Sequence

from freezer_osbrick import errors
from freezer_osbrick.filesystem import tree as trees
from freezer_osbrick.filesystem.content import Content, data_ranges, placed
from freezer_osbrick.filesystem.previous import Previous, key_of
from freezer_osbrick.filesystem.space import Space
from freezer_osbrick.filesystem.subvolumes import TOP, is_read_only, subvolume_of
from freezer_osbrick.filesystem.syscalls import open_beneath
from freezer_osbrick.filesystem.tree import FIXED, KINDS, Entry, Extent, Kind, TreeReader

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FLUSHED = 1 << 20
# xfs shows ACLs twice: as everybody does, and as it stores them.
_ACL_OF_XFS = "trusted.SGI_ACL_"
_PATHS_KEPT = 20000
_FORMAT = 0o170000  # the bits of a mode that tell the kind
_ENCODING, _ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
_NO_XATTRS = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENODATA}

_Item = tuple[bytes, os.stat_result | None, os.DirEntry[str]]

Excluded = Callable[[bytes, bool], bool]
"""Whether a path, of a folder or not, is to be left out."""

Report = Callable[[int | None, bytes, str], None]
"""Told of what could not be read: number of the entry, path, reason."""


def nothing(_path: bytes, _is_folder: bool) -> bool:
    """Leaves nothing out."""
    return False


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """A file as the walk found it."""

    number: int
    path: bytes
    inode: int
    size: int
    mtime: int
    ctime: int

    def is_same(self, status: os.stat_result) -> bool:
        """Whether it still is the same file, and was not written to."""
        now = status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        return now == (self.inode, self.size, self.mtime, self.ctime)


class Walk:
    """One walk over one file system.

    :ivar dirty: ``(place, length)`` of what the parent may not have, or has and we have not.
    :ivar count: of entries.
    :ivar newest: the latest ctime that was met, in nanoseconds.
    :ivar file: holds the records; its owner closes it.
    """

    def __init__(
        self,
        root: int,
        previous: Previous,
        space: Space,
        *,
        excluded: Excluded,
        report: Report,
        step: Callable[[int], object] = lambda _: None,
    ) -> None:
        """:param root: descriptor of the root folder.
        :param step: called now and then with the number of entries so far; may raise to end it."""
        self.dirty: list[tuple[int, int]] = []
        self.count = 0
        self.newest = 0
        self.file = tempfile.TemporaryFile(prefix="freezer-osbrick-")  # noqa: SIM115
        self.length = 0
        self._root = root
        self._previous = previous
        self._space = space
        self._excluded = excluded
        self._report = report
        self._step = step
        self._offsets: array.array[int] = array.array("Q")
        self._pending: list[bytes] = []
        self._pending_size = 0
        self._paths: dict[int, bytes] = {}  # of folders, by number
        self._first_names: dict[int, int] = {}  # numbers by inode, where it has several names

    def run(self) -> None:
        """Walk.

        :raises errors.DeviceError: the root cannot be read.
        """
        status = os.fstat(self._root)
        subvolume = subvolume_of(self._root, status)
        top = self._root_entry(status, subvolume)
        inner = [(top, b"", subvolume, status.st_dev)]
        while inner:
            number, path, subvolume, device = inner.pop()
            inner += reversed(self._folder(number, path, subvolume, device))
            self._step(self.count)
        self.dirty += self._previous.left()
        self._flush()

    def _root_entry(self, status: os.stat_result, subvolume: int) -> int:
        records = self._previous.take_folder([(b"", status, None)], 0, subvolume, status.st_dev)
        if records is not None:
            self.newest = status.st_ctime_ns
            return self._put(records)
        return self._add(b"", 0, b"/proc/self/fd/%d/." % self._root, status, subvolume, b"")

    def found(self, number: int) -> Found:
        """What the walk found of a file, by its number. Only after :meth:`content`."""
        name, fields = self._start_of(number)
        path = self._path_of(fields[4])
        return Found(
            number, path + b"/" + name if path else name, *(fields[8], fields[10], *fields[11:13])
        )

    def content(self) -> Content:
        """Where the content of all files lies, when the walk is over.

        Looked for in the records, and not kept while they are made: where nothing has changed,
        nobody wants to know.
        """
        found, offsets, offset = Content(), array.array("Q"), 0
        with mmap.mmap(self.file.fileno(), self.length, access=mmap.ACCESS_READ) as records:
            reader = TreeReader(lambda at, size: records[at : at + size], 0, self.length)
            for number, record in enumerate(reader.records()):
                for extent in trees.extents(record):
                    found.add(number, *extent)
                offsets.append(offset)
                offset += len(record)
        self._offsets = offsets
        return found

    def _path_of(self, folder: int) -> bytes:
        if not folder:
            return b""
        known = self._paths.get(folder)
        if known is None:
            name, fields = self._start_of(folder)
            above = self._path_of(fields[4])
            known = above + b"/" + name if above else name
            if len(self._paths) >= _PATHS_KEPT:
                self._paths.clear()
            self._paths[folder] = known
        return known

    def _start_of(self, number: int) -> tuple[bytes, tuple[int, ...]]:
        start = os.pread(self.file.fileno(), FIXED.size + 255, self._offsets[number])
        fields = FIXED.unpack_from(start)
        return start[FIXED.size : FIXED.size + fields[14]], fields

    # -- one folder --------------------------------------------------------------------------------

    def _folder(
        self, number: int, path: bytes, subvolume: int, device: int
    ) -> list[tuple[int, bytes, int, int]]:
        """Add what is in a folder; returns the folders in it."""
        try:
            descriptor = open_beneath(self._root, path, _FOLDER)
        except OSError as error:
            self._fail(number, path, error)
            return []
        try:
            items = _listed(descriptor)
            if self._excluded is not nothing:
                items = [item for item in items if not self._is_excluded(path, item)]
            same = self._same(number, path, subvolume, device, items)
            if same is not None:
                return same
            below = []
            here = b"/proc/self/fd/%d/" % descriptor
            for name, status, item in items:
                try:
                    status = status or item.stat(follow_symlinks=False)
                    inside = subvolume
                    if status.st_dev != device:
                        inside = _subvolume_at(descriptor, name, status)
                    added = self._add(name, number, here, status, inside, path)
                except OSError as error:
                    self._fail(None, _below(path, name), error)
                    continue
                if stat.S_ISDIR(status.st_mode):
                    below.append((added, _below(path, name), inside, status.st_dev))
            return below
        except OSError as error:
            self._fail(number, path, error)
            return []
        finally:
            os.close(descriptor)

    def _is_excluded(self, path: bytes, item: _Item) -> bool:
        return self._excluded(_below(path, item[0]), item[2].is_dir(follow_symlinks=False))

    def _same(
        self, number: int, path: bytes, subvolume: int, device: int, items: Sequence[_Item]
    ) -> list[tuple[int, bytes, int, int]] | None:
        """Take over all that is in a folder from the parent; returns the folders in it. None where
        it is to be looked at one by one."""
        records = self._previous.take_folder(items, number, subvolume, device)
        if records is None:
            return None
        first = self._put_all(records, len(items))
        below = []
        for added, (name, status, _) in enumerate(items, first):
            if status is None:
                continue  # as it never is of what was taken over
            if status.st_ctime_ns > self.newest:
                self.newest = status.st_ctime_ns
            if status.st_mode & _FORMAT == stat.S_IFDIR:
                below.append((added, _below(path, name), subvolume, device))
        return below

    def _fail(self, number: int | None, path: bytes, error: OSError) -> None:
        if number == 0:
            raise errors.DeviceError(
                f"The root of the file system cannot be read: {error.strerror}."
            ) from error
        self._report(number, path, str(error.strerror))

    # -- one entry ---------------------------------------------------------------------------------

    def _add(
        self,
        name: bytes,
        parent: int,
        here: bytes,
        status: os.stat_result,
        subvolume: int,
        path: bytes,
    ) -> int:
        """Add an entry; returns its number.

        :param here: the way to its folder for this process, up to the name.
        :param path: of its folder.
        """
        if status.st_ctime_ns > self.newest:
            self.newest = status.st_ctime_ns
        key = key_of(subvolume, status.st_ino)
        several = status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode)
        if several and key in self._first_names:
            entry = self._entry(name, parent, status, subvolume)
            return self._put(
                dataclasses.replace(entry, link=self._first_names[key], size=0).encode()
            )
        record = self._previous.take_same(key, name, parent, status)
        if record is not None:
            number = self._put(record)
        else:
            entry = self._entry(name, parent, status, subvolume)
            number = self._put_new(
                entry, here + name, status, self._previous.take(key), _below(path, name)
            )
        if several:
            self._first_names[key] = number
        return number

    def _put_new(
        self,
        entry: Entry,
        where: bytes,
        status: os.stat_result,
        known: bytes | None,
        path: bytes,
    ) -> int:
        """Add an entry that the parent does not have as it is.

        :param where: a path to it for this process.
        :param known: what the parent has of its inode.
        """
        before: tuple[Extent, ...] = ()
        if known:
            self.dirty += [(place, length) for _, place, length in trees.extents(known)]
            if known[4] == Kind.FILE:
                before = trees.decode(known, 0).extents
        facts: dict[str, object] = {"xattrs": self._xattrs(where, path)}
        if entry.flags & trees.SUBVOLUME and _is_read_only(where):
            facts["flags"] = entry.flags | trees.READ_ONLY
        if entry.kind is Kind.SYMLINK:
            facts["target"] = os.readlink(where)
        elif entry.kind is Kind.FILE and status.st_size:
            sparse = status.st_blocks * 512 < status.st_size
            ranges = data_ranges(where, status.st_size) if sparse else [(0, status.st_size)]
            extents = placed(ranges, before, status.st_size, self._space)
            facts["extents"] = extents
            facts["flags"] = entry.flags | (trees.SPARSE if sparse else 0)
            self.dirty += [(extent.place, extent.length) for extent in extents]
        return self._put(dataclasses.replace(entry, **facts).encode())  # type: ignore[arg-type]

    @staticmethod
    def _entry(name: bytes, parent: int, status: os.stat_result, subvolume: int) -> Entry:
        kind = KINDS[stat.S_IFMT(status.st_mode)]
        size = status.st_size if kind is Kind.FILE else 0
        if kind in (Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE):
            size = os.major(status.st_rdev) << 32 | os.minor(status.st_rdev)
        flags = trees.LINKED if status.st_nlink > 1 and kind is not Kind.FOLDER else 0
        if subvolume and kind is Kind.FOLDER and status.st_ino == TOP:
            flags |= trees.SUBVOLUME
        return Entry(
            number=0,
            parent=parent,
            name=name,
            kind=kind,
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            inode=status.st_ino,
            subvolume=subvolume,
            size=size,
            mtime=status.st_mtime_ns,
            ctime=status.st_ctime_ns,
            atime=status.st_atime_ns,
            flags=flags,
        )

    def _xattrs(self, where: bytes, path: bytes) -> tuple[tuple[bytes, bytes], ...]:
        found = []
        try:
            for name in sorted(os.listxattr(where, follow_symlinks=False)):
                if name.startswith(_ACL_OF_XFS):
                    continue
                try:
                    value = os.getxattr(where, name, follow_symlinks=False)
                except OSError as error:
                    if error.errno in _NO_XATTRS:
                        continue  # a name that only the kernel uses
                    self._report(None, path, f"its attribute {name}: {error.strerror}")
                    continue
                found.append((os.fsencode(name), value))
        except OSError as error:
            if error.errno not in _NO_XATTRS:
                raise
        return tuple(found)

    def _put(self, record: bytes) -> int:
        return self._put_all(record, 1)

    def _put_all(self, records: bytes, count: int) -> int:
        """Add so many records; returns the number of the first."""
        number = self.count
        self.count += count
        self.length += len(records)
        self._pending.append(records)
        self._pending_size += len(records)
        if self._pending_size > _FLUSHED:
            self._flush()
        return number

    def _flush(self) -> None:
        self.file.write(b"".join(self._pending))
        self.file.flush()
        self._pending, self._pending_size = [], 0


def _listed(folder: int) -> list[_Item]:
    """What is in a folder, by name. The status of all is asked for in the order of their inodes: so
    they lie on the device. None where that failed: it is asked for once more, and told then."""
    with os.scandir(folder) as listing:
        items = sorted(listing, key=os.DirEntry.inode)
    found: list[_Item] = []
    for item in items:
        try:
            status = item.stat(follow_symlinks=False)
        except OSError:
            status = None
        found.append((item.name.encode(_ENCODING, _ERRORS), status, item))
    found.sort(key=operator.itemgetter(0))
    return found


def _below(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder else name


def _subvolume_at(folder: int, name: bytes, status: os.stat_result) -> int:
    descriptor = os.open(name, _FOLDER, dir_fd=folder)
    try:
        return subvolume_of(descriptor, status)
    finally:
        os.close(descriptor)


def _is_read_only(where: bytes) -> bool:
    descriptor = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return is_read_only(descriptor)
    finally:
        os.close(descriptor)
