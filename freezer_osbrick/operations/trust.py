# SPDX-License-Identifier: Apache-2.0
"""Letting a storage's change hints count again for volumes of which they were found wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from freezer_osbrick.cloud import kept
from freezer_osbrick.operations.context import Context


@dataclasses.dataclass(frozen=True)
class Trusted:
    """
    :param found_wrong_by: the backup that had found the hints wrong; None where none had.
    """

    volume_id: str
    found_wrong_by: str | None

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def trust(context: Context, volume_ids: Sequence[str]) -> list[Trusted]:
    """Let change hints count again.

    :raises errors.ResourceMissing: there is no such volume; those before it are done.
    """
    return [Trusted(volume_id, kept.trust(context.cloud, volume_id)) for volume_id in volume_ids]
