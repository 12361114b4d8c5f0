# SPDX-License-Identifier: Apache-2.0
"""What was found damaged is never built upon again."""

from __future__ import annotations

from freezer_osbrick.repository import verifications
from freezer_osbrick.repository.verifications import Verification
from tests.unit.care.conftest import CHUNK, DAY, volume_backup
from tests.unit.fakes import MemoryDevice


def planned(shelf, context):
    device = MemoryDevice(b"")
    backup, record, report = volume_backup(context, shelf.repository, "v1", device)
    return backup._plan(record, int(shelf.store.now())), report


def test_damaged_backups_are_no_parents(shelf, context) -> None:
    now = shelf.store.clock
    made = [shelf.backup(b"x" * CHUNK, time=now - (3 - day) * DAY) for day in range(3)]
    damage = Verification(made[2], now, 0.1, ((0, 4096),), 4096, "It is damaged.")
    plan, report = planned(shelf, context)
    assert plan.parent.id == made[2] and not report.notes
    verifications.add(shelf.repository, damage)
    plan, report = planned(shelf, context)
    assert plan.parent.id == made[1] and made[2] in report.notes[0]
    verifications.add(shelf.repository, Verification(made[2], now + 1, 1.0))
    assert planned(shelf, context)[0].parent.id == made[2]


def test_where_all_are_damaged_a_full_backup_is_made(shelf, context) -> None:
    backup_id = shelf.backup(b"x" * CHUNK)
    verifications.add(shelf.repository, Verification(backup_id, 1.0, 1.0, (), 0, "Damaged."))
    plan, report = planned(shelf, context)
    assert (plan.level, plan.parent) == (0, None)
    assert backup_id in report.notes[0]
