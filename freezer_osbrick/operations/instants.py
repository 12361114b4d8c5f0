# SPDX-License-Identifier: Apache-2.0
"""Groups that a run freezes at one instant: one group snapshot for all of their volumes."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from freezer_osbrick import errors
from freezer_osbrick.cloud import groups, resources
from freezer_osbrick.cloud.groups import Group
from freezer_osbrick.cloud.ledger import Run
from freezer_osbrick.cloud.unwinding import Unwinding
from freezer_osbrick.cloud.volumes import VolumeRecord
from freezer_osbrick.operations.context import Context


@dataclasses.dataclass(frozen=True)
class Instant:
    """A volume as it was when its group was frozen.

    :param time: seconds since the epoch.
    :param snapshot: of the volume; it goes with the group's.
    """

    time: int
    group_snapshot_id: str
    snapshot: Any


class Instants:
    """The groups of a run; a context manager, at whose end none of their snapshots is left.

    A group is frozen when the first of its volumes is at work, and its snapshot is removed after
    the last. Safe for several threads.
    """

    def __init__(self, context: Context, chosen: list[tuple[Group, list[str]]]) -> None:
        """:param chosen: groups, each with the ids of those of its volumes that are backed up."""
        self._frozen: dict[str, _FrozenGroup] = {}
        self._apart: dict[str, Group] = {}
        for group, volume_ids in chosen:
            if group.consistent is False:
                self._apart.update(dict.fromkeys(volume_ids, group))
            else:
                frozen = _FrozenGroup(context, group, volume_ids)
                self._frozen.update(dict.fromkeys(volume_ids, frozen))

    def __enter__(self) -> Instants:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with Unwinding() as unwinding:
            for frozen in set(self._frozen.values()):
                unwinding.push(frozen.close)

    @contextlib.contextmanager
    def of(self, record: VolumeRecord) -> Iterator[Instant | None]:
        """The volume at its group's instant; None for a volume that is frozen by itself.

        :raises errors.CloudError: the group could not be frozen; so it is for all its volumes.
        """
        frozen = self._frozen.get(record.id)
        if frozen is None:
            yield None
            return
        with Unwinding() as unwinding:
            unwinding.push(functools.partial(frozen.leave, record.id))
            yield frozen.enter(record)

    def note(self, volume_id: str) -> str | None:
        """What the owner of a volume should know of its group."""
        if volume_id in self._apart:
            return (
                f"The type of the group {self._apart[volume_id].id} does not promise one instant: "
                "each volume was frozen by itself."
            )
        frozen = self._frozen.get(volume_id)
        if frozen is not None and frozen.group.consistent is None:
            return (
                f"The group {frozen.group.id} was frozen by one group snapshot. Whether its type "
                "promises one instant, Cinder tells only administrators."
            )
        return None


class _FrozenGroup:
    """One group: not frozen yet, frozen, or given up."""

    def __init__(self, context: Context, group: Group, volume_ids: list[str]) -> None:
        self.group = group
        self._context = context
        self._waited_for = set(volume_ids)
        self._lock = threading.Lock()
        self._run: Run | None = None
        self._id: str | None = None
        self._time = 0
        self._failure: errors.OsbrickError | None = None

    def enter(self, record: VolumeRecord) -> Instant:
        with self._lock:
            if self._failure is not None:
                raise errors.ResourceFailed(str(self._failure)) from self._failure
            if self._id is None:
                self._freeze()
            group_snapshot_id = str(self._id)
        snapshot = groups.member(self._context.cloud, group_snapshot_id, record.id)
        if snapshot.size != record.size_gib:
            raise errors.ResourceFailed(
                f"The volume {record.id} was resized to {record.size_gib} GiB after its group was "
                "frozen: try again."
            )
        return Instant(self._time, group_snapshot_id, snapshot)

    def leave(self, volume_id: str) -> None:
        with self._lock:
            self._waited_for.discard(volume_id)
            if not self._waited_for:
                self._remove()

    def close(self) -> None:
        with self._lock:
            self._remove()

    def _freeze(self) -> None:
        self._run = self._context.ledger.start("backup")
        self._time = int(time.time())
        try:
            self._id = groups.snapshot(
                self._context.cloud, self._run, self.group, purpose="backup", size_gib=0
            )
        except errors.OsbrickError as error:
            self._failure = error
            raise
        finally:
            if self._id is None:
                self._run.end()

    def _remove(self) -> None:
        if self._id is None or self._run is None:
            return
        kind, found, self._id = self.group.kind, self._id, None
        try:
            resources.remove(self._context.cloud, self._run, kind, found, size_gib=0)
        finally:
            self._run.end()
