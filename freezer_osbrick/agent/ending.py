# SPDX-License-Identifier: Apache-2.0
"""A run that a signal ends takes down what it set up, and then dies of that signal.

The scheduler calls a job aborted where the agent died of SIGTERM, and failed where it exited.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from freezer_osbrick.operations import signals


@contextlib.contextmanager
def in_order(log: Any) -> Iterator[None]:
    """While open, the first signal ends the run in order, and then the process."""
    try:
        with signals.ending_in_order(log.warning):
            yield
    except signals.Ended as ended:
        signals.die(ended.signal_number)
