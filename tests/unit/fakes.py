# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for what lies outside: a volume in memory, a store that fails on demand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator

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
        return len(data)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        self._note("get", name)
        if name not in self.objects:
            raise errors.ObjectMissing(f"{name} does not exist.")
        data = self.objects[name]
        end = len(data) if length is None else offset + length
        if end > len(data):
            raise errors.Damaged(f"Object {name} is shorter than it should be.")
        return data[offset:end]

    def stat(self, name: str) -> base.ObjectInfo:
        self._note("stat", name)
        if name not in self.objects:
            raise errors.ObjectMissing(f"{name} does not exist.")
        return base.ObjectInfo(name, len(self.objects[name]), 0.0)

    def list(self, prefix: str) -> Iterator[base.ObjectInfo]:
        self._note("list", prefix)
        for name in sorted(self.objects):
            if name.startswith(prefix):
                yield base.ObjectInfo(name, len(self.objects[name]), 0.0)

    def delete(self, name: str) -> None:
        self._note("delete", name)
        self.objects.pop(name, None)

    def now(self) -> float:
        return 0.0
