# SPDX-License-Identifier: Apache-2.0
"""Owner, mode, extended attributes and times of a restored file, in the order in which none undoes
another: a new owner takes set-uid bits and capabilities away, and every change sets the ctime."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator

from freezer_osbrick.filesystem.tree import Entry

_NOT_HERE = {errno.ENOTSUP, errno.EOPNOTSUPP}


def dress(descriptor: int, entry: Entry) -> Iterator[str]:
    """Give an opened file, folder or node what the entry says; yields what could not be done.

    :param descriptor: may be one of O_PATH.
    """
    where = b"/proc/self/fd/%d" % descriptor
    yield from _try("its owner", os.chown, where, entry.uid, entry.gid)
    yield from _try("its mode", os.chmod, where, entry.mode)
    yield from _set_xattrs(where, entry, follow=True)
    yield from _try("its times", os.utime, where, ns=(entry.atime, entry.mtime))


def dress_symlink(folder: int, name: bytes, entry: Entry) -> Iterator[str]:
    """The same for a symbolic link in an opened folder."""
    where = b"/proc/self/fd/%d/%s" % (folder, name)
    yield from _try("its owner", os.lchown, where, entry.uid, entry.gid)
    yield from _set_xattrs(where, entry, follow=False)
    times = entry.atime, entry.mtime
    yield from _try("its times", os.utime, where, ns=times, follow_symlinks=False)


def _set_xattrs(where: bytes, entry: Entry, *, follow: bool) -> Iterator[str]:
    wanted = {os.fsdecode(name): value for name, value in entry.xattrs}
    try:
        there = os.listxattr(where, follow_symlinks=follow)
    except OSError as error:
        if error.errno not in _NOT_HERE or wanted:
            yield f"its attributes: {error.strerror}"
        return
    for name in there:
        # What a folder of the target passed on to it. A label of SELinux is the host's matter.
        if name not in wanted and name != "security.selinux":
            yield from _try(f"its attribute {name}", _remove_xattr, where, name, follow)
    for name, value in wanted.items():
        yield from _try(
            f"its attribute {name}",
            os.setxattr,
            where,
            name,
            value,
            follow_symlinks=follow,
        )


def _remove_xattr(where: bytes, name: str, follow: bool) -> None:
    try:
        os.removexattr(where, name, follow_symlinks=follow)
    except OSError as error:
        if error.errno != errno.ENODATA:  # xfs shows ACLs by two names, which go together
            raise


def _try(
    what: str, function: Callable[..., object], *arguments: object, **more: object
) -> Iterator[str]:
    try:
        function(*arguments, **more)
    except OSError as error:
        yield f"{what} could not be set: {error.strerror}"
