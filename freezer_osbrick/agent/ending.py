# SPDX-License-Identifier: Apache-2.0
"""A run that a signal ends takes down what it set up, and then dies of that signal.

The scheduler calls a job aborted where the agent died of SIGTERM, and failed where it exited.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

_ENDING = (signal.SIGINT, signal.SIGTERM)
_PATIENCE = 3  # signals until the process ends where it stands


@contextlib.contextmanager
def in_order(log: Any) -> Iterator[None]:
    """While open, the first signal raises KeyboardInterrupt in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers, and only it receives signals
        return
    received: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        if len(received) == 1:
            log.warning("%s: taking down what was set up.", signal.Signals(number).name)
            raise KeyboardInterrupt
        if len(received) >= _PATIENCE:
            _die(number)

    before = {number: signal.signal(number, handle) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if received:
            _die(received[0])


def _die(number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
