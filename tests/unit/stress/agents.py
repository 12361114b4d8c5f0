# SPDX-License-Identifier: Apache-2.0
"""Agents that work with one repository at the same time, one call to the store after the other.

Each agent is a thread whose calls wait until the test lets them pass, so that the test decides who
goes on, who is killed in the middle, and what time it is meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from freezer_osbrick.repository.leases import Lease
from freezer_osbrick.store import base
from tests.unit.fakes import MemoryStore


class Died(BaseException):
    """The agent was killed: none of its calls reaches the store any more."""


class SharedStore(MemoryStore):
    """What all agents see.

    :ivar clock: seconds since the epoch, as the store has it: it may be set.
    :ivar elapsed: seconds that have truly passed.
    :ivar lag: true seconds after which listings show what was put or deleted.
    """

    def __init__(self, lag: float) -> None:
        super().__init__()
        self.clock = 1_800_000_000.0
        self.elapsed = 0.0
        self.lag = lag
        self.capabilities = base.Capabilities(True, True, True, True, consistent_listing=not lag)
        self._changes: list[tuple[float, str, base.ObjectInfo | None]] = []

    def now(self) -> float:
        return self.clock

    def put(self, name: str, parts: Iterable[base.Buffer], *, replace: bool = False) -> int:
        before = self._info(name)
        size = super().put(name, parts, replace=replace)
        self._changes.append((self.elapsed, name, before))
        return size

    def delete(self, name: str) -> None:
        before = self._info(name)
        super().delete(name)
        self._changes.append((self.elapsed, name, before))

    def _list(self, prefix: str) -> Iterator[base.ObjectInfo]:
        shown = {name: self._info(name) for name in self.objects}
        while self._changes and self.elapsed - self._changes[0][0] >= self.lag:
            self._changes.pop(0)
        for _, name, before in reversed(self._changes):
            shown[name] = before
        for name in sorted(shown):
            info = shown[name]
            if info is not None and name.startswith(prefix):
                yield info

    def _info(self, name: str) -> base.ObjectInfo | None:
        if name not in self.objects:
            return None
        return base.ObjectInfo(name, len(self.objects[name]), self.modified[name])


class Gate(base.Store):
    """A store around the shared one, for one agent: calls wait until one of them may pass."""

    def __init__(self, inner: base.Store, watch: Callable[[str, str], None]) -> None:
        """:param watch: is told the verb and the name of every call that was made."""
        self.inner = inner
        self.url = inner.url
        self.capabilities = inner.capabilities
        self._watch = watch
        self._changed = threading.Condition()
        self._waiting: list[tuple[str, str, int]] = []
        self._passing: tuple[str, str, int] | None = None
        self._numbers = 0
        self._open = False
        self._dead = False
        self._ended = False

    def put(self, name: str, parts: Iterable[base.Buffer], *, replace: bool = False) -> int:
        return self._pass("put", name, lambda: self.inner.put(name, parts, replace=replace))

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return self._pass("get", name, lambda: self.inner.get(name, offset, length))

    def stat(self, name: str) -> base.ObjectInfo:
        return self._pass("stat", name, lambda: self.inner.stat(name))

    def list(self, prefix: str) -> Iterator[base.ObjectInfo]:
        return self._pass("list", prefix, lambda: iter(list(self.inner.list(prefix))))

    def delete(self, name: str) -> None:
        self._pass("delete", name, lambda: self.inner.delete(name))

    def now(self) -> float:
        return self._pass("now", "", self.inner.now)

    def _pass(self, verb: str, name: str, call: Callable[[], Any]) -> Any:
        with self._changed:
            self._numbers += 1
            ticket = (verb, name, self._numbers)
            self._waiting.append(ticket)
            self._changed.notify_all()
            while not (self._open or self._dead or self._passing == ticket):
                self._changed.wait()
            self._waiting.remove(ticket)
            try:
                if self._dead:
                    raise Died
                result = call()
                self._watch(verb, name)
                return result
            finally:
                if self._passing == ticket:
                    self._passing = None
                self._changed.notify_all()

    # -- for the test ------------------------------------------------------------------------------

    def let_pass(self) -> bool:
        """Let one call pass; whether there was one before the agent ended."""
        with self._changed:
            while not (self._waiting or self._ended):
                self._changed.wait()
            if not self._waiting:
                return False
            self._passing = min(self._waiting)
            self._changed.notify_all()
            while self._passing:
                self._changed.wait()
            return True

    def let_all_pass(self) -> None:
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def kill(self) -> None:
        with self._changed:
            self._dead = True
            self._changed.notify_all()

    def end(self) -> None:
        """The agent has ended."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()


class Agent:
    """One at work.

    :ivar error: what its work has raised; None where it went well or is under way.
    :ivar result: what its work has returned.
    :ivar lease: that it holds or held last.
    :ivar renewed: when, of the seconds that have truly passed, it renewed that.
    :ivar lost_touch: whether it may have been taken for dead: clocks have jumped, or it slept for
        half a day.
    """

    current = threading.local()

    def __init__(
        self,
        what: str,
        store: SharedStore,
        clock: float,
        task: Callable[[Agent], Any],
        watch: Callable[[Agent, str, str], None],
    ) -> None:
        """:param clock: what its host takes for the time.
        :param watch: is told of every call to the store that was made.
        """
        self.what = what
        self.clock = clock
        self.gate = Gate(store, lambda verb, name: watch(self, verb, name))
        self.error: BaseException | None = None
        self.result: Any = None
        self.lost_touch = False
        self.lease: Lease | None = None
        self.renewed = store.elapsed
        self._task = task
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def advance(self, calls: int) -> None:
        for _ in range(calls):
            if not self.gate.let_pass():
                self._thread.join()
                return

    def finish(self) -> None:
        self.gate.let_all_pass()
        self._thread.join()

    def kill(self) -> None:
        self.gate.kill()
        self._thread.join()

    def renew(self, store: SharedStore) -> bool:
        """Do what a lease's own thread does all the time; whether there was a lease to renew."""
        lease = self.lease
        if lease is None or not lease._thread.is_alive() or lease._renewing.locked():
            return False
        lease._store = store
        lease._renew()
        lease._store = self.gate
        self.renewed = store.elapsed
        return True

    @property
    def ended(self) -> bool:
        return not self._thread.is_alive()

    def _run(self) -> None:
        Agent.current.agent = self
        try:
            self.result = self._task(self)
        except BaseException as error:
            self.error = error
        finally:
            self.gate.end()
