# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable

import pytest

from freezer_osbrick import errors
from freezer_osbrick.cloud.unwinding import Unwinding


def step(log: list[str], name: str, failure: Exception | None = None) -> Callable[[], None]:
    def run() -> None:
        log.append(name)
        if failure:
            raise failure

    return run


def test_in_the_reverse_order() -> None:
    log: list[str] = []
    with Unwinding() as unwinding:
        unwinding.push(step(log, "first"))
        unwinding.push(step(log, "second"))
        log.append("body")
    assert log == ["body", "second", "first"]


def test_the_body_fails_first() -> None:
    log: list[str] = []
    with pytest.raises(errors.DeviceError) as caught, Unwinding() as unwinding:
        unwinding.push(step(log, "first", errors.Leftovers("volume v1 stays.")))
        unwinding.push(step(log, "second"))
        raise errors.DeviceError("broken.")
    assert log == ["second", "first"]
    assert str(caught.value) == "broken. Also: volume v1 stays."


def test_the_first_of_several_steps_is_raised_and_the_others_run() -> None:
    log: list[str] = []
    with pytest.raises(errors.DeviceError) as caught, Unwinding() as unwinding:
        unwinding.push(step(log, "first", errors.Leftovers("snapshot stays.")))
        unwinding.push(step(log, "second", ValueError("oops")))
        unwinding.push(step(log, "third", errors.DeviceError("flush failed.")))
    assert log == ["third", "second", "first"]
    assert str(caught.value) == "flush failed. Also: oops Also: snapshot stays."


def test_an_interrupt_while_unwinding_ends_nothing_early() -> None:
    log: list[str] = []
    interrupts = [KeyboardInterrupt("first")]

    def interrupted() -> None:
        log.append("second")
        if interrupts:
            raise interrupts.pop()

    with pytest.raises(KeyboardInterrupt, match="first"), Unwinding() as unwinding:
        unwinding.push(step(log, "first"))
        unwinding.push(interrupted)
        unwinding.push(step(log, "third", ValueError("oops")))
    assert log == ["third", "second", "second", "first"]


def test_an_interrupt_outranks_an_error() -> None:
    interrupts = [KeyboardInterrupt("later")]

    def interrupted() -> None:
        if interrupts:
            raise interrupts.pop()

    with pytest.raises(KeyboardInterrupt, match="later"), Unwinding() as unwinding:
        unwinding.push(interrupted)
        raise ZeroDivisionError
    with pytest.raises(KeyboardInterrupt, match="body"), Unwinding() as unwinding:
        interrupts.append(KeyboardInterrupt("later"))
        unwinding.push(interrupted)
        raise KeyboardInterrupt("body")


def test_an_interrupt_unwinds_too() -> None:
    log: list[str] = []
    with pytest.raises(KeyboardInterrupt), Unwinding() as unwinding:
        unwinding.push(step(log, "first", ValueError("oops")))
        raise KeyboardInterrupt
    assert log == ["first"]
