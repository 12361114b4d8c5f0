# SPDX-License-Identifier: Apache-2.0
"""A command that goes on in the background once it is ready."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable

Ready = Callable[[], None]


def run(work: Callable[[Ready], int]) -> int:
    """Do the work in another process; return when it says that it is ready, or has ended.

    Until it is ready it may speak to the terminal; from then on it holds none.

    :param work: is given what it has to call when it is ready; returns its exit status.
    :returns: 0 where it got ready, else its exit status.
    """
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        os.close(reading)
        _be_child(work, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        if pipe.read(1):
            return 0
    _, status = os.waitpid(child, 0)
    return abs(os.waitstatus_to_exitcode(status))


def _be_child(work: Callable[[Ready], int], writing: int) -> None:
    status = 70
    try:
        os.setsid()
        status = work(lambda: _let_go(writing))
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _let_go(writing: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    os.close(nothing)
    os.chdir("/")
    os.write(writing, b"1")
    os.close(writing)
