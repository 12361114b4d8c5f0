# SPDX-License-Identifier: Apache-2.0
"""Progress bars on a terminal: one a volume, with rate and time left."""

from __future__ import annotations

import argparse
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol, TextIO

from freezer_osbrick.commands import columns

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Event(Protocol):
    """What operations tell of a volume under way."""

    @property
    def volume_id(self) -> str: ...

    @property
    def phase(self) -> str: ...

    @property
    def done_bytes(self) -> int: ...

    @property
    def total_bytes(self) -> int: ...


Listener = Callable[[Event], None]


def wanted(parsed_args: argparse.Namespace, verbose_level: int, stream: TextIO) -> bool:
    """Bars are for a person who watches: a terminal, a table as result, and no ``-q``."""
    return verbose_level > 0 and columns.for_people(parsed_args) and stream.isatty()


@contextlib.contextmanager
def bars(stream: TextIO) -> Iterator[Listener]:
    """Draw bars on a terminal while open; yields what operations call with each event."""
    from rich import progress
    from rich.console import Console

    drawing = progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.DownloadColumn(binary_units=True),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
        console=Console(file=stream),
        redirect_stdout=False,  # the result goes there
    )
    with drawing:
        yield VolumeBars(drawing).show


class VolumeBars:
    """One bar a volume, started afresh with each phase, so that its rate is that phase's."""

    def __init__(self, drawing: Progress) -> None:
        self._drawing = drawing
        self._lock = threading.Lock()
        self._tasks: dict[str, tuple[TaskID, str]] = {}

    def show(self, event: Event) -> None:
        """Draw one event; called from the threads of several volumes."""
        task = self._task(event)
        # Without a total rich lets the bar pulse: the steps in the cloud have no length.
        self._drawing.update(task, completed=event.done_bytes, total=event.total_bytes or None)

    def _task(self, event: Event) -> TaskID:
        label = f"{event.volume_id[:8]} {event.phase}"
        with self._lock:
            task, phase = self._tasks.get(event.volume_id, (None, ""))
            if task is None:
                task = self._drawing.add_task(label, total=None)
            elif phase != event.phase:
                self._drawing.reset(task, total=event.total_bytes or None, description=label)
            self._tasks[event.volume_id] = (task, event.phase)
            return task
