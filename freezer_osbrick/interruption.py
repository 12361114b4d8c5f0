# SPDX-License-Identifier: Apache-2.0
"""A signal reaches only the main thread: how the threads that work on volumes learn of it.

A thread that is :func:`enlisted` is told once, by an exception at one of the places where it asks
or waits. From then on it is left in peace, to take down what it has set up.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

_LOOK = 0.2  # seconds between two looks where something else is waited for


class Interrupted(KeyboardInterrupt):
    """The run is to end. No ``except Exception`` takes it for a failure of one volume."""


_requested = threading.Event()
_thread = threading.local()


def request() -> None:
    """Tell all enlisted threads to end."""
    _requested.set()


def settle() -> None:
    """All have ended: what is begun from now on is not told."""
    _requested.clear()


def requested() -> bool:
    """Whether the run is ending: nothing that can be left out is worth long waiting any more."""
    return _requested.is_set()


@contextlib.contextmanager
def enlisted() -> Iterator[None]:
    """While open, this thread is told when the run is to end."""
    _thread.listens = True
    try:
        yield
    finally:
        _thread.listens = False


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """While open, this thread is not told: it is taking down, which is to be done in any case."""
    listens, _thread.listens = _listens(), False
    try:
        yield
    finally:
        _thread.listens = listens


def check() -> None:
    """:raises Interrupted: once in each enlisted thread, when the run is to end."""
    if _requested.is_set() and _listens():
        _thread.listens = False
        raise Interrupted


def sleep(seconds: float) -> None:
    """Sleep, but not through a request to end.

    :raises Interrupted: as :func:`check`.
    """
    if not _listens():
        time.sleep(seconds)
        return
    _requested.wait(seconds)
    check()


def pause(seconds: float) -> None:
    """Sleep, or less where the run is to end."""
    _requested.wait(seconds)


def wait(event: threading.Event) -> None:
    """Wait until an event is set.

    :raises Interrupted: as :func:`check`.
    """
    while not event.wait(_LOOK if _listens() else None):
        check()


def _listens() -> bool:
    return getattr(_thread, "listens", False)
