# SPDX-License-Identifier: Apache-2.0
"""Partition tables, read as plain bytes: the kernel is never asked to look at a guest's disk.

Fields are those of the UEFI specification (GPT) and of what every PC understands (MBR).
"""

from __future__ import annotations

import dataclasses
import struct
import uuid
import zlib
from collections.abc import Callable, Iterator

from freezer_osbrick import errors

Read = Callable[[int, int], bytes]
"""Bytes of a volume by offset and length; fewer where it ends."""

GPT, MBR = "gpt", "mbr"

_SECTORS = (512, 4096)
_MBR_SIGNATURE = b"\x55\xaa"
_MBR_ENTRY = struct.Struct("<B3sB3sII")  # flag, CHS, type, CHS, first sector, sectors
_MBR_ENTRIES = 446
_EXTENDED = {0x05, 0x0F, 0x85}
_PROTECTIVE = 0xEE
_MOST_LOGICAL = 256

_GPT_HEADER = struct.Struct("<8s4sIIIQQQQ16sQIII")
_GPT_SIGNATURE = b"EFI PART"
_GPT_ENTRY = struct.Struct("<16s16sQQQ72s")
_MOST_GPT_ENTRIES = 1024
_UNUSED = bytes(16)


def part_of(read: Read, *pieces: tuple[int, int]) -> Read:
    """Reads a part of a volume.

    :param pieces: ``(offset, length)`` of what it consists of, in order, in bytes.
    """

    def part(offset: int, length: int) -> bytes:
        found = []
        for start, size in pieces:
            if offset < size and length > 0:
                count = min(length, size - offset)
                found.append(read(start + offset, count))
                length -= count
            offset = max(offset - size, 0)
        return found[0] if len(found) == 1 else b"".join(found)

    return part


@dataclasses.dataclass(frozen=True)
class Partition:
    """One partition.

    :param number: as Linux counts: logical partitions of an MBR begin with 5.
    :param start: offset on the volume, in bytes.
    :param size: in bytes.
    :param type: the GUID of a GPT, or the two hexadecimal digits of an MBR.
    """

    number: int
    start: int
    size: int
    type: str
    uuid: str = ""
    name: str = ""

    @property
    def end(self) -> int:
        return self.start + self.size


@dataclasses.dataclass(frozen=True)
class Table:
    """A partition table.

    :param kind: ``gpt`` or ``mbr``.
    :param records: ``(offset, length)`` of what the table consists of on the volume, in bytes.
    """

    kind: str
    partitions: tuple[Partition, ...]
    records: tuple[tuple[int, int], ...]


def read_table(read: Read, size: int) -> Table | None:
    """The partition table of a volume of ``size`` bytes; None where there is none.

    A GPT whose first copy is damaged is read from its second one, at the volume's end. What an MBR
    needs to be taken for one: its signature, and entries that lie within the volume and do not
    overlap; the first sector of a FAT file system has the signature too.

    :raises errors.DeviceError: the volume cannot be read.
    """
    first = read(0, 512)
    if len(first) < 512 or first[510:512] != _MBR_SIGNATURE:
        return _read_gpt(read, size)
    entries = list(_mbr_entries(first))
    if any(kind == _PROTECTIVE for kind, _, _ in entries):
        return _read_gpt(read, size)
    return _read_mbr(read, size, entries)


def _mbr_entries(sector: bytes) -> Iterator[tuple[int, int, int]]:
    """Type, first sector and number of sectors of the four entries; 0 sectors is none."""
    for index in range(4):
        offset = _MBR_ENTRIES + index * _MBR_ENTRY.size
        _, _, kind, _, start, count = _MBR_ENTRY.unpack_from(sector, offset)
        yield kind, start, count


