# SPDX-License-Identifier: Apache-2.0
"""Snapshots and volumes of ours, and what is staged with them."""

from __future__ import annotations

import types
from typing import Any

import pytest
from cinderclient import exceptions

from freezer_osbrick import errors
from freezer_osbrick.cloud import attachments, resources, staging, volumes
from freezer_osbrick.cloud.ledger import Ledger
from freezer_osbrick.cloud.tags import MARK, RUN, Tags
from freezer_osbrick.cloud.volumes import VolumeRecord
from tests.staged import frozen_clone
from tests.unit.cloud.fake_cinder import FakeCloud, Resource, server_error

pytestmark = pytest.mark.usefixtures("sleeps")


def record_of(volume: Resource, **fields: Any) -> VolumeRecord:
    return VolumeRecord(
        id=volume.id,
        name="data",
        description="of mine",
        size_gib=volume.size,
        status="available",
        **fields,
    )


@pytest.fixture
def source(cloud: FakeCloud) -> VolumeRecord:
    return record_of(cloud.volume())


def stage(cloud: FakeCloud, ledger: Ledger, source: VolumeRecord) -> None:
    with (
        ledger.start("backup") as run,
        frozen_clone(cloud, run, source) as clone_id,
    ):
        clone = cloud.cinder.volumes.all[clone_id]
        (snapshot,) = cloud.cinder.volume_snapshots.all.values()
        assert clone.snapshot_id == snapshot.id
        assert snapshot.volume_id == source.id
        for made in (clone, snapshot):
            found = Tags.of(made.metadata)
            assert found is not None
            assert found.run == run.id


def nothing_left(cloud: FakeCloud, ledger: Ledger, source: VolumeRecord) -> bool:
    return (
        list(cloud.cinder.volumes.all) == [source.id]
        and not cloud.cinder.volume_snapshots.all
        and not ledger.runs()
    )


def test_clone_before_snapshot_is_deleted(
    cloud: FakeCloud, ledger: Ledger, source: VolumeRecord
) -> None:
    stage(cloud, ledger, source)
    assert cloud.cinder.verbs() == [
        "create snapshot",
        "create volume",
        "delete volume",
        "delete snapshot",
    ]
    assert nothing_left(cloud, ledger, source)


def test_what_goes_to_error_is_deleted_and_made_again(
    cloud: FakeCloud, ledger: Ledger, source: VolumeRecord
) -> None:
    cloud.cinder.volumes.after_create = ["error", "error"]
    stage(cloud, ledger, source)
    assert cloud.cinder.verbs("volume") == ["create volume", "delete volume"] * 3
    assert nothing_left(cloud, ledger, source)


def test_what_always_goes_to_error(cloud: FakeCloud, ledger: Ledger, source: VolumeRecord) -> None:
    cloud.cinder.volume_snapshots.after_create = ["error"] * 9
    cloud.cinder.said = [types.SimpleNamespace(user_message="the disk is full")]
    with pytest.raises(errors.ResourceFailed, match="snapshot .* 'error': the disk is full"):
        stage(cloud, ledger, source)
    assert cloud.cinder.verbs() == ["create snapshot", "delete snapshot"] * 3
    assert nothing_left(cloud, ledger, source)


@pytest.mark.parametrize("kind", ["volumes", "volume_snapshots"])
def test_an_answer_that_got_lost_makes_no_second_one(
    cloud: FakeCloud, ledger: Ledger, source: VolumeRecord, kind: str
) -> None:
    manager = getattr(cloud.cinder, kind)
    answers = [server_error(), server_error()]

    def lost(verb: str) -> None:
        if verb == "create" and answers:
            raise answers.pop()

    manager.lost = lost
    stage(cloud, ledger, source)
    assert cloud.cinder.verbs(manager.kind).count(f"create {manager.kind}") == 1
    assert nothing_left(cloud, ledger, source)


def test_a_second_one_that_appears_late_is_deleted_too(
    cloud: FakeCloud, ledger: Ledger, source: VolumeRecord
) -> None:
    """The first request worked on while nobody saw its result."""
    snapshots = cloud.cinder.volume_snapshots
    failures = [server_error()]

    def fault(verb: str, resource: Any) -> None:
        if verb == "create" and failures:
            raise failures.pop()

    snapshots.fault = fault
    with (
        ledger.start("backup") as run,
        frozen_clone(cloud, run, source),
    ):
        (made,) = snapshots.all.values()
        twin = Resource(**{**vars(made), "id": "twin"})
        snapshots.all["twin"] = twin
    assert nothing_left(cloud, ledger, source)


