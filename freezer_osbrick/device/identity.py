# SPDX-License-Identifier: Apache-2.0
"""The proof that a device is the volume: before the first byte is read or written, now and then on
the way, after every error, and when all is done.

What is proved at first: the kind (a block device or a plain file), the size, that the disk is where
Cinder says the volume is, that it has the name that Cinder or os-brick told, and that the kernel
has not mistaken it for an earlier one. Later: that it is the same that it was.

Disks are asked themselves wherever they answer: another volume may turn up under the same LUN, and
the kernel keeps showing what it knew (CVE-2023-2088).
"""

from __future__ import annotations

import dataclasses
import errno
import logging
import os
import re
import stat
from collections.abc import Callable, Mapping
from typing import Any

from freezer_osbrick import errors
from freezer_osbrick.device import disks, inquiry, places
from freezer_osbrick.device.inquiry import Answer

LOG = logging.getLogger(__name__)

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


def prove_whole(what: str, actual: int, size: int) -> None:
    """:raises errors.IdentityError: it was ``size`` bytes long and is shorter now."""
    if actual < size:
        raise errors.IdentityError(
            f"{what} has {actual} bytes now, it had {size}: it was cut short."
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


@dataclasses.dataclass(frozen=True)
class Disk:
    """One disk, or one path to it.

    :ivar folder: in sysfs.
    :ivar names: as :class:`inquiry.Answer` has them; empty where it has none.
    :ivar size: in bytes, as the disk says; None where it does not.
    """

    folder: str
    names: frozenset[str]
    size: int | None = None


@dataclasses.dataclass(frozen=True)
class Identity:
    """Who a block device is.

    :ivar name: the kernel's.
    :ivar size: in bytes, as the kernel has it.
    :ivar mapped: what a virtual device is made of, by the name of that; empty where it is none.
    :ivar disks: those that answered.
    :ivar silent: folders of those that did not.
    :ivar replicated: the disks hold the same each and are one each, and not paths to one.
    """

    name: str
    size: int
    mapped: str
    disks: tuple[Disk, ...]
    silent: tuple[str, ...] = ()
    replicated: bool = False


def of(descriptor: int, *, sysfs: str = disks.SYSFS) -> Identity:
    """Ask an opened block device, and each path where it has several, who it is."""
    folder = disks.folder_of(descriptor, sysfs)
    size = os.lseek(descriptor, 0, os.SEEK_END)
    mapped = disks.attribute(folder, "dm/uuid") or disks.attribute(folder, "loop/backing_file")
    found, silent = [], []
    for each in disks.below(folder):
        try:
            found.append(_ask(each, descriptor if each == folder else None))
        except OSError as error:
            LOG.debug("%s does not answer: %s", disks.node_of(each), error)
            silent.append(each)
    replicated = disks.kind(folder) == "raid"
    name = disks.name_of(folder)
    return Identity(name, size, mapped, tuple(found), tuple(silent), replicated)


def prove_told(
    what: str,
    found: Identity,
    connection_info: Mapping[str, Any],
    device_info: Mapping[str, Any],
    *,
    sysfs: str = disks.SYSFS,
) -> None:
    """A block device is what the cloud and os-brick told, as far as they told something.

    :raises errors.IdentityError: it is another one.
    :raises errors.DeviceError: it does not answer, or something else is built upon it.
    """
    prove_answers(what, found)
    for disk in found.disks:
        _prove_unused(what, found.name, disk)
        _prove_fresh(disk)
        if disk.size not in (None, found.size) and not found.replicated:
            raise errors.IdentityError(
                f"The kernel has {found.size} bytes for {what}, the disk says {disk.size}: another "
                "volume has taken the place of an earlier one."
            )
    _prove_one(what, found)
    _prove_place(what, found, places.told(connection_info, sysfs))
    _prove_wwn(what, found, device_info.get("scsi_wwn"))


def prove_same(what: str, before: Identity, now: Identity) -> None:
    """A block device is who it was. Paths may come and go.

    :raises errors.IdentityError: it is another one.
    :raises errors.DeviceError: it does not answer, or is not there any more.
    """
    prove_answers(what, now)
    if before.size and not now.size:
        raise errors.DeviceError(f"{what} is gone: the kernel has taken the disk away.")
    if (before.size, before.mapped) != (now.size, now.mapped):
        raise errors.IdentityError(
            f"{what} was {before.mapped or 'a disk'} of {before.size} bytes and is "
            f"{now.mapped or 'a disk'} of {now.size} bytes now: it is not the volume any more."
        )
    known = {(disk.names, disk.size) for disk in before.disks}
    for disk in now.disks:
        if (disk.names, disk.size) not in known:
            raise errors.IdentityError(
                f"{disks.node_of(disk.folder)} was {_told(before.disks[0])} and is {_told(disk)} "
                "now: it is not the volume any more."
            )


def prove_answers(what: str, found: Identity) -> None:
    """:raises errors.DeviceError: none of the disks has answered."""
    if not found.disks:
        silent = ", ".join(disks.node_of(folder) for folder in found.silent) or "it has no path"
        raise errors.DeviceError(
            f"{what} does not answer ({silent}): whether it is the volume cannot be proved."
        )


def _ask(folder: str, descriptor: int | None) -> Disk:
    """:param descriptor: of the disk, where it is open."""
    if descriptor is None:
        opened = os.open(disks.node_of(folder), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return _ask(folder, opened)
        finally:
            os.close(opened)
    kind = disks.kind(folder)
    if kind == "scsi":
        if disks.attribute(folder, "device/state") not in ("running", ""):
            raise OSError(errno.EIO, "the kernel waits for its path")
        answer = _allowed(lambda: inquiry.scsi(descriptor)) or Answer(_cached(folder))
    elif kind == "nvme":
        answer = _allowed(lambda: inquiry.nvme(descriptor)) or _cached_of_nvme(folder)
    else:
        serial = disks.attribute(folder, "serial")
        answer = Answer(frozenset({f"serial.{serial}"} if serial else ()))
    return Disk(folder, answer.names, answer.size)


def _allowed(ask: Callable[[], Answer]) -> Answer | None:
    """What a disk answers; None where only root may ask it."""
    try:
        return ask()
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM):
            raise
        return None


def _cached(folder: str) -> frozenset[str]:
    """The names that the kernel has of a SCSI disk."""
    return inquiry.designators(disks.content(folder, "device/vpd_pg83"))


def _cached_of_nvme(folder: str) -> Answer:
    """The kernel removes a namespace whose names have changed, when the target tells of changes."""
    found = ((kind, disks.attribute(folder, kind)) for kind in ("uuid", "nguid", "eui"))
    return Answer(frozenset(f"{kind}.{name}" for kind, name in found if name.strip("0-")))


def _prove_unused(what: str, name: str, disk: Disk) -> None:
    """A path belongs to its multipath device alone: to have that exclusively keeps nobody off the
    paths, which several devices of the mapper may share."""
    others = [held for held in disks.holders(disk.folder) if held.split()[0] != name]
    if others:
        raise errors.DeviceError(
            f"The device {what} is not used: {', '.join(others)} on this host uses "
            f"{disks.node_of(disk.folder)}."
        )


def _prove_fresh(disk: Disk) -> None:
    """The kernel knows the disk by the names that it has."""
    cached = _cached(disk.folder)
    if cached and not cached <= disk.names:
        raise errors.IdentityError(
            f"The kernel knows {disks.node_of(disk.folder)} as {', '.join(sorted(cached))}, and "
            f"the disk says that it is {_told(disk)}: another volume has taken the place of an "
            "earlier one."
        )


def _prove_one(what: str, found: Identity) -> None:
    """All paths lead to one disk."""
    names = {disk.names for disk in found.disks}
    if len(names) > 1 and not found.replicated:
        told = "; ".join(f"{disks.node_of(d.folder)} is {_told(d)}" for d in found.disks)
        raise errors.IdentityError(f"The paths of {what} lead to different disks: {told}.")


def _prove_place(what: str, found: Identity, place: places.Place | None) -> None:
    """One of the paths at least is where Cinder says. Others may have been found by discovery, and
    lead to the same disk."""
    if place is None or any(place.holds(disk.folder) for disk in found.disks):
        return
    told = ", ".join(
        f"{disks.node_of(disk.folder)} is {place.where(disk.folder)}" for disk in found.disks
    )
    raise errors.IdentityError(f"{what} is not where Cinder says the volume is: {told}.")


def _prove_wwn(what: str, found: Identity, scsi_wwn: Any) -> None:
    """The name of page 0x83, as udev writes it, if it is a worldwide one (types 2 and 3)."""
    if not isinstance(scsi_wwn, str) or not re.fullmatch(r"[23][0-9a-f]{16,32}", scsi_wwn):
        return
    name = {"2": "eui.", "3": "naa."}[scsi_wwn[0]] + scsi_wwn[1:]
    for disk in found.disks:
        if disk.names and name not in disk.names:
            raise errors.IdentityError(
                f"{disks.node_of(disk.folder)} is {_told(disk)} and not {name}: {what} is not the "
                "volume."
            )


def _told(disk: Disk) -> str:
    names = ", ".join(sorted(disk.names)) or "a disk without a name"
    return f"{names} of {disk.size} bytes" if disk.size is not None else names
