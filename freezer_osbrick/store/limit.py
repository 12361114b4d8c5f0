# SPDX-License-Identifier: Apache-2.0
"""No more requests at the same time than a store should get."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from freezer_osbrick.store import base, wrapper

DEFAULT_CONNECTIONS = 16


class LimitedStore(wrapper.StoreWrapper):
    """Lets only so many calls through at a time, whichever volumes they are for; others wait.

    Listings are not counted: between two of its objects, a listing's reader may ask for others.
    """

    def __init__(self, inner: base.Store, connections: int) -> None:
        super().__init__(inner)
        self._room = threading.BoundedSemaphore(connections)

    def put(self, name: str, parts: Iterable[base.Buffer], *, replace: bool = False) -> int:
        with self._room:
            return self.inner.put(name, parts, replace=replace)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        with self._room:
            return self.inner.get(name, offset, length)

    def stat(self, name: str) -> base.ObjectInfo:
        with self._room:
            return self.inner.stat(name)

    def delete(self, name: str) -> None:
        with self._room:
            self.inner.delete(name)
