# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading

import pytest

from freezer_osbrick import interruption
from freezer_osbrick.cloud.volumes import VolumeRecord
from freezer_osbrick.operations import parallel
from freezer_osbrick.operations.families import Families
from freezer_osbrick.operations.planning import Plan
from freezer_osbrick.operations.report import RunReport


def record(volume_id, **fields):
    return VolumeRecord(volume_id, "", "", 1, "available", **{"project_id": "p", **fields})


class Repository:
    """Knows who has stored what of which family, and how many stored at once."""

    def __init__(self):
        self.stored = []
        self.built_upon_nothing = []
        self.lock = threading.Lock()

    def plan(self):
        with self.lock:
            return Plan(0, self.stored[-1] if self.stored else None, first=True)

    def store(self, volume_id, plan):
        threading.Event().wait(0.01)
        with self.lock:
            if plan.parent is None:
                self.built_upon_nothing.append(volume_id)
            self.stored.append(volume_id)


def run(records, repository, fail=()):
    families = Families()
    by_id = {made.id: made for made in records}

    def one(volume):
        with families.turn(by_id[volume.volume_id], repository.plan) as plan:
            if volume.volume_id in fail and plan.parent is None:
                raise ValueError("the first one fails")
            repository.store(volume.volume_id, plan)

    return parallel.each(RunReport.of(by_id), one, parallel=len(records))


@pytest.mark.parametrize(
    "records",
    [
        [record(f"v{number}", image_id="i") for number in range(8)],
        [record(f"v{number}", source_volume_id="s") for number in range(8)],
        [record("s"), *(record(f"v{number}", source_volume_id="s") for number in range(7))],
    ],
    ids=["one image", "one source", "the source too"],
)
def test_one_goes_first_and_the_others_build_upon_it(records):
    repository = Repository()
    assert run(records, repository).ok
    assert len(repository.built_upon_nothing) == 1
    assert len(repository.stored) == 8


def test_strangers_do_not_wait():
    """Each stores only when all others do."""
    together = threading.Barrier(3)
    families = Families()
    records = {
        "a": record("a", image_id="i"),
        "b": record("b", image_id="i", project_id="q"),
        "c": record("c"),
    }

    def one(volume):
        with families.turn(records[volume.volume_id], lambda: Plan(0, None, first=True)):
            together.wait()

    assert parallel.each(RunReport.of(records), one, parallel=3).ok


def test_who_has_a_backup_already_does_not_wait():
    families = Families()
    kin = record("a", image_id="i"), record("b", image_id="i")
    with families.turn(kin[0], lambda: Plan(0, None, first=True)):
        with families.turn(kin[1], lambda: Plan(1, "parent")) as plan:
            assert plan.parent == "parent"


def test_when_the_first_one_fails_another_takes_its_place():
    repository = Repository()
    records = [record(f"v{number}", image_id="i") for number in range(5)]
    outcome = run(records, repository, fail=("v0", "v1", "v2"))
    failed = [volume.volume_id for volume in outcome.volumes if volume.state == "error"]
    assert len(repository.stored) == 5 - len(failed)
    assert len(repository.built_upon_nothing) == 1


def test_the_waiting_ends_with_the_run():
    families = Families()
    kin = record("a", image_id="i"), record("b", image_id="i")
    with families.turn(kin[0], lambda: Plan(0, None, first=True)):
        interruption.request()
        try:
            with interruption.enlisted(), pytest.raises(interruption.Interrupted):
                with families.turn(kin[1], lambda: Plan(0, None, first=True)):
                    pytest.fail("it did not wait")
        finally:
            interruption.settle()
