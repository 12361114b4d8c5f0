# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time
import types
from typing import Any

import pytest

from freezer_osbrick import errors
from freezer_osbrick.cloud import waiting
from tests.unit.cloud.fake_cinder import FakeCloud, Resource


def wait(cloud: FakeCloud, states: list[str], size_gib: int = 1) -> Any:
    """The last state stays."""

    def get(identifier: str) -> Resource:
        return Resource(id=identifier, status=states.pop(0) if len(states) > 1 else states[0])

    return waiting.wait_for(
        cloud,
        "the volume v1",
        get,
        "v1",
        wanted=("available",),
        passing=("creating",),
        size_gib=size_gib,
    )


def test_pauses_grow_up_to_the_interval(cloud: FakeCloud, sleeps: list[float]) -> None:
    cloud.conf.set_override("poll_interval", 2.0, "cloud")
    assert wait(cloud, ["creating"] * 20 + ["available"]).status == "available"
    assert sleeps[0] == 0.05
    assert sleeps == sorted(sleeps)
    assert sleeps[-1] == 2.0


def test_a_slow_cinder_is_asked_less_often(cloud: FakeCloud, sleeps: list[float]) -> None:
    cloud.conf.set_override("poll_interval", 3.0, "cloud")
    answers = [0.5, 0.5, 5.0, 0.0]
    pauses = waiting.Pauses(cloud, 1)
    for answer in answers:
        time.sleep(answer)
        assert pauses.sleep()
    assert sleeps[1::2] == [2.0, 2.0, 3.0, pytest.approx(0.05 * 1.5**3)]


@pytest.mark.parametrize(("size_gib", "seconds"), [(1, 103), (0, 100), (1000, 3100)])
def test_the_deadline_grows_with_the_volume(
    cloud: FakeCloud, sleeps: list[float], size_gib: int, seconds: int
) -> None:
    for option, value in (("timeout", 100), ("timeout_per_gib", 3), ("poll_interval", 10.0)):
        cloud.conf.set_override(option, value, "cloud")
    with pytest.raises(errors.CloudTimeout, match=f"'creating' for {seconds} seconds"):
        wait(cloud, ["creating"], size_gib)
    assert sum(sleeps) == pytest.approx(seconds)


def test_an_error_state_ends_it_and_cinder_is_quoted(cloud: FakeCloud, sleeps: list[float]) -> None:
    cloud.cinder.said = [types.SimpleNamespace(user_message="no valid backend was found")]
    with pytest.raises(errors.ResourceFailed, match="v1 in state 'error': no valid backend"):
        wait(cloud, ["creating", "error"])


def test_a_state_that_nobody_expects_ends_it(cloud: FakeCloud, sleeps: list[float]) -> None:
    with pytest.raises(errors.ResourceFailed, match="'awaiting-transfer'"):
        wait(cloud, ["creating", "awaiting-transfer", "available"])


def test_gone(cloud: FakeCloud, sleeps: list[float]) -> None:
    volume = cloud.volume()
    manager = cloud.cinder.volumes
    looks = iter(["deleting", "deleting"])

    def get(identifier: str) -> Resource:
        status = next(looks, None)
        if status is None:
            del manager.all[identifier]
            return manager.get(identifier)
        return Resource(id=identifier, status=status)

    waiting.wait_gone(cloud, "the volume", get, volume.id, size_gib=1)
    assert volume.id not in manager.all


@pytest.mark.parametrize("status", ["error_deleting", "available"])
def test_a_deletion_that_came_to_nothing(
    cloud: FakeCloud, sleeps: list[float], status: str
) -> None:
    volume = cloud.volume()
    cloud.cinder.volumes.all[volume.id].status = status
    with pytest.raises(errors.ResourceFailed, match=status):
        waiting.wait_gone(cloud, "the volume", cloud.cinder.volumes.get, volume.id, size_gib=1)
