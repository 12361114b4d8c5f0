# SPDX-License-Identifier: Apache-2.0
"""A part of a store that looks like a store of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from freezer_osbrick.store import base, wrapper


class SubfolderStore(wrapper.StoreWrapper):
    """All objects whose names begin with the name of a folder; which they do not show here."""

    def __init__(self, inner: base.Store, folder: str) -> None:
        """:param folder: a name without a slash at its end."""
        super().__init__(inner)
        self._prefix = base.check_name(folder) + "/"

    def put(self, name: str, parts: Iterable[base.Buffer], *, replace: bool = False) -> int:
        return self.inner.put(self._prefix + name, parts, replace=replace)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return self.inner.get(self._prefix + name, offset, length)

    def stat(self, name: str) -> base.ObjectInfo:
        return self._shown(self.inner.stat(self._prefix + name))

    def list(self, prefix: str) -> Iterator[base.ObjectInfo]:
        return map(self._shown, self.inner.list(self._prefix + prefix))

    def list_after(self, prefix: str, after: str) -> Iterator[base.ObjectInfo]:
        found = self.inner.list_after(self._prefix + prefix, self._prefix + after)
        return map(self._shown, found)

    def delete(self, name: str) -> None:
        self.inner.delete(self._prefix + name)

    def clear(self) -> None:
        """Delete everything."""
        for name in [info.name for info in self.list("")]:
            self.delete(name)

    def _shown(self, info: base.ObjectInfo) -> base.ObjectInfo:
        return dataclasses.replace(info, name=info.name.removeprefix(self._prefix))
