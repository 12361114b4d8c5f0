# SPDX-License-Identifier: Apache-2.0
"""Several threads over one volume.

Each worker takes the next piece of the volume and does all of it: read, hash, compress, hand over.
No queue lies between the steps, so nothing waits for a hand-over, each thread reuses its own
buffers, and the reads under way are as many as the workers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from freezer_osbrick import interruption

Step = Callable[[int], None]


class Budget:
    """Steps that may be under way at the same time, on all volumes that share the budget.

    Many volumes at once keep no more threads busy than one, and the last of them has all to itself.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.room = threading.BoundedSemaphore(steps)


def run(count: int, workers: int | Budget, make_step: Callable[[], Step]) -> None:
    """Call a step for each of the numbers 0 … count-1, in that order, on several threads.

    When this returns or raises, no step is running any more.

    :param workers: threads, or a budget that is shared with others.
    :param make_step: called once by each thread; the step that it returns keeps the thread's
        buffers.
    :raises BaseException: what the first failing step raised, or what interrupted the caller; the
        other threads end after the step they are at.
    """
    budget = workers if isinstance(workers, Budget) else Budget(max(1, workers))
    lock = threading.Lock()
    following = iter(range(count))
    failures: list[BaseException] = []

    def work(ended: threading.Event) -> None:
        try:
            step = make_step()
            while True:
                with budget.room:
                    with lock:
                        number = None if failures else next(following, None)
                    if number is None:
                        return
                    step(number)
        except BaseException as error:
            with lock:
                failures.append(error)
        finally:
            ended.set()

    ends = [threading.Event() for _ in range(max(1, min(budget.steps, count)))]
    threads = [
        threading.Thread(target=work, args=(ended,), name=f"worker-{number}")
        for number, ended in enumerate(ends)
    ]
    try:
        for thread in threads:
            thread.start()
        for ended in ends:
            # Not by join: Python takes a thread for dead whose join a signal interrupted.
            interruption.wait(ended)
    except BaseException as interrupt:  # a signal
        with lock:
            failures.insert(0, interrupt)
        for thread in threads:
            if thread.ident is not None:
                thread.join()
    if failures:
        raise failures[0]
