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
    from rich.console import RenderableType
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


# Phases of a volume that is not at work; the others are drawn.
WAITING = "waiting"
ENDED = "ended"

Listener = Callable[[Event], None]


def wanted(parsed_args: argparse.Namespace, verbose_level: int, stream: TextIO) -> bool:
    """Bars are for a person who watches: a terminal, a table as result, and no ``-q``."""
    return verbose_level > 0 and columns.for_people(parsed_args) and stream.isatty()


def shown(
    parsed_args: argparse.Namespace, verbose_level: int, stream: TextIO
) -> contextlib.AbstractContextManager[Listener | None]:
    """Bars where a person watches, nothing elsewhere."""
    if wanted(parsed_args, verbose_level, stream):
        return bars(stream)
    return contextlib.nullcontext()


@contextlib.contextmanager
def bars(stream: TextIO) -> Iterator[Listener]:
    """Draw bars on a terminal while open; yields what operations call with each event."""
    from rich import progress, text
    from rich.console import Console

    class Sized(progress.ProgressColumn):
        """Another column, left empty while there is no size: steps in the cloud have none."""

        def __init__(self, column: progress.ProgressColumn) -> None:
            super().__init__()
            self._column = column

        def render(self, task: progress.Task) -> RenderableType:
            return self._column(task) if task.total else text.Text("")

    drawing = progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        Sized(progress.TaskProgressColumn()),
        Sized(progress.DownloadColumn(binary_units=True)),
        Sized(progress.TransferSpeedColumn()),
        Sized(progress.TimeRemainingColumn()),
        console=Console(file=stream),
        redirect_stdout=False,  # the result goes there
        transient=True,
    )
    with drawing:
        yield VolumeBars(drawing).show


class VolumeBars:
    """One bar a volume at work, a new one with each phase, so that its rate is that phase's; and
    one for all of them together where there are several."""

    def __init__(self, drawing: Progress) -> None:
        self._drawing = drawing
        self._lock = threading.Lock()
        self._tasks: dict[str, tuple[str, TaskID]] = {}
        self._all: TaskID | None = None
        self._volumes: set[str] = set()
        self._ended = 0

    def show(self, event: Event) -> None:
        """Draw one event; called from the threads of several volumes."""
        if event.phase == WAITING:
            with self._lock:
                self._volumes.add(event.volume_id)
        elif event.phase == ENDED:
            self._end(event)
        else:
            self._drawing.update(self._task(event), completed=event.done_bytes)
            self._count()

    def _end(self, event: Event) -> None:
        with self._lock:
            self._ended += 1
            _, task = self._tasks.pop(event.volume_id, (None, None))
            if task is not None:
                self._drawing.remove_task(task)
        self._count()

    def _count(self) -> None:
        """How many are done of how many."""
        with self._lock:
            total = len(self._volumes)
            if total < 2:
                return
            if self._all is None:
                self._all = self._drawing.add_task("", total=None)
            # Volumes and not bytes: without a total, no column takes them for a size.
            told = f"{self._ended} of {total} volumes, {len(self._tasks)} at work"
            self._drawing.update(self._all, description=told)

    def _task(self, event: Event) -> TaskID:
        with self._lock:
            phase, task = self._tasks.get(event.volume_id, (None, None))
            if task is None or phase != event.phase:
                if task is not None:
                    self._drawing.remove_task(task)
                # Without a total the bar pulses.
                task = self._drawing.add_task(
                    f"{event.volume_id[:8]} {event.phase}", total=event.total_bytes or None
                )
                self._tasks[event.volume_id] = (event.phase, task)
            return task
