# SPDX-License-Identifier: Apache-2.0
"""Taking back, in the reverse order, what was built up: all of it, whatever fails on the way."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from oslo_log import log as logging

from freezer_osbrick import errors

LOG = logging.getLogger(__name__)


class Unwinding:
    """A context manager that runs the steps pushed to it in the reverse order when it ends.

    The first error is the one that is raised: an error of the body, else the first of the steps.
    The later ones are logged and told with it. A step that fails never keeps the others from
    running.
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
        first = error
        while self._steps:
            step = self._steps.pop()
            try:
                step()
            except Exception as failure:
                if first is None:
                    first = failure
                    continue
                LOG.error("Also, while cleaning up: %s", failure)
                errors.annotate(first, f"Also: {failure}")
        if error is None and first is not None:
            raise first
