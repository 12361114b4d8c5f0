# SPDX-License-Identifier: Apache-2.0
"""``freezer-osbrick``, in which one stage fails for one of the volumes.

What the storage does wrong, faults of the embedded cloud do. This is for what the host does: it
connects, reads, writes, stores and lets go.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from freezer_osbrick import errors
from freezer_osbrick.commands.main import main
from freezer_osbrick.device.host import Host
from freezer_osbrick.operations import attach, backup, copying, restore
from freezer_osbrick.operations.copies import Copies
from freezer_osbrick.repository.repository import Repository
from freezer_osbrick.store.wrapper import StoreWrapper

_thread = threading.local()  # each volume has a thread, which does all but to move its blocks


def _is_of_the_broken_one() -> bool:
    return getattr(_thread, "broken", False)


def _mark(worker: Any, volume_id: str) -> None:
    """Let the thread that works on the volume know that it does."""
    run = worker.run

    def marked(self: Any) -> None:
        _thread.broken = self._report.volume_id == volume_id
        try:
            run(self)
        finally:
            _thread.broken = False

    worker.run = marked


# -- os-brick --------------------------------------------------------------------------------------


class _Connector:
    """One of os-brick's that cannot do one thing."""

    def __init__(self, inner: Any, lacking: str) -> None:
        self._inner = inner
        self._lacking = lacking

    def __getattr__(self, name: str) -> Any:
        if name != self._lacking:
            return getattr(self._inner, name)

        def fail(*_arguments: Any, **_more: Any) -> None:
            from os_brick import exception

            raise exception.BrickException("no path to the target")

        return fail


def _break_connector(lacking: str) -> None:
    stock = Host._connector

    def connector(self: Host, *arguments: Any) -> Any:
        found = stock(self, *arguments)
        return _Connector(found, lacking) if _is_of_the_broken_one() else found

    Host._connector = connector  # type: ignore[method-assign]


# -- the device ------------------------------------------------------------------------------------


def _break_device(verb: str, *calls: str) -> None:
    stock = attach.open_device

    def open_device(*arguments: Any, **more: Any) -> Any:
        device: Any = stock(*arguments, **more)
        if _is_of_the_broken_one():

            def fail(offset: int, _data: object) -> None:
                raise device._failure(verb, offset, OSError(errno.EIO, os.strerror(errno.EIO)))

            for call in calls:
                setattr(device, call, fail)
        return device

    attach.open_device = open_device


# -- the repository --------------------------------------------------------------------------------


class _BrokenStore(StoreWrapper):
    """Does not take, or does not give, objects whose names begin so."""

    def __init__(self, repository: Repository, code: int, prefix: str) -> None:
        """:param code: ENOSPC: takes none; EIO: gives none."""
        super().__init__(repository.store)
        self._code = code
        self._prefix = prefix

    def put(self, name: str, parts: Iterable[Any], *, replace: bool = False) -> int:
        self._check(name, errno.ENOSPC)
        return super().put(name, parts, replace=replace)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        self._check(name, errno.EIO)
        return super().get(name, offset, length)

    def _check(self, name: str, code: int) -> None:
        if code == self._code and name.startswith(self._prefix):
            raise errors.StoreError(f"{name}: {os.strerror(code)}.")


def _with_broken_store(repository: Repository, code: int, prefix: str) -> Repository:
    return dataclasses.replace(repository, store=_BrokenStore(repository, code, prefix))


def _break_writing(prefix: str) -> None:
    stock = copying.Copy.store

    def store(self: Any, *arguments: Any) -> None:
        if _is_of_the_broken_one():
            self._repository = _with_broken_store(self._repository, errno.ENOSPC, prefix)
        stock(self, *arguments)

    copying.Copy.store = store  # type: ignore[method-assign]


def _break_fetching(prefix: str) -> None:
    stock = Copies.restore

    def restore_from(self: Any, *arguments: Any, **more: Any) -> Any:
        if _is_of_the_broken_one():
            self._copies = [
                dataclasses.replace(
                    one, repository=_with_broken_store(one.repository, errno.EIO, prefix)
                )
                for one in self._copies
            ]
        return stock(self, *arguments, **more)

    Copies.restore = restore_from  # type: ignore[method-assign]


STAGES: dict[str, Callable[[], None]] = {
    "connect": lambda: _break_connector("connect_volume"),
    "read": lambda: _break_device("read", "_readinto"),
    "write": lambda: _break_device("written", "_write", "_zero"),
    "store": lambda: _break_writing("packs/"),
    "commit": lambda: _break_writing("manifests/"),
    "fetch": lambda: _break_fetching("packs/"),
    "disconnect": lambda: _break_connector("disconnect_volume"),
}


if __name__ == "__main__":
    stage, broken, *words = sys.argv[1:]
    STAGES[stage]()
    for worker in (backup._VolumeBackup, restore._VolumeRestore):
        _mark(worker, broken)
    sys.exit(main(words))
