# SPDX-License-Identifier: Apache-2.0
"""Volumes of one run that were made from the same image, snapshot or volume.

Backed up for the first time side by side, each would find no backup to build upon and store
everything. So one of them goes first, and the others build upon its backup.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Hashable, Iterator

from freezer_osbrick import interruption
from freezer_osbrick.cloud.volumes import VolumeRecord
from freezer_osbrick.operations.planning import Plan


class Families:
    """Who of which family is storing its first backup now. Shared by the volumes of a run."""

    def __init__(self) -> None:
        self._storing: dict[Hashable, threading.Event] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def turn(self, record: VolumeRecord, plan: Callable[[], Plan]) -> Iterator[Plan]:
        """The volume's plan, made when no relative is about to store what it could build upon.

        :param plan: asked again after each wait. The block that follows stores by the last answer.
        :raises interruption.Interrupted: the run is to end.
        """
        chosen = plan()
        names = _names(record)
        if not chosen.first or chosen.parent or not names:
            yield chosen
            return
        done = threading.Event()
        while (other := self._enter(names, done)) is not None:
            interruption.wait(other)
        try:
            yield plan()  # the relative that was waited for, or went just before, may be there now
        finally:
            self._leave(names, done)

    def _enter(self, names: list[Hashable], done: threading.Event) -> threading.Event | None:
        """Take the family's turn; or what tells when somebody else's is over."""
        with self._lock:
            for name in names:
                if name in self._storing:
                    return self._storing[name]
            self._storing.update(dict.fromkeys(names, done))
            return None

    def _leave(self, names: list[Hashable], done: threading.Event) -> None:
        with self._lock:
            for name in names:
                del self._storing[name]
        done.set()


def _names(record: VolumeRecord) -> list[Hashable]:
    """What a volume may have in common with others of its project."""
    project = record.project_id
    names: list[Hashable] = [(project, "volume", record.id)]
    if record.image_id:
        names.append((project, "image", record.image_id))
    if record.snapshot_id:
        names.append((project, "snapshot", record.snapshot_id))
    if record.source_volume_id:
        names.append((project, "volume", record.source_volume_id))
    return names
