# SPDX-License-Identifier: Apache-2.0
"""Which volume a backup comes back in, and what becomes of the one that was there."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
from cinderclient import exceptions

from freezer_osbrick import errors
from freezer_osbrick.repository import catalogue, verifications
from freezer_osbrick.repository.verifications import Verification
from tests.unit.operations.restoring import NEW, OLD, Bench


@pytest.fixture
def bench(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, sleeps: Any) -> Bench:
    return Bench(tmp_path, monkeypatch)


def test_into_a_clone(bench: Bench) -> None:
    told = bench.restore()
    assert (told.state, told.target, told.verified) == ("success", "clone", None)
    assert bench.contents[str(told.restored_volume_id)] == OLD
    assert bench.contents[bench.volume.id] == NEW
    assert bench.nothing_left


def test_into_a_new_volume(bench: Bench) -> None:
    bench.lose_the_volume()
    told = bench.restore()
    assert (told.state, told.target) == ("success", "new")
    assert bench.contents[str(told.restored_volume_id)] == OLD
    made = bench.now(told.restored_volume_id)
    assert (made.name, made.metadata, made.size) == ("users own", {"tier": "gold"}, 1)
    assert bench.nothing_left


# -- size ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", [False, True])
def test_a_larger_volume(bench: Bench, gone: bool) -> None:
    if gone:
        bench.lose_the_volume()
    told = bench.restore(size_gib=3, verify=True)
    assert (told.state, told.verified) == ("success", True)
    assert bench.now(told.restored_volume_id).size == 3
    restored = bench.contents[str(told.restored_volume_id)]
    assert restored == OLD + bytes(2 * len(OLD))


@pytest.mark.parametrize("gone", [False, True])
def test_a_smaller_volume_is_refused_before_anything_is_made(bench: Bench, gone: bool) -> None:
    bench.now(bench.volume.id).size = 2
    if gone:
        bench.lose_the_volume()
    told = bench.restore(size_gib=0 if gone else 1)
    assert told.state == "error"
    assert "--size" in str(told.reason)
    assert bench.cloud.cinder.verbs() == []


# -- metadata --------------------------------------------------------------------------------------


def change(bench: Bench) -> None:
    volume = bench.now(bench.volume.id)
    volume.name, volume.description, volume.metadata = "renamed", "new words", {"tier": "tin"}
    volume.volume_image_metadata = {"os_distro": "debian"}
    volume.bootable = "true"


def properties(volume: Any) -> tuple[Any, ...]:
    return (
        volume.name,
        volume.description,
        volume.metadata,
        volume.volume_image_metadata,
        volume.bootable,
    )


THEN = ("users own", "of mine", {"tier": "gold"}, {}, "false")
SINCE = ("renamed", "new words", {"tier": "tin"}, {"os_distro": "debian"}, "true")


def test_a_clone_has_what_its_volume_has_now(bench: Bench) -> None:
    change(bench)
    told = bench.restore()
    assert properties(bench.now(told.restored_volume_id)) == SINCE
    assert properties(bench.now(bench.volume.id)) == SINCE


def test_metadata_of_the_backup_for_both(bench: Bench) -> None:
    change(bench)
    bench.now(bench.volume.id).metadata["freezer_osbrick_run"] = "of another run"
    told = bench.restore(meta_override=True)
    assert properties(bench.now(told.restored_volume_id)) == THEN
    assert bench.now(bench.volume.id).metadata.pop("freezer_osbrick_run") == "of another run"
    assert properties(bench.now(bench.volume.id)) == THEN
    assert told.notes == []


def test_metadata_that_cinder_does_not_let_us_set(bench: Bench) -> None:
    change(bench)
    volumes = bench.cloud.cinder.volumes
    allowed = volumes.delete_image_metadata

    def delete_image_metadata(volume_id: str, keys: list[str]) -> None:
        if volume_id == bench.volume.id:
            raise exceptions.Forbidden(403, "by policy")
        allowed(volume_id, keys)

    volumes.delete_image_metadata = delete_image_metadata  # type: ignore[method-assign]
    told = bench.restore(meta_override=True)
    assert told.state == "success"
    (note,) = told.notes
    assert "keeps some metadata" in note
    assert "by policy" in note
    expected = (*THEN[:3], SINCE[3], THEN[4])
    assert properties(bench.now(bench.volume.id)) == expected


# -- reading back ----------------------------------------------------------------------------------


def test_a_volume_is_read_back_by_an_attachment_of_its_own(bench: Bench) -> None:
    told = bench.restore(verify=True)
    assert told.verified is True
    log = bench.cloud.cinder.verbs("attachment", "host")
    once = [
        "create attachment",
        "update attachment",
        "connect host",
        "complete attachment",
        "disconnect host",
        "delete attachment",
    ]
    assert log == once * 2


def lies(bench: Bench, times: int = 99) -> None:
    """Let what was written be something else when it is attached again."""
    seen: dict[str, int] = {}
    left = [True] * times

    def broken(volume_id: str, verb: str) -> None:
        if verb == "open":
            seen[volume_id] = seen.get(volume_id, 0) + 1
            if seen[volume_id] == 2 and left:
                left.pop()
                bench.contents[volume_id][40_000] ^= 1

    bench.broken = broken


def test_a_volume_that_holds_something_else(bench: Bench) -> None:
    lies(bench)
    told = bench.restore(verify=True)
    assert told.state == "error"
    assert "(ranges 32768+32768)" in str(told.reason)
    assert (told.verified, told.restored_volume_id) == (None, None)
    assert bench.volume_ids == {bench.volume.id}
    assert bench.nothing_left


# -- once more -------------------------------------------------------------------------------------


def test_a_volume_that_fails_is_replaced(bench: Bench) -> None:
    lies(bench, times=1)
    told = bench.restore(verify=True, recreate_vol_on_error=True)
    assert (told.state, told.target) == ("success", "new")
    assert bench.volume_ids == {bench.volume.id, told.restored_volume_id}
    assert bench.contents[str(told.restored_volume_id)] == OLD
    (note,) = told.notes
    assert "restored into a new volume because of this: What was read back" in note
    assert bench.nothing_left


def test_a_volume_that_cannot_be_snapshotted(bench: Bench) -> None:
    def fault(verb: str, snapshot: Any) -> None:
        if verb == "create":
            raise exceptions.BadRequest(400, "Invalid volume: status must be available")

    bench.cloud.cinder.volume_snapshots.fault = fault
    assert "status must be" in str(bench.restore().reason)
    told = bench.restore(recreate_vol_on_error=True)
    assert (told.state, told.target) == ("success", "new")
    assert bench.nothing_left


def test_both_volumes_fail(bench: Bench) -> None:
    def broken(volume_id: str, verb: str) -> None:
        if verb == "write":
            raise errors.DeviceError(f"The disk of {volume_id[:4]} is broken.")

    bench.broken = broken
    told = bench.restore(recreate_vol_on_error=True)
    assert told.state == "error"
    assert str(told.reason).count("is broken.") == 2
    assert bench.volume_ids == {bench.volume.id}
    assert bench.nothing_left


def test_a_store_that_fails_needs_no_new_volume(bench: Bench) -> None:
    def fault(verb: str, name: str) -> None:
        if verb == "get" and name.startswith("packs/"):
            raise errors.StoreUnavailable("The store is away.")

    bench.repository.store.fault = fault  # type: ignore[attr-defined]
    told = bench.restore(recreate_vol_on_error=True)
    assert told.reason == "The store is away."
    assert bench.cloud.cinder.verbs("volume").count("create volume") == 1


# -- the old volume --------------------------------------------------------------------------------


def test_the_old_volume_goes_when_the_new_one_is_proved(bench: Bench) -> None:
    told = bench.restore(remove_old_vol=True)
    assert (told.verified, told.removed_volume_id) == (True, bench.volume.id)
    assert bench.volume_ids == {told.restored_volume_id}
    deletion = bench.cloud.cinder.log.index(("delete", "volume", bench.volume.id))
    assert not [entry for entry in bench.cloud.cinder.log[deletion:] if entry[1] == "attachment"]
    assert bench.nothing_left


def test_an_old_volume_is_kept_unless_the_new_one_is_proved(bench: Bench) -> None:
    lies(bench)
    told = bench.restore(remove_old_vol=True)
    assert (told.state, told.removed_volume_id) == ("error", None)
    assert bench.volume_ids == {bench.volume.id}


def attach_it(bench: Bench) -> None:
    volume = bench.now(bench.volume.id)
    volume.status, volume.attachments = "in-use", [{"server_id": "s1"}]


def test_an_old_volume_with_a_server_is_kept(bench: Bench) -> None:
    attach_it(bench)
    told = bench.restore(remove_old_vol=True)
    assert (told.state, told.verified, told.removed_volume_id) == ("success", True, None)
    (note,) = told.notes
    assert note.endswith(f"Volume {bench.volume.id} is attached to the server s1.")
    assert bench.volume.id in bench.volume_ids


@pytest.mark.parametrize("state", ["reserved", "in-use", "backing-up"])
def test_an_old_volume_that_somebody_uses_is_kept(bench: Bench, state: str) -> None:
    bench.now(bench.volume.id).status = state
    told = bench.restore(remove_old_vol=True)
    assert told.removed_volume_id is None
    assert f"in state '{state}'" in told.notes[0]


def test_an_old_volume_that_cinder_does_not_delete_is_kept(bench: Bench) -> None:
    def fault(verb: str, volume: Any) -> None:
        if verb == "delete" and volume.id == bench.volume.id:
            raise exceptions.BadRequest(400, "Volume must not have snapshots.")

    bench.cloud.cinder.volumes.fault = fault
    told = bench.restore(remove_old_vol=True)
    assert told.state == "success"
    assert "must not have snapshots" in told.notes[0]
    assert bench.volume.id in bench.volume_ids


# -- in place --------------------------------------------------------------------------------------


def test_into_the_volume_itself(bench: Bench) -> None:
    told = bench.restore(in_place=True, verify=True)
    assert (told.state, told.target, told.verified) == ("success", "in place", True)
    assert told.restored_volume_id == bench.volume.id
    assert bench.contents[bench.volume.id] == OLD
    assert bench.volume_ids == {bench.volume.id}
    assert "create snapshot" not in bench.cloud.cinder.verbs()
    assert properties(bench.now(bench.volume.id)) == THEN
    assert bench.nothing_left


def test_in_place_the_volume_keeps_what_it_is_called(bench: Bench) -> None:
    change(bench)
    bench.restore(in_place=True)
    assert properties(bench.now(bench.volume.id)) == SINCE
    bench.restore(in_place=True, new_name="again")
    assert properties(bench.now(bench.volume.id)) == ("again", *SINCE[1:])
    bench.restore(in_place=True, new_name="once more", meta_override=True)
    assert properties(bench.now(bench.volume.id)) == ("once more", *THEN[1:])


@pytest.mark.parametrize("state", ["in-use", "error", "reserved", "backing-up"])
def test_in_place_only_where_nobody_is(bench: Bench, state: str) -> None:
    bench.now(bench.volume.id).status = state
    assert f"in state '{state}'" in str(bench.restore(in_place=True).reason)
    assert bench.contents[bench.volume.id] == NEW
    assert bench.cloud.cinder.verbs() == []


def test_not_in_place_of_a_servers_volume(bench: Bench) -> None:
    attach_it(bench)
    assert "attached to the server s1" in str(bench.restore(in_place=True).reason)
    assert bench.cloud.cinder.verbs() == []


@pytest.mark.parametrize(
    "request_", [{"size_gib": 2}, {"volume_type": "fast"}, {"availability_zone": "nova"}]
)
def test_in_place_the_volume_stays_what_it_is(bench: Bench, request_: dict[str, Any]) -> None:
    assert "leave --volume-type" in str(bench.restore(in_place=True, **request_).reason)
    assert bench.cloud.cinder.verbs() == []


def test_in_place_there_is_no_old_volume(bench: Bench) -> None:
    with pytest.raises(errors.BadRequest, match="no old volume"):
        bench.restore(in_place=True, remove_old_vol=True)


def test_not_in_place_of_a_volume_that_is_gone(bench: Bench) -> None:
    bench.lose_the_volume()
    assert "does not exist" in str(bench.restore(in_place=True).reason)
    assert bench.cloud.cinder.verbs() == []


def test_not_in_place_what_was_found_damaged(bench: Bench) -> None:
    (backup,) = catalogue.backups(bench.repository)
    verifications.add(
        bench.repository,
        Verification(backup.id, 1.0, 1.0, ((0, 4096),), 4096, "A pack is damaged."),
    )
    told = bench.restore(in_place=True)
    assert "found damaged" in str(told.reason)
    assert "A pack is damaged." in str(told.reason)
    assert bench.cloud.cinder.verbs() == []
    assert bench.restore().state == "success"  # what is wrong is not known to be needed


def fail_half_way(bench: Bench) -> None:
    seen = [True]

    def broken(volume_id: str, verb: str) -> None:
        if verb == "write" and volume_id == bench.volume.id:
            if not seen:
                raise errors.DeviceError("The disk is broken.")
            seen.clear()

    bench.broken = broken


def test_in_place_broken_off(bench: Bench) -> None:
    fail_half_way(bench)
    told = bench.restore(in_place=True)
    assert "The disk is broken." in str(told.reason)
    assert "holds parts of two states now: restore it again" in str(told.reason)
    metadata = bench.now(bench.volume.id).metadata
    assert metadata == {"tier": "gold", "freezer_osbrick_incomplete": told.backup_id}
    assert bench.nothing_left
    bench.broken = lambda volume_id, verb: None
    assert bench.restore(in_place=True).state == "success"
    assert bench.now(bench.volume.id).metadata == {"tier": "gold"}
    assert bench.contents[bench.volume.id] == OLD


def test_in_place_broken_off_and_a_new_volume_instead(bench: Bench) -> None:
    """The volume itself is the user's, and is never deleted."""
    fail_half_way(bench)
    told = bench.restore(in_place=True, recreate_vol_on_error=True)
    assert (told.state, told.target) == ("success", "new")
    assert bench.contents[str(told.restored_volume_id)] == OLD
    assert bench.volume_ids == {bench.volume.id, told.restored_volume_id}
    assert "holds parts of two states" in told.notes[0]
    assert bench.nothing_left


