# SPDX-License-Identifier: Apache-2.0
"""What has to be changed so that all of Cinder lives in one process on sqlite.

Upstream expects a process a service, RabbitMQ between them, and MariaDB below.
"""

from __future__ import annotations

import contextlib
import io
import sqlite3
import subprocess
import threading
import time
import types
from collections.abc import Iterator
from typing import Any

from cinder import service
from cinder.objects import cleanable
from cinder.volume import volume_utils
from cinder.volume.targets import lio
from oslo_concurrency import processutils
from oslo_messaging._drivers import impl_fake
from sqlalchemy import event
from sqlalchemy.engine import Engine

_LONGEST_SLEEP = 2.0  # seconds; a reader that is told to stop has to look for that


def tune_sqlite() -> None:
    """Let concurrent writers wait for each other.

    WAL and a long timeout are not enough: two transactions that began by reading and then want to
    write fail at once with "database is locked", so every transaction begins as a writer.
    """

    kept: dict[str, sqlite3.Connection] = {}

    @event.listens_for(Engine, "connect")
    def connect(connection: Any, _record: Any) -> None:
        if "sqlite" in type(connection).__module__:
            connection.execute("PRAGMA busy_timeout=60000")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=OFF")  # a test's cloud need not survive power
            keep_open(connection.execute("PRAGMA database_list").fetchone()[2])

    def keep_open(path: str) -> None:
        """oslo.db closes a connection after each use, and the last one to be closed writes the log
        into the database: one that is never used and never closed spares that."""
        if path and path not in kept:
            kept[path] = sqlite3.connect(path, check_same_thread=False)
            kept[path].execute("SELECT count(*) FROM sqlite_master").fetchone()

    @event.listens_for(Engine, "begin", insert=True)
    def begin(connection: Any) -> None:
        # oslo.db has a hook of its own that would send a plain BEGIN; this mark tells it not to
        if connection.dialect.name == "sqlite" and "in_transaction" not in connection.info:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            connection.info["in_transaction"] = True


def wake_fake_rpc() -> None:
    """Wake the readers of the in-process RPC driver at each message: it polls every 50 ms, which
    keeps a slow processor busy with some dozens of readers and nothing to read."""
    arrived = threading.Condition()
    messages = 0
    mine = threading.local()

    class WakingTime:
        """Stands for the module ``time`` inside the driver."""

        time = staticmethod(time.time)

        @staticmethod
        def sleep(_seconds: float) -> None:
            with arrived:
                # A message since the last look: it may have come after this reader looked.
                if getattr(mine, "seen", None) == messages:
                    arrived.wait(_LONGEST_SLEEP)
                mine.seen = messages

    deliver = impl_fake.FakeExchange.deliver_message

    def deliver_and_wake(self: Any, *args: Any, **kwargs: Any) -> None:
        nonlocal messages
        deliver(self, *args, **kwargs)
        with arrived:
            messages += 1
            arrived.notify_all()

    impl_fake.time = WakingTime
    impl_fake.FakeExchange.deliver_message = deliver_and_wake


def start_commands_without_a_copy() -> None:
    """Let commands be started by vfork: oslo asks for a call between fork and exec, for which all
    of Cinder's memory gets copied on write. What it calls there Python does by itself."""

    def start(command: Any, *, preexec_fn: Any, **how: Any) -> Any:
        asked = preexec_fn if any(preexec_fn.args) else None
        return subprocess.Popen(command, preexec_fn=asked, **how)

    processutils.subprocess = types.SimpleNamespace(  # type: ignore[assignment]
        PIPE=subprocess.PIPE, TimeoutExpired=subprocess.TimeoutExpired, Popen=start
    )


def run_rtstool_here() -> None:
    """Let the LIO helper call ``cinder-rtstool`` and not start it: nine times an attachment it
    would wait for a Python that imports Cinder."""
    lock = threading.Lock()

    def call(*command: Any, **_how: Any) -> tuple[str, str]:
        from cinder.cmd import rtstool  # it wants the system's libudev

        told = io.StringIO()
        words = [str(word) for word in command]
        with lock:
            try:
                with contextlib.redirect_stdout(told):
                    status = rtstool.main(words)
            except (Exception, SystemExit) as error:
                raise processutils.ProcessExecutionError(
                    told.getvalue(), str(error), 1, " ".join(words)
                ) from error
        if status:
            raise processutils.ProcessExecutionError(told.getvalue(), "", status, " ".join(words))
        return told.getvalue(), ""

    lio.LioAdm._execute = staticmethod(call)


_id_lock = threading.RLock()
_id_by_host: dict[str, int] = {}


@contextlib.contextmanager
def _acting_as(service_id: int) -> Iterator[None]:
    with _id_lock:
        kept = service.Service.service_id
        service.Service.service_id = service_id
        try:
            yield
        finally:
            service.Service.service_id = kept


class Service(service.Service):
    """A service among several: Cinder keeps "my service id" in a class attribute."""

    def start(self) -> None:
        with _id_lock:
            super().start()
            _id_by_host[self.host] = self.origin_service_id

    def report_state(self) -> None:
        with _acting_as(self.origin_service_id):
            super().report_state()


def book_work_by_host() -> None:
    """Note unfinished work under the service that owns the resource, for recovery at a start."""
    set_worker = cleanable.CinderCleanableObject.set_worker

    def set_worker_of_host(self: Any) -> Any:
        host = volume_utils.extract_host(getattr(self, "host", None) or "", "backend")
        with _acting_as(_id_by_host.get(host, service.Service.service_id)):
            return set_worker(self)

    cleanable.CinderCleanableObject.set_worker = set_worker_of_host
