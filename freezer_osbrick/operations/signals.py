# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C and SIGTERM end a run in order: what was set up is taken down first."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

_ENDING = (signal.SIGINT, signal.SIGTERM)
_PATIENCE = 3  # signals until the process ends where it stands


class Ended(KeyboardInterrupt):
    """Raised in the main thread by the first signal.

    A ``KeyboardInterrupt``, so that no ``except Exception`` takes it for a failure of one volume.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number
        self.exit_status = 128 + signal_number


@contextlib.contextmanager
def ending_in_order(tell: Callable[[str], None]) -> Iterator[None]:
    """While open, the first signal raises :class:`Ended`; after it the cleaning up goes on.

    :param tell: says one line to the person at the keyboard.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers, and only it receives signals
        return
    received = 0

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal received
        received += 1
        if received == 1:
            tell("Ending: taking down what was set up.")
            raise Ended(number)
        if received < _PATIENCE:
            tell(
                "Still taking down; once more ends at once and leaves the rest to "
                "'freezer-osbrick cleanup'."
            )
            return
        die(number)

    before = {number: signal.signal(number, handle) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def die(number: int) -> None:
    """End the process as the signal would have ended it."""
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