# -- encrypted volumes -----------------------------------------------------------------------------

KEY = {"encrypted": True, "encryption_key_id": "k1"}


def encrypted(bench: Bench, then: dict[str, Any], now: dict[str, Any]) -> None:
    vars(bench.now(bench.volume.id)).update(then)
    bench.backup(bench.record(), now=1_700_000_009)
    vars(bench.now(bench.volume.id)).update(now)


@pytest.mark.parametrize(
    ("then", "now"),
    [
        (KEY, KEY),
        (KEY, {"encryption_key_id": None}),  # an old Cinder does not show it
        (KEY, {"encryption_key_id": "k2", "os-vol-tenant-attr:tenant_id": "p2"}),  # handed over
    ],
)
def test_an_encrypted_volume_whose_key_is_there(
    bench: Bench, then: dict[str, Any], now: dict[str, Any]
) -> None:
    encrypted(bench, then, now)
    told = bench.restore()
    assert told.state == "success", told.reason
    assert bench.contents[str(told.restored_volume_id)] == OLD


@pytest.mark.parametrize(
    ("then", "now", "words"),
    [
        (KEY, {"encryption_key_id": "k2"}, "with another key than when it was backed up"),
        (KEY, {"encrypted": False}, "was encrypted when it was backed up and is not encrypted now"),
        ({}, KEY, "was not encrypted when it was backed up and is encrypted now"),
    ],
)
def test_what_could_never_be_opened_is_refused(
    bench: Bench, then: dict[str, Any], now: dict[str, Any], words: str
) -> None:
    encrypted(bench, then, now)
    told = bench.restore()
    assert words in str(told.reason)
    assert "could never be opened" in str(told.reason)
    assert bench.cloud.cinder.verbs() == []


def test_an_encrypted_volume_that_is_gone(bench: Bench) -> None:
    encrypted(bench, KEY, {})
    bench.lose_the_volume()
    assert "could never be opened" in str(bench.restore().reason)
    assert bench.cloud.cinder.verbs() == []


def test_an_encrypted_volume_gets_no_new_one_either(bench: Bench) -> None:
    encrypted(bench, KEY, {})
    lies(bench)
    told = bench.restore(verify=True, recreate_vol_on_error=True)
    assert "could never be opened. That was tried because of this: What was" in str(told.reason)
    assert bench.volume_ids == {bench.volume.id}


def test_a_type_that_encrypts_is_not_for_a_plain_volume(bench: Bench) -> None:
    bench.lose_the_volume()
    volumes = bench.cloud.cinder.volumes
    make = volumes.create
    volumes.create = lambda *args, **fields: make(*args, encrypted=True, **fields)  # type: ignore
    told = bench.restore()
    assert "Volumes of the type 'fast' are encrypted" in str(told.reason)
    assert bench.volume_ids == set()
    assert bench.nothing_left
