# SPDX-License-Identifier: Apache-2.0
"""Files of a guest, put into a folder of this host.

The guest's names are not trusted: each is made within its opened folder, no symbolic link on the
way is followed, and nothing that is there already is touched.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator

from freezer_osbrick import errors
from freezer_osbrick.filesystem.syscalls import open_beneath
from freezer_osbrick.guest.filesystem import BrokenFileSystem, FileSystem, Node
from freezer_osbrick.guest.volume import Found, GuestVolume

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL = {errno.ENOSPC, errno.EDQUOT}
_PAGE = 4096
_ZEROS = bytes(_PAGE)

Report = Callable[[bytes, str], None]
"""Told of what could not be restored, or not as it was: path in the backup and reason."""


class Placing:
    """Puts what lies at some paths of a volume into one folder.

    :ivar made: files, folders and so on that were made.
    :ivar written: bytes of content that were written.
    """

    def __init__(self, volume: GuestVolume, root: int, report: Report) -> None:
        """:param root: descriptor of the folder."""
        self.made = self.written = 0
        self._volume = volume
        self._root = root
        self._report = report
        # Who is not root gives nothing away, so owners and all that only root sets are left out.
        self._is_root = os.geteuid() == 0
        self._folders: list[tuple[bytes, bytes, FileSystem, Node]] = []  # get their metadata last
        self._linked: dict[tuple[FileSystem, tuple[int, ...]], bytes] = {}

    def place(self, found: Found) -> None:
        """Restore a file, or a folder with all that is in it, under its last name; of the top of a
        file system only what is in it.

        :raises errors.DeviceError: there is no room left.
        :raises errors.StoreError: the store failed.
        """
        path, files, node = found
        above = len(path.rpartition(b"/")[0])
        skip = above + 1 if above else 0
        is_top = node.inode == files.root().inode
        if is_top:
            skip = len(path) + 1 if path else 0
        elif not self._place_one(files, path, path[skip:], node):
            return
        if not node.is_folder:
            return
        failed: set[bytes] = set()
        for inner, below in self._volume.walk(found):
            if isinstance(below, BrokenFileSystem):
                self._report(inner, str(below))
            elif inner.rpartition(b"/")[0] in failed:
                failed |= {inner} if below.is_folder else set()
            elif not self._place_one(files, inner, inner[skip:], below) and below.is_folder:
                failed.add(inner)

    def finish(self) -> None:
        """Give the folders their metadata, now that nothing is made in them any more."""
        for path, target, files, node in reversed(self._folders):
            with self._told(path):
                descriptor = open_beneath(self._root, target, _FOLDER)
                try:
                    self._dress(descriptor, path, files, node)
                finally:
                    os.close(descriptor)

    def _place_one(self, files: FileSystem, path: bytes, target: bytes, node: Node) -> bool:
        """:returns: whether it is there now."""
        with self._told(path):
            above, _, name = target.rpartition(b"/")
            folder = open_beneath(self._root, above, _FOLDER)
            try:
                self._make(folder, name, path, target, files, node)
            finally:
                os.close(folder)
            self.made += 1
            return True
        return False

    @contextlib.contextmanager
    def _told(self, path: bytes) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in _FULL:
                raise errors.DeviceError(
                    f"There is no room left to restore into: {error.strerror}."
                ) from error
            self._report(path, error.strerror or str(error))
        except (BrokenFileSystem, errors.Damaged) as error:
            self._report(path, str(error))

    def _make(
        self, folder: int, name: bytes, path: bytes, target: bytes, files: FileSystem, node: Node
    ) -> None:
        if node.is_folder:
            os.mkdir(name, 0o700, dir_fd=folder)
            self._folders.append((path, target, files, node))
            return
        if node.links > 1:
            first = self._linked.setdefault((files, node.inode), target)
            if first != target:
                self._link(first, folder, name)
                return
        try:
            if node.is_file:
                self._make_file(folder, name, path, files, node)
            elif node.is_symlink:
                os.symlink(files.target(node), name, dir_fd=folder)
                self._dress_symlink(folder, name, path, files, node)
            else:
                self._make_special(folder, name, path, files, node)
        except BaseException:
            self._linked.pop((files, node.inode), None)
            raise

    def _link(self, first: bytes, folder: int, name: bytes) -> None:
        above, _, last = first.rpartition(b"/")
        source = open_beneath(self._root, above, _FOLDER)
        try:
            os.link(last, name, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
        finally:
            os.close(source)

    def _make_file(
        self, folder: int, name: bytes, path: bytes, files: FileSystem, node: Node
    ) -> None:
        descriptor = os.open(name, _NEW_FILE, 0o600, dir_fd=folder)
        try:
            lost = self._fill(descriptor, files, node)
            for reason in lost:
                self._report(path, f"not all of it could be read, the rest is zeros: {reason}")
            self._dress(descriptor, path, files, node)
        finally:
            os.close(descriptor)

    def _fill(self, descriptor: int, files: FileSystem, node: Node) -> list[str]:
        """Write the content; what cannot be read becomes zeros.

        :returns: why it could not be read.
        """
        lost: list[str] = []
        self._volume.source.lost = lost
        try:
            for start, data in files.content(node):
                self._write(descriptor, start, data)
        except BrokenFileSystem as error:
            lost.append(str(error))
        finally:
            self._volume.source.lost = None
        os.ftruncate(descriptor, node.size)
        return lost

    def _write(self, descriptor: int, start: int, data: bytes) -> None:
        """Write what is not zeros: pages that were never written are holes again."""
        begin = 0
        while begin < len(data):
            if data[begin : begin + _PAGE] == _ZEROS:
                begin += _PAGE
                continue
            end = data.find(_ZEROS, begin)
            end = len(data) if end < 0 else begin + -(-(end - begin) // _PAGE) * _PAGE
            view = memoryview(data)[begin:end]
            while view:
                done = os.pwrite(descriptor, view, start + begin)
                view, begin = view[done:], begin + done
                self.written += done

    def _make_special(
        self, folder: int, name: bytes, path: bytes, files: FileSystem, node: Node
    ) -> None:
        kind = stat.S_IFMT(node.mode)
        if kind not in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK):
            raise BrokenFileSystem("it is of an unknown kind")
        os.mknod(name, kind | 0o600, os.makedev(*node.device), dir_fd=folder)
        descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            self._dress(descriptor, path, files, node)
        finally:
            os.close(descriptor)

    # -- metadata --------------------------------------------------------------------------------

    def _dress(self, descriptor: int, path: bytes, files: FileSystem, node: Node) -> None:
        """Owner first, as a new owner takes other things away; times last."""
        where = b"/proc/self/fd/%d" % descriptor
        mode = stat.S_IMODE(node.mode)
        if self._is_root:
            self._try(path, "owner", lambda: os.chown(where, node.uid, node.gid))
        else:
            mode &= ~(stat.S_ISUID | stat.S_ISGID)  # they would be another's
        self._try(path, "mode", lambda: os.chmod(where, mode))
        self._set_xattrs(where, path, files, node, follow=True)
        self._try(path, "times", lambda: os.utime(where, ns=(node.atime, node.mtime)))

    def _dress_symlink(
        self, folder: int, name: bytes, path: bytes, files: FileSystem, node: Node
    ) -> None:
        where = b"/proc/self/fd/%d/%s" % (folder, name)
        if self._is_root:
            self._try(path, "owner", lambda: os.lchown(where, node.uid, node.gid))
        self._set_xattrs(where, path, files, node, follow=False)
        times = (node.atime, node.mtime)
        self._try(path, "times", lambda: os.utime(where, ns=times, follow_symlinks=False))

    def _set_xattrs(
        self, where: bytes, path: bytes, files: FileSystem, node: Node, *, follow: bool
    ) -> None:
        for name, value in files.xattrs(node):
            if not self._is_root and not name.startswith((b"user.", b"system.")):
                continue

            def set_one(name: bytes = name, value: bytes = value) -> None:
                os.setxattr(where, name, value, follow_symlinks=follow)

            self._try(path, f"attribute {os.fsdecode(name)}", set_one)

    def _try(self, path: bytes, what: str, function: Callable[[], object]) -> None:
        try:
            function()
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            self._report(path, f"its {what} could not be set: {reason}")
