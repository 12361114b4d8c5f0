# SPDX-License-Identifier: Apache-2.0
"""Limits of bandwidth, kept in this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator

from freezer_osbrick.store import base, wrapper

_SLICE = 1 << 16  # bytes that are sent at a time where the store sends while it reads the parts
_SAVED = 0.1  # seconds whose bytes may pass at once, so that a sleep that ends late costs nothing


class Bucket:
    """A token bucket of bytes, shared by all threads.

    Whoever takes more than is there waits until it has run in, and those who come later wait
    longer: in the long run no more gets through than the rate.
    """

    def __init__(
        self,
        rate: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """:param rate: bytes a second, at least 1."""
        self.rate = rate
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._paid_until = clock()  # when everything that was taken so far has run in

    def take(self, size: int) -> None:
        """Wait until ``size`` more bytes may pass."""
        with self._lock:
            now = self._clock()
            self._paid_until = max(now - _SAVED, self._paid_until) + size / self.rate
            pause = self._paid_until - now
        if pause > 0:
            self._sleep(pause)


class ThrottledStore(wrapper.StoreWrapper):
    """Puts and gets no faster than the limits.

    A store that sends while it goes through the parts sends evenly; one that wants the whole
    object first sends it at once, after its time is paid. What was fetched pays afterwards.
    """

    def __init__(
        self, inner: base.Store, *, upload: Bucket | None = None, download: Bucket | None = None
    ) -> None:
        super().__init__(inner)
        self._upload = upload
        self._download = download

    def put(self, name: str, parts: Iterable[base.Buffer], *, replace: bool = False) -> int:
        if self._upload is not None:
            once = iter(parts) is parts
            parts = _paced(parts, self._upload) if once else _Paced(parts, self._upload)
        return self.inner.put(name, parts, replace=replace)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        data = self.inner.get(name, offset, length)
        if self._download is not None:
            self._download.take(len(data))
        return data


class _Paced:
    """Parts that may be gone through more than once, each time no faster than the bucket allows."""

    def __init__(self, parts: Iterable[base.Buffer], bucket: Bucket) -> None:
        self._parts = parts
        self._bucket = bucket

    def __iter__(self) -> Iterator[base.Buffer]:
        return _paced(self._parts, self._bucket)


def _paced(parts: Iterable[base.Buffer], bucket: Bucket) -> Iterator[base.Buffer]:
    for part in parts:
        view = memoryview(part).cast("B")
        for start in range(0, len(view), _SLICE):
            piece = view[start : start + _SLICE]
            bucket.take(len(piece))
            yield piece
