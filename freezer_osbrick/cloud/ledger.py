# SPDX-License-Identifier: Apache-2.0
"""The ledger of this host: a journal for each run, written before and after each step.

A run that lives holds a lock on its journal, so that a journal whose lock can be had belongs to a
dead one, however it died. A run that leaves nothing behind removes its journal.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from oslo_log import log as logging

from freezer_osbrick import errors
from freezer_osbrick.cloud import journal, scratch
from freezer_osbrick.cloud.tags import EXPIRES, Tags

LOG = logging.getLogger(__name__)

_SUFFIX = ".journal"
_SCRATCH = ".scratch"
_UNNAMED = ".new"

Renew = Callable[[Mapping[str, str]], object]


class Ledger:
    """The journals in one folder.

    :param folder: where they lie; made with mode 0700, as they hold secrets of connections.
    :param host: this host's name.
    :param lease: seconds that what a run has made stays its own without being renewed.
    """

    def __init__(self, folder: str, host: str, *, lease: float = 3600) -> None:
        self.folder = folder
        self.host = host
        self.lease = lease
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            self.id = self._read_id()
        except OSError as error:
            raise errors.ConfigurationError(
                f"The ledger {folder} cannot be used: {error.strerror}."
            ) from error

    def start(self, purpose: str) -> Run:
        """Begin a run.

        :param purpose: a word for people: backup or restore.
        """
        run_id = uuid.uuid4().hex
        path = os.path.join(self.folder, run_id + _SUFFIX)
        # It gets its name only when it is locked: nobody sees a journal of a living run unlocked.
        unnamed = os.path.join(self.folder, run_id + _UNNAMED)
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
        try:
            descriptor = os.open(unnamed, flags, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            run = Run(self, run_id, purpose, path, descriptor)
            os.rename(unnamed, path)
            _sync_folder(self.folder)
        except OSError as error:
            raise errors.OsbrickError(
                f"The ledger {self.folder} cannot be written: {error.strerror}."
            ) from error
        return run

    def is_alive(self, run_id: str) -> bool:
        """Whether a run of this ledger lives; one without a journal does not."""
        dead = self.adopt(run_id)
        if dead is None:
            return os.path.exists(self._path(run_id))
        dead.release()
        return False

    def runs(self) -> list[str]:
        """The ids of all runs with a journal, living or dead."""
        names = sorted(os.listdir(self.folder))
        return [name[: -len(_SUFFIX)] for name in names if name.endswith(_SUFFIX)]

    def adopt(self, run_id: str) -> DeadRun | None:
        """Take over a dead run, to clean up after it; None if it lives or has no journal."""
        path = self._path(run_id)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
        if not os.path.exists(path):  # its run ended well just now
            os.close(descriptor)
            return None
        return DeadRun(self, run_id, path, descriptor)

    def sweep(self) -> list[str]:
        """Remove what crashes left in the folder itself; returns the paths."""
        swept = []
        for name in sorted(os.listdir(self.folder)):
            path = os.path.join(self.folder, name)
            run_id, suffix = os.path.splitext(name)
            if suffix == _SCRATCH and not os.path.exists(self._path(run_id)):
                scratch.clear(path)
                swept.append(path)
            elif suffix == _UNNAMED and _is_unlocked(path):
                os.unlink(path)
                swept.append(path)
        return swept

    def _path(self, run_id: str) -> str:
        # The id may come from a tag in Cinder, which any user can write.
        return os.path.join(self.folder, os.path.basename(run_id) + _SUFFIX)

    def _read_id(self) -> str:
        path = os.path.join(self.folder, "id")
        try:
            with open(path, encoding="ascii") as file:
                return file.read().strip()
        except FileNotFoundError:
            pass
        proposal = f"{path}.{uuid.uuid4().hex}"
        with open(proposal, "w", encoding="ascii") as file:
            file.write(uuid.uuid4().hex)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(proposal, path)  # of several processes one wins
        except FileExistsError:
            pass
        finally:
            os.unlink(proposal)
        _sync_folder(self.folder)
        with open(path, encoding="ascii") as file:
            return file.read().strip()


class _Journal:
    """An open, locked journal and what it says is outstanding."""

    def __init__(self, ledger: Ledger, run_id: str, path: str, descriptor: int) -> None:
        self.id = run_id
        self.ledger = ledger
        self.outstanding = journal.Outstanding()
        self._path = path
        self._descriptor = descriptor
        self._writing = threading.Lock()

    @property
    def scratch_path(self) -> str:
        return self._path[: -len(_SUFFIX)] + _SCRATCH

    def record(self, step: str, **facts: Any) -> None:
        """Write one line, durable before this returns; see ``journal`` for the steps."""
        entry = {"time": time.time(), "step": step, **facts}
        data = journal.encode(entry)
        with self._writing:
            # One write to a file opened for appending: whole, or cut at the end by a crash.
            if os.write(self._descriptor, data) != len(data):
                raise errors.OsbrickError(f"The journal {self._path} could not be written.")
            os.fsync(self._descriptor)
            self.outstanding.apply(entry)

    def release(self) -> None:
        """Let go of the journal; it stays."""
        os.close(self._descriptor)

    def remove(self) -> None:
        """Remove the journal and the scratch folder: nothing is outstanding."""
        scratch.clear(self.scratch_path)
        os.unlink(self._path)
        os.close(self._descriptor)


class DeadRun(_Journal):
    """A run whose process is gone, taken over for cleaning up."""

    def __init__(self, ledger: Ledger, run_id: str, path: str, descriptor: int) -> None:
        super().__init__(ledger, run_id, path, descriptor)
        data = b""
        while part := os.pread(descriptor, 1 << 20, len(data)):
            data += part
        self.outstanding = journal.Outstanding(journal.decode(data))
        if data and not data.endswith(b"\n"):
            os.write(descriptor, b"\n")  # what we add must not join a line that was cut


class Run(_Journal):
    """A run that lives. As a context manager it ends with its block; its journal goes with it
    unless something is outstanding.
    """

    def __init__(
        self, ledger: Ledger, run_id: str, purpose: str, path: str, descriptor: int
    ) -> None:
        super().__init__(ledger, run_id, path, descriptor)
        self.purpose = purpose
        #: Resources whose request had to be repeated, with their tokens: each may have a twin.
        self.doubtful: dict[str, str] = {}
        self._held: dict[str, Renew] = {}
        self._holding = threading.Lock()
        self._ended = threading.Event()
        self._heart: threading.Thread | None = None
        self.record("start", purpose=purpose, host=ledger.host, process=os.getpid())

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()

    def end(self) -> None:
        """The run is over. What is outstanding is for ``cleanup`` to remove."""
        if self._ended.is_set():
            return
        self._ended.set()
        if self._heart is not None:
            self._heart.join()
        if self.outstanding:
            LOG.warning(
                "Run %s leaves something behind; 'freezer-osbrick cleanup' removes it.", self.id
            )
            self.release()
            return
        try:
            self.remove()
        except errors.OsbrickError:
            self.release()
            raise

    def scratch(self) -> str:
        """A folder for this run's temporary files, made when asked for, removed at the end."""
        os.makedirs(self.scratch_path, mode=0o700, exist_ok=True)
        return self.scratch_path

    def new_tags(self) -> Tags:
        """Tags for one more resource, with a token of its own."""
        return Tags(
            run=self.id,
            purpose=self.purpose,
            host=self.ledger.host,
            ledger=self.ledger.id,
            expires=self._expiry(),
            token=uuid.uuid4().hex,
        )

    def hold(self, resource_id: str, renew: Renew) -> None:
        """Renew a resource's expiry until it is released, a quarter of the lease apart.

        :param renew: given the metadata to set on the resource.
        """
        with self._holding:
            self._held[resource_id] = renew
            if self._heart is None:
                self._heart = threading.Thread(
                    target=self._beat, name=f"lease of run {self.id}", daemon=True
                )
                self._heart.start()

    def let_go(self, resource_id: str) -> None:
        """Renew it no more. When this returns, no renewal is under way either."""
        with self._holding:
            self._held.pop(resource_id, None)

    def _expiry(self) -> int:
        return int(time.time() + self.ledger.lease)

    def _beat(self) -> None:
        while not self._ended.wait(self.ledger.lease / 4):
            with self._holding:
                for resource_id, renew in list(self._held.items()):
                    if self._ended.is_set():
                        return
                    try:
                        renew({EXPIRES: str(self._expiry())})
                    except Exception as error:
                        # A later beat renews it: the lease is four of them long.
                        LOG.warning("The lease of %s was not renewed: %s", resource_id, error)


def _is_unlocked(path: str) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # Made just now, it may be about to be locked.
        old = time.time() - os.fstat(descriptor).st_mtime > 60
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return old
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
