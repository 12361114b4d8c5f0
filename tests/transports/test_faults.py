# SPDX-License-Identifier: Apache-2.0
"""Storage that goes away or changes under a backup: success over another path or a clear failure,
never the bytes of another volume, and nothing left behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.transports.guest import Guest, backup_words

MIB = 1 << 20
_SEED = 4711
_ANOTHER = ("it is not the volume any more", "another volume has taken the place of")


@pytest.fixture(scope="module")
def iscsi_volume(guest: Guest) -> Iterator[str]:
    volume_id = guest.volume("iscsi", _SEED)
    yield volume_id
    guest.drop(volume_id)


@pytest.fixture(scope="module")
def other_volume(guest: Guest) -> Iterator[str]:
    volume_id = guest.marked_volume("iscsi", "another tenant's secret ")
    yield volume_id
    guest.drop(volume_id)


@pytest.fixture(autouse=True)
def _all_is_well_afterwards(guest: Guest) -> Iterator[None]:
    yield
    guest.call("faults.mend")
    guest.call("faults.forget_swap")


def backups(guest: Guest, volume_id: str) -> list[str]:
    done = guest.command(
        "list", "--volume", volume_id, "--repository", "nightly", "-f", "value", "-c", "backup_id"
    )
    if "There is no repository" in done.stderr:  # none of the tests before was run
        return []
    assert done.status == 0, done.stderr
    return done.stdout.split()


def test_target_killed_in_mid_read(guest: Guest, iscsi_volume: str) -> None:
    before = backups(guest, iscsi_volume)
    number = guest.start(*backup_words(iscsi_volume))
    guest.until(number, moved=100 * MIB)
    guest.call("faults.kill_iscsi_targets")
    assert "could not be read" in guest.finish(number).error
    assert guest.leftovers() == {}
    assert backups(guest, iscsi_volume) == before


def test_target_that_comes_back(guest: Guest, iscsi_volume: str) -> None:
    number = guest.start(*backup_words(iscsi_volume))
    guest.until(number, moved=100 * MIB)
    guest.call("faults.kill_iscsi_targets")
    guest.call("faults.revive_iscsi_targets")
    assert guest.finish(number).record["state"] == "success"
    assert guest.leftovers() == {}


def test_session_dropped_in_mid_read(guest: Guest, iscsi_volume: str) -> None:
    before = backups(guest, iscsi_volume)
    number = guest.start(*backup_words(iscsi_volume))
    guest.until(number, moved=100 * MIB)
    guest.call("faults.drop_sessions")
    told = guest.finish(number).error  # before or after the kernel has taken the disk away
    assert "could not be read" in told or "was cut short" in told, told
    assert guest.leftovers() == {}
    assert backups(guest, iscsi_volume) == before


@pytest.mark.parametrize("moment", [{"step": "connected"}, {"moved": 100 * MIB}])
def test_lun_is_another_volume_now(
    guest: Guest, iscsi_volume: str, other_volume: str, moment: dict[str, object]
) -> None:
    """CVE-2023-2088, by hand."""
    before = backups(guest, iscsi_volume)
    number = guest.start(*backup_words(iscsi_volume))
    guest.until(number, **moment)
    guest.send(number, "STOP")
    guest.call("faults.swap_iscsi_lun", other_volume)
    guest.send(number, "CONT")
    told = guest.finish(number).error  # before the first proof or after it: one is at the opening
    assert any(words in told for words in _ANOTHER), told
    assert guest.leftovers() == {}
    assert backups(guest, iscsi_volume) == before
