# SPDX-License-Identifier: Apache-2.0
"""Several threads over one volume.

Each worker takes the next piece of the volume and does all of it: read, hash, compress, hand over.
No queue lies between the steps, so nothing waits for a hand-over, each thread reuses its own
buffers, and the reads under way are as many as the workers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from freezer_osbrick import errors

Step = Callable[[int], None]


class Stop:
    """Set by whoever wants a run to end before it is through."""

    def __init__(self) -> None:
        self._signal_number = 0
        self._event = threading.Event()

    def set(self, signal_number: int) -> None:
        """:param signal_number: the signal that asks for it, as in :mod:`signal`."""
        self._signal_number = signal_number
        self._event.set()

    def check(self) -> None:
        """:raises errors.Interrupted: the run is to end."""
        if self._event.is_set():
            raise errors.Interrupted("Interrupted.", self._signal_number)


def run(count: int, workers: int, make_step: Callable[[], Step], stop: Stop | None = None) -> None:
    """Call a step for each of the numbers 0 … count-1, in that order, on several threads.

    :param make_step: called once by each thread; the step that it returns keeps the thread's
        buffers.
    :raises BaseException: what the first failing step raised; the others end after the step they
        are at.
    """
    lock = threading.Lock()
    following = iter(range(count))
    failures: list[BaseException] = []

    def work() -> None:
        try:
            step = make_step()
            while True:
                with lock:
                    number = None if failures else next(following, None)
                if number is None:
                    return
                if stop:
                    stop.check()
                step(number)
        except BaseException as error:
            with lock:
                failures.append(error)

    threads = [
        threading.Thread(target=work, name=f"worker-{number}")
        for number in range(max(1, min(workers, count)))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
