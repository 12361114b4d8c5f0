# SPDX-License-Identifier: Apache-2.0
"""What a volume consists of: file systems that can be read as files, and stretches that are kept as
they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from freezer_osbrick import errors
from freezer_osbrick.device.volume_device import Device
from freezer_osbrick.filesystem import logical_volumes, partitions, superblocks
from freezer_osbrick.filesystem.logical_volumes import Group, LogicalVolume, NotReadable
from freezer_osbrick.filesystem.partitions import Partition, Read, Table, part_of
from freezer_osbrick.filesystem.superblocks import FileSystem

# Of what lies between partitions so much is kept at both ends: boot loaders, and tables.
_GAP = 1 << 20

LOGICAL = 1 << 16  # logical volumes are counted from here on, above all partitions

_NAMES = {
    "lvm": "a physical volume of LVM",
    "luks": "encrypted (LUKS)",
    "swap": "swap space",
}


@dataclasses.dataclass(frozen=True)
class Place:
    """A file system on the volume.

    :param number: of its partition; 0 where it takes the whole volume. Logical volumes are counted
        from :data:`LOGICAL` on.
    :param start, size: on the volume, in bytes.
    :param name: of its logical volume, with the group's: ``guest/root``.
    """

    number: int
    start: int
    size: int
    file_system: FileSystem
    name: str = ""

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @property
    def label(self) -> str:
        """What people may call it."""
        return f"{self.file_system.kind} on {self.where or 'the volume'}"

    @property
    def where(self) -> str:
        """Its partition or logical volume; empty where it takes the whole volume."""
        if self.name:
            return f"logical volume {self.name}"
        return f"partition {self.number}" if self.number else ""

    @property
    def folder(self) -> str:
        """What a folder with its files is called; empty where it takes the whole volume."""
        if self.name:
            return logical_volumes.folder_of(self.name)
        return f"partition-{self.number}" if self.number else ""


@dataclasses.dataclass(frozen=True)
class Disk:
    """:param table: None where there are no partitions.
    :param places: file systems that can be read as files.
    :param raw: ``(offset, length)`` of what is kept as it is.
    :param logical: names and pieces of the logical volumes that were looked into, with offsets on
        the volume.
    :param notes: a sentence for each partition that is kept as it is, and for what is left out.
    """

    table: Table | None
    places: tuple[Place, ...]
    raw: tuple[tuple[int, int], ...] = ()
    notes: tuple[str, ...] = ()
    logical: tuple[LogicalVolume, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As it stands in a manifest."""
        return {
            "table": dataclasses.asdict(self.table) if self.table else None,
            "file_systems": [place.to_dict() for place in self.places],
            "logical": [dataclasses.asdict(one) for one in self.logical],
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
                    place.get("name", ""),
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
            logical = tuple(
                LogicalVolume(one["name"], tuple((start, size) for start, size in one["pieces"]))
                for one in facts.get("logical", ())
            )
        except (KeyError, TypeError, ValueError) as error:
            raise errors.Damaged(
                f"What the backup says of its file systems cannot be read: {error!r}."
            ) from None
        return cls(table, places, logical=logical)


def look(device: Device, mountable: frozenset[str]) -> Disk:
    """Find the file systems of a volume.

    :param mountable: kinds of file systems that this host can read.
    :raises errors.NoFileSystem: there is none.
    :raises errors.DeviceError: the volume cannot be read.
    """
    read = reader(device)
    looking = _Looking(read, mountable)
    table = partitions.read_table(read, device.size)
    if table is None:
        looking.at(0, 0, device.size)
    else:
        looking.raw += table.records
        for partition in table.partitions:
            looking.at(partition.number, partition.start, partition.size)
    if not looking.places:
        raise errors.NoFileSystem(
            "The volume holds no file system that can be read as files: "
            f"{'; '.join(looking.whats)}."
            " Back it up with --content blocks, or add --fallback-to-blocks."
        )
    if table:
        looking.raw += _gaps(table, device.size)
    return Disk(
        table,
        tuple(looking.places),
        tuple(_merged(looking.raw)),
        tuple(looking.notes),
        tuple(looking.logical),
    )


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


class _Looking:
    """What is found, part by part."""

    def __init__(self, read: Read, mountable: frozenset[str]) -> None:
        self.places: list[Place] = []
        self.raw: list[tuple[int, int]] = []
        self.logical: list[LogicalVolume] = []
        self.notes: list[str] = []
        self.whats: list[str] = []
        self._read = read
        self._mountable = mountable

    def at(self, number: int, start: int, size: int) -> None:
        """Look at a partition, or with number 0 at the whole volume."""
        found = superblocks.identify(part_of(self._read, (start, size)))
        where = f"partition {number}" if number else "it"
        if found is None or found.kind != "lvm":
            self._look_at(where, number, start, size, found)
            return
        try:
            group = logical_volumes.read_group(self._read, start, size)
        except NotReadable as error:
            self._keep(where, f"{_NAMES['lvm']}, and {error}", [(start, size)])
        else:
            self._look_into(group)

    def _look_into(self, group: Group) -> None:
        self.raw += group.records
        for volume in group.volumes:
            number = LOGICAL + len(self.logical)
            self.logical.append(volume)
            where = f"logical volume {volume.name}"
            if len(volume.pieces) > 1:  # a file system is mounted from one piece
                self._keep(where, f"in {len(volume.pieces)} pieces", volume.pieces)
                continue
            (place,) = volume.pieces
            found = superblocks.identify(part_of(self._read, place))
            self._look_at(where, number, *place, found, volume.name)

    def _look_at(
        self,
        where: str,
        number: int,
        start: int,
        size: int,
        found: FileSystem | None,
        name: str = "",
    ) -> None:
        if found and found.kind in self._mountable:
            self.places.append(Place(number, start, size, found, name))
        elif found and found.kind == "swap":
            self.whats.append(f"{where} is {_what(found)}")
            self.raw.append((start, min(max(found.block_size, 4096), size)))
        else:
            self._keep(where, _what(found), [(start, size)])

    def _keep(self, where: str, what: str, pieces: Iterable[tuple[int, int]]) -> None:
        self.whats.append(f"{where} is {what}")
        self.notes.append(f"{where[0].upper()}{where[1:]} is stored as blocks: it is {what}.")
        self.raw += pieces


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
