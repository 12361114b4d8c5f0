# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

from freezer_osbrick.agent import record
from freezer_osbrick.operations.report import RunReport, VolumeReport


def test_the_failure_of_several_volumes_names_each_that_failed() -> None:
    report = RunReport(
        [
            VolumeReport("v1"),
            VolumeReport("v2", state="error", reason="It is gone."),
            VolumeReport("v3", state="error", reason="The quota is used up."),
        ]
    )
    assert str(record.failure(report)) == (
        "2 of 3 volumes failed: v2: It is gone.; v3: The quota is used up."
    )


def test_volume_entries_are_a_dict_for_programs_and_lines_for_people() -> None:
    volumes = [
        VolumeReport("v1", backup_id="b1", level=0).to_dict(),
        VolumeReport("v2", backup_id="b2", level=2, restored_volume_id="v9").to_dict(),
    ]
    entries = record.VolumeEntries(volumes=volumes)
    assert json.loads(json.dumps(entries)) == {"volumes": volumes}
    assert str(entries) == ("v1, backup b1, level 0\nv2, backup b2, level 2, restored to v9")
