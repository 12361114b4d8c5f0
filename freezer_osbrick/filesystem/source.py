# SPDX-License-Identifier: Apache-2.0
"""A volume whose files are to be backed up: its file systems mounted, walked, and laid out in one
address space."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from freezer_osbrick import errors
from freezer_osbrick.device.hints import Extents, Hints
from freezer_osbrick.device.volume_device import Device
from freezer_osbrick.filesystem import disk as disks
from freezer_osbrick.filesystem import exclusion
from freezer_osbrick.filesystem.disk import Disk, Place
from freezer_osbrick.filesystem.file_volume import (
    Files,
    FileVolume,
    Part,
    Stretch,
    stretch_of_file,
)
from freezer_osbrick.filesystem.mounting import mounted, supported
from freezer_osbrick.filesystem.previous import Previous
from freezer_osbrick.filesystem.space import Space
from freezer_osbrick.filesystem.stored import StoredFiles, StoredTree
from freezer_osbrick.filesystem.walk import Walk

# More than so many files are never what somebody wants to be told one by one: the volume is broken.
_MOST_UNREAD = 10_000

# A clock of a guest may differ from ours by so much.
_CLOCKS_DIFFER = 3600


@dataclasses.dataclass(frozen=True)
class Unread:
    """A file whose content, or a part of it, is not in the backup.

    :param partition: number of its file system's partition, or 0.
    :param entry: its number in the tree; None where it is not even there.
    """

    partition: int
    entry: int | None
    path: str
    reason: str


class UnreadFiles:
    """Collects what could not be read. Safe for several threads."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, str], Unread] = {}
        self._lock = threading.Lock()

    def reporter(self, partition: int) -> Callable[[int | None, bytes, str], None]:
        """For the files of one partition.

        The function raises errors.DeviceError when there are too many of them.
        """

        def report(entry: int | None, path: bytes, reason: str) -> None:
            text = "/" + os.fsdecode(path)
            with self._lock:
                self._found.setdefault((partition, text), Unread(partition, entry, text, reason))
                if len(self._found) > _MOST_UNREAD:
                    raise errors.DeviceError(
                        f"More than {_MOST_UNREAD} files cannot be read, the last one {text!r}: "
                        f"{reason}."
                    )

        return report

    def __iter__(self) -> Iterator[Unread]:
        with self._lock:
            return iter(list(self._found.values()))


@dataclasses.dataclass(frozen=True)
class Laid:
    """The files of a volume, laid out.

    :param volume: what is backed up.
    :param hints: of which the parent has the same.
    :param facts: of the manifest's head, all but the unread files.
    """

    volume: FileVolume
    hints: Hints
    facts: dict[str, Any]


