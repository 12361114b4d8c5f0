# SPDX-License-Identifier: Apache-2.0
"""Backups killed at random moments, over each transport; then one cleanup."""

from __future__ import annotations

import random

import pytest

from tests.transports.guest import Guest, backup_words

_SEED = 2088


@pytest.mark.parametrize("kind", ["iscsi", "nvme", "fc"])
def test_one_cleanup_after_many_kills(guest: Guest, pytestconfig: pytest.Config, kind: str) -> None:
    kills = pytestconfig.getoption("--kills")
    if not kills:
        pytest.skip("takes long; --kills says how many")
    volume_id = guest.volume(kind, _SEED)
    whole = guest.backup(volume_id)  # how long it takes, and one backup to be kept
    assert whole.record["state"] == "success"
    moments = random.Random(f"{_SEED} {kind}")
    killed = 0
    for place in range(kills):
        number = guest.start(*backup_words(volume_id), multipath=place % 2 == 1)
        moment = moments.uniform(0, whole.seen["ended"] - whole.seen["start"])
        if guest.call("runs.after", number, moment):
            guest.send(number, "KILL")
        killed += guest.finish(number).status == -9
    left = guest.leftovers()
    cleanup = guest.command("cleanup", "-f", "json")
    before = {what: len(of) for what, of in left.items()}
    print(f"{kind}: {killed} killed; before the cleanup: {before}")
    assert killed, "none was killed in time"
    assert cleanup.status == 0, cleanup.stdout + cleanup.stderr
    assert guest.leftovers() == {}
    guest.drop(volume_id)
    restored_id = guest.restore(volume_id).record["restored_volume_id"]
    guest.volumes.append(restored_id)
    assert guest.holds(restored_id, _SEED)
    guest.drop(restored_id)
