# SPDX-License-Identifier: Apache-2.0
"""Waiting for Cinder: with a deadline that grows with the volume, and an end at error states."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any

from freezer_osbrick import errors, interruption
from freezer_osbrick.cloud.clients import Cloud

_FIRST_PAUSE = 0.05
_GROWTH = 1.5
_REST = 4  # times the last answer: where it takes long, asking keeps Cinder from its work


class Pauses:
    """Pauses between looks up to a deadline: growing, and longer where an answer takes long.

    :param size_gib: of the volume that is worked on.
    """

    def __init__(self, cloud: Cloud, size_gib: int) -> None:
        group = cloud.conf.cloud
        self.seconds = group.timeout + group.timeout_per_gib * size_gib
        self._deadline = time.monotonic() + self.seconds
        self._longest = group.poll_interval
        self._next = _FIRST_PAUSE
        self._woken = time.monotonic()

    def sleep(self) -> bool:
        """Pause; False when the deadline has passed."""
        now = time.monotonic()
        left = self._deadline - now
        if left <= 0:
            return False
        pause = min(max(self._next, _REST * (now - self._woken)), self._longest)
        interruption.sleep(min(pause, left))
        self._woken = time.monotonic()
        self._next = min(self._next * _GROWTH, self._longest)
        return True


def wait_for(
    cloud: Cloud,
    what: str,
    get: Callable[[str], Any],
    resource_id: str,
    *,
    wanted: Collection[str],
    passing: Collection[str],
    size_gib: int,
) -> Any:
    """Wait until a resource has one of the wanted states.

    :param what: the resource, for people: "the snapshot 5cc1".
    :param passing: states that it may have on the way; any other one ends the waiting.
    :returns: the resource.
    :raises errors.ResourceFailed: it went to another state; the message says what Cinder said.
    :raises errors.CloudTimeout: it did not get there before the deadline.
    """
    pauses = Pauses(cloud, size_gib)
    while True:
        interruption.check()
        resource = cloud.call(f"look at {what}", get, resource_id)
        if resource.status in wanted:
            return resource
        if resource.status not in passing:
            raise errors.ResourceFailed(
                f"Cinder left {what} in state {resource.status!r}{_reason(cloud, resource_id)}."
            )
        if not pauses.sleep():
            raise errors.CloudTimeout(
                f"Cinder left {what} in state {resource.status!r} for {pauses.seconds} seconds"
                f"{_reason(cloud, resource_id)}."
            )


def wait_gone(
    cloud: Cloud, what: str, get: Callable[[str], Any], resource_id: str, *, size_gib: int
) -> None:
    """Wait until a resource whose deletion was accepted is there no more.

    :raises errors.ResourceFailed: the deletion failed; the message says what Cinder said.
    :raises errors.CloudTimeout: it is still being deleted at the deadline.
    """
    try:
        wait_for(
            cloud,
            what,
            get,
            resource_id,
            wanted=(),
            # A group's snapshot is "deleted" for a moment before it is gone.
            passing=("deleting", "deleted", "error_managing_deleting"),
            size_gib=size_gib,
        )
    except errors.ResourceMissing:
        return


def _reason(cloud: Cloud, resource_id: str) -> str:
    said = cloud.messages(resource_id)
    return f": {said}" if said else ""
