# SPDX-License-Identifier: Apache-2.0
"""Connections that only one thread may use at a time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Pool(Generic[T]):
    """Lends connections and makes another when all are lent.

    How many there are is how many threads were busy at the same time.
    """

    def __init__(self, make: Callable[[], T], end: Callable[[T], object]) -> None:
        """
        :param make: makes a connection.
        :param end: closes one; what it raises is of no interest.
        """
        self._make = make
        self._end = end
        self._idle: list[T] = []
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def lent(self, *, healthy: tuple[type[BaseException], ...] = ()) -> Iterator[T]:
        """A connection of one's own.

        :param healthy: errors after which the connection can be used on: answers, that is. After
            any other it is closed, because half an answer may still be on its way.
        """
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            connection = self._make()
        try:
            yield connection
        except healthy:
            self._give_back(connection)
            raise
        except BaseException:
            self._close(connection)
            raise
        self._give_back(connection)

    def close(self) -> None:
        """Close the connections that are not lent."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            self._close(connection)

    def _give_back(self, connection: T) -> None:
        with self._lock:
            self._idle.append(connection)

    def _close(self, connection: T) -> None:
        with contextlib.suppress(Exception):
            self._end(connection)