def test_a_cloud_that_ignores_filters_loses_nothing_of_the_users(
    cloud: FakeCloud, ledger: Ledger, source: VolumeRecord
) -> None:
    cloud.cinder.ignores_filters = True
    cloud.volume(metadata={**MARK, RUN: "somebody"})
    failures = [server_error()]

    def lost(verb: str) -> None:
        if verb == "create" and failures:
            raise failures.pop()

    cloud.cinder.volumes.lost = lost
    stage(cloud, ledger, source)
    assert len(cloud.cinder.volumes.all) == 2


def test_no_answer_at_all_keeps_the_journal(
    cloud: FakeCloud, ledger: Ledger, source: VolumeRecord
) -> None:
    def fault(verb: str, resource: Any) -> None:
        if verb == "create":
            raise server_error()

    cloud.cinder.volume_snapshots.fault = fault
    with pytest.raises(errors.CloudUnavailable):
        stage(cloud, ledger, source)
    (run_id,) = ledger.runs()
    dead = ledger.adopt(run_id)
    assert dead is not None
    assert len(dead.outstanding.creating) == 1


def test_a_refusal_leaves_no_journal(
    cloud: FakeCloud, ledger: Ledger, source: VolumeRecord
) -> None:
    def fault(verb: str, resource: Any) -> None:
        if verb == "create":
            raise exceptions.OverLimit(413, "VolumeLimitExceeded: Maximum number of volumes")

    cloud.cinder.volumes.fault = fault
    with pytest.raises(errors.QuotaExceeded, match="number of volumes"):
        stage(cloud, ledger, source)
    assert nothing_left(cloud, ledger, source)


def test_a_volume_resized_meanwhile(cloud: FakeCloud, ledger: Ledger) -> None:
    source = record_of(cloud.volume(size=2))
    cloud.cinder.volumes.all[source.id].size = 3
    with pytest.raises(errors.ResourceFailed, match="from 2 to 3 GiB"):
        stage(cloud, ledger, source)
    assert nothing_left(cloud, ledger, source)


@pytest.mark.parametrize("kind", ["volumes", "volume_snapshots"])
@pytest.mark.parametrize("when", ["fault", "lost"])
def test_a_signal_while_cinder_creates(
    cloud: FakeCloud, ledger: Ledger, source: VolumeRecord, kind: str, when: str
) -> None:
    manager = getattr(cloud.cinder, kind)

    def signal(verb: str, resource: Any = None) -> None:
        if verb == "create":
            raise KeyboardInterrupt

    setattr(manager, when, signal)
    with pytest.raises(KeyboardInterrupt):
        stage(cloud, ledger, source)
    assert list(cloud.cinder.volumes.all) == [source.id]
    assert not cloud.cinder.volume_snapshots.all
    # Where nothing was found, Cinder may yet be at it: cleanup looks once more.
    assert bool(ledger.runs()) is (when == "fault")


def test_a_signal_while_waiting(cloud: FakeCloud, ledger: Ledger, source: VolumeRecord) -> None:
    def signal(verb: str, resource: Any) -> None:
        if verb == "get" and resource and resource.status == "creating":
            resource.status = "available"
            raise KeyboardInterrupt

    cloud.cinder.volumes.after_create = ["creating"]
    cloud.cinder.volumes.fault = signal
    with pytest.raises(KeyboardInterrupt):
        stage(cloud, ledger, source)
    assert nothing_left(cloud, ledger, source)


def test_an_attachment_that_a_signal_left(
    cloud: FakeCloud, ledger: Ledger, source: VolumeRecord
) -> None:
    def signal(verb: str) -> None:
        raise KeyboardInterrupt

    cloud.cinder.attachments.lost = signal
    with (
        pytest.raises(KeyboardInterrupt),
        ledger.start("backup") as run,
        frozen_clone(cloud, run, source) as clone_id,
    ):
        attachments.reserve(cloud, run, clone_id, writable=False)
    assert not cloud.cinder.attachments.all
    assert nothing_left(cloud, ledger, source)


def test_a_volume_that_the_host_holds_is_not_waited_for(
    cloud: FakeCloud, ledger: Ledger, source: VolumeRecord
) -> None:
    with (
        pytest.raises(errors.Leftovers, match="this host still holds it"),
        ledger.start("backup") as run,
        frozen_clone(cloud, run, source) as clone_id,
    ):
        attachment_id = attachments.reserve(cloud, run, clone_id, writable=False)
        run.record("connecting", attachment_id=attachment_id, connection_info={})
    assert "delete volume" not in cloud.cinder.verbs()
    assert not cloud.cinder.volume_snapshots.all
    assert len(ledger.runs()) == 1


# -- deleting --------------------------------------------------------------------------------------


def delete(cloud: FakeCloud, volume: Resource) -> None:
    resources.delete(cloud, resources.VOLUME, volume.id, size_gib=1)


