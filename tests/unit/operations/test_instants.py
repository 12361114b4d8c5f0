# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading
import types

import pytest

from freezer_osbrick import errors
from freezer_osbrick.cloud import groups, tags
from freezer_osbrick.cloud.groups import Group
from freezer_osbrick.cloud.ledger import Ledger
from freezer_osbrick.cloud.volumes import capture
from freezer_osbrick.operations import parallel
from freezer_osbrick.operations.instants import Instants
from freezer_osbrick.operations.report import RunReport
from tests.unit.cloud.fake_cinder import FakeCloud, server_error


class Scene:
    def __init__(self, folder, legacy=False, consistent=True):
        self.cloud = FakeCloud(api_retries=0)
        self.ledger = Ledger(str(folder), "here")
        self.ids = [self.cloud.volume(group_id="g").id for _ in range(3)]
        self.group = Group("g", "database", legacy, consistent)
        self.manager = getattr(self.cloud.cinder, self.group.kind.manager_name)
        self.seen = {}

    def run(self, one=None, worked_on=None):
        context = types.SimpleNamespace(cloud=self.cloud, ledger=self.ledger)

        def work(volume):
            record = capture(self.cloud, volume.volume_id)
            with instants.of(record) as instant:
                self.seen[volume.volume_id] = instant
                if one:
                    one(volume)

        with Instants(context, [(self.group, self.ids)]) as instants:
            return parallel.each(RunReport.of(worked_on or self.ids), work, parallel=3)

    @property
    def nothing_left(self):
        cinder = self.cloud.cinder
        return not (self.manager.all or cinder.volume_snapshots.all or self.ledger.runs())


@pytest.mark.parametrize("legacy", [False, True])
def test_one_snapshot_for_all(tmp_path, legacy):
    scene = Scene(tmp_path, legacy)
    together = threading.Barrier(3)
    assert scene.run(lambda volume: together.wait()).ok
    assert len({instant.group_snapshot_id for instant in scene.seen.values()}) == 1
    assert len({instant.time for instant in scene.seen.values()}) == 1
    for volume_id, instant in scene.seen.items():
        assert instant.snapshot.volume_id == volume_id
    assert [verb for verb, kind, _ in scene.cloud.cinder.log if kind == "group snapshot"] == [
        "create",
        "delete",
    ]
    assert scene.nothing_left


def test_members_that_are_never_begun_do_not_keep_it(tmp_path):
    scene = Scene(tmp_path)
    assert scene.run(worked_on=scene.ids[:1]).ok
    assert scene.nothing_left


def test_one_that_fails_harms_neither_the_others_nor_the_cleaning_up(tmp_path):
    scene = Scene(tmp_path)

    def fail(volume):
        if volume.volume_id == scene.ids[0]:
            raise errors.DeviceError("It cannot be read.")

    run = scene.run(fail)
    assert [volume.state for volume in run.volumes] == ["error", "success", "success"]
    assert scene.nothing_left


def test_a_group_that_cannot_be_frozen_fails_all_its_volumes_once(tmp_path):
    scene = Scene(tmp_path)

    def refuse(verb):
        raise server_error(400)

    scene.manager.fault = refuse
    run = scene.run()
    assert [volume.state for volume in run.volumes] == ["error"] * 3
    assert len({volume.reason for volume in run.volumes}) == 1
    creations = [
        entry for entry in scene.cloud.cinder.log if entry[:2] == ("create", "group snapshot")
    ]
    assert len(creations) == 1
    assert scene.nothing_left


def test_a_group_of_no_consistent_type_is_not_frozen_together(tmp_path):
    scene = Scene(tmp_path, consistent=False)
    assert scene.run().ok
    assert set(scene.seen.values()) == {None}
    assert not scene.manager.all


def test_tags_stand_in_the_description_and_are_found(tmp_path):
    scene = Scene(tmp_path)
    with scene.ledger.start("backup") as run:
        made = groups.snapshot(scene.cloud, run, scene.group, purpose="backup", size_gib=0)
        (found,) = groups.GROUP_SNAPSHOT.tagged(scene.cloud, {tags.RUN: run.id})
        assert found.id == made
        before = int(found.metadata[tags.EXPIRES])
        groups.GROUP_SNAPSHOT.manager(scene.cloud).set_metadata(
            made, {tags.EXPIRES: str(before + 500)}
        )
        (found,) = groups.GROUP_SNAPSHOT.tagged(scene.cloud, {})
        assert int(found.metadata[tags.EXPIRES]) == before + 500
        assert groups.GROUP_SNAPSHOT.tagged(scene.cloud, {tags.RUN: "other"}) == []
        run.record("removed", resource="group snapshot", id=made)


def test_descriptions_of_others_are_no_tags():
    for text in (
        None,
        "",
        "a group of mine",
        "freezer_osbrick",
        "freezer_osbrick v1 a b",
        "x" * 255,
    ):
        assert tags.from_text(text) == {}


def test_the_longest_host_name_fits():
    one = tags.Tags("r" * 32, "restore", "h" * 64, "l" * 32, 1795211400, "t" * 32)
    text = tags.to_text(one.to_metadata())
    assert len(text) <= 255
    assert tags.Tags.of(tags.from_text(text)) == one
