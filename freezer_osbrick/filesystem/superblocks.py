# SPDX-License-Identifier: Apache-2.0
"""What lies in a partition, or on a volume without partitions: told from its first bytes, as the
documentation of each file system describes them."""

from __future__ import annotations

import dataclasses
import struct
import uuid
from typing import Any

from freezer_osbrick.filesystem.partitions import Read

_EXT_OFFSET = 1024
_BTRFS_OFFSET = 65536
_SWAP = (b"SWAPSPACE2", b"SWAP-SPACE")
_PAGES = (4096, 8192, 16384, 65536)

# Names as mke2fs takes them, by bit.
_EXT_COMPAT = {
    0x0001: "dir_prealloc",
    0x0004: "has_journal",
    0x0008: "ext_attr",
    0x0010: "resize_inode",
    0x0020: "dir_index",
    0x0200: "sparse_super2",
    0x1000: "orphan_file",
}
_EXT_INCOMPAT = {
    0x0002: "filetype",
    0x0008: "journal_dev",
    0x0010: "meta_bg",
    0x0040: "extent",
    0x0080: "64bit",
    0x0100: "mmp",
    0x0200: "flex_bg",
    0x0400: "ea_inode",
    0x2000: "metadata_csum_seed",
    0x4000: "large_dir",
    0x8000: "inline_data",
    0x10000: "encrypt",
    0x20000: "casefold",
}
_EXT_RO_COMPAT = {
    0x0001: "sparse_super",
    0x0002: "large_file",
    0x0008: "huge_file",
    0x0010: "uninit_bg",
    0x0020: "dir_nlink",
    0x0040: "extra_isize",
    0x0100: "quota",
    0x0200: "bigalloc",
    0x0400: "metadata_csum",
    0x2000: "project",
    0x8000: "verity",
}
_EXT_RECOVER = 0x0004
_EXT4_ONLY = {"extent", "64bit", "flex_bg", "huge_file", "metadata_csum", "inline_data", "bigalloc"}


@dataclasses.dataclass(frozen=True)
class FileSystem:
    """A file system, or something else with a known beginning.

    :param kind: ``ext2``, ``ext3``, ``ext4``, ``xfs``, ``btrfs``, ``vfat``; or ``swap``, ``lvm``,
        ``luks``.
    :param size: in bytes, as the file system says; 0 where it does not.
    :param block_size: in bytes.
    :param details: what else a file system like it is made of, see :mod:`.making`.
    """

    kind: str
    label: str = ""
    uuid: str = ""
    size: int = 0
    block_size: int = 0
    details: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def identify(read: Read) -> FileSystem | None:
    """What begins at offset 0 of ``read``; None where nothing is known.

    :raises errors.DeviceError: the volume cannot be read.
    """
    start = read(0, 4096)
    for parse in (_luks, _lvm, _xfs, _ext, _fat, _swap):
        found = parse(start)
        if found:
            return found
    return _btrfs(read(_BTRFS_OFFSET, 4096)) or _large_swap(read)


def _ext(start: bytes) -> FileSystem | None:
    block = start[_EXT_OFFSET : _EXT_OFFSET + 1024]
    if len(block) < 1024 or block[56:58] != b"\x53\xef":
        return None
    inodes, blocks_low = struct.unpack_from("<II", block, 0)
    (log_size,) = struct.unpack_from("<I", block, 24)
    compat, incompat, ro_compat = struct.unpack_from("<III", block, 92)
    if log_size > 6:
        return None
    features = [
        *_names(_EXT_COMPAT, compat),
        *_names(_EXT_INCOMPAT, incompat),
        *_names(_EXT_RO_COMPAT, ro_compat),
    ]
    if _EXT4_ONLY & set(features):
        kind = "ext4"
    else:
        kind = "ext3" if "has_journal" in features else "ext2"
    blocks = blocks_low
    if "64bit" in features:
        blocks |= struct.unpack_from("<I", block, 336)[0] << 32
    (inode_size,) = struct.unpack_from("<H", block, 88)
    revision = struct.unpack_from("<I", block, 76)[0]
    return FileSystem(
        kind,
        _text(block[120:136]),
        str(uuid.UUID(bytes=block[104:120])),
        blocks << (10 + log_size),
        1024 << log_size,
        {
            "features": features,
            "inodes": inodes,
            "inode_size": inode_size if revision else 128,
            "dirty": bool(incompat & _EXT_RECOVER),
        },
    )


