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
        """Another column, left empty while there is no size: steps in the cloud have none.

        :param of_bytes: what counts volumes has no size, either.
        """

        def __init__(self, column: progress.ProgressColumn, *, of_bytes: bool) -> None:
            super().__init__()
            self._column = column
            self._of_bytes = of_bytes

        def render(self, task: progress.Task) -> RenderableType:
            if not task.total or (self._of_bytes and not task.fields["of_bytes"]):
                return text.Text("")
            return self._column(task)

    drawing = progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        Sized(progress.TaskProgressColumn(), of_bytes=False),
        Sized(progress.DownloadColumn(binary_units=True), of_bytes=True),
        Sized(progress.TransferSpeedColumn(), of_bytes=True),
        Sized(progress.TimeRemainingColumn(), of_bytes=False),
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
        self._shares: dict[str, float] = {}  # of a volume that are read or written
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
            share = event.done_bytes / event.total_bytes if event.total_bytes else 0.0
            self._count(event.volume_id, share)

    def _end(self, event: Event) -> None:
        with self._lock:
            self._ended += 1
            _, task = self._tasks.pop(event.volume_id, (None, None))
            if task is not None:
                self._drawing.remove_task(task)
        self._count(event.volume_id, 1.0)

    def _count(self, volume_id: str, share: float) -> None:
        """How many are done of how many. Steps without a size leave a volume's share as it is."""
        with self._lock:
            self._shares[volume_id] = max(share, self._shares.get(volume_id, 0.0))
            total = len(self._volumes)
            if total < 2:
                return
            if self._all is None:
                self._all = self._drawing.add_task("", total=total, of_bytes=False)
            self._drawing.update(
                self._all,
                description=f"{self._ended} of {total} volumes, {len(self._tasks)} at work",
                completed=sum(self._shares.values()),
                total=total,
            )

    def _task(self, event: Event) -> TaskID:
        with self._lock:
            phase, task = self._tasks.get(event.volume_id, (None, None))
            if task is None or phase != event.phase:
                if task is not None:
                    self._drawing.remove_task(task)
                # Without a total the bar pulses.
                name = f"{event.volume_id[:8]} {event.phase}"
                total = event.total_bytes or None
                task = self._drawing.add_task(name, total=total, of_bytes=True)
                self._tasks[event.volume_id] = (event.phase, task)
            return task
