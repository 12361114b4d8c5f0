# SPDX-License-Identifier: Apache-2.0
"""Asking a disk itself who it is.

What the kernel shows in sysfs it has read when it found the disk. When the storage puts another
volume behind the same LUN, the kernel notes that in its log, goes on, and shows what it knew.
"""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import fcntl
import os
import struct
import uuid

# From scsi/sg.h.
_SG_IO = 0x2285
_FROM_DEVICE = -3
_OK_MASK = 0x1

_INQUIRY = 0x12
_SERVICE_ACTION_IN = 0x9E
_READ_CAPACITY_16 = 0x10
_SERIAL, _DESIGNATORS = 0x80, 0x83

_ILLEGAL_REQUEST, _UNIT_ATTENTION = 5, 6
_NO_SUCH_LUN = 0x25

# Of the designators those that name the logical unit, as the kernel prefixes them.
_PREFIXES = {1: "t10", 2: "eui", 3: "naa", 8: "name", 10: "uuid"}
_BINARY = 1

# From linux/nvme_ioctl.h.
_NVME_ID = 0x4E40
_NVME_ADMIN = 0xC0484E41
_IDENTIFY = 0x06
_NAMESPACE, _NAMESPACE_DESCRIPTORS = 0x00, 0x03
_INVALID_NAMESPACE = 0x0B

