# SPDX-License-Identifier: Apache-2.0
"""Pruning, and Freezer's removal by age, on repositories with backups in them."""

from __future__ import annotations

import itertools
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freezer_osbrick import errors
from freezer_osbrick.operations.catalogue import list_backups, remove_backups, show_backup
from freezer_osbrick.operations.prune import PruneRequest, prune
from freezer_osbrick.repository import verifications
from freezer_osbrick.repository.verifications import Verification
from tests.unit.care.conftest import CHUNK, DAY, URL


@pytest.fixture
def days(shelf) -> list[str]:
    """Ten days of a volume, a block changed each day; oldest first."""
    content = bytearray(b"x" * CHUNK * 2)
    made: list[str] = []
    now = shelf.store.clock
    for day in range(10):
        content[day * 4096 : day * 4096 + 4] = b"%04d" % day
        time = now - (9 - day) * DAY
        made.append(shelf.backup(bytes(content), time=time, parent=made[-1] if made else None))
    return made


def actions(lines) -> dict[str, str]:
    return {line.backup.backup_id: line.action for line in lines}


def test_a_dry_run_says_exactly_what_the_real_one_does(shelf, context, days) -> None:
    request = PruneRequest(keep_last=2, keep_within=4 * DAY)
    before = dict(shelf.store.objects)
    told = prune(context, URL, request, dry_run=True)
    assert shelf.store.objects == before
    done = prune(context, URL, request)
    assert [line.to_dict() for line in told] == [line.to_dict() for line in done]
    assert shelf.ids() == {name for name, action in actions(told).items() if action == "keep"}
    assert shelf.ids() == set(days[5:])


def test_what_is_kept_restores_and_a_second_prune_does_nothing(shelf, context, days) -> None:
    request = PruneRequest(keep_last=1, keep_weekly=2)
    prune(context, URL, request)
    left = shelf.ids()
    assert left < set(days)
    assert all(shelf.restores(backup_id) for backup_id in left)
    assert set(actions(prune(context, URL, request)).values()) == {"keep"}
    assert shelf.ids() == left


def test_filters(shelf, context, days) -> None:
    other = shelf.backup(b"y" * CHUNK, volume="v2", name="other", project="p2", time=1)
    for request in (
        PruneRequest(keep_last=1, volume_id="v2"),
        PruneRequest(keep_last=1, backup_name="other"),
        PruneRequest(keep_last=1, project_id="p2"),
        PruneRequest(keep_last=1, hostname="nobody"),
    ):
        lines = prune(context, URL, request)
        assert set(actions(lines)) == (set() if request.hostname else {other})
    assert shelf.ids() == {*days, other}


def test_the_store_decides_what_time_it_is(shelf, context, days) -> None:
    """A repository whose clock stands in the past sees the later backups as the future."""
    shelf.store.clock -= 5 * DAY
    lines = prune(context, URL, PruneRequest(keep_last=1))
    assert {name for name, action in actions(lines).items() if action == "keep"} == set(days[4:])


def test_the_newest_verified_backup_is_never_removed(shelf, context, days) -> None:
    now = shelf.store.clock
    verifications.add(shelf.repository, Verification(days[2], now, 1.0))
    verifications.add(shelf.repository, Verification(days[4], now, 1.0))
    damage = Verification(days[4], now + 1, 0.1, ((0, 4096),), 4096, "It is damaged.")
    verifications.add(shelf.repository, damage)
    lines = prune(context, URL, PruneRequest(keep_last=1))
    assert shelf.ids() == {days[2], days[9]}
    told = {line.backup.backup_id: line for line in lines}
    assert told[days[2]].reasons == ("newest verified backup of the volume",)
    assert told[days[4]].backup.state == "damaged"


def test_removing_a_backup_removes_what_was_recorded_of_it(shelf, context, days) -> None:
    verifications.add(shelf.repository, Verification(days[0], 1.0, 1.0))
    verifications.add(shelf.repository, Verification(days[9], 2.0, 1.0))
    prune(context, URL, PruneRequest(keep_last=1))
    assert list(verifications.conditions(shelf.repository)) == [days[9]]


def test_credentials_that_may_not_delete(shelf, context, days) -> None:
    def refuse(verb: str, name: str) -> None:
        if verb == "delete":
            raise errors.StoreAccessDenied(f"{name} may not be deleted.")

    shelf.store.fault = refuse
    with pytest.raises(errors.StoreAccessDenied, match="0 of 9 backups were removed") as caught:
        prune(context, URL, PruneRequest(keep_last=1))
    assert "may not delete, use" in str(caught.value)
    assert shelf.ids() == set(days)
    assert len(prune(context, URL, PruneRequest(keep_last=1), dry_run=True)) == 10


def dying_at(number: int):
    """A fault: the store is gone from its n-th call on."""
    calls = itertools.count(1)

    def die(verb: str, name: str) -> None:
        if next(calls) >= number:
            raise errors.StoreUnavailable("The store is gone.")

    return die


def test_a_prune_that_dies_anywhere_harms_nothing_that_is_kept(shelf, context, days) -> None:
    request = PruneRequest(keep_last=2)
    kept = set(days[8:])
    verifications.add(shelf.repository, Verification(days[0], 1.0, 1.0))
    verifications.add(shelf.repository, Verification(days[8], 2.0, 1.0))
    whole = dict(shelf.store.objects)
    number, ended = 0, False
    while not ended:
        number += 1
        shelf.store.objects = dict(whole)
        shelf.store.fault = dying_at(number)
        try:
            prune(context, URL, request)
            ended = True
        except errors.StoreUnavailable:
            pass
        shelf.store.fault = lambda verb, name: None
        assert kept <= shelf.ids()
        prune(context, URL, request)
        assert shelf.ids() == kept
    assert number > 20
    assert all(shelf.restores(backup_id) for backup_id in kept)


