# SPDX-License-Identifier: Apache-2.0
"""Backups killed at random moments, over all transports; then one cleanup."""

from __future__ import annotations

import random

import pytest

from tests.transports.guest import Guest, backup_words

_KINDS = ("iscsi", "nvme", "fc")
_SEED = 2088


def test_one_cleanup_after_many_kills(guest: Guest, pytestconfig: pytest.Config) -> None:
    volumes = {kind: guest.volume(kind, _SEED) for kind in _KINDS}
    longest = 0.0
    for volume_id in volumes.values():  # how long they take, and one backup to be kept of each
        done = guest.backup(volume_id)
        assert done.record["state"] == "success"
        longest = max(longest, done.seen["ended"] - done.seen["start"])
    moments = random.Random(_SEED)
    killed = 0
    for place in range(pytestconfig.getoption("--kills")):
        kind = _KINDS[place % len(_KINDS)]
        number = guest.start(*backup_words(volumes[kind]), multipath=place % 2 == 0)
        if guest.call("runs.after", number, moments.uniform(0, longest)):
            guest.send(number, "KILL")
        killed += guest.finish(number).status == -9
    left = guest.leftovers()
    cleanup = guest.command("cleanup", "-f", "json")
    print(f"{killed} killed; before the cleanup: { {kind: len(of) for kind, of in left.items()} }")
    assert cleanup.status == 0, cleanup.stdout + cleanup.stderr
    assert guest.leftovers() == {}
    for volume_id in volumes.values():
        guest.drop(volume_id)
        restored_id = guest.restore(volume_id).record["restored_volume_id"]
        guest.volumes.append(restored_id)
        assert guest.holds(restored_id, _SEED)
        guest.drop(restored_id)
