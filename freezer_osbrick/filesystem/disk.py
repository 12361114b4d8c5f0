# SPDX-License-Identifier: Apache-2.0
"""What a volume consists of: file systems that can be read as files, and stretches that are kept as
they are."""

from __future__ import annotations

import dataclasses
from typing import Any

from freezer_osbrick import errors
from freezer_osbrick.device.volume_device import Device
from freezer_osbrick.filesystem import partitions, superblocks
from freezer_osbrick.filesystem.partitions import Partition, Read, Table
from freezer_osbrick.filesystem.superblocks import FileSystem

# Of what lies between partitions so much is kept at both ends: boot loaders, and tables.
_GAP = 1 << 20

_NAMES = {
    "lvm": "a physical volume of LVM, which this version does not look into",
    "luks": "encrypted (LUKS)",
    "swap": "swap space",
}


@dataclasses.dataclass(frozen=True)
class Place:
    """A file system on the volume.

    :param number: of its partition; 0 where it takes the whole volume.
    :param start, size: on the volume, in bytes.
    """

    number: int
    start: int
    size: int
    file_system: FileSystem

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @property
    def label(self) -> str:
        """What people may call it."""
        where = f"partition {self.number}" if self.number else "the volume"
        return f"{self.file_system.kind} on {where}"


@dataclasses.dataclass(frozen=True)
class Disk:
    """:param table: None where there are no partitions.
    :param places: file systems that can be read as files.
    :param raw: ``(offset, length)`` of what is kept as it is.
    :param notes: a sentence for each partition that is kept as it is, and for what is left out.
    """

    table: Table | None
    places: tuple[Place, ...]
    raw: tuple[tuple[int, int], ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As it stands in a manifest."""
        return {
            "table": dataclasses.asdict(self.table) if self.table else None,
            "file_systems": [place.to_dict() for place in self.places],
        }

    @classmethod
    def from_dict(cls, facts: dict[str, Any]) -> Disk:
        """What :meth:`to_dict` gave.

        :raises errors.Damaged: it is none.
        """
        try:
            places = tuple(
                Place(
                    place["number"],
                    place["start"],
                    place["size"],
                    FileSystem(**place["file_system"]),
                )
                for place in facts["file_systems"]
            )
            table = None
            if facts["table"]:
                table = Table(
                    facts["table"]["kind"],
                    tuple(Partition(**one) for one in facts["table"]["partitions"]),
                    tuple((offset, length) for offset, length in facts["table"]["records"]),
                )
        except (KeyError, TypeError, ValueError) as error:
            raise errors.Damaged(
                f"What the backup says of its file systems cannot be read: {error!r}."
            ) from None
        return cls(table, places)


def look(device: Device, mountable: frozenset[str]) -> Disk:
    """Find the file systems of a volume.

    :param mountable: kinds of file systems that this host can read.
    :raises errors.NoFileSystem: there is none.
    :raises errors.DeviceError: the volume cannot be read.
    """
    read = reader(device)
    table = partitions.read_table(read, device.size)
    if table is None:
        found = superblocks.identify(read)
        if found is None or found.kind not in mountable:
            raise errors.NoFileSystem(
                f"The volume holds no file system that can be read as files: it is {_what(found)}."
                " Back it up with --content blocks, or add --fallback-to-blocks."
            )
        return Disk(None, (Place(0, 0, device.size, found),))
    return _look_at(read, device.size, table, mountable)


def reader(device: Device, start: int = 0, size: int | None = None) -> Read:
    """Reads a part of a device; fewer bytes where it ends."""
    whole = device.size - start if size is None else size

    def read(offset: int, length: int) -> bytes:
        length = max(min(length, whole - offset), 0)
        buffer = bytearray(length)
        if length:
            device.readinto(start + offset, memoryview(buffer))
        return bytes(buffer)

    return read


def _look_at(read: Read, size: int, table: Table, mountable: frozenset[str]) -> Disk:
    places: list[Place] = []
    raw: list[tuple[int, int]] = list(table.records)
    notes: list[str] = []
    whats: list[str] = []
    for partition in table.partitions:
        found = superblocks.identify(_within(read, partition))
        if found and found.kind in mountable:
            places.append(Place(partition.number, partition.start, partition.size, found))
            continue
        whats.append(f"partition {partition.number} is {_what(found)}")
        if found and found.kind == "swap":
            raw.append((partition.start, min(max(found.block_size, 4096), partition.size)))
            continue
        notes.append(f"Partition {partition.number} is stored as blocks: it is {_what(found)}.")
        raw.append((partition.start, partition.size))
    if not places:
        raise errors.NoFileSystem(
            f"The volume holds no file system that can be read as files: {'; '.join(whats)}."
            " Back it up with --content blocks, or add --fallback-to-blocks."
        )
    raw += _gaps(table, size)
    return Disk(table, tuple(places), tuple(_merged(raw)), tuple(notes))


def _within(read: Read, partition: Partition) -> Read:
    def part(offset: int, length: int) -> bytes:
        length = min(length, partition.size - offset)
        return read(partition.start + offset, length) if length > 0 else b""

    return part


def _gaps(table: Table, size: int) -> list[tuple[int, int]]:
    """The ends of what no partition covers."""
    found, end = [], 0
    for partition in sorted(table.partitions, key=lambda one: one.start):
        found.append((end, partition.start - end))
        end = partition.end
    found.append((end, size - end))
    ends = []
    for offset, length in found:
        if 0 < length <= 2 * _GAP:
            ends.append((offset, length))
        elif length:
            ends += [(offset, _GAP), (offset + length - _GAP, _GAP)]
    return ends


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for offset, length in sorted(ranges):
        if found and offset <= sum(found[-1]):
            start, before = found.pop()
            found.append((start, max(before, offset + length - start)))
        else:
            found.append((offset, length))
    return found


def _what(found: FileSystem | None) -> str:
    if found is None:
        return "nothing that is known here"
    return _NAMES.get(found.kind, f"{found.kind}, which this host's kernel cannot read")
