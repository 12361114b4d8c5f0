# SPDX-License-Identifier: Apache-2.0
"""Freezer's backup levels. Here a level is only a number: every backup is complete by itself."""

from __future__ import annotations

import dataclasses

from freezer_osbrick.repository.catalogue import Backup

_DAY = 86400


@dataclasses.dataclass(frozen=True)
class Levels:
    """When a full backup is due, in the words of freezer-agent's options.

    :param incremental: without it each backup is a full one.
    :param max_level: a full backup follows one of this level.
    :param always_level: levels grow to this one and stay there.
    :param restart_always_level: with ``always_level``: days after which a full backup is due.
    """

    incremental: bool = False
    max_level: int | None = None
    always_level: int | None = None
    restart_always_level: float | None = None

    def next(self, history: list[Backup], now: float) -> int:
        """The level of the next backup; 0 is a full one.

        :param history: the volume's backups of this name and host, oldest first.
        :param now: seconds since the epoch.
        """
        if not self.incremental or not history:
            return 0
        newest = history[-1]
        if self.max_level and newest.level >= self.max_level:
            return 0
        if self.always_level:
            if newest.level > self.always_level or self._restart_is_due(history, now):
                return 0
            return min(newest.level + 1, self.always_level)
        return newest.level + 1

    def _restart_is_due(self, history: list[Backup], now: float) -> bool:
        if not self.restart_always_level:
            return False
        fulls = [backup.time for backup in history if backup.level == 0]
        began = fulls[-1] if fulls else history[0].time
        return now - began > self.restart_always_level * _DAY
