# SPDX-License-Identifier: Apache-2.0
"""Logical volumes of LVM, read as plain bytes: neither LVM nor device-mapper is asked, which would
take a clone for the volume group of a guest, or of this host, that it is a copy of.

Fields are those that LVM2 itself describes, in lvmsystemid(7), pvck(8) and its metadata text.
"""

from __future__ import annotations

import dataclasses
import re
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from freezer_osbrick.filesystem.partitions import Read, part_of

_SECTOR = 512
_LABEL = struct.Struct("<8sQII8s")  # LABELONE, sector, CRC, offset of the header, LVM2 001
_LABEL_CHECKED = 20
_AREA = struct.Struct("<QQ")  # offset, size
_MOST_AREAS = 16

_METADATA = struct.Struct("<I16sIQQ")  # CRC, magic, version, offset, size
_METADATA_SIZE = 512
_MAGIC = b" LVM2 x[5A%r0N*>"
_TEXT = struct.Struct("<QQII")  # offset, size, CRC, flags
_IGNORED = 1
_MOST_TEXT = 16 << 20

_SEED = 0xF597A6CF
_NAME = re.compile(r"[A-Za-z0-9+_.][A-Za-z0-9+_.-]*")
_TOKEN = re.compile(
    r"""\s+|\#[^\n]*|(?P<string>"(?:[^"\\]|\\.)*")|(?P<number>-?\d+(?:\.\d+)?)(?![\w.+-])
    |(?P<name>[A-Za-z0-9_.+-]+)|(?P<sign>[{}\[\],=])""",
    re.VERBOSE,
)


class NotReadable(Exception):
    """Why the logical volumes of a physical volume are not looked into: "its metadata is ..."."""


@dataclasses.dataclass(frozen=True)
class LogicalVolume:
    """
    :param name: with its group's: ``guest/root``.
    :param pieces: ``(offset, length)`` in order, in bytes; what follows one another is one piece.
    """

    name: str
    pieces: tuple[tuple[int, int], ...]

    @property
    def folder(self) -> str:
        """What a folder or a file with what it holds is called: ``volume-guest-root``."""
        return folder_of(self.name)

    @property
    def size(self) -> int:
        return sum(length for _, length in self.pieces)


@dataclasses.dataclass(frozen=True)
class Group:
    """A volume group that lies on one physical volume.

    :param volumes: its logical volumes, by name.
    :param records: ``(offset, length)`` of what LVM itself keeps, in bytes.
    """

    name: str
    volumes: tuple[LogicalVolume, ...]
    records: tuple[tuple[int, int], ...]


def folder_of(name: str) -> str:
    """:attr:`LogicalVolume.folder` of a name. Group and volume stand in it as LVM joins them."""
    return "volume-" + name.replace("-", "--").replace("/", "-")


def read_group(read: Read, start: int, size: int) -> Group:
    """The volume group on a physical volume, with offsets on the whole volume.

    :param read: bytes of the whole volume, by offset and length; fewer where it ends.
    :param start, size: of the physical volume: a partition, or all; in bytes.
    :raises NotReadable: it lies on several, is damaged, or has more than plain volumes in it:
        snapshots, thin ones, RAID, caches.
    """
    within = part_of(read, (start, size))
    own, areas = _read_label(within)
    text = _read_text(within, areas)
    try:
        return _moved(_group_of(_parse(text), own, areas, size), start)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NotReadable(f"its metadata cannot be understood: {error!r}") from error


def _moved(group: Group, start: int) -> Group:
    volumes = tuple(
        LogicalVolume(one.name, tuple((start + offset, length) for offset, length in one.pieces))
        for one in group.volumes
    )
    return Group(group.name, volumes, tuple((start + at, size) for at, size in group.records))


