# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for what lies outside: a volume in memory, a store that fails on demand."""

from __future__ import annotations

import contextlib
import ctypes
import random
import threading
import time
from collections.abc import Callable, Container, Iterable, Iterator

from freezer_osbrick import errors
from freezer_osbrick.device.volume_device import Device
from freezer_osbrick.store import base


class MemoryDevice(Device):
    """A volume that is a bytearray."""

    def __init__(self, content: bytes | bytearray, writable: bool = True) -> None:
        super().__init__("the volume in memory", len(content), writable=writable)
        self.content = bytearray(content)
        self.reads: list[tuple[int, int]] = []
        self.writes: list[tuple[int, int]] = []
        self.zeroed: list[tuple[int, int]] = []
        self.flushed = 0
        self.fail_read: Callable[[int, int], bool] = lambda offset, length: False
        self._lock = threading.Lock()

    def _readinto(self, offset: int, buffer: memoryview) -> None:
        if self.fail_read(offset, len(buffer)):
            raise errors.DeviceError(f"The device fails at byte {offset}.")
        with self._lock:
            self.reads.append((offset, len(buffer)))
        buffer[:] = self.content[offset : offset + len(buffer)]

    def _write(self, offset: int, data: memoryview) -> None:
        with self._lock:
            self.writes.append((offset, len(data)))
            self.content[offset : offset + len(data)] = data

    def _zero(self, offset: int, length: int) -> None:
        with self._lock:
            self.zeroed.append((offset, length))
            self.content[offset : offset + length] = bytes(length)

    def _flush(self) -> None:
        self.flushed += 1

    def _close(self) -> None:
        pass


class MemoryStore(base.Store):
    """A store in memory. ``fault(verb, name)`` may raise what the next call shall raise."""

    url = "memory:"
    capabilities = base.Capabilities(True, True, True, True)

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.modified: dict[str, float] = {}
        self.calls: list[tuple[str, str]] = []
        self.fault: Callable[[str, str], None] = lambda verb, name: None
        self._lock = threading.Lock()

    def _note(self, verb: str, name: str) -> None:
        with self._lock:
            self.calls.append((verb, name))
        self.fault(verb, name)

    def put(self, name: str, parts: Iterable[base.Buffer], *, replace: bool = False) -> int:
        self._note("put", base.check_name(name))
        data = b"".join(parts)
        with self._lock:
            if name in self.objects and not replace:
                raise errors.ObjectExists(f"{name} exists already.")
            self.objects[name] = data
            self.modified[name] = self.now()
        return len(data)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        self._note("get", base.check_name(name))
        data = self._object(name)
        end = len(data) if length is None else offset + length
        if not 0 <= offset <= end <= len(data):
            raise errors.Damaged(f"Object {name} is shorter than it should be.")
        return data[offset:end]

    def stat(self, name: str) -> base.ObjectInfo:
        self._note("stat", base.check_name(name))
        return base.ObjectInfo(name, len(self._object(name)), self.modified.get(name, 0.0))

    def list(self, prefix: str) -> Iterator[base.ObjectInfo]:
        self._note("list", base.check_prefix(prefix))
        return self._list(prefix)

    def _list(self, prefix: str) -> Iterator[base.ObjectInfo]:
        for name in sorted(self.objects):
            data = self.objects.get(name)
            if data is not None and name.startswith(prefix):
                yield base.ObjectInfo(name, len(data), self.modified.get(name, 0.0))

    def delete(self, name: str) -> None:
        self._note("delete", base.check_name(name))
        self.objects.pop(name, None)

    def now(self) -> float:
        return time.time()

    def _object(self, name: str) -> bytes:
        if name not in self.objects:
            raise errors.ObjectMissing(f"{name} does not exist.")
        return self.objects[name]


class WatchedStore(base.Store):
    """A store around a store: ``before`` and ``after`` are told of every call, with its number from
    0 on, and may raise, or end the process."""

    Hook = Callable[[int, str, str], None]

    def __init__(self, inner: base.Store, before: Hook | None = None, after: Hook | None = None):
        self.inner = inner
        self.url = inner.url
        self.capabilities = inner.capabilities
        self.count = 0
        self._before = before or (lambda number, verb, name: None)
        self._after = after or (lambda number, verb, name: None)
        self._lock = threading.Lock()

    def put(self, name: str, parts: Iterable[base.Buffer], *, replace: bool = False) -> int:
        with self._watched("put", name):
            return self.inner.put(name, parts, replace=replace)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        with self._watched("get", name):
            return self.inner.get(name, offset, length)

    def stat(self, name: str) -> base.ObjectInfo:
        with self._watched("stat", name):
            return self.inner.stat(name)

    def list(self, prefix: str) -> Iterator[base.ObjectInfo]:
        with self._watched("list", prefix):
            return iter(list(self.inner.list(prefix)))

    def delete(self, name: str) -> None:
        with self._watched("delete", name):
            self.inner.delete(name)

    def now(self) -> float:
        with self._watched("now", ""):
            return self.inner.now()

    @contextlib.contextmanager
    def _watched(self, verb: str, name: str) -> Iterator[None]:
        with self._lock:
            number = self.count
            self.count += 1
        self._before(number, verb, name)
        yield
        self._after(number, verb, name)


class NullStore(MemoryStore):
    """Keeps no packs: for amounts of data that no memory would hold.

    :param delay: seconds that each pack takes.
    """

    def __init__(self, delay: float = 0.0) -> None:
        super().__init__()
        self.delay = delay

    def put(self, name: str, parts: Iterable[base.Buffer], *, replace: bool = False) -> int:
        if name.startswith("packs/"):
            time.sleep(self.delay)
            return sum(len(memoryview(part).cast("B")) for part in parts)
        return super().put(name, parts, replace=replace)


class SyntheticDevice(Device):
    """A volume whose content is computed: zeros, except for the given blocks.

    :param noise: bytes at offset ``n`` are data when ``n // 65536`` is in it.
    """

    BLOCK = 65536

    def __init__(self, size: int, noise: Container[int], *, writable: bool = False) -> None:
        super().__init__("the computed volume", size, writable=writable)
        self.noise = noise
        self.wrong: list[int] = []
        self.right = 0
        self._base = random.Random(1).randbytes(self.BLOCK - 8)
        self._lock = threading.Lock()

    def content(self, block: int) -> bytes:
        return block.to_bytes(8, "big") + self._base

    def _readinto(self, offset: int, buffer: memoryview) -> None:
        if self.writable:  # the target of a restore: empty
            ctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(buffer)), 0, len(buffer))
            return
        first, last = offset // self.BLOCK, -(-(offset + len(buffer)) // self.BLOCK)
        noisy = [block for block in range(first, last) if block in self.noise]
        if len(noisy) < last - first:
            ctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(buffer)), 0, len(buffer))
        for block in noisy:
            start = block * self.BLOCK - offset
            buffer[start : start + self.BLOCK] = self.content(block)

    def _write(self, offset: int, data: memoryview) -> None:
        """Compares what is restored, and keeps nothing."""
        for start in range(0, len(data), self.BLOCK):
            block = (offset + start) // self.BLOCK
            right = block in self.noise and data[start : start + self.BLOCK] == self.content(block)
            with self._lock:
                if right:
                    self.right += 1
                else:
                    self.wrong.append(block)

    def _zero(self, offset: int, length: int) -> None:
        pass

    def _flush(self) -> None:
        pass

    def _close(self) -> None:
        pass
