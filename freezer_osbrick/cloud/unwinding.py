# SPDX-License-Identifier: Apache-2.0
"""Taking back, in the reverse order, what was built up: all of it, whatever fails on the way."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from oslo_log import log as logging

from freezer_osbrick import errors, interruption

LOG = logging.getLogger(__name__)


class Unwinding:
    """A context manager that runs the steps pushed to it in the reverse order when it ends.

    The first error is the one that is raised: an error of the body, else the first of the steps.
    The later ones are logged and told with it. A step that fails never keeps the others from
    running.

    An interrupt (Ctrl-C, a signal) during a step begins the step again, which steps must bear, and
    is raised when all are done.
    """

    def __init__(self) -> None:
        self._steps: list[Callable[[], None]] = []

    def push(self, step: Callable[[], None]) -> None:
        self._steps.append(step)

    def __enter__(self) -> Unwinding:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with interruption.shielded():
            self._unwind(error)

    def _unwind(self, error: BaseException | None) -> None:
        first = error
        interrupt: BaseException | None = None
        while self._steps:
            try:
                self._steps[-1]()
            except Exception as failure:
                if first is None:
                    first = failure
                else:
                    LOG.error("Also, while cleaning up: %s", failure)
                    errors.annotate(first, f"Also: {failure}")
            except BaseException as newest:
                if interrupt is None:
                    interrupt = newest
                    continue
            self._steps.pop()
        if interrupt is not None and not isinstance(error, type(interrupt)):
            raise interrupt
        if error is None and first is not None:
            raise first
