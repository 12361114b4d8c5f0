# SPDX-License-Identifier: Apache-2.0
"""A store around a store: passes every call on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from freezer_osbrick.store import base


class StoreWrapper(base.Store):
    """What wrappers have in common; each changes the calls that it is about."""

    def __init__(self, inner: base.Store) -> None:
        self.inner = inner
        self.url = inner.url

    @property
    def capabilities(self) -> base.Capabilities:  # type: ignore[override]
        return self.inner.capabilities

    def put(self, name: str, parts: Iterable[base.Buffer], *, replace: bool = False) -> int:
        return self.inner.put(name, parts, replace=replace)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return self.inner.get(name, offset, length)

    def stat(self, name: str) -> base.ObjectInfo:
        return self.inner.stat(name)

    def list(self, prefix: str) -> Iterator[base.ObjectInfo]:
        return self.inner.list(prefix)

    def list_after(self, prefix: str, after: str) -> Iterator[base.ObjectInfo]:
        return self.inner.list_after(prefix, after)

    def delete(self, name: str) -> None:
        self.inner.delete(name)

    def now(self) -> float:
        return self.inner.now()

    def sweep(self, older_than: float = 86400.0) -> Sequence[str]:
        return self.inner.sweep(older_than)

    def close(self) -> None:
        self.inner.close()
