# SPDX-License-Identifier: Apache-2.0
"""Several volumes at a time, each in a thread of its own."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures

from oslo_log import log

from freezer_osbrick import errors, interruption
from freezer_osbrick.operations import memory, report
from freezer_osbrick.operations.report import RunReport, VolumeReport
from freezer_osbrick.pipeline.progress import Listener, ProgressEvent

LOG = log.getLogger(__name__)

# What is promised that one volume needs at the most, in bytes.
VOLUME_MEMORY = 512 << 20

_LOOK = 0.2  # seconds

WAITING = "waiting"  # phases that only a run as a whole knows
ENDED = "ended"


def each(
    run: RunReport,
    one: Callable[[VolumeReport], None],
    *,
    parallel: int,
    listener: Listener | None = None,
) -> RunReport:
    """Do the same with every volume that is waiting in the report, several at a time.

    One that fails does not keep the others from it. After an interruption (Ctrl-C, a signal) those
    that wait are not begun, and the others end at their next step, taking down what they set up;
    then the interruption goes on to the caller.

    :param parallel: how many at a time, where memory suffices for them.
    :param one: works on a volume and tells in its report.
    """
    work = _Work(run, one, listener or _nobody)
    most = within_memory(min(parallel, len(work.waiting)))
    executor = futures.ThreadPoolExecutor(max(1, most), thread_name_prefix="volume")
    started: list[futures.Future[None]] = []
    try:
        work.prepare()
        for volume in work.waiting:
            started.append(executor.submit(work.do, volume))
        work.begin.set()
        _wait(started)
    except BaseException:
        interruption.request()
        for future in started:
            future.cancel()
        _wait(started)
        executor.shutdown()
        interruption.settle()
        work.give_up()
        raise
    finally:
        executor.shutdown()
    return run


def within_memory(wanted: int) -> int:
    """How many of so many volumes fit into the memory that is there; at least one."""
    available = memory.available()
    if available is None:
        return wanted
    fitting = max(1, available // VOLUME_MEMORY)
    if fitting < wanted:
        LOG.warning(
            "%d volumes at a time instead of %d: %d MiB of memory are available, and each may need "
            "%d MiB.",
            fitting,
            wanted,
            available >> 20,
            VOLUME_MEMORY >> 20,
        )
    return min(wanted, fitting)


class _Work:
    """The volumes of a run, and what is told of them."""

    def __init__(
        self, run: RunReport, one: Callable[[VolumeReport], None], listener: Listener
    ) -> None:
        self.waiting = [volume for volume in run.volumes if volume.state == report.WAITING]
        self._run = run
        self._one = one
        self._listener = listener
        self._keeping = threading.Lock()
        # Nothing is begun before all are handed over: a signal may come in between.
        self.begin = threading.Event()

    def prepare(self) -> None:
        self._keep()
        for volume in self.waiting:
            self._listener(ProgressEvent(volume.volume_id, WAITING))

    def do(self, volume: VolumeReport) -> None:
        """Work on one volume; whatever becomes of it stands in its report."""
        with interruption.enlisted(), _told(volume):
            interruption.wait(self.begin)
            interruption.check()
            self._one(volume)
        self._keep()
        self._listener(ProgressEvent(volume.volume_id, ENDED))

    def give_up(self) -> None:
        """Those that were not begun are not going to be."""
        for volume in self.waiting:
            if volume.state == report.WAITING:
                volume.state = report.INTERRUPTED
                volume.reason = "The run was ended before its turn."
        self._keep()
        done = sum(volume.state == report.SUCCESS for volume in self.waiting)
        LOG.warning("Ended with %d of %d volumes done.", done, len(self.waiting))

    def _keep(self) -> None:
        with self._keeping:
            self._run.keep()


@contextlib.contextmanager
def _told(volume: VolumeReport) -> Iterator[None]:
    """Put time, success and failure into the volume's report."""
    began = time.monotonic()
    try:
        yield
        if volume.state == report.WAITING:
            volume.state = report.SUCCESS
    except interruption.Interrupted:
        volume.state = report.INTERRUPTED
        volume.reason = "The run was ended before the volume was done."
    except errors.OsbrickError as error:
        volume.state = report.ERROR
        volume.reason = str(error)
        LOG.error("Volume %s: %s", volume.volume_id, volume.reason)
    except Exception as error:  # a fault in this program must not end the other volumes
        volume.state = report.ERROR
        volume.reason = f"Unexpected {type(error).__name__}: {error}"
        LOG.error("Volume %s: %s", volume.volume_id, volume.reason)
        LOG.debug("Volume %s", volume.volume_id, exc_info=True)
    finally:
        volume.seconds = round(time.monotonic() - began, 3)


def _wait(started: list[futures.Future[None]]) -> None:
    """Wait for all, awake often enough for signals that another thread was given."""
    while futures.wait(started, timeout=_LOOK).not_done:
        pass


def _nobody(_event: ProgressEvent) -> None:
    """Listens where nobody does."""
