# SPDX-License-Identifier: Apache-2.0
"""A store that is unavailable every now and then, before or after it did what it was asked."""

import random
import threading
from collections.abc import Iterator

from freezer_osbrick import errors
from freezer_osbrick.store import base, wrapper


class FlakyStore(wrapper.StoreWrapper):
    """Fails some calls. Half of the failed ones were done, and only their answer was lost."""

    def __init__(self, inner: base.Store, *, failing: float = 0.4, seed: int = 1) -> None:
        super().__init__(inner)
        self.failing = failing
        self.failed = 0
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    def put(self, name, parts, *, replace=False):
        return self._perhaps(lambda: self.inner.put(name, parts, replace=replace))

    def get(self, name, offset=0, length=None):
        return self._perhaps(lambda: self.inner.get(name, offset, length))

    def stat(self, name):
        return self._perhaps(lambda: self.inner.stat(name))

    def list(self, prefix) -> Iterator[base.ObjectInfo]:
        return self.list_after(prefix, "")

    def list_after(self, prefix, after) -> Iterator[base.ObjectInfo]:
        return self._list(prefix, after)

    def _list(self, prefix, after):
        self._perhaps(lambda: None)
        for number, info in enumerate(self.inner.list_after(prefix, after)):
            if number % 3 == 2:
                self._perhaps(lambda: None)
            yield info

    def delete(self, name):
        self._perhaps(lambda: self.inner.delete(name))

    def now(self):
        return self._perhaps(self.inner.now)

    def _perhaps(self, call):
        with self._lock:
            fails = self._random.random() < self.failing
            done = self._random.random() < 0.5
            self.failed += fails
        if fails and not done:
            raise errors.StoreUnavailable("The store does not answer.")
        result = call()
        if fails:
            raise errors.StoreUnavailable("The connection broke.")
        return result
