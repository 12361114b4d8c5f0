# SPDX-License-Identifier: Apache-2.0
"""Copy a sparse file: by reflink where the file system shares extents, else its data only."""

from __future__ import annotations

import errno
import fcntl
import os
import pathlib

_FICLONE = 0x40049409
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY)
_PIECE = 64 << 20


def copy(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> str:
    """Make ``target`` equal to ``source``; returns ``reflink`` or ``copy``.

    A reflink is atomic against writers of the source, a copy is not.
    """
    with open(source, "rb") as reader, open(target, "wb") as writer:
        try:
            fcntl.ioctl(writer.fileno(), _FICLONE, reader.fileno())
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            _copy_data(reader.fileno(), writer.fileno())
            return "copy"
    return "reflink"


def _copy_data(reader: int, writer: int) -> None:
    """Copy the extents that hold data; the holes stay holes."""
    size = os.fstat(reader).st_size
    os.ftruncate(writer, size)
    position = 0
    while position < size:
        try:
            start = os.lseek(reader, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole up to the end
                return
            raise
        position = os.lseek(reader, start, os.SEEK_HOLE)
        while start < position:
            piece = os.pread(reader, min(position - start, _PIECE), start)
            if not piece:  # the file shrank under us
                return
            start += os.pwrite(writer, piece, start)


def supported(folder: str | os.PathLike[str]) -> bool:
    """Whether files in the folder can share extents; tried out with two small ones."""
    source = pathlib.Path(folder, ".reflink-source")
    target = pathlib.Path(folder, ".reflink-target")
    try:
        source.write_bytes(b"x" * 4096)
        return copy(source, target) == "reflink"
    finally:
        source.unlink(missing_ok=True)
        target.unlink(missing_ok=True)
