# SPDX-License-Identifier: Apache-2.0
"""The progress of a run in Freezer's log: a line at each phase and at each tenth of the bytes."""

from __future__ import annotations

import threading
from typing import Any

MIB = 1024**2


class Logged:
    """To be called with the operations' progress events, from any thread."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._told: dict[str, tuple[str, int]] = {}

    def __call__(self, event: Any) -> None:
        tenth = 10 * event.done_bytes // event.total_bytes if event.total_bytes else 0
        step = (event.phase, tenth)
        with self._lock:
            if self._told.get(event.volume_id) == step:
                return
            self._told[event.volume_id] = step
        if event.total_bytes:
            self._log.info(
                "Volume %s: %s, %d of %d MiB",
                event.volume_id,
                event.phase,
                event.done_bytes // MIB,
                event.total_bytes // MIB,
            )
        else:
            self._log.info("Volume %s: %s", event.volume_id, event.phase)
