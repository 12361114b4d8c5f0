# SPDX-License-Identifier: Apache-2.0
"""Stages of a backup by themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from freezer_osbrick.cloud.clients import Cloud
from freezer_osbrick.cloud.ledger import Run
from freezer_osbrick.cloud.staging import clone_of, snapshot_of
from freezer_osbrick.cloud.volumes import VolumeRecord


@contextlib.contextmanager
def frozen_clone(cloud: Cloud, run: Run, record: VolumeRecord) -> Iterator[str]:
    """The id of a volume with what the user's one held at one instant: made from a snapshot. Both
    are gone at the end."""
    with (
        snapshot_of(cloud, run, record, purpose="backup") as frozen,
        clone_of(cloud, run, record, frozen.snapshot, purpose="backup") as clone_id,
    ):
        yield clone_id