class FileSource:
    """The mounted file systems of a volume."""

    def __init__(self, device: Device, disk: Disk, roots: Sequence[tuple[Place, int]]) -> None:
        self.disk = disk
        self._device = device
        self._roots = roots

    @contextlib.contextmanager
    def lay_out(
        self,
        parent: StoredFiles | None,
        patterns: Sequence[str],
        unread: UnreadFiles,
        step: Callable[[int], object] = lambda _: None,
    ) -> Iterator[Laid]:
        """Walk all file systems and give every file a place.

        :param parent: an earlier backup of the same volume's files.
        :param patterns: of what is left out.
        :param unread: is told of what cannot be read, now or when the volume is read.
        :param step: called now and then with the number of entries so far.
        """
        excluded = exclusion.excluded(patterns)
        with contextlib.ExitStack() as stack:
            trees = [parent.tree(place) if parent else None for place, _ in self._roots]
            before = [_previous(tree, parent, stack) for tree in trees]
            space = Space(_used(parent, trees, before), end=parent.size if parent else None)
            dirty: list[tuple[int, int]] = []
            parts: list[Part] = []
            facts: list[dict[str, Any]] = []
            for (place, root), tree, previous in zip(self._roots, trees, before, strict=True):
                report = unread.reporter(place.number)
                walk = Walk(root, previous, space, excluded=excluded, report=report, step=step)
                stack.callback(walk.file.close)
                walk.run()
                files = Files(root, walk, report=report, prove_device=self._prove_device)
                stack.callback(files.close)
                where, room = _place_of_tree(walk.length, tree, space)
                if not (tree and tree.place == where and previous.equals(walk.file, walk.length)):
                    dirty.append((where, room))
                parts += files, stretch_of_file(where, walk.length, walk.file)
                dirty += walk.dirty
                facts.append(
                    StoredTree(place, where, walk.length, room, walk.count, walk.newest).to_dict()
                )
            raw = self._raw(parent, space)
            parts += [self._stretch(*piece) for piece in raw]
            dirty += [(place, length) for place, _, length in raw]
            unchanged = Extents()
            if parent:
                unchanged = Extents(dirty).complement(parent.size)
            yield Laid(
                FileVolume(f"the files of {self._device.name}", space.end, parts),
                Hints(unchanged=unchanged),
                {**self.disk.to_dict(), "file_systems": facts, "raw": raw, "excluded": [*patterns]},
            )

    def _raw(self, parent: StoredFiles | None, space: Space) -> list[tuple[int, int, int]]:
        known = {(offset, length): place for place, offset, length in parent.raw} if parent else {}
        return [(known.get(piece) or space.whole(piece[1]), *piece) for piece in self.disk.raw]

    def _stretch(self, place: int, offset: int, length: int) -> Stretch:
        def readinto(start: int, buffer: memoryview) -> None:
            self._device.readinto(offset + start, buffer)

        return Stretch(place, length, readinto)

    def _prove_device(self) -> None:
        disks.reader(self._device)(0, 4096)


@contextlib.contextmanager
def opened(device: Device, *, repair: bool) -> Iterator[FileSource]:
    """Mount the file systems of a volume for reading.

    :param repair: let journals be replayed; the device must be writable then, and is written to.
    :raises errors.NoFileSystem: there is none.
    :raises errors.JournalDirty: a journal is to be replayed, and ``repair`` is False.
    :raises errors.DeviceError: one cannot be mounted.
    """
    disk = disks.look(device, supported())
    descriptor = descriptor_of(device)
    with contextlib.ExitStack() as stack:
        roots = [
            (
                place,
                stack.enter_context(
                    mounted(
                        descriptor,
                        place.start,
                        place.size,
                        place.file_system,
                        writable=False,
                        repair=repair,
                    )
                ),
            )
            for place in disk.places
        ]
        yield FileSource(device, disk, roots)


def descriptor_of(device: Device) -> int:
    """What the kernel mounts a volume from.

    :raises errors.DeviceError: the volume is no device of the kernel.
    """
    if device.descriptor is None:
        raise errors.DeviceError(
            f"{device.name} is connected without a device of the kernel, which file mode needs: "
            "back it up with --content blocks."
        )
    return device.descriptor


def _previous(
    tree: StoredTree | None, parent: StoredFiles | None, stack: contextlib.ExitStack
) -> Previous:
    if tree is None or parent is None:
        previous = Previous()
    else:
        newest = None
        if tree.newest >= (parent.time - _CLOCKS_DIFFER) * 1_000_000_000:
            newest = tree.newest
        previous = Previous(
            parent.reader(tree).pieces(),
            newest=newest,
            distrusted=parent.unread_entries(tree),
        )
    stack.callback(previous.close)
    return previous


def _used(
    parent: StoredFiles | None, trees: Sequence[StoredTree | None], before: Sequence[Previous]
) -> Iterator[tuple[int, int]]:
    for previous in before:
        yield from previous.all_extents()
    for tree in trees:
        if tree:
            yield tree.place, tree.room
    if parent:
        for place, _, length in parent.raw:
            yield place, length


def _place_of_tree(length: int, tree: StoredTree | None, space: Space) -> tuple[int, int]:
    """Where a tree goes, and how long it may become there."""
    if tree and length <= tree.room:
        return tree.place, tree.room
    room = 2 * length
    return space.whole(room), room