def _read_label(read: Read) -> tuple[str, list[tuple[int, int]]]:
    """The physical volume's id, and where its metadata lies."""
    start = read(0, 4 * _SECTOR)
    for sector in range(len(start) // _SECTOR):
        label = start[sector * _SECTOR : (sector + 1) * _SECTOR]
        mark, _, checksum, offset, kind = _LABEL.unpack_from(label)
        if mark != b"LABELONE" or kind != b"LVM2 001":
            continue
        if _crc(label[_LABEL_CHECKED:]) != checksum or offset + 40 > _SECTOR:
            raise NotReadable("its label is damaged")
        own = label[offset : offset + 32].decode("ascii", "replace")
        _, metadata = _areas(label, offset + 40)
        return own, metadata
    raise NotReadable("it has no label")


def _areas(label: bytes, offset: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Where data and metadata lie: two lists of places, each ending with an empty one."""
    found: tuple[list[tuple[int, int]], ...] = ([], [])
    for one in found:
        while offset + _AREA.size <= _SECTOR:
            place = _AREA.unpack_from(label, offset)
            offset += _AREA.size
            if place == (0, 0):
                break
            one.append(place)
    return found[0], found[1]


def _read_text(read: Read, areas: list[tuple[int, int]]) -> str:
    """The newest text of the metadata; the copies are the same unless one was not written."""
    problem = "it has no metadata"
    for offset, size in areas[:_MOST_AREAS]:
        header = read(offset, _METADATA_SIZE)
        if len(header) < _METADATA_SIZE:
            continue
        checksum, magic, _, _, _ = _METADATA.unpack_from(header)
        if magic != _MAGIC or _crc(header[4:]) != checksum:
            problem = "its metadata is damaged"
            continue
        start, length, checksum, flags = _TEXT.unpack_from(header, _METADATA.size)
        if flags & _IGNORED or not length:
            continue
        if length > min(size, _MOST_TEXT) or not _METADATA_SIZE <= start < size:
            problem = "its metadata is damaged"
            continue
        # It goes round within its area, behind the header.
        first = min(length, size - start)
        text = read(offset + start, first) + read(offset + _METADATA_SIZE, length - first)
        if _crc(text) == checksum:
            return text.rstrip(b"\0").decode("utf-8", "replace")
        problem = "its metadata is damaged"
    raise NotReadable(problem)


def _crc(data: bytes) -> int:
    """LVM's: the usual one with another beginning, and without the turn at the end."""
    return zlib.crc32(data, _SEED ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def _parse(text: str) -> dict[str, Any]:
    """Sections as dicts, arrays as lists, numbers and strings.

    :raises ValueError: it is not written as LVM writes it.
    """
    tokens = _tokens(text)
    top: dict[str, Any] = {}
    open_sections = [top]
    for kind, name in tokens:
        if name == "}" and kind == "sign" and len(open_sections) > 1:
            open_sections.pop()
            continue
        if kind not in ("name", "number"):
            raise ValueError(f"{name!r} where a name belongs")
        _, sign = next(tokens, ("", ""))
        if sign == "{":
            inner: dict[str, Any] = {}
            open_sections[-1][name] = inner
            open_sections.append(inner)
        elif sign == "=":
            open_sections[-1][name] = _value(tokens)
        else:
            raise ValueError(f"{sign!r} after {name!r}")
    if len(open_sections) > 1:
        raise ValueError("it ends early")
    return top


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    place = 0
    while place < len(text):
        found = _TOKEN.match(text, place)
        if found is None:
            raise ValueError(f"{text[place]!r} at {place}")
        place = found.end()
        if found.lastgroup:
            yield found.lastgroup, found[0]


def _value(tokens: Iterator[tuple[str, str]]) -> Any:
    kind, word = next(tokens, ("", ""))
    if kind == "string":
        return word[1:-1]
    if kind == "number":
        return int(word) if word.lstrip("-").isdigit() else float(word)
    if word != "[":
        raise ValueError(f"{word!r} where a value belongs")
    found: list[Any] = []
    for kind, word in tokens:
        if word == "]" and kind == "sign":
            return found
        if kind == "string":
            found.append(word[1:-1])
        elif kind == "number":
            found.append(int(word))
        elif word != ",":
            raise ValueError(f"{word!r} in an array")
    raise ValueError("it ends early")


def _group_of(facts: dict[str, Any], own: str, areas: list[tuple[int, int]], size: int) -> Group:
    (name,) = [key for key, value in facts.items() if isinstance(value, dict)]
    group = facts[name]
    physical = group["physical_volumes"]
    if len(physical) != 1:
        raise NotReadable(f"its group {name} lies on {len(physical)} physical volumes")
    ((alias, volume),) = physical.items()
    if volume["id"].replace("-", "") != own:
        raise NotReadable(f"its group {name} names another physical volume")
    extent = group["extent_size"] * _SECTOR
    first = volume["pe_start"] * _SECTOR
    count = volume["pe_count"]
    if extent <= 0 or first < 0 or first + count * extent > size:
        raise NotReadable(f"its group {name} reaches beyond its end")
    used: list[tuple[int, int]] = []
    volumes = []
    for inner, one in sorted(group.get("logical_volumes", {}).items()):
        if not _NAME.fullmatch(inner) or not _NAME.fullmatch(name):
            raise NotReadable("its metadata has impossible names in it")
        extents = list(_extents(f"{name}/{inner}", one, alias, count))
        used += extents
        pieces = tuple((first + at * extent, length * extent) for at, length in _joined(extents))
        volumes.append(LogicalVolume(f"{name}/{inner}", pieces))
    used.sort()
    if any(at + length > after for (at, length), (after, _) in zip(used, used[1:], strict=False)):
        raise NotReadable(f"its group {name} has volumes that overlap")
    records = [(0, first), *(area for area in areas if first <= area[0] < size)]
    return Group(name, tuple(volumes), tuple(records))


def _extents(
    name: str, volume: dict[str, Any], alias: str, count: int
) -> Iterator[tuple[int, int]]:
    """The extents of the physical volume that a plain logical volume consists of, in order:
    ``(first, number)``."""
    due = 0
    for number in range(1, volume["segment_count"] + 1):
        segment = volume[f"segment{number}"]
        kind = segment["type"]
        if kind != "striped" or segment["stripe_count"] != 1:
            raise NotReadable(f"its volume {name} is {kind}, and not a plain one")
        where, start = segment["stripes"]
        length = segment["extent_count"]
        if where != alias or segment["start_extent"] != due or length < 1:
            raise NotReadable(f"its volume {name} contradicts itself")
        if start < 0 or start + length > count:
            raise NotReadable(f"its volume {name} reaches beyond its end")
        due += length
        yield start, length


def _joined(extents: list[tuple[int, int]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for start, length in extents:
        if found and sum(found[-1]) == start:
            found[-1] = (found[-1][0], found[-1][1] + length)
        else:
            found.append((start, length))
    return found