def test_removal_by_age_spares_the_newest(shelf, context, days, caplog) -> None:
    old = shelf.backup(b"z" * CHUNK, volume="v2", time=5)
    now = shelf.store.clock
    verifications.add(shelf.repository, Verification(days[3], now, 1.0))
    with caplog.at_level(logging.WARNING):
        told = remove_backups(context, URL, before=int(now), dry_run=True)
        assert shelf.ids() == {*days, old}
        removed = remove_backups(context, URL, before=int(now))
    assert removed == told
    assert {backup.backup_id for backup in removed} == set(days) - {days[9], days[3]}
    assert shelf.ids() == {days[9], days[3], old}
    assert f"Backup {old} of volume v2 stays, though it is old: newest backup" in caplog.text
    assert f"Backup {days[3]} of volume v1 stays, though it is old: newest verified" in caplog.text


def test_removal_by_age_is_as_precise_as_freezer_has_it(shelf, context, days) -> None:
    """Made at the date or before."""
    edge = int(shelf.store.clock) - 5 * DAY
    removed = remove_backups(context, URL, before=edge, backup_name="nightly", hostname="node1")
    assert [backup.backup_id for backup in removed] == days[:5]
    assert not remove_backups(context, URL, before=edge + DAY, backup_name="another")


def test_listing_and_showing_tell_the_state(shelf, context, days) -> None:
    assert {backup.state for backup in list_backups(context, URL)} == {"unverified"}
    verifications.add(shelf.repository, Verification(days[0], 10.0, 1.0))
    verifications.add(shelf.repository, Verification(days[1], 10.0, 0.05))
    damage = Verification(days[2], 11.0, 1.0, ((4096, 8192),), 8192, "A pack is gone.")
    verifications.add(shelf.repository, damage)
    told = {backup.backup_id: backup for backup in list_backups(context, URL)}
    assert [told[days[n]].state for n in range(4)] == [
        "verified",
        "sampled",
        "damaged",
        "unverified",
    ]
    assert told[days[0]].verified == 10.0
    assert show_backup(context, URL, days[2]).to_dict()["damage"] == {
        "found": 11.0,
        "reason": "A pack is gone.",
        "lost_bytes": 8192,
        "ranges": [[4096, 8192]],
    }
    assert show_backup(context, URL, days[0]).to_dict()["damage"] is None


def test_damage_is_forgotten_only_when_all_was_read_again(shelf, days) -> None:
    def state() -> str:
        return verifications.condition(shelf.repository, days[0]).word

    verifications.add(shelf.repository, Verification(days[0], 1.0, 1.0))
    verifications.add(shelf.repository, Verification(days[0], 2.0, 0.5, ((0, 1),), 1, "Bad."))
    verifications.add(shelf.repository, Verification(days[0], 3.0, 0.5))
    assert state() == "damaged"
    verifications.add(shelf.repository, Verification(days[0], 4.0, 1.0))
    assert state() == "verified"


verdicts = st.lists(
    st.builds(
        Verification,
        backup=st.just("00"),
        time=st.integers(0, 5).map(float),
        share=st.sampled_from([0.05, 1.0]),
        reason=st.sampled_from(["", "It is damaged."]),
    ),
    max_size=12,
)


def test_what_was_found_later_counts_whatever_the_clock_does(shelf, days) -> None:
    """The store's clock was ahead when a backup was found whole, and is right when it is found
    damaged; and the other way round."""
    year = 365 * DAY
    repository, newest = shelf.repository, days[-1]
    now = shelf.store.clock
    verifications.add(repository, Verification(newest, now + year, 1.0))
    verifications.add(repository, Verification(newest, now, 0.1, ((0, 4096),), 4096, "Damaged."))
    assert verifications.condition(repository, newest).damage
    verifications.add(repository, Verification(newest, now - year, 1.0))
    condition = verifications.condition(repository, newest)
    assert not condition.damage and condition.verified == now - year


@given(verdicts)
def test_what_is_superseded_says_nothing_that_counts(several) -> None:
    named = {f"{number}": verification for number, verification in enumerate(several)}
    superseded = verifications.superseded(named)
    rest = {name: one for name, one in named.items() if name not in superseded}
    before = verifications.condition_of(named.values())
    after = verifications.condition_of(rest.values())
    assert len(rest) <= 3
    assert after.word == before.word
    assert (after.damage is None) == (before.damage is None)
    if not before.damage:
        assert (after.verified, after.sampled) == (before.verified, before.sampled)


def test_pruning_tidies_verifications_up(shelf, context, days) -> None:
    for time in range(5):
        verifications.add(shelf.repository, Verification(days[9], float(time), 0.05))
    gone = Verification("ab" * 16, 1.0, 1.0)
    verifications.add(shelf.repository, gone)
    prune(context, URL, PruneRequest(keep_last=99))
    left = verifications.read(shelf.repository)
    assert {name: len(several) for name, several in left.items()} == {days[9]: 1}
    assert verifications.condition(shelf.repository, days[9]).sampled == 4.0


def test_a_verification_that_was_changed_or_moved_says_nothing(shelf, days, caplog) -> None:
    repository, objects = shelf.repository, shelf.store.objects
    verifications.add(repository, Verification(days[0], 1.0, 1.0))
    [name] = [name for name in objects if name.startswith("verified/")]
    good = objects[name]
    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 4
        objects[name] = bytes(bad)
        assert verifications.conditions(repository) == {}
    objects[name] = good
    assert verifications.conditions(repository)[days[0]].verified == 1.0
    objects[name.replace(days[0], days[1])] = good
    objects["verified/something"] = b"else"
    assert set(verifications.conditions(repository)) == {days[0]}