def _read_mbr(read: Read, size: int, entries: list[tuple[int, int, int]]) -> Table | None:
    flags = read(0, 512)[_MBR_ENTRIES : _MBR_ENTRIES + 64 : _MBR_ENTRY.size]
    if any(flag not in (0x00, 0x80) for flag in flags):
        return None  # the code of a boot sector, not a table
    sector = 512
    found: list[Partition] = []
    records = [(0, sector)]
    for index, (kind, start, count) in enumerate(entries):
        if not kind or not count:
            continue
        if kind in _EXTENDED:
            found += _logical(read, size, start, records)
            continue
        found.append(Partition(index + 1, start * sector, count * sector, f"{kind:02x}"))
    found.sort(key=lambda partition: partition.number)
    if not found or not _plausible(found, size):
        return None
    return Table(MBR, tuple(found), tuple(records))


def _logical(
    read: Read, size: int, first: int, records: list[tuple[int, int]]
) -> Iterator[Partition]:
    """The logical partitions: a chain of tables, each with one partition and the next table."""
    place, number, seen = first, 5, set[int]()
    while place not in seen and len(seen) < _MOST_LOGICAL and (place + 1) * 512 <= size:
        seen.add(place)
        table = read(place * 512, 512)
        if len(table) < 512 or table[510:] != _MBR_SIGNATURE:
            return
        records.append((place * 512, 512))
        (kind, start, count), (next_kind, next_start, _), *_ = _mbr_entries(table)
        if kind and count:
            yield Partition(number, (place + start) * 512, count * 512, f"{kind:02x}")
            number += 1
        if next_kind not in _EXTENDED:
            return
        place = first + next_start


def _read_gpt(read: Read, size: int) -> Table | None:
    for sector in _SECTORS:
        for offset in (sector, size - sector):
            table = _read_gpt_at(read, size, offset, sector)
            if table:
                return table
    return None


def _read_gpt_at(read: Read, size: int, offset: int, sector: int) -> Table | None:
    if offset < 0:
        return None
    data = read(offset, sector)
    if len(data) < _GPT_HEADER.size or not data.startswith(_GPT_SIGNATURE):
        return None
    (_, _, length, check, _, own, other, _, _, _, where, count, entry_size, entries_check) = (
        _GPT_HEADER.unpack_from(data)
    )
    if not _GPT_HEADER.size <= length <= sector or own * sector != offset:
        return None
    if zlib.crc32(data[:16] + bytes(4) + data[20:length]) != check:
        return None
    if not count <= _MOST_GPT_ENTRIES or not _GPT_ENTRY.size <= entry_size <= 4096:
        return None
    array = read(where * sector, count * entry_size)
    if len(array) < count * entry_size or zlib.crc32(array) != entries_check:
        return None
    found = []
    for index in range(count):
        kind, identifier, start, last, _, name = _GPT_ENTRY.unpack_from(array, index * entry_size)
        if kind == _UNUSED:
            continue
        found.append(
            Partition(
                index + 1,
                start * sector,
                (last + 1 - start) * sector,
                str(uuid.UUID(bytes_le=kind)),
                str(uuid.UUID(bytes_le=identifier)),
                name.decode("utf-16-le", "replace").partition("\0")[0],
            )
        )
    if not _plausible(found, size):
        return None
    entries = where * sector, -(-len(array) // sector) * sector
    records = [(0, 512), (offset, sector), entries]
    if own < other and (other + 1) * sector <= size:
        records.append((other * sector - entries[1], entries[1] + sector))
    return Table(GPT, tuple(found), tuple(records))


def _plausible(found: list[Partition], size: int) -> bool:
    """Whether the partitions lie within the volume and apart from each other."""
    end = 0
    for partition in sorted(found, key=lambda one: one.start):
        if partition.start < max(end, 512) or partition.size <= 0 or partition.end > size:
            return False
        end = partition.end
    return True


def find(table: Table, number: int) -> Partition:
    """The partition with a number.

    :raises errors.BadRequest: there is none.
    """
    for partition in table.partitions:
        if partition.number == number:
            return partition
    known = ", ".join(str(partition.number) for partition in table.partitions) or "none"
    raise errors.BadRequest(f"There is no partition {number}; there are: {known}.")
