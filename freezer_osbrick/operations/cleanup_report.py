# SPDX-License-Identifier: Apache-2.0
"""What a cleanup tells of everything that it met."""

from __future__ import annotations

import dataclasses
from typing import Any

REMOVED = "removed"
WOULD_REMOVE = "would remove"
RETURNED = "returned"
WOULD_RETURN = "would return"
KEPT = "kept"
FAILED = "failed"


@dataclasses.dataclass(frozen=True)
class CleanupItem:
    """One thing that was met.

    :ivar state: removed, would remove, returned, would return, kept or failed. What is returned is
        a volume of the user's.
    :ivar kind: volume, snapshot, group snapshot, attachment or files.
    :ivar reason: why it was kept, or could not be removed; of a volume returned, how it is.
    """

    state: str
    kind: str
    id: str
    run: str
    host: str
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class CleanupReport:
    """Everything that was met, in the order of removal."""

    items: list[CleanupItem]

    def _in_state(self, *states: str) -> list[CleanupItem]:
        return [item for item in self.items if item.state in states]

    @property
    def removed(self) -> list[CleanupItem]:
        """What is gone; of a dry run, what would be."""
        return self._in_state(REMOVED, WOULD_REMOVE)

    @property
    def returned(self) -> list[CleanupItem]:
        """The user's volumes that were given back; of a dry run, those that would be."""
        return self._in_state(RETURNED, WOULD_RETURN)

    @property
    def kept(self) -> list[CleanupItem]:
        return self._in_state(KEPT)

    @property
    def failed(self) -> list[CleanupItem]:
        return self._in_state(FAILED)

    @property
    def ok(self) -> bool:
        return not self.failed

    def to_dict(self) -> dict[str, Any]:
        return {"items": [item.to_dict() for item in self.items]}
