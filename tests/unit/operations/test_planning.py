# SPDX-License-Identifier: Apache-2.0
"""What a backup builds upon."""

from __future__ import annotations

from typing import Any

from freezer_osbrick.cloud.volumes import VolumeRecord
from freezer_osbrick.operations.levels import Levels
from freezer_osbrick.operations.planning import Plan, plan
from freezer_osbrick.repository.catalogue import Backup

INCREMENTAL = Levels(incremental=True)
FULL = Levels()


def record(**fields: Any) -> VolumeRecord:
    known = {"id": "v1", "name": "", "description": "", "size_gib": 1, "status": "available"}
    return VolumeRecord(**{**known, "project_id": "p1", **fields})


def backup(number: int, volume: VolumeRecord, name: str = "nightly", level: int = 0) -> Backup:
    head = {"name": name, "hostname": "h", "level": level, "volume": volume.to_dict()}
    return Backup(id=f"b{number}", time=number, size=1 << 30, head=head)


def planned(backups: list[Backup], volume: VolumeRecord, levels: Levels) -> Plan:
    return plan(backups, volume, levels, backup_name="nightly", hostname="h", now=100)


def test_the_first_backup_stores_everything() -> None:
    assert planned([], record(), INCREMENTAL) == Plan(0, None, first=True)


def test_an_incremental_one_builds_on_the_newest_of_the_volume_whatever_its_name() -> None:
    own = [backup(1, record()), backup(2, record(), name="before upgrade")]
    other = backup(3, record(id="v2"))
    assert planned([*own, other], record(), INCREMENTAL) == Plan(1, own[1])


def test_a_new_series_begins_with_a_full_one() -> None:
    assert planned([backup(1, record(), name="other")], record(), INCREMENTAL) == Plan(0, None)


def test_a_full_one_builds_on_nothing() -> None:
    relatives = [backup(1, record(id="v2", image_id="i")), backup(2, record(image_id="i"))]
    assert planned(relatives, record(image_id="i"), FULL) == Plan(0, None)


def test_the_very_first_builds_on_the_newest_relative() -> None:
    relatives = [backup(n, record(id=f"v{n}", image_id="i")) for n in (2, 3)]
    stranger = backup(4, record(id="v4", image_id="other"))
    for levels in (FULL, INCREMENTAL):
        chosen = planned([*relatives, stranger], record(image_id="i"), levels)
        assert chosen == Plan(0, relatives[1], first=True)


def test_a_clone_builds_on_its_source_and_its_siblings() -> None:
    source, sibling = record(id="v2"), record(id="v3", source_volume_id="v2")
    clone = record(source_volume_id="v2")
    for relative in (source, sibling):
        assert planned([backup(1, relative)], clone, FULL).parent == backup(1, relative)


def test_a_source_builds_on_its_clones() -> None:
    clone = backup(1, record(id="v3", source_volume_id=record().id))
    assert planned([clone], record(), FULL).parent == clone


def test_other_projects_are_no_relatives() -> None:
    stranger = backup(1, record(id="v2", image_id="i", project_id="p2"))
    assert planned([stranger], record(image_id="i"), FULL) == Plan(0, None, first=True)


def test_volumes_of_one_snapshot_are_relatives() -> None:
    sibling = backup(1, record(id="v2", snapshot_id="s"))
    assert planned([sibling], record(snapshot_id="s"), FULL) == Plan(0, sibling, first=True)
    for stranger in (record(snapshot_id="other"), record()):
        assert planned([sibling], stranger, FULL) == Plan(0, None, first=True)
