# SPDX-License-Identifier: Apache-2.0
"""The commands that disks are asked with, and their answers; no disk is needed."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import struct
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from freezer_osbrick.device import inquiry
from tests.unit.device.pretended import page

NAA = "6001405a1b2c3d4e5f60718293a4b5c6"


def sense(key: int, code: int, *, descriptor: bool = False) -> bytes:
    if descriptor:
        return bytes([0x72, key, code, 0, 0, 0, 0, 0])
    return bytes([0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, code, 0])


class ScsiDisk:
    """Answers commands as a disk does: with data, or with sense data (a bytearray)."""

    def __init__(self) -> None:
        self.designators = page((1, 3, bytes.fromhex(NAA)))
        self.serial = b"\0\x80\0\x08 abc  \0\0"
        self.capacity = struct.pack(">QI", 2047, 512) + bytes(20)
        self.first: list[bytearray] = []  # what is said before anything is answered
        self.commands: list[bytes] = []

    def answer(self, command: bytes) -> bytes | bytearray:
        self.commands.append(command)
        if self.first:
            return self.first.pop(0)
        if command[0] == 0x9E:
            return self.capacity
        return {0x83: self.designators, 0x80: self.serial}[command[2]]

    def ioctl(self, descriptor: int, request: int, header: Any) -> int:
        assert request == 0x2285
        command = ctypes.string_at(header.cmdp, header.cmd_len)
        answer = self.answer(command)
        if isinstance(answer, bytearray):
            header.info, header.status, header.sb_len_wr = 1, 2, len(answer)
            ctypes.memmove(header.sbp, bytes(answer), len(answer))
            return 0
        sent = answer[: header.dxfer_len]
        ctypes.memmove(header.dxferp, bytes(sent), len(sent))
        header.resid = header.dxfer_len - len(sent)
        return 0


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> ScsiDisk:
    disk = ScsiDisk()
    monkeypatch.setattr(fcntl, "ioctl", disk.ioctl)
    return disk


def test_a_scsi_disk(disk: ScsiDisk) -> None:
    answer = inquiry.scsi(3)
    assert answer.names == {f"naa.{NAA}", "serial.abc"}
    assert answer.size == 2048 * 512


def test_a_long_page_is_asked_for_again(disk: ScsiDisk) -> None:
    many = [(2, 8, b"name %03d" % number) for number in range(40)]
    disk.designators = page(*many)
    assert len(inquiry.scsi(3).names) == 41
    assert [struct.unpack(">H", command[3:5])[0] for command in disk.commands[:2]] == [252, 484]


@pytest.mark.parametrize("descriptor", [False, True])
def test_what_has_happened_before_is_no_answer(disk: ScsiDisk, descriptor: bool) -> None:
    """LUNs have changed, the capacity has changed: told once, to whoever comes first."""
    disk.first = [bytearray(sense(6, 0x3F, descriptor=descriptor))] * 2
    assert f"naa.{NAA}" in inquiry.scsi(3).names


@pytest.mark.parametrize("descriptor", [False, True])
def test_pages_that_a_disk_does_not_have(disk: ScsiDisk, descriptor: bool) -> None:
    disk.designators = bytearray(sense(5, 0x24, descriptor=descriptor))  # type: ignore[assignment]
    assert inquiry.scsi(3).names == {"serial.abc"}
    disk.serial = b"\0\x80\0\0"
    disk.capacity = bytearray(sense(5, 0x20))  # type: ignore[assignment]
    assert inquiry.scsi(3) == inquiry.Answer(frozenset(), None)


@pytest.mark.parametrize("gone", [bytearray(sense(5, 0x25)), bytes([0x7F, 0x83, 0, 0])])
def test_a_unit_that_is_not_there_any_more(disk: ScsiDisk, gone: Any) -> None:
    disk.designators = gone
    with pytest.raises(OSError, match="no such logical unit") as caught:
        inquiry.scsi(3)
    assert caught.value.errno == errno.ENODEV


@pytest.mark.parametrize("words", [bytearray(sense(4, 0x44)), bytearray(b"")])
def test_a_disk_that_fails(disk: ScsiDisk, words: bytearray) -> None:
    disk.first = [words]
    with pytest.raises(OSError, match="Input/output error"):
        inquiry.scsi(3)


def test_a_disk_that_always_has_news(disk: ScsiDisk) -> None:
    disk.first = [bytearray(sense(6, 0x29))] * 99
    with pytest.raises(OSError, match="Input/output error"):
        inquiry.scsi(3)


def test_designators_of_the_unit_and_of_nothing_else() -> None:
    found = inquiry.designators(
        page(
            (1, 3, bytes.fromhex(NAA)),
            (2, 1, b"LIO-ORG volume-1:abc\0"),
            (1, 2, bytes.fromhex("0011223344556677")),
            (3, 8, b"iqn.x,l,1\0\0"),
            (1, 0x14, b"\0\0\0\1"),  # a relative target port
            (1, 0x93, bytes(8)),  # a port's name
            (1, 3, bytes(8)),  # zeros are no name
        )
    )
    assert found == {
        f"naa.{NAA}",
        "t10.LIO-ORG volume-1:abc",
        "eui.0011223344556677",
        "name.iqn.x,l,1",
    }


@pytest.mark.parametrize("cut", [0, 3, 4, 7, 8, 12])
def test_pages_that_are_cut_short(cut: int) -> None:
    inquiry.designators(page((1, 3, bytes.fromhex(NAA)))[:cut])


# -- NVMe ------------------------------------------------------------------------------------------

NGUID = bytes(range(1, 17))
UUID = uuid.UUID("6c8f3a52-8b7d-4b5e-9f37-0a1b2c3d4e5f")


class NvmeNamespace:
    def __init__(self) -> None:
        self.namespace = bytearray(4096)
        self.namespace[:8] = (262144).to_bytes(8, "little")
        self.namespace[26] = 1  # the second format
        self.namespace[104:120] = NGUID
        self.namespace[128 + 4 + 2] = 12  # of 4 KiB
        self.descriptors = bytes([2, 16, 0, 0]) + NGUID + bytes([3, 16, 0, 0]) + UUID.bytes
        self.status: Callable[[int], int] = lambda what: 0

    def ioctl(self, descriptor: int, request: int, command: Any = None) -> int:
        if request == 0x4E40:
            return 7
        assert request == 0xC0484E41
        fields = struct.unpack("=BBHIIIQQIIIIIIIIII", command)
        opcode, number, address, length, what = (fields[i] for i in (0, 3, 7, 9, 10))
        assert (opcode, number, length) == (6, 7, 4096)
        data = {0: bytes(self.namespace), 3: self.descriptors}[what]
        ctypes.memmove(address, data, len(data))
        return self.status(what)


@pytest.fixture
def namespace(monkeypatch: pytest.MonkeyPatch) -> NvmeNamespace:
    namespace = NvmeNamespace()
    monkeypatch.setattr(fcntl, "ioctl", namespace.ioctl)
    return namespace


def test_an_nvme_namespace(namespace: NvmeNamespace) -> None:
    answer = inquiry.nvme(3)
    assert answer.names == {f"nguid.{NGUID.hex()}", f"uuid.{UUID}"}
    assert answer.size == 1 << 30


def test_a_controller_that_knows_no_descriptors(namespace: NvmeNamespace) -> None:
    namespace.status = lambda what: 0x4002 if what == 3 else 0
    assert inquiry.nvme(3).names == {f"nguid.{NGUID.hex()}"}


@pytest.mark.parametrize(("status", "number"), [(0x400B, errno.ENODEV), (0x0006, errno.EIO)])
def test_a_namespace_that_does_not_answer(
    namespace: NvmeNamespace, status: int, number: int
) -> None:
    namespace.status = lambda what: status
    with pytest.raises(OSError) as caught:
        inquiry.nvme(3)
    assert caught.value.errno == number
