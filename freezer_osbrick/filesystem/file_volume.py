# SPDX-License-Identifier: Apache-2.0
"""The files of a volume as one address space, which is backed up like a volume of its own."""

from __future__ import annotations

import abc
import array
import bisect
import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import IO

from freezer_osbrick import errors
from freezer_osbrick.device.volume_device import Device
from freezer_osbrick.filesystem.content import Content
from freezer_osbrick.filesystem.syscalls import open_beneath
from freezer_osbrick.filesystem.walk import Found, Walk

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_KEPT_OPEN = 64
_LARGE = 4 << 20  # such a file is read in several goes, by several threads
_PIECE = 4096

Report = Callable[[int | None, bytes, str], None]


class Part(abc.ABC):
    """Something that lies in the address space."""

    @abc.abstractmethod
    def readinto(self, offset: int, buffer: memoryview) -> None:
        """Put what lies in ``len(buffer)`` bytes from ``offset`` on where it belongs in the buffer,
        which holds zeros."""

    def close(self) -> None:  # noqa: B027  most have nothing open
        """Let go of what is open."""


class Stretch(Part):
    """One piece that comes from elsewhere as it is: a tree, or a part of the volume."""

    def __init__(
        self, place: int, length: int, readinto: Callable[[int, memoryview], None]
    ) -> None:
        """:param readinto: fills a buffer with what lies at an offset in the piece."""
        self._place = place
        self._length = length
        self._read = readinto

    def readinto(self, offset: int, buffer: memoryview) -> None:
        begin = max(offset, self._place)
        end = min(offset + len(buffer), self._place + self._length)
        if begin < end:
            self._read(begin - self._place, buffer[begin - offset : end - offset])


class Files(Part):
    """The content of the files of one file system."""

    def __init__(
        self,
        root: int,
        walk: Walk,
        *,
        report: Report,
        prove_device: Callable[[], object],
    ) -> None:
        """:param report: told of each file that cannot be read, or changed since the walk.
        :param prove_device: raises if it is the whole volume that cannot be read."""
        self._root = root
        self._walk = walk
        self._report = report
        self._prove_device = prove_device
        self._content: Content | None = None
        self._sorting = threading.Lock()
        self._open = _OpenFiles(self._open_file)

    def close(self) -> None:
        self._open.close()

    def readinto(self, offset: int, buffer: memoryview) -> None:
        content = self._in_order()
        end = offset + len(buffer)
        index = max(bisect.bisect_right(content.places, offset) - 1, 0)
        while index < len(content.places) and content.places[index] < end:
            place, length = content.places[index], content.lengths[index]
            begin, stop = max(place, offset), min(place + length, end)
            if begin < stop:
                start = content.starts[index] + begin - place
                piece = buffer[begin - offset : stop - offset]
                self._read(content.owners[index], start, piece)
            index += 1

    def _in_order(self) -> Content:
        with self._sorting:
            if self._content is None:
                columns = self._walk.content()
                order = sorted(range(len(columns.places)), key=columns.places.__getitem__)
                self._content = Content(
                    _reordered(columns.places, order),
                    _reordered(columns.starts, order),
                    _reordered(columns.lengths, order),
                    _reordered(columns.owners, order),
                )
            return self._content

    def _read(self, number: int, start: int, buffer: memoryview) -> None:
        found = self._walk.found(number)
        try:
            with self._opened(found, start, len(buffer)) as descriptor:
                read = _read_all(descriptor, start, buffer)
                if isinstance(read, OSError):
                    raise read
                now = os.fstat(descriptor)
        except OSError as error:
            self._prove_device()
            reason = error.strerror or type(error).__name__
            self._report(number, found.path, reason)
            return
        if read < len(buffer) or not found.is_same(now):
            self._report(number, found.path, "it changed while it was read")

    @contextlib.contextmanager
    def _opened(self, found: Found, start: int, length: int) -> Iterator[int]:
        if start or length >= _LARGE:
            with self._open.use(found) as descriptor:
                yield descriptor
            return
        descriptor = self._open_file(found)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _open_file(self, found: Found) -> int:
        return open_beneath(self._root, found.path, _FILE)


def _reordered(column: array.array[int], order: list[int]) -> array.array[int]:
    return array.array(column.typecode, (column[index] for index in order))


class _OpenFiles:
    """Descriptors of the files that were used last. Safe for several threads."""

    def __init__(self, open_file: Callable[[Found], int]) -> None:
        self._open_file = open_file
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, int] = OrderedDict()
        self._users: dict[int, int] = {}  # by descriptor

    @contextlib.contextmanager
    def use(self, found: Found) -> Iterator[int]:
        with self._lock:
            descriptor = self._kept.pop(found.number, None)
            if descriptor is None:
                descriptor = self._open_file(found)
            self._kept[found.number] = descriptor
            self._users[descriptor] = self._users.get(descriptor, 0) + 1
        try:
            yield descriptor
        finally:
            with self._lock:
                self._users[descriptor] -= 1
                self._close_some()

    def _close_some(self) -> None:
        for number in list(self._kept):
            if len(self._kept) <= _KEPT_OPEN:
                return
            descriptor = self._kept[number]
            if not self._users[descriptor]:
                del self._kept[number], self._users[descriptor]
                os.close(descriptor)

    def close(self) -> None:
        with self._lock:
            for descriptor in self._kept.values():
                os.close(descriptor)
            self._kept.clear()
            self._users.clear()


class FileVolume(Device):
    """All parts as one device, for reading only."""

    def __init__(self, name: str, size: int, parts: Iterable[Part]) -> None:
        super().__init__(name, size, writable=False)
        self._parts = list(parts)

    def _readinto(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = bytes(len(buffer))
        for part in self._parts:
            part.readinto(offset, buffer)

    def _write(self, offset: int, data: memoryview) -> None:
        raise errors.DeviceError(f"{self.name} cannot be written.")

    def _zero(self, offset: int, length: int) -> None:
        raise errors.DeviceError(f"{self.name} cannot be written.")

    def _flush(self) -> None:
        """Nothing was written."""

    def _close(self) -> None:
        for part in self._parts:
            part.close()


def stretch_of_file(place: int, length: int, file: IO[bytes]) -> Stretch:
    """A stretch that lies in a temporary file."""

    def readinto(offset: int, buffer: memoryview) -> None:
        read = _read_all(file.fileno(), offset, buffer)
        if read != len(buffer):
            raise errors.DeviceError("A temporary file of the backup cannot be read.")

    return Stretch(place, length, readinto)


def _read_all(descriptor: int, start: int, buffer: memoryview) -> int | OSError:
    """Fill a buffer as far as the file goes; returns the number of bytes, or the first error, after
    all that can be read was read."""
    done, step = 0, len(buffer)
    failure: OSError | None = None
    while done < len(buffer):
        piece = buffer[done : done + step]
        try:
            count = os.preadv(descriptor, [piece], start + done)
        except OSError as error:
            failure = failure or error
            if step > _PIECE:
                step = _PIECE
                continue
            piece[:] = bytes(len(piece))
            count = len(piece)
        if not count:
            break
        done += count
    return failure or done
