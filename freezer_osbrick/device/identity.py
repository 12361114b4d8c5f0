# SPDX-License-Identifier: Apache-2.0
"""The proof that a device is the volume, made before the first byte is read or written.

What is proved: the kind (a block device or a plain file), the size, that the kernel lets us write
where we mean to, and, where Cinder or os-brick told an identity of the volume, that the device
carries it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from typing import Any

from freezer_osbrick import errors

GIB = 1 << 30


def prove_size(what: str, actual: int, size: int) -> None:
    """The device holds the volume, and less than one GiB more (back ends round up).

    :param size: what Cinder says, in bytes.
    :raises errors.IdentityError: too small or too large.
    """
    if not size <= actual < size + GIB:
        raise errors.IdentityError(
            f"{what} has {actual} bytes, but the volume has {size}: this is not the volume."
        )


def prove_kind(what: str, descriptor: int) -> bool:
    """Whether an open descriptor is a block device; a plain file is none.

    :raises errors.IdentityError: it is something else.
    """
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISBLK(mode):
        return True
    if stat.S_ISREG(mode):
        return False
    raise errors.IdentityError(f"{what} is neither a block device nor a file.")


def prove_raw(connection_info: Mapping[str, Any]) -> None:
    """The file holds the volume's bytes and not an image format of its own.

    Cinder is asked and the content is not: whoever writes the volume writes the content.

    :raises errors.IdentityError: Cinder names another format.
    """
    image_format = connection_info.get("format") or "raw"
    if image_format != "raw":
        raise errors.IdentityError(
            f"The volume lies in a file of format {image_format!r}; only raw ones can be attached."
        )


def prove_name(
    descriptor: int,
    connection_info: Mapping[str, Any],
    device_info: Mapping[str, Any],
    *,
    sysfs: str = "/sys",
) -> None:
    """A block device carries the identity that the cloud and os-brick told, where they told one.

    NVMe: ``vol_uuid``, ``volume_nguid`` of Cinder against the namespace. SCSI: ``scsi_wwn`` of
    os-brick against the disk, for each path of a multipath device.

    :raises errors.IdentityError: it carries another one.
    """
    device = os.fstat(descriptor).st_rdev
    for folder in _disks(sysfs, os.major(device), os.minor(device)):
        for key, attribute in (("vol_uuid", "uuid"), ("volume_nguid", "nguid")):
            _compare(folder, attribute, connection_info.get(key))
        _compare(folder, os.path.join("device", "wwid"), _naa(device_info.get("scsi_wwn")))


def _disks(sysfs: str, major: int, minor: int) -> list[str]:
    """Folders of the disks below a block device: itself, or what a multipath device stands on."""
    folder = os.path.realpath(os.path.join(sysfs, "dev", "block", f"{major}:{minor}"))
    below = os.path.join(folder, "slaves")
    try:
        paths = sorted(os.listdir(below))
    except OSError:
        paths = []
    return [os.path.realpath(os.path.join(below, path)) for path in paths] or [folder]


def _naa(scsi_wwn: Any) -> str | None:
    """The identity of page 0x83 as the kernel writes it, if it is a network address (type 3)."""
    if not isinstance(scsi_wwn, str) or not re.fullmatch(r"3[0-9a-f]{16}([0-9a-f]{16})?", scsi_wwn):
        return None
    return "naa." + scsi_wwn[1:]


def _compare(folder: str, attribute: str, expected: Any) -> None:
    if not expected:
        return
    try:
        with open(os.path.join(folder, attribute), encoding="ascii", errors="replace") as file:
            actual = file.read().strip()
    except OSError:
        return  # this kind of disk has no such attribute

    def bare(identity: str) -> str:
        return identity.replace("-", "").lower()

    if bare(actual) != bare(str(expected)):
        raise errors.IdentityError(
            f"The device {os.path.basename(folder)} is {actual} and not {expected}: "
            "this is not the volume."
        )
