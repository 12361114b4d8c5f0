# SPDX-License-Identifier: Apache-2.0
"""What was read from a backup, kept in memory or in a file without a name."""

from __future__ import annotations

import os
import tempfile
from collections import OrderedDict
from typing import Protocol

from oslo_log import log

from freezer_osbrick import errors

LOG = log.getLogger(__name__)

# Bytes that a window counts for beside its content: there are many that hold nothing but zeros.
_OVERHEAD = 512


class _Keeper(Protocol):
    def keep(self, number: int, content: bytes) -> None: ...

    def take(self, number: int) -> bytes: ...

    def drop(self, number: int) -> None: ...

    def close(self) -> None: ...


class WindowCache:
    """The windows that were used last, up to so many bytes. Its user does the locking."""

    def __init__(self, size: int, window_size: int, folder: str | None = None) -> None:
        """:param size: bytes that are kept, at least one window.
        :param window_size: bytes of the largest window.
        :param folder: keep them in a file there, which has no name: when the process ends, however
            it ends, the file is gone. It is not sealed.
        :raises errors.BadRequest: no file can be made there.
        """
        self._size = max(size, window_size + _OVERHEAD)
        self._keeper: _Keeper = _File(folder, window_size) if folder else _Memory()
        self._lengths: OrderedDict[int, int] = OrderedDict()
        self._used = 0

    def __contains__(self, number: int) -> bool:
        return number in self._lengths

    def get(self, number: int) -> bytes | None:
        """The window, if it is here; from now on it is the one used last."""
        if number not in self._lengths:
            return None
        self._lengths.move_to_end(number)
        return self._keeper.take(number)

    def put(self, number: int, content: bytes) -> None:
        """Keep a window that is not here, and forget those that were not used for longest."""
        length = len(content) + _OVERHEAD
        while self._lengths and self._used + length > self._size:
            oldest, freed = self._lengths.popitem(last=False)
            self._keeper.drop(oldest)
            self._used -= freed
        try:
            self._keeper.keep(number, content)
        except OSError as error:  # the disk is full: what is read is not kept, but it is read
            LOG.warning("What is read is not kept: %s.", error.strerror)
            return
        self._lengths[number] = length
        self._used += length

    def close(self) -> None:
        self._lengths.clear()
        self._keeper.close()


class _Memory:
    def __init__(self) -> None:
        self._contents: dict[int, bytes] = {}

    def keep(self, number: int, content: bytes) -> None:
        self._contents[number] = content

    def take(self, number: int) -> bytes:
        return self._contents[number]

    def drop(self, number: int) -> None:
        del self._contents[number]

    def close(self) -> None:
        self._contents.clear()


class _File:
    """Windows in the slots of one file; a slot is used again when its window is dropped."""

    def __init__(self, folder: str, window_size: int) -> None:
        try:
            self._file = tempfile.TemporaryFile(prefix="freezer-osbrick-", dir=folder)
        except OSError as error:
            raise errors.BadRequest(
                f"No file for the cache can be made in {folder}: {error.strerror}."
            ) from error
        self._slot_size = window_size
        self._slots: dict[int, tuple[int, int]] = {}
        self._free: list[int] = []
        self._count = 0

    def keep(self, number: int, content: bytes) -> None:
        if not self._free:
            self._free.append(self._count)
            self._count += 1
        slot = self._free[-1]
        done = 0
        while done < len(content):
            place = slot * self._slot_size + done
            done += os.pwrite(self._file.fileno(), memoryview(content)[done:], place)
        self._free.pop()
        self._slots[number] = (slot, len(content))

    def take(self, number: int) -> bytes:
        slot, length = self._slots[number]
        return os.pread(self._file.fileno(), length, slot * self._slot_size)

    def drop(self, number: int) -> None:
        slot, _ = self._slots.pop(number)
        self._free.append(slot)

    def close(self) -> None:
        self._file.close()