@pytest.mark.parametrize("outcome", ["available", "error"])
def test_a_refused_deletion_is_tried_again(cloud: FakeCloud, outcome: str) -> None:
    volume = cloud.volume()
    cloud.cinder.volumes.after_delete = [outcome] * 2
    delete(cloud, volume)
    assert cloud.cinder.verbs() == ["delete volume"] * 3
    assert not cloud.cinder.volumes.all


def test_a_deletion_that_the_api_refuses_is_tried_again(cloud: FakeCloud) -> None:
    volume = cloud.volume()
    refusals = [exceptions.BadRequest(400, "it has snapshots")] * 2

    def fault(verb: str, resource: Any) -> None:
        if verb == "delete" and refusals:
            raise refusals.pop()

    cloud.cinder.volumes.fault = fault
    delete(cloud, volume)
    assert not cloud.cinder.volumes.all


def test_a_deletion_that_is_always_refused(cloud: FakeCloud, sleeps: list[float]) -> None:
    volume = cloud.volume()
    cloud.cinder.volumes.after_delete = ["available"] * 99
    with pytest.raises(errors.Leftovers, match=f"The volume {volume.id} could not be removed"):
        delete(cloud, volume)
    assert cloud.cinder.verbs() == ["delete volume"] * 6
    assert [pause for pause in sleeps if pause >= 0.5] == [0.5, 1.0, 2.0, 4.0, 8.0]


def test_a_deletion_whose_answer_got_lost(cloud: FakeCloud) -> None:
    volume = cloud.volume()
    answers = [server_error()]

    def lost(verb: str) -> None:
        if answers:
            raise answers.pop()

    cloud.cinder.volumes.lost = lost
    delete(cloud, volume)
    assert not cloud.cinder.volumes.all


def test_deleted_already(cloud: FakeCloud) -> None:
    volume = cloud.volume()
    cloud.cinder.volumes.all.clear()
    delete(cloud, volume)
    assert cloud.cinder.verbs() == []


def test_what_is_being_created_is_waited_for(cloud: FakeCloud) -> None:
    volume = cloud.volume()
    cloud.cinder.volumes.all[volume.id].status = "creating"
    looks = []

    def fault(verb: str, resource: Any) -> None:
        looks.append(verb)
        if len(looks) == 3:
            resource.status = "available"
        assert verb == "get" or resource.status == "available"

    cloud.cinder.volumes.fault = fault
    delete(cloud, volume)
    assert not cloud.cinder.volumes.all


def test_a_deletion_that_failed_in_the_storage(cloud: FakeCloud) -> None:
    volume = cloud.volume()
    cloud.cinder.volumes.after_delete = ["error_deleting"]
    with pytest.raises(errors.Leftovers, match="only an administrator"):
        delete(cloud, volume)
    assert cloud.cinder.verbs() == ["delete volume"]
    cloud.is_admin = True
    delete(cloud, volume)
    assert not cloud.cinder.volumes.all


def test_an_administrator_forces_snapshots_too(cloud: FakeCloud) -> None:
    volume = cloud.volume()
    snapshot = cloud.cinder.volume_snapshots.create(volume.id)
    snapshot.status = "error_deleting"
    cloud.is_admin = True
    resources.delete(cloud, resources.SNAPSHOT, snapshot.id, size_gib=1)
    assert cloud.cinder.verbs()[-1] == "force_delete snapshot"


def test_leftovers_of_a_run_stay_in_its_journal(
    cloud: FakeCloud, ledger: Ledger, source: VolumeRecord
) -> None:
    cloud.cinder.volumes.after_delete = ["available"] * 99
    with pytest.raises(errors.Leftovers, match="The volume .* could not be removed"):
        stage(cloud, ledger, source)
    assert not cloud.cinder.volume_snapshots.all  # the rest goes
    (run_id,) = ledger.runs()
    dead = ledger.adopt(run_id)
    assert dead is not None
    (left,) = dead.outstanding.resources.values()
    assert left.kind == "volume"


# -- volumes that are kept -------------------------------------------------------------------------


def test_finished_with_our_tags_last(
    cloud: FakeCloud, ledger: Ledger, source: VolumeRecord
) -> None:
    record = record_of(
        source_volume := cloud.cinder.volumes.all[source.id],
        bootable=True,
        metadata={"owner": "me"},
        image_metadata={"image_id": "i1"},
    )
    assert source_volume.id == record.id
    with ledger.start("restore") as run, staging.kept_clone(cloud, run, record) as clone_id:
        clone = cloud.cinder.volumes.all[clone_id]
        clone.volume_image_metadata["stale"] = "x"
        cloud.cinder.log.clear()
        volumes.finish(cloud, run, clone_id, record, name="new name")
        assert cloud.cinder.verbs() == [
            "update volume",
            "delete_image_metadata volume",
            "set_image_metadata volume",
            "set_bootable volume",
            "update_all_metadata volume",
        ]
    assert cloud.cinder.volumes.all[clone_id] is clone
    assert (clone.name, clone.description) == ("new name", "of mine")
    assert clone.metadata == {"owner": "me"}
    assert clone.volume_image_metadata == {"image_id": "i1"}
    assert clone.bootable == "true"
    assert not cloud.cinder.volume_snapshots.all
    assert not ledger.runs()


