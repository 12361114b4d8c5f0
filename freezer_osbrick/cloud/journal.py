# SPDX-License-Identifier: Apache-2.0
"""The journal of one run: what it was about to do, and did, line by line.

A line is a JSON object with ``time``, ``step`` and what belongs to the step:

=====================  ========================================================================
``start``              ``purpose``, ``host``, ``process``
``creating``           ``resource`` (volume or snapshot), ``token``, ``project_id``
``created``            ``resource``, ``token``, ``id``, ``project_id``
``abandoned``          ``token``: Cinder refused to create it
``removed``            ``resource``, ``id``
``finished``           ``id``: the volume is the user's now
``borrowing``          ``volume_id``, ``project_id``: a volume of the user's
``returned``           ``volume_id``: it carries no tags of ours any more
``releasing``          ``volume_id``, ``server``: how its server has it, which is to give it back
``reattached``         ``volume_id``: its server has it again
``attaching``          ``volume_id``, ``project_id``
``attached``           ``volume_id``, ``attachment_id``, ``project_id``
``unattached``         ``volume_id``: Cinder refused the attachment
``connecting``         ``attachment_id``, ``connection_info``, ``multipath``
``connected``          ``attachment_id``, ``device_info``
``disconnected``       ``attachment_id``
``detached``           ``attachment_id``
=====================  ========================================================================
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterable
from typing import Any


@dataclasses.dataclass
class Attachment:
    """An attachment that was made and is not known to be gone.

    :ivar connection_info: present from before the host connects until it has let go.
    :ivar multipath: whether it connects over several paths; None where that is not known.
    """

    id: str
    volume_id: str
    project_id: str
    connection_info: dict[str, Any] | None = None
    device_info: dict[str, Any] | None = None
    multipath: bool | None = None


@dataclasses.dataclass(frozen=True)
class Resource:
    """A volume or a snapshot that was made and is not known to be gone."""

    kind: str
    id: str
    project_id: str


class Outstanding:
    """What a run still has, by its journal."""

    def __init__(self, entries: Iterable[dict[str, Any]] = ()) -> None:
        self.purpose = ""
        self.host = ""
        self.creating: dict[str, Resource] = {}  # by token; without an id
        self.resources: dict[str, Resource] = {}
        self.attaching: dict[str, str] = {}  # volume id: project id
        self.attachments: dict[str, Attachment] = {}
        self.borrowed: dict[str, str] = {}  # volume id: project id
        self.released: dict[str, dict[str, Any]] = {}  # volume id: how its server had it
        for entry in entries:
            self.apply(entry)

    def __bool__(self) -> bool:
        return bool(
            self.creating
            or self.resources
            or self.attaching
            or self.attachments
            or self.borrowed
            or self.released
        )

    def apply(self, entry: dict[str, Any]) -> None:
        """Take one line of the journal into account.

        Steps of later versions are ignored, and so are damaged lines: what they would have told is
        found by its tags.
        """
        handler = getattr(self, "_on_" + str(entry.get("step")), None)
        if handler is not None:
            with contextlib.suppress(KeyError):
                handler(entry)

    def _on_start(self, entry: dict[str, Any]) -> None:
        self.purpose = entry.get("purpose", "")
        self.host = entry.get("host", "")

    def _on_creating(self, entry: dict[str, Any]) -> None:
        self.creating[entry["token"]] = Resource(entry["resource"], "", entry["project_id"])

    def _on_created(self, entry: dict[str, Any]) -> None:
        self.creating.pop(entry["token"], None)
        self.resources[entry["id"]] = Resource(entry["resource"], entry["id"], entry["project_id"])

    def _on_abandoned(self, entry: dict[str, Any]) -> None:
        self.creating.pop(entry["token"], None)

    def _on_removed(self, entry: dict[str, Any]) -> None:
        self.resources.pop(entry["id"], None)

    _on_finished = _on_removed

    def _on_borrowing(self, entry: dict[str, Any]) -> None:
        self.borrowed[entry["volume_id"]] = entry["project_id"]

    def _on_returned(self, entry: dict[str, Any]) -> None:
        self.borrowed.pop(entry["volume_id"], None)

    def _on_releasing(self, entry: dict[str, Any]) -> None:
        self.released[entry["volume_id"]] = entry["server"]

    def _on_reattached(self, entry: dict[str, Any]) -> None:
        self.released.pop(entry["volume_id"], None)

    def _on_attaching(self, entry: dict[str, Any]) -> None:
        self.attaching[entry["volume_id"]] = entry["project_id"]

    def _on_attached(self, entry: dict[str, Any]) -> None:
        self.attaching.pop(entry["volume_id"], None)
        self.attachments[entry["attachment_id"]] = Attachment(
            entry["attachment_id"], entry["volume_id"], entry["project_id"]
        )

    def _on_unattached(self, entry: dict[str, Any]) -> None:
        self.attaching.pop(entry["volume_id"], None)

    def _on_connecting(self, entry: dict[str, Any]) -> None:
        attachment = self.attachments[entry["attachment_id"]]
        attachment.connection_info = entry["connection_info"]
        attachment.multipath = entry.get("multipath")

    def _on_connected(self, entry: dict[str, Any]) -> None:
        self.attachments[entry["attachment_id"]].device_info = entry["device_info"]

    def _on_disconnected(self, entry: dict[str, Any]) -> None:
        attachment = self.attachments[entry["attachment_id"]]
        attachment.connection_info = attachment.device_info = None

    def _on_detached(self, entry: dict[str, Any]) -> None:
        self.attachments.pop(entry["attachment_id"], None)


def encode(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry, separators=(",", ":"), default=str).encode() + b"\n"


def decode(data: bytes) -> list[dict[str, Any]]:
    """The whole lines of a journal. A last line that a crash cut short was never acted on."""
    entries = []
    for line in data.split(b"\n"):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            entries.append(entry)
    return entries
