# SPDX-License-Identifier: Apache-2.0
"""Several threads over one volume.

Each worker takes the next piece of the volume and does all of it: read, hash, compress, hand over.
No queue lies between the steps, so nothing waits for a hand-over, each thread reuses its own
buffers, and the reads under way are as many as the workers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

Step = Callable[[int], None]


def run(count: int, workers: int, make_step: Callable[[], Step]) -> None:
    """Call a step for each of the numbers 0 … count-1, in that order, on several threads.

    When this returns or raises, no step is running any more.

    :param make_step: called once by each thread; the step that it returns keeps the thread's
        buffers.
    :raises BaseException: what the first failing step raised, or what interrupted the caller; the
        other threads end after the step they are at.
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
                step(number)
        except BaseException as error:
            with lock:
                failures.append(error)

    threads = [
        threading.Thread(target=work, name=f"worker-{number}")
        for number in range(max(1, min(workers, count)))
    ]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException as interruption:  # a signal, in the main thread
        with lock:
            failures.insert(0, interruption)
        for thread in threads:
            if thread.ident is not None:
                thread.join()
    if failures:
        raise failures[0]
