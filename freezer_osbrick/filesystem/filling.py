# SPDX-License-Identifier: Apache-2.0
"""From a backup of files to a volume, or to a folder."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator

from freezer_osbrick import errors
from freezer_osbrick.device.volume_device import Device
from freezer_osbrick.filesystem import disk as disks
from freezer_osbrick.filesystem import exclusion, making
from freezer_osbrick.filesystem.comparing import compare
from freezer_osbrick.filesystem.disk import Disk, Place
from freezer_osbrick.filesystem.logical_volumes import LogicalVolume
from freezer_osbrick.filesystem.loop import loop_device
from freezer_osbrick.filesystem.mounting import mounted, supported
from freezer_osbrick.filesystem.restoring import Restoring
from freezer_osbrick.filesystem.source import descriptor_of
from freezer_osbrick.filesystem.stored import StoredFiles, StoredTree

_PIECE = 1 << 20
_WIPED = 1 << 20  # at both ends of a partition: what lay there must not be taken for a file system
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

Step = Callable[[int], object]


@dataclasses.dataclass
class Filled:
    """What became of a restore.

    :param kept, made, removed: numbers of files, folders and so on.
    :param written: bytes of content.
    :param problems: what could not be restored as it was, a sentence each.
    """

    kept: int = 0
    made: int = 0
    removed: int = 0
    written: int = 0
    problems: list[str] = dataclasses.field(default_factory=list)


class Filling:
    """One backup of files on its way back."""

    def __init__(self, stored: StoredFiles, step: Step = lambda _: None) -> None:
        """:param step: called with the number of bytes of each file that is done; may raise."""
        self.filled = Filled()
        self._stored = stored
        self._step = step

    def existing_volume(self, device: Device) -> Filled:
        """Bring the files of a volume, or of a clone of it, to the state of the backup.

        :raises errors.BadRequest: its file systems are not those of the backup; nothing was
            written.
        :raises errors.DeviceError: it cannot be mounted or written, or is full.
        """
        found = disks.look(device, supported())
        if _shape(found) != _shape(self._stored.disk):
            raise errors.BadRequest(
                "The volume has other partitions or logical volumes than it had when it was backed "
                "up: restore into a new volume, or into a folder with --to-folder."
            )
        there = {(place.number, place.start): place for place in found.places}
        pairs = []
        for tree in self._stored.trees:
            place = there.get((tree.where.number, tree.where.start))
            if place is None or place.file_system.kind != tree.where.file_system.kind:
                raise errors.BadRequest(
                    f"The backup holds {tree.where.label}, which the volume does not have any "
                    "more: restore into a new volume, or into a folder with --to-folder."
                )
            pairs.append((tree, place))
        self._write_raw(device)
        for tree, place in pairs:
            same = place.file_system.uuid == tree.where.file_system.uuid
            with self._mounted(device, place) as root:
                self._restore(tree, root, trust_inodes=same and place.file_system.kind != "vfat")
        return self.filled

    def new_volume(self, device: Device) -> Filled:
        """Partition a volume, make its file systems and restore the files into them.

        :raises errors.DeviceError: a file system cannot be made, or is too small.
        """
        making.check_programs(sorted({tree.where.file_system.kind for tree in self._stored.trees}))
        descriptor = descriptor_of(device)
        _wipe(device, 0, device.size)
        if self._stored.disk.table:
            for partition in self._stored.disk.table.partitions:
                _wipe(device, partition.start, partition.size)
        self._write_raw(device)
        device.flush()
        for tree in self._stored.trees:
            place = _enlarged(tree.where, device.size)
            like = place.file_system
            size = min(like.size or place.size, place.size)
            with loop_device(descriptor, place.start, place.size, writable=True) as path:
                making.make(path, like, size)
            with self._mounted(device, place) as root:
                self._restore(tree, root)
        return self.filled

    def folder(self, path: str) -> Filled:
        """Restore into a folder that is empty, or is made.

        The files of several file systems go into folders of their own, ``partition-1`` or
        ``volume-guest-root`` and so on.

        :raises errors.BadRequest: the folder cannot be made, or is not empty.
        """
        root = _open_empty(path)
        try:
            if len(self._stored.trees) == 1:
                self._restore(self._stored.trees[0], root, remove=False, subvolumes=False)
                return self.filled
            for tree in self._stored.trees:
                name = tree.where.folder
                os.mkdir(name, 0o700, dir_fd=root)
                inner = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=root)
                try:
                    self._restore(tree, inner, remove=False, subvolumes=False)
                finally:
                    os.close(inner)
            return self.filled
        finally:
            os.close(root)

    # ----------------------------------------------------------------------------------------------

    def _restore(
        self,
        tree: StoredTree,
        root: int,
        *,
        trust_inodes: bool = False,
        remove: bool = True,
        subvolumes: bool = True,
    ) -> None:
        prefix = f"{tree.where.where}: " if tree.where.where else ""

        def report(path: bytes, reason: str) -> None:
            self.filled.problems.append(f"{prefix}{'/' + os.fsdecode(path)!r}: {reason}")

        restoring = Restoring(
            self._stored.reader(tree).walk(),
            self._stored.read,
            root,
            report=report,
            trust_inodes=trust_inodes,
            remove=remove,
            excluded=exclusion.excluded(self._stored.excluded),
            subvolumes=subvolumes and tree.where.file_system.kind == "btrfs",
            step=self._step,
        )
        restoring.run()
        for one in self._stored.unread:
            if one["partition"] == tree.where.number:
                self.filled.problems.append(
                    f"{prefix}{one['path']!r}: not fully read when it was backed up: "
                    f"{one['reason']}"
                )
        self.filled.kept += restoring.kept
        self.filled.made += restoring.made
        self.filled.removed += restoring.removed
        self.filled.written += restoring.written

    @contextlib.contextmanager
    def _mounted(self, device: Device, place: Place) -> Iterator[int]:
        with mounted(
            descriptor_of(device),
            place.start,
            place.size,
            place.file_system,
            writable=True,
            repair=True,
        ) as root:
            yield root

    def _write_raw(self, device: Device) -> None:
        """What is kept as it is: tables, boot loaders, partitions that hold no files."""
        buffer = bytearray(_PIECE)
        for place, offset, length in self._stored.raw:
            for start in range(0, length, _PIECE):
                count = min(_PIECE, length - start)
                wanted = self._stored.read(place + start, count)
                there = memoryview(buffer)[:count]
                device.readinto(offset + start, there)
                if there != wanted:
                    device.write(offset + start, wanted)
                    self.filled.written += count


def differences(stored: StoredFiles, device: Device, step: Step = lambda _: None) -> Iterator[str]:
    """What differs between the files of a volume and those of a backup. Nothing is written."""
    for tree in stored.trees:
        place = _enlarged(tree.where, device.size)
        with mounted(
            descriptor_of(device),
            place.start,
            place.size,
            place.file_system,
            writable=False,
            repair=False,
        ) as root:
            entries = stored.reader(tree).walk()
            for path, reason in compare(entries, stored.read, root, step):
                yield f"{'/' + os.fsdecode(path)!r}: {reason}"


def _shape(disk: Disk) -> tuple[list[tuple[int, int, int]], tuple[LogicalVolume, ...]]:
    """Numbers, offsets and sizes of the partitions; and the logical volumes."""
    partitions = disk.table.partitions if disk.table else ()
    return [(one.number, one.start, one.size) for one in partitions], disk.logical


def _enlarged(place: Place, size: int) -> Place:
    """A file system without partitions fills its volume if it did before, however large that is."""
    if place.number or not place.file_system.size:
        return place
    known = place.file_system
    was_full = known.size > place.size - (64 << 20)
    inner = dataclasses.replace(known, size=size if was_full else known.size)
    return dataclasses.replace(place, size=size, file_system=inner)


def _wipe(device: Device, start: int, size: int) -> None:
    length = min(_WIPED, size)
    device.zero(start, length)
    device.zero(start + size - length, length)


def _open_empty(path: str) -> int:
    try:
        os.makedirs(path, exist_ok=True)
        root = os.open(path, _FOLDER)
    except OSError as error:
        raise errors.BadRequest(
            f"The folder {path} cannot be restored into: {error.strerror}."
        ) from error
    try:
        with os.scandir(root) as listing:
            if next(listing, None) is not None:
                raise errors.BadRequest(f"The folder {path} is not empty: name another one.")
    except BaseException:
        os.close(root)
        raise
    return root
