# SPDX-License-Identifier: Apache-2.0
"""The metadata by which a snapshot or a volume in Cinder is known to be ours."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

PREFIX = "freezer_osbrick"
RUN = PREFIX + "_run"
PURPOSE = PREFIX + "_purpose"
HOST = PREFIX + "_host"
LEDGER = PREFIX + "_ledger"
EXPIRES = PREFIX + "_expires"
TOKEN = PREFIX + "_token"

# The same on everything of ours: what Cinder can filter by.
MARK = {PREFIX: "temporary"}
# On a volume of the user's that a run works on directly. Such a volume is given back, and never
# removed.
BORROWED = {PREFIX: "borrowed"}
# On a snapshot that stays when its run is over, so that the next backup can ask what has changed
# since.
KEPT = {PREFIX: "kept"}
# On a volume of the user's whose storage was caught saying of changed blocks that they had not: the
# backup that found out.
DISTRUSTED = PREFIX + "_hints_wrong"
# On a volume whose restore in place was broken off: the backup that was being restored.
INCOMPLETE = PREFIX + "_incomplete"

_TEXT = "v1"
_TEXT_KEYS = (RUN, LEDGER, TOKEN, EXPIRES, PURPOSE, HOST)

# Cinder shows these two of its own among a user's metadata.
_CINDERS_OWN = {"readonly", "attached_mode"}


@dataclasses.dataclass(frozen=True)
class Tags:
    """Who made a resource, for what, and until when it may be assumed to be in use.

    :ivar run: the run's id.
    :ivar host: the name of the host that it ran on.
    :ivar ledger: the id of the ledger there: a host may have several, one for each user.
    :ivar expires: seconds of the epoch; renewed while the run lives.
    :ivar token: unique to each resource.
    """

    run: str
    purpose: str
    host: str
    ledger: str
    expires: int
    token: str

    def to_metadata(self, mark: Mapping[str, str] = MARK) -> dict[str, str]:
        return {
            **mark,
            RUN: self.run,
            PURPOSE: self.purpose,
            HOST: self.host,
            LEDGER: self.ledger,
            EXPIRES: str(self.expires),
            TOKEN: self.token,
        }

    @classmethod
    def of(cls, metadata: Mapping[str, str] | None, mark: Mapping[str, str] = MARK) -> Tags | None:
        """The tags in a resource's metadata; None unless all of them are there and make sense."""
        metadata = metadata or {}
        if not mark.items() <= metadata.items():
            return None
        try:
            return cls(
                metadata[RUN],
                metadata[PURPOSE],
                metadata[HOST],
                metadata[LEDGER],
                int(metadata[EXPIRES]),
                metadata[TOKEN],
            )
        except (KeyError, ValueError):
            return None


def users_own(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """A volume's metadata without our tags and without what Cinder adds."""
    return {
        key: value
        for key, value in (metadata or {}).items()
        if not key.startswith(PREFIX) and key not in _CINDERS_OWN
    }


def is_ours(metadata: Mapping[str, str] | None) -> bool:
    """Whether a resource is one that we made for a while."""
    return (metadata or {}).get(PREFIX) == MARK[PREFIX]


def to_text(metadata: Mapping[str, str]) -> str:
    """The tags in words, for the description of what has no metadata: at most 255 characters."""
    return " ".join((PREFIX, _TEXT, *(metadata[key] for key in _TEXT_KEYS)))[:255]


def from_text(text: str | None) -> dict[str, str]:
    """The metadata that ``to_text`` was given; empty where the text is another."""
    prefix, _, rest = (text or "").partition(f"{PREFIX} {_TEXT} ")
    values = rest.split(" ", len(_TEXT_KEYS) - 1)
    if prefix or len(values) != len(_TEXT_KEYS):
        return {}
    metadata = {**MARK, **dict(zip(_TEXT_KEYS, values, strict=True))}
    return metadata if Tags.of(metadata) else {}
