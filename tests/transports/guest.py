# SPDX-License-Identifier: Apache-2.0
"""The storage guest as tests use it."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from tests.transports.machine import Machine

GIB = 1 << 30
USER = "freezer"  # who is not root
ROW = "transport"  # the property that a test records what it measured as


@dataclasses.dataclass
class Done:
    """A run of freezer-osbrick that ended.

    :ivar seen: seconds since its start, by what was seen then: steps of its journal, ``opened``
        and ``closed`` of the device, ``ended``.
    """

    status: int
    stdout: str
    stderr: str
    device: str
    seen: dict[str, float]
    entries: list[dict[str, Any]]

    @property
    def record(self) -> dict[str, Any]:
        """What it told of its one volume; it succeeded."""
        assert self.status == 0, self.stderr + self.stdout
        (row,) = json.loads(self.stdout)
        return dict(row)

    @property
    def error(self) -> str:
        """What it told of its failure: words for people and no traceback."""
        assert self.status > 0, self.stdout
        told = self.stdout + self.stderr
        assert "Traceback" not in told, told
        return told


class Guest:
    """Volumes, runs and faults in a machine."""

    def __init__(self, machine: Machine) -> None:
        self.call = machine.call
        self.console = machine.console
        self.volumes: list[str] = []

    # -- volumes

    def volume(self, kind: str, seed: int) -> str:
        """A volume of 1 GiB of that type whose content a seed tells."""
        volume_id = self.call("volumes.create", kind, seed)
        self.volumes.append(volume_id)
        return str(volume_id)

    def marked_volume(self, kind: str, mark: str) -> str:
        """A volume of 1 GiB that begins with nothing but a mark."""
        volume_id = self.call("volumes.create_marked", kind, mark)
        self.volumes.append(volume_id)
        return str(volume_id)

    def holds(self, volume_id: str, seed: int) -> bool:
        """Whether all its bytes are those of the seed."""
        return bool(self.call("volumes.holds", volume_id, seed))

    def drop(self, volume_id: str) -> None:
        """Delete a volume."""
        self.call("volumes.delete", volume_id)
        self.volumes.remove(volume_id)

    # -- runs

    def command(self, *words: str, **how: Any) -> Done:
        """A run of freezer-osbrick, from its start to its end."""
        return Done(**self.call("runs.call", list(words), **how))

    def backup(self, volume_id: str, *words: str, **how: Any) -> Done:
        """A backup."""
        return self.command(*backup_words(volume_id), *words, **how)

    def restore(self, volume_id: str, *words: str, **how: Any) -> Done:
        """A restore."""
        return self.command(
            "restore", volume_id, "--repository", "nightly", "-f", "json", *words, **how
        )

    def start(self, *words: str, **how: Any) -> int:
        """Start a run; its number is for ``until``, ``send`` and ``finish``."""
        return int(self.call("runs.start", list(words), **how))

    def until(self, number: int, **what: Any) -> None:
        """Wait for a step of the journal, or for bytes that have moved; the run must live then."""
        assert self.call("runs.until", number, **what), self.finish(number)

    def send(self, number: int, signal: str) -> None:
        """Send it a signal."""
        self.call("runs.send", number, signal)

    def finish(self, number: int) -> Done:
        """Wait for its end."""
        return Done(**self.call("runs.finish", number))

    def leftovers(self) -> dict[str, list[str]]:
        """What is there beside the users' volumes; empty if there is nothing."""
        return dict(self.call("remains.all_of", self.volumes))


def backup_words(volume_id: str) -> list[str]:
    """The command of a backup."""
    return ["backup", volume_id, "--repository", "nightly", "-f", "json"]
