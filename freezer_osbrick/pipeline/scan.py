# SPDX-License-Identifier: Apache-2.0
"""What a chunk of the volume holds: read into a buffer that is used again and again, and given its
ids."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence

from freezer_osbrick.device.volume_device import Device
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository.repository import Repository

# memcmp through ctypes: 30 times as fast as hashing, and it lets the other threads run.
_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
_memcmp.restype = ctypes.c_int


class ChunkBuffer:
    """Memory for one chunk, and the tests on it. For one thread."""

    def __init__(self, repository: Repository) -> None:
        self._ids = repository.ids
        self._block_size = repository.block_size
        size = repository.chunk_size
        # Pages of the kernel's own: aligned, as direct I/O wants it.
        self._memory, self._address = _pages(size)
        self._zeros, self._zeros_address = _pages(size)
        self.view = memoryview(self._memory)
        self.length = 0
        """Bytes of the chunk that is in the buffer."""

    def read(self, device: Device, offset: int, length: int) -> None:
        """Fill the buffer with ``length`` bytes of the device."""
        device.readinto(offset, self.view[:length])
        self.length = length

    def read_unknown(
        self, device: Device, offset: int, length: int, known: Sequence[bytes | None]
    ) -> int:
        """Fill the buffer, but for blocks whose ids are known: what it holds there means nothing.

        :param known: an id or None for each block.
        :returns: bytes that were read.
        """
        self.length = length
        read = index = 0
        while index < len(known):
            first = index
            while index < len(known) and known[index] is None:
                index += 1
            start, end = first * self._block_size, min(index * self._block_size, length)
            if end > start:
                device.readinto(offset + start, self.view[start:end])
                read += end - start
            index += 1
        return read

    @property
    def block_count(self) -> int:
        return -(-self.length // self._block_size)

    def block(self, index: int) -> memoryview:
        """The content of a block; the volume's last may be short."""
        start = index * self._block_size
        return self.view[start : min(start + self._block_size, self.length)]

    def all_zeros(self) -> bool:
        return self.range_zeros(0, self.length)

    def range_zeros(self, start: int, length: int) -> bool:
        """Whether ``length`` bytes of the buffer from ``start`` on are zero."""
        return not _memcmp(self._address + start, self._zeros_address, length)

    def block_ids_but(self, known: Sequence[bytes | None]) -> bytes:
        """As :meth:`block_ids`, where some are known already."""
        return b"".join(
            self._block_id(index) if block_id is None else block_id
            for index, block_id in enumerate(known)
        )

    def block_ids(self) -> bytes:
        """The ids of all blocks, 32 bytes each; :data:`format.ZEROS` for a block of zeros."""
        size = self._block_size
        full = self.length // size
        identify = self._ids.block
        address, zeros, view = self._address, self._zeros_address, self.view
        found = [
            identify(view[start : start + size])
            if _memcmp(address + start, zeros, size)
            else form.ZEROS
            for start in range(0, full * size, size)
        ]
        if full * size < self.length:
            found.append(self._block_id(full))
        return b"".join(found)

    def _block_id(self, index: int) -> bytes:
        content = self.block(index)
        zeros = self.range_zeros(index * self._block_size, len(content))
        return form.ZEROS if zeros else self._ids.block(content)


def _pages(size: int) -> tuple[mmap.mmap, int]:
    memory = mmap.mmap(-1, size)
    return memory, ctypes.addressof(ctypes.c_char.from_buffer(memory))