def _xfs(start: bytes) -> FileSystem | None:
    if not start.startswith(b"XFSB"):
        return None
    block_size, blocks = struct.unpack_from(">IQ", start, 4)
    (version,) = struct.unpack_from(">H", start, 100)
    sector, inode = struct.unpack_from(">HH", start, 102)
    compat, ro_compat, incompat = struct.unpack_from(">III", start, 208)
    (features2,) = struct.unpack_from(">I", start, 200)
    crc = version & 0xF == 5
    return FileSystem(
        "xfs",
        _text(start[108:120]),
        str(uuid.UUID(bytes=start[32:48])),
        block_size * blocks,
        block_size,
        {
            "sector_size": sector,
            "inode_size": inode,
            "crc": crc,
            "ftype": bool(incompat & 1) if crc else bool(features2 & 0x200),
            "finobt": crc and bool(ro_compat & 1),
            "rmapbt": crc and bool(ro_compat & 2),
            "reflink": crc and bool(ro_compat & 4),
            "inobtcount": crc and bool(ro_compat & 8),
            "bigtime": crc and bool(incompat & 8),
            "nrext64": crc and bool(incompat & 32),
        },
    )


def _btrfs(block: bytes) -> FileSystem | None:
    if len(block) < 4096 or block[64:72] != b"_BHRfS_M":
        return None
    log_root, _, total, _, _, devices = struct.unpack_from("<QQQQQQ", block, 96)
    sector, node = struct.unpack_from("<II", block, 144)
    (incompat,) = struct.unpack_from("<Q", block, 188)
    (checksum,) = struct.unpack_from("<H", block, 196)
    return FileSystem(
        "btrfs",
        _text(block[299 : 299 + 256]),
        str(uuid.UUID(bytes=block[32:48])),
        total,
        sector,
        {
            "node_size": node,
            "devices": devices,
            "checksum": {0: "crc32c", 1: "xxhash", 2: "sha256", 3: "blake2"}.get(checksum, ""),
            "mixed": bool(incompat & 4),
            "dirty": bool(log_root),
        },
    )


def _fat(start: bytes) -> FileSystem | None:
    if start[510:512] != b"\x55\xaa" or start[0] not in (0xEB, 0xE9):
        return None
    sector, per_cluster, reserved, fats = struct.unpack_from("<HBHB", start, 11)
    sectors = struct.unpack_from("<H", start, 19)[0] or struct.unpack_from("<I", start, 32)[0]
    if sector not in (512, 1024, 2048, 4096) or not per_cluster or not reserved or not fats:
        return None
    if start[82:87] == b"FAT32":
        bits, serial, label = 32, start[67:71], start[71:82]
    elif start[54:59] in (b"FAT12", b"FAT16"):
        bits, serial, label = int(start[57:59]), start[39:43], start[43:54]
    else:
        return None
    number = serial[::-1].hex().upper()
    name = label.decode("ascii", "replace").rstrip()
    return FileSystem(
        "vfat",
        "" if name == "NO NAME" else name,
        f"{number[:4]}-{number[4:]}",
        sector * sectors,
        sector * per_cluster,
        {"bits": bits, "sector_size": sector, "sectors_per_cluster": per_cluster},
    )


def _luks(start: bytes) -> FileSystem | None:
    if not start.startswith(b"LUKS\xba\xbe"):
        return None
    return FileSystem("luks", uuid=_text(start[168:208]))


def _lvm(start: bytes) -> FileSystem | None:
    for offset in range(0, min(len(start), 2048), 512):
        if start[offset : offset + 8] == b"LABELONE" and start[offset + 24 :][:4] == b"LVM2":
            return FileSystem("lvm", uuid=_text(start[offset + 32 : offset + 64]))
    return None


def _swap(start: bytes) -> FileSystem | None:
    return _swap_of(start, 4096) if start[4086:4096] in _SWAP else None


def _large_swap(read: Read) -> FileSystem | None:
    """Swap of a machine with larger pages."""
    for page in _PAGES[1:]:
        if read(page - 10, 10) in _SWAP:
            return _swap_of(read(0, 4096), page)
    return None


def _swap_of(start: bytes, page: int) -> FileSystem:
    identifier = str(uuid.UUID(bytes=start[1036:1052]))
    return FileSystem("swap", _text(start[1052:1068]), identifier, block_size=page)


def _names(known: dict[int, str], bits: int) -> list[str]:
    return [name for bit, name in known.items() if bits & bit]


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "replace")
