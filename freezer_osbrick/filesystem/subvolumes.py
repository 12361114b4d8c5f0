# SPDX-License-Identifier: Apache-2.0
"""Subvolumes of btrfs: folders with a space of inodes of their own."""

from __future__ import annotations

import fcntl
import os
import struct

TOP = 256
"""The inode of a subvolume's root."""

_INO_LOOKUP = 0xD0009412
_SUBVOL_CREATE = 0x5000940E
_SUBVOL_GETFLAGS = 0x80089419
_SUBVOL_SETFLAGS = 0x4008941A
_READ_ONLY = 2


def subvolume_of(descriptor: int, status: os.stat_result) -> int:
    """The id of the subvolume that an opened folder is the root of; 0 where it is none."""
    if status.st_ino != TOP:
        return 0
    buffer = bytearray(struct.pack("QQ4080s", 0, TOP, b""))
    try:
        fcntl.ioctl(descriptor, _INO_LOOKUP, buffer)
    except OSError:  # another file system
        return 0
    return int(struct.unpack_from("Q", buffer)[0])


def make_subvolume(folder: int, name: bytes) -> None:
    """:raises OSError: it cannot be made."""
    fcntl.ioctl(folder, _SUBVOL_CREATE, bytearray(struct.pack("q4088s", 0, name)))


def is_read_only(descriptor: int) -> bool:
    """Whether the subvolume that an opened folder is the root of can only be read."""
    flags = bytearray(8)
    fcntl.ioctl(descriptor, _SUBVOL_GETFLAGS, flags)
    return bool(flags[0] & _READ_ONLY)


def set_read_only(descriptor: int, value: bool) -> None:
    """:raises OSError: it cannot be changed."""
    fcntl.ioctl(descriptor, _SUBVOL_SETFLAGS, struct.pack("Q", _READ_ONLY if value else 0))