def test_an_unfinished_restore_is_deleted(
    cloud: FakeCloud, ledger: Ledger, source: VolumeRecord
) -> None:
    for kept in (staging.kept_clone, staging.new_volume):
        with ledger.start("restore") as run, kept(cloud, run, source):
            pass
        assert nothing_left(cloud, ledger, source)


def test_a_snapshot_that_the_restored_volume_needs_is_kept_and_said(
    cloud: FakeCloud, ledger: Ledger, source: VolumeRecord, caplog: pytest.LogCaptureFixture
) -> None:
    cloud.cinder.volume_snapshots.after_delete = ["available"] * 99
    with ledger.start("restore") as run, staging.kept_clone(cloud, run, source) as clone_id:
        volumes.finish(cloud, run, clone_id, source)
    assert clone_id in cloud.cinder.volumes.all
    assert "restored volume may depend on it" in caplog.text
    assert len(ledger.runs()) == 1


def test_a_new_volume_like_the_recorded_one(cloud: FakeCloud, ledger: Ledger) -> None:
    record = VolumeRecord(
        "gone", "data", "", 3, "available", volume_type="fast", availability_zone="nova"
    )
    with (
        ledger.start("restore") as run,
        staging.new_volume(cloud, run, record, size_gib=5) as volume_id,
    ):
        made = cloud.cinder.volumes.all[volume_id]
        assert (made.size, made.volume_type, made.availability_zone) == (5, "fast", "nova")
        assert made.name == "freezer-osbrick restore of gone"
        assert Tags.of(made.metadata) is not None


@pytest.mark.parametrize(
    ("fields", "instead", "message"),
    [
        ({"volume_type": "gone"}, {}, r"'gone'.*--volume-type \(fast\)"),
        ({"availability_zone": "closed"}, {}, r"'closed'.*--availability-zone \(nova\)"),
        ({"volume_type": "fast"}, {"volume_type": "wrong"}, "'wrong'"),
    ],
)
def test_a_type_or_zone_that_is_gone(
    cloud: FakeCloud, ledger: Ledger, fields: Any, instead: Any, message: str
) -> None:
    record = VolumeRecord("gone", "data", "", 1, "available", **fields)
    with (
        ledger.start("restore") as run,
        pytest.raises(errors.BadRequest, match=message),
        staging.new_volume(cloud, run, record, **instead),
    ):
        pass
    assert cloud.cinder.verbs() == []


def test_another_type_for_one_that_is_gone(cloud: FakeCloud, ledger: Ledger) -> None:
    record = VolumeRecord("gone", "data", "", 1, "available", volume_type="gone")
    with (
        ledger.start("restore") as run,
        staging.new_volume(cloud, run, record, volume_type="t1") as volume_id,
    ):
        assert cloud.cinder.volumes.all[volume_id].volume_type == "t1"


# -- records ---------------------------------------------------------------------------------------


def test_captured_there_and_back(cloud: FakeCloud) -> None:
    volume = cloud.volume(
        size=4,
        description=None,
        volume_type="fast",
        metadata={"a": "b", "readonly": "False", **MARK},
        attachments=[{"server_id": "s1", "device": "/dev/vdb", "host_name": "h", "id": "x"}],
        encrypted=True,
        source_volid="v0",
    )
    volume.bootable = "true"
    volume.volume_image_metadata = {"image_id": "i1"}
    record = volumes.capture(cloud, volume.id)
    assert (record.name, record.description, record.size_gib) == ("users own", "", 4)
    assert record.size == 4 << 30
    assert record.bootable
    assert record.encrypted
    assert record.metadata == {"a": "b"}
    assert record.image_id == "i1"
    assert record.source_volume_id == "v0"
    assert record.attachments == ({"server_id": "s1", "device": "/dev/vdb", "host_name": "h"},)
    assert record.project_id == "p1"
    assert VolumeRecord.from_dict({**record.to_dict(), "later": 1}) == record


def test_a_record_without_what_it_needs() -> None:
    with pytest.raises(errors.Damaged, match="incomplete"):
        VolumeRecord.from_dict({"id": "v1"})