_TIMEOUT_MS = 30_000
_TRIES = 5


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a disk says of itself.

    :ivar names: each with its kind before a dot: ``naa.6001405...``, ``serial.x``, ``uuid.6c8f...``
    :ivar size: in bytes; None where it does not tell.
    """

    names: frozenset[str]
    size: int | None = None


# -- SCSI ------------------------------------------------------------------------------------------


class _Header(ctypes.Structure):
    """``struct sg_io_hdr``."""

    _fields_ = (
        ("interface_id", ctypes.c_int),
        ("dxfer_direction", ctypes.c_int),
        ("cmd_len", ctypes.c_ubyte),
        ("mx_sb_len", ctypes.c_ubyte),
        ("iovec_count", ctypes.c_ushort),
        ("dxfer_len", ctypes.c_uint),
        ("dxferp", ctypes.c_void_p),
        ("cmdp", ctypes.c_void_p),
        ("sbp", ctypes.c_void_p),
        ("timeout", ctypes.c_uint),
        ("flags", ctypes.c_uint),
        ("pack_id", ctypes.c_int),
        ("usr_ptr", ctypes.c_void_p),
        ("status", ctypes.c_ubyte),
        ("masked_status", ctypes.c_ubyte),
        ("msg_status", ctypes.c_ubyte),
        ("sb_len_wr", ctypes.c_ubyte),
        ("host_status", ctypes.c_ushort),
        ("driver_status", ctypes.c_ushort),
        ("resid", ctypes.c_int),
        ("duration", ctypes.c_uint),
        ("info", ctypes.c_uint),
    )


def scsi(descriptor: int) -> Answer:
    """Ask a SCSI disk, opened for reading; root rights are not needed.

    :raises OSError: it does not answer; ENODEV: the storage has nothing behind this LUN.
    """
    names: set[str] = set()
    page = _page(descriptor, _DESIGNATORS)
    if page is not None:
        names |= designators(page)
    page = _page(descriptor, _SERIAL)
    if page is not None:
        serial = page[4 : 4 + page[3]].decode("ascii", "replace").strip(" \0")
        if serial:
            names.add(f"serial.{serial}")
    return Answer(frozenset(names), _capacity(descriptor))


def designators(page: bytes) -> frozenset[str]:
    """The names of the logical unit in a page 0x83. Those of ports differ from path to path."""
    found = set()
    end = min(len(page), 4 + int.from_bytes(page[2:4], "big"))
    position = 4
    while position + 4 <= end:
        code_set, kind, _, length = page[position : position + 4]
        value = page[position + 4 : position + 4 + length]
        position += 4 + length
        prefix = _PREFIXES.get(kind & 0x0F)
        if prefix is None or kind & 0x30 or not value.strip(b" \0"):
            continue
        text = value.hex()
        if code_set & 0x0F != _BINARY:
            text = value.decode("utf-8", "replace").strip(" \0")
        found.add(f"{prefix}.{text}")
    return frozenset(found)


def _page(descriptor: int, page: int) -> bytes | None:
    """A page of vital product data; None where the disk has no such page."""
    length = 252  # more than this confuses old disks
    while True:
        command = struct.pack(">BBBHB", _INQUIRY, 1, page, length, 0)
        answer = _send(descriptor, command, length)
        if answer is None or len(answer) < 4 or answer[1] != page:
            return None
        if answer[0] >> 5:
            raise OSError(errno.ENODEV, "there is no such logical unit")
        whole = 4 + int.from_bytes(answer[2:4], "big")
        if whole <= length:
            return answer[:whole]
        length = whole


def _capacity(descriptor: int) -> int | None:
    command = struct.pack(">BBQIBB", _SERVICE_ACTION_IN, _READ_CAPACITY_16, 0, 32, 0, 0)
    answer = _send(descriptor, command, 32)
    if answer is None or len(answer) < 12:
        return None
    last, block = struct.unpack(">QI", answer[:12])
    return int((last + 1) * block)


def _send(descriptor: int, command: bytes, length: int) -> bytes | None:
    """Send a command and return what the disk answers; None if it does not know the command."""
    data = ctypes.create_string_buffer(length)
    sense = ctypes.create_string_buffer(64)
    words = ctypes.create_string_buffer(command, len(command))
    for _ in range(_TRIES):
        header = _Header(
            interface_id=ord("S"),
            dxfer_direction=_FROM_DEVICE,
            cmd_len=len(command),
            mx_sb_len=len(sense),
            dxfer_len=length,
            dxferp=ctypes.addressof(data),
            cmdp=ctypes.addressof(words),
            sbp=ctypes.addressof(sense),
            timeout=_TIMEOUT_MS,
        )
        fcntl.ioctl(descriptor, _SG_IO, header)
        if not header.info & _OK_MASK:
            return data.raw[: length - max(0, header.resid)]
        key, code = _sense(sense.raw[: header.sb_len_wr])
        if key == _ILLEGAL_REQUEST and code == _NO_SUCH_LUN:
            raise OSError(errno.ENODEV, "there is no such logical unit")
        if key == _ILLEGAL_REQUEST:
            return None
        if key != _UNIT_ATTENTION:  # which is about the past: the next command is answered
            break
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def _sense(sense: bytes) -> tuple[int, int]:
    """Key and additional code of sense data, in both of its formats; zeros where there is none."""
    if len(sense) > 3 and sense[0] & 0x7F in (0x72, 0x73):
        return sense[1] & 0x0F, sense[2]
    if len(sense) > 12 and sense[0] & 0x7F in (0x70, 0x71):
        return sense[2] & 0x0F, sense[12]
    return 0, 0


# -- NVMe ------------------------------------------------------------------------------------------


def nvme(descriptor: int) -> Answer:
    """Ask an NVMe namespace.

    :raises OSError: it does not answer; ENODEV: there is no such namespace; EACCES: kernels before
        6.2 let only root ask.
    """
    number = fcntl.ioctl(descriptor, _NVME_ID)
    namespace = _identify(descriptor, number, _NAMESPACE)
    if namespace is None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    names: set[str] = set()
    _add(names, "nguid", namespace[104:120])
    _add(names, "eui", namespace[120:128])
    for kind, value in _descriptors(_identify(descriptor, number, _NAMESPACE_DESCRIPTORS) or b""):
        _add(names, {1: "eui", 2: "nguid", 3: "uuid"}.get(kind, ""), value)
    block = 1 << namespace[128 + 4 * (namespace[26] & 0x0F) + 2]
    return Answer(frozenset(names), int.from_bytes(namespace[:8], "little") * block)


def _add(names: set[str], kind: str, value: bytes) -> None:
    if kind and any(value):
        names.add(f"{kind}.{uuid.UUID(bytes=value) if kind == 'uuid' else value.hex()}")


def _descriptors(page: bytes) -> list[tuple[int, bytes]]:
    found = []
    position = 0
    while position + 4 <= len(page) and page[position + 1]:
        kind, length = page[position], page[position + 1]
        value = page[position + 4 : position + 4 + length]
        if len(value) == {1: 8, 2: 16, 3: 16}.get(kind):
            found.append((kind, value))
        position += 4 + length
    return found


def _identify(descriptor: int, number: int, what: int) -> bytes | None:
    """One of the structures of Identify; None where the controller does not know it."""
    data = ctypes.create_string_buffer(4096)
    command = bytearray(
        struct.pack(
            "=BBHIIIQQIIIIIIIIII",
            *(_IDENTIFY, 0, 0, number, 0, 0, 0, ctypes.addressof(data), 0, len(data)),
            *(what, 0, 0, 0, 0, 0, _TIMEOUT_MS, 0),
        )
    )
    status = fcntl.ioctl(descriptor, _NVME_ADMIN, command)
    if status & 0x7FF == _INVALID_NAMESPACE:
        raise OSError(errno.ENODEV, "there is no such namespace")
    return None if status else data.raw
