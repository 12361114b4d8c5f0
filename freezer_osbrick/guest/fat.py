# SPDX-License-Identifier: Apache-2.0
"""FAT12, FAT16 and FAT32 with long names, as Microsoft's specification describes them.

There are no owners and no permissions in it: all belongs to root, folders have mode 755, files 644,
or 444 where they are read-only. Times are those of a clock without a zone, taken for UTC.
"""

from __future__ import annotations

import datetime
import functools
import stat
import struct
from collections.abc import Iterator

from freezer_osbrick.guest.filesystem import (
    NANO,
    PIECE,
    BrokenFileSystem,
    FileSystem,
    Node,
    Read,
    field,
)

_ENTRY = 32
_READ_ONLY, _LABEL, _FOLDER, _LONG = 0x01, 0x08, 0x10, 0x0F
_DELETED, _LAST = 0xE5, 0x00
_LOWER_BASE, _LOWER_SUFFIX = 0x08, 0x10
_ROOT = 0

Found = tuple[bytes, tuple[int, int]]
"""An entry of a folder, and where it stands: the folder's first cluster and the offset."""

# A folder may be no longer than this.
_MOST_FOLDER = 2 << 20


class Fat(FileSystem):
    """A FAT file system."""

    kind = "vfat"

    def __init__(self, read: Read) -> None:
        super().__init__(read)
        self._table = functools.lru_cache(maxsize=256)(self._load_table)
        start = self.bytes_at(0, 512)
        sector, per_cluster, reserved, copies, root_entries = struct.unpack_from(
            "<HBHBH", start, 11
        )
        sectors = field("<H", start, 19) or field("<I", start, 32)
        fat_sectors = field("<H", start, 22) or field("<I", start, 36)
        if sector not in (512, 1024, 2048, 4096) or not per_cluster or not copies or not reserved:
            raise BrokenFileSystem("its first sector makes no sense")
        self._cluster_size = sector * per_cluster
        self._fat_at = reserved * sector
        self._fat_size = fat_sectors * sector
        self._root_at = self._fat_at + copies * self._fat_size
        self._root_size = root_entries * _ENTRY
        data_at = self._root_at + -(-self._root_size // sector) * sector
        self._data_at = data_at
        self._clusters = (sectors * sector - data_at) // self._cluster_size
        if self._clusters < 4085:
            self._bits = 12
        else:
            self._bits = 16 if self._clusters < 65525 else 32
        self._root_cluster = field("<I", start, 44) if self._bits == 32 else _ROOT

    def _root(self) -> Node:
        return Node((0,), stat.S_IFDIR | 0o755, handle=(self._root_cluster, 0))

    def _names(self, folder: Node) -> Iterator[tuple[bytes, Found]]:
        offset, data = 0, self._folder(folder)
        long_parts: dict[int, bytes] = {}
        check = None
        while offset + _ENTRY <= len(data) and data[offset] != _LAST:
            entry = data[offset : offset + _ENTRY]
            offset += _ENTRY
            if entry[0] == _DELETED:
                long_parts = {}
                continue
            if entry[11] & 0x3F == _LONG:
                if entry[0] & 0x40:
                    long_parts, check = {}, entry[13]
                if entry[13] == check:
                    long_parts[entry[0] & 0x3F] = entry[1:11] + entry[14:26] + entry[28:32]
                continue
            parts, long_parts = long_parts, {}
            if entry[11] & _LABEL:
                continue
            name = _short_name(entry)
            if parts and check == _checksum(entry[:11]):
                name = _long_name(parts) or name
            yield name, (entry, (folder.handle[0], offset))

    def _content(self, file: Node) -> Iterator[tuple[int, bytes]]:
        first, size = file.handle
        start = 0
        for cluster, count in self._runs(first, -(-size // self._cluster_size)):
            at, length = self._place(cluster), min(count * self._cluster_size, size - start)
            for done in range(0, length, PIECE):
                yield start + done, self.bytes_at(at + done, min(PIECE, length - done))
            start += length
        if start < size:
            raise BrokenFileSystem("a file is shorter than its size")

    def _target(self, symlink: Node) -> bytes:
        raise BrokenFileSystem("there are no symbolic links in FAT")

    def _folder(self, folder: Node) -> bytes:
        first, _ = folder.handle
        if first == _ROOT:
            return self.bytes_at(self._root_at, self._root_size)
        most = _MOST_FOLDER // self._cluster_size + 1
        parts = []
        for cluster, count in self._runs(first, most):
            parts.append(self.bytes_at(self._place(cluster), count * self._cluster_size))
        return b"".join(parts)

    def _node(self, found: Found) -> Node:
        entry, inode = found
        first = field("<H", entry, 26)
        if self._bits == 32:
            first |= field("<H", entry, 20) << 16
        size = field("<I", entry, 28)
        mode = stat.S_IFREG | (0o444 if entry[11] & _READ_ONLY else 0o644)
        if entry[11] & _FOLDER:
            mode, size = stat.S_IFDIR | 0o755, 0
        modified = _time(field("<H", entry, 24), field("<H", entry, 22))
        return Node(
            inode=inode,
            mode=mode,
            size=size,
            mtime=modified,
            ctime=_time(field("<H", entry, 16), field("<H", entry, 14), entry[13]) or modified,
            atime=_time(field("<H", entry, 18), 0) or modified,
            handle=(first, size),
        )

    def _place(self, cluster: int) -> int:
        return self._data_at + (cluster - 2) * self._cluster_size

    def _runs(self, first: int, most: int) -> Iterator[tuple[int, int]]:
        """Neighbouring clusters of a chain: the first, and how many; at most ``most`` in all."""
        cluster, begin, count = first, first, 0
        for _ in range(most):
            if not 2 <= cluster < self._clusters + 2:
                break
            if cluster != begin + count:
                yield begin, count
                begin, count = cluster, 0
            count += 1
            cluster = self._following(cluster)
        if count:
            yield begin, count

    def _following(self, cluster: int) -> int:
        if self._bits == 12:
            place = cluster + cluster // 2
            pair = field(
                "<H", self._table(place // 4096) + self._table(place // 4096 + 1), place % 4096
            )
            return pair >> 4 if cluster & 1 else pair & 0xFFF
        width = self._bits // 8
        place = cluster * width
        value = field("<H" if width == 2 else "<I", self._table(place // 4096), place % 4096)
        return value & 0x0FFFFFFF

    def _load_table(self, page: int) -> bytes:
        """4096 bytes of the table of clusters."""
        length = min(4096, self._fat_size - page * 4096)
        return self.bytes_at(self._fat_at + page * 4096, length) if length > 0 else b""


def _short_name(entry: bytes) -> bytes:
    base, suffix = entry[:8], entry[8:11]
    if base[0] == 0x05:  # stands for a letter that would mean "deleted"
        base = b"\xe5" + base[1:]
    name = base.decode("cp437").rstrip(" ")
    end = suffix.decode("cp437").rstrip(" ")
    if entry[12] & _LOWER_BASE:
        name = name.lower()
    if entry[12] & _LOWER_SUFFIX:
        end = end.lower()
    return (f"{name}.{end}" if end else name).encode()


def _long_name(parts: dict[int, bytes]) -> bytes:
    if set(parts) != set(range(1, len(parts) + 1)):
        return b""
    text = b"".join(parts[number] for number in sorted(parts)).decode("utf-16-le", "surrogatepass")
    return text.partition("\0")[0].encode("utf-8", "surrogatepass")


def _checksum(name: bytes) -> int:
    """Ties a long name to the short one."""
    value = 0
    for byte in name:
        value = ((value & 1) << 7) + (value >> 1) + byte & 0xFF
    return value


def _time(date: int, time: int, tenths: int = 0) -> int:
    try:
        moment = datetime.datetime(
            1980 + (date >> 9),
            date >> 5 & 0xF,
            date & 0x1F,
            time >> 11,
            time >> 5 & 0x3F,
            min((time & 0x1F) * 2, 58),
            tzinfo=datetime.timezone.utc,
        )
    except ValueError:
        return 0
    return int(moment.timestamp()) * NANO + tenths * NANO // 100
