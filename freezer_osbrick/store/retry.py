# SPDX-License-Identifier: Apache-2.0
"""Trying again what a store could not do for the moment."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import tenacity

from freezer_osbrick import errors, interruption
from freezer_osbrick.store import base, wrapper

LOG = logging.getLogger(__name__)
T = TypeVar("T")

DEFAULT_PATIENCE = 300.0  # seconds
_SHORTEST_PAUSE = 0.25  # seconds; doubles with each try
_LONGEST_PAUSE = 30.0


class RetryingStore(wrapper.StoreWrapper):
    """Repeats calls that ended with a ``Retriable`` error, until the patience is over.

    The pauses double, with jitter, so that many agents do not come back all at once to a store that
    recovers. The last error is the one that the caller sees.
    """

    def __init__(
        self,
        inner: base.Store,
        patience: float = DEFAULT_PATIENCE,
        *,
        sleep: Callable[[float], None] = interruption.pause,
    ) -> None:
        """:param patience: seconds for one call, pauses included, after which it is not begun
        again."""
        super().__init__(inner)
        self.patience = patience
        self._sleep = sleep

    def put(self, name: str, parts: Iterable[base.Buffer], *, replace: bool = False) -> int:
        parts = _repeatable(parts)
        tries = 0

        def attempt() -> int:
            nonlocal tries
            tries += 1
            try:
                return self.inner.put(name, parts, replace=replace)
            except errors.ObjectExists:
                # An earlier try may have done its work and only its answer was lost.
                if tries == 1 or not self._holds(name, parts):
                    raise
                return sum(memoryview(part).nbytes for part in parts)

        return self._patiently(f"put {name}", attempt)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return self._patiently(f"get {name}", lambda: self.inner.get(name, offset, length))

    def stat(self, name: str) -> base.ObjectInfo:
        return self._patiently(f"look at {name}", lambda: self.inner.stat(name))

    def list(self, prefix: str) -> Iterator[base.ObjectInfo]:
        return self.list_after(prefix, "")

    def list_after(self, prefix: str, after: str) -> Iterator[base.ObjectInfo]:
        return self._list(base.check_prefix(prefix), after)

    def _list(self, prefix: str, after: str) -> Iterator[base.ObjectInfo]:
        """A listing that breaks off goes on where it was, or, without an order, is begun anew and
        what was seen is left out.

        The patience counts from the last object seen: a long listing makes progress.
        """
        ordered = self.inner.capabilities.ordered_listing
        seen: set[str] = set()  # stays empty where there is an order
        last = after
        listing: Iterator[base.ObjectInfo] | None = None

        def next_unseen() -> base.ObjectInfo | None:
            nonlocal listing
            try:
                if listing is None:
                    listing = self.inner.list_after(prefix, last if ordered else after)
                return next((info for info in listing if info.name not in seen), None)
            except errors.OsbrickError:
                listing = None
                raise

        while (info := self._patiently(f"list {prefix or 'all'}", next_unseen)) is not None:
            last = info.name
            if not ordered:
                seen.add(info.name)
            yield info

    def delete(self, name: str) -> None:
        self._patiently(f"delete {name}", lambda: self.inner.delete(name))

    def sweep(self, older_than: float = 86400.0) -> Sequence[str]:
        return self._patiently("sweep", lambda: self.inner.sweep(older_than))

    def now(self) -> float:
        return self._patiently("ask for the time", self.inner.now)

    def _patiently(self, what: str, call: Callable[[], T]) -> T:
        return patiently(call, f"{what} at {self.url}", self.patience, sleep=self._sleep)

    def _holds(self, name: str, parts: Iterable[base.Buffer]) -> bool:
        """Whether the object of that name is what these parts make."""
        wanted = base.joined(parts)
        with contextlib.suppress(errors.ObjectMissing):
            return self.inner.stat(name).size == len(wanted) and self.inner.get(name) == wanted
        return False


def patiently(
    call: Callable[[], T],
    what: str,
    patience: float,
    *,
    sleep: Callable[[float], None] = interruption.pause,
) -> T:
    """Call until it ends without a ``Retriable`` error, or the patience is over.

    :param what: is called, for the log.
    :param patience: seconds.
    """

    def say(state: tenacity.RetryCallState) -> None:
        assert state.outcome is not None and state.next_action is not None
        LOG.warning(
            "Could not %s: %s Trying again in %.1f s.",
            what,
            state.outcome.exception(),
            state.next_action.sleep,
        )

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_worth_waiting),
        wait=tenacity.wait_exponential(_SHORTEST_PAUSE, max=_LONGEST_PAUSE)
        + tenacity.wait_random(0, _SHORTEST_PAUSE),
        stop=tenacity.stop_after_delay(patience),
        sleep=sleep,
        before_sleep=say,
        reraise=True,
    )(call)


def _is_worth_waiting(error: BaseException) -> bool:
    """A run that is to end does not wait for a store to come back."""
    return isinstance(error, errors.Retriable) and not interruption.requested()


def _repeatable(parts: Iterable[base.Buffer]) -> Iterable[base.Buffer]:
    """The parts as something that can be gone through more than once."""
    # What is its own iterator is used up after once, and may reuse its buffer between two parts.
    return [base.joined(parts)] if iter(parts) is parts else parts
