# SPDX-License-Identifier: Apache-2.0
"""How far a volume has got, told to whoever watches."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable

from freezer_osbrick import interruption

# Seconds between two reports: often enough for an eye, too seldom to cost anything.
_INTERVAL = 0.25


@dataclasses.dataclass(frozen=True)
class ProgressEvent:
    """One report.

    :param phase: ``waiting`` for its turn, ``snapshot``, ``attach``, ``look`` (for what there is to
        read), ``read``, ``write``, ``verify``, ``commit`` or ``detach``; ``ended``.
    :param done_bytes: of the volume, in this phase.
    :param total_bytes: of the volume.
    :param stored_bytes: put into the store so far.
    """

    volume_id: str
    phase: str
    done_bytes: int = 0
    total_bytes: int = 0
    stored_bytes: int = 0


Listener = Callable[[ProgressEvent], None]


class Progress:
    """The progress of one volume. Safe for several threads."""

    def __init__(self, volume_id: str, listener: Listener | None = None) -> None:
        self._volume_id = volume_id
        self._listener = listener
        self._lock = threading.Lock()
        self._phase = ""
        self._done = self._total = self._stored = 0
        self._last = 0.0

    def enter(self, phase: str, total: int = 0) -> None:
        """Begin a phase of so many bytes.

        :raises interruption.Interrupted: the run is to end.
        """
        interruption.check()
        with self._lock:
            self._phase, self._done, self._total = phase, 0, total
            self._report(time.monotonic())

    def advance(self, done: int, stored: int = 0) -> None:
        """So many bytes more."""
        with self._lock:
            self._done += done
            self._stored += stored
            now = time.monotonic()
            if now - self._last >= _INTERVAL or self._done == self._total:
                self._report(now)

    def _report(self, now: float) -> None:
        self._last = now
        if self._listener:
            self._listener(
                ProgressEvent(self._volume_id, self._phase, self._done, self._total, self._stored)
            )
