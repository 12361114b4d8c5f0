# SPDX-License-Identifier: Apache-2.0
"""Retention as a calculation: examples with known results, and what holds for every history."""

from __future__ import annotations

import dataclasses
import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freezer_osbrick import errors
from freezer_osbrick.repository.catalogue import Backup
from freezer_osbrick.repository.retention import Findings, Rules, decide, format_duration

HOUR, DAY = 3600, 86400


def epoch(text: str) -> int:
    moment = datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.timezone.utc)
    return int(moment.timestamp())


def made(backup_id: str, time: int, volume="v1", name="nightly", hostname="node1") -> Backup:
    head = {
        "volume": {"id": volume},
        "name": name,
        "hostname": hostname,
        "finished": time + 60.0,
    }
    return Backup(backup_id, time, 1, head)


def history(*times: str) -> list[Backup]:
    """Backups whose ids are their times."""
    return [made(text, epoch(text)) for text in times]


def kept(decisions) -> list[str]:
    return [decision.backup.id for decision in decisions if decision.keep]


def reasons(decisions) -> dict[str, tuple[str, ...]]:
    return {decision.backup.id: decision.reasons for decision in decisions}


NOW = epoch("2026-11-20T12:00")


def test_last() -> None:
    backups = history("2026-11-01T01:00", "2026-11-02T01:00", "2026-11-03T01:00")
    decisions = decide(backups, Rules(last=2), now=NOW)
    assert reasons(decisions) == {
        "2026-11-01T01:00": ("no rule keeps it",),
        "2026-11-02T01:00": ("last: number 2",),
        "2026-11-03T01:00": ("last: number 1", "newest backup of the volume"),
    }


def test_hourly_counts_hours_that_have_a_backup() -> None:
    backups = history(
        "2026-11-19T08:00", "2026-11-20T09:10", "2026-11-20T09:50", "2026-11-20T11:05"
    )
    decisions = decide(backups, Rules(hourly=2), now=NOW)
    assert kept(decisions) == ["2026-11-20T09:50", "2026-11-20T11:05"]
    assert reasons(decisions)["2026-11-20T09:50"] == ("hourly 2026-11-20 09h: newest of that hour",)


def test_daily_keeps_the_newest_of_each_day() -> None:
    backups = history(
        "2026-11-17T23:59", "2026-11-18T00:00", "2026-11-18T23:59", "2026-11-19T01:00",
        "2026-11-19T02:00", "2026-11-20T01:00",
    )  # fmt: skip
    decisions = decide(backups, Rules(daily=3), now=NOW)
    assert kept(decisions) == ["2026-11-18T23:59", "2026-11-19T02:00", "2026-11-20T01:00"]
    assert reasons(decisions)["2026-11-19T02:00"] == ("daily 2026-11-19: newest of that day",)


def test_weeks_begin_on_monday_and_belong_to_one_year() -> None:
    # 2026-12-28 is a Monday; its week runs into 2027 and is 2026-W53.
    backups = history(
        "2026-12-27T12:00", "2026-12-28T00:00", "2027-01-03T23:00", "2027-01-04T00:00"
    )
    decisions = decide(backups, Rules(weekly=3), now=epoch("2027-02-01"))
    assert kept(decisions) == ["2026-12-27T12:00", "2027-01-03T23:00", "2027-01-04T00:00"]
    told = reasons(decisions)["2027-01-03T23:00"]
    assert told == ("weekly 2026-W53: newest of that week",)


def test_monthly_and_yearly() -> None:
    backups = history(
        "2024-12-31T23:00", "2025-01-01T00:00", "2025-12-31T12:00", "2026-09-30T12:00",
        "2026-10-01T12:00", "2026-10-31T12:00", "2026-11-20T01:00",
    )  # fmt: skip
    assert kept(decide(backups, Rules(monthly=3), now=NOW)) == [
        "2026-09-30T12:00", "2026-10-31T12:00", "2026-11-20T01:00",
    ]  # fmt: skip
    assert kept(decide(backups, Rules(yearly=2), now=NOW)) == [
        "2025-12-31T12:00", "2026-11-20T01:00",
    ]  # fmt: skip


def test_a_usual_policy() -> None:
    """One backup a day for 100 days: 7 days, 4 weeks and 3 months overlap as with restic."""
    first = epoch("2026-08-13T02:00")
    backups = [made(f"{number:03}", first + number * DAY) for number in range(100)]
    decisions = decide(backups, Rules(daily=7, weekly=4, monthly=3), now=NOW)
    days = [
        datetime.datetime.fromtimestamp(d.backup.time, datetime.timezone.utc).strftime("%m-%d")
        for d in decisions
        if d.keep
    ]
    weekly = ["11-01", "11-08", "11-15"]
    monthly = ["09-30", "10-31"]
    daily = [f"11-{day}" for day in range(14, 21)]
    assert days == sorted({*monthly, *weekly, *daily})


def test_within() -> None:
    backups = [made("old", NOW - 36 * HOUR - 1), made("edge", NOW - 36 * HOUR), made("new", NOW)]
    decisions = decide(backups, Rules(within=36 * HOUR), now=NOW)
    assert kept(decisions) == ["edge", "new"]
    assert reasons(decisions)["edge"] == ("within 1d12h",)


def test_no_rule_is_refused() -> None:
    with pytest.raises(errors.BadRequest, match="No retention rule"):
        Rules()
    with pytest.raises(errors.BadRequest):
        Rules(last=-1, daily=3)


def test_what_is_never_deleted() -> None:
    backups = [made(f"{number}", number * DAY) for number in range(1, 7)]
    findings = Findings(damaged={"6", "4"}, verified={"2", "1", "4"})
    decisions = decide(backups, Rules(after=100 * DAY), now=NOW, findings=findings)
    told = reasons(decisions)
    assert kept(decisions) == ["2", "5", "6"]
    assert told["6"] == ("newest backup of the volume",)
    assert told["5"] == ("newest undamaged backup of the volume",)
    assert told["2"] == ("newest verified backup of the volume",)
    assert told["4"] == ("no rule keeps it", "damaged")


def test_a_backup_that_only_looks_old_is_kept() -> None:
    """The clock of its host had jumped back by a year: it is the volume's newest all the same."""
    backups = [made("before", NOW - DAY), made("after the jump", NOW - 365 * DAY)]
    stored = {"before": NOW - DAY, "after the jump": NOW - HOUR}
    decisions = decide(backups, Rules(last=1), now=NOW, findings=Findings(stored=stored))
    assert reasons(decisions)["after the jump"] == ("stored last of all backups of the volume",)


def test_a_verified_backup_that_only_looks_older_than_another_is_kept() -> None:
    """The clock of its host was a year ahead, a year ago: what it made then looks newer than what
    was verified since."""
    backups = [made("wrong", NOW - 2 * DAY), made("right", NOW - 30 * DAY), made("last", NOW - DAY)]
    stored = {"wrong": NOW - 367 * DAY, "right": NOW - 30 * DAY, "last": NOW - DAY}
    findings = Findings(stored=stored, verified={"wrong", "right"})
    told = reasons(decide(backups, Rules(last=1), now=NOW, findings=findings))
    assert told["wrong"] == ("newest verified backup of the volume",)
    assert told["right"] == ("stored last of all verified backups of the volume",)


def test_the_future_counts_for_nothing() -> None:
    backups = [made("a", NOW - 2 * DAY), made("b", NOW - DAY), made("future", NOW + 365 * DAY)]
    decisions = decide(backups, Rules(last=1), now=NOW)
    assert kept(decisions) == ["b", "future"]
    assert reasons(decisions)["future"] == ("from the future: kept, counts for nothing",)
    assert "newest backup of the volume" in reasons(decisions)["b"]


def test_damaged_backups_take_no_place() -> None:
    backups = [made(f"{number}", NOW - (10 - number) * DAY) for number in range(6)]
    decisions = decide(backups, Rules(last=2), now=NOW, findings=Findings(damaged={"4"}))
    assert kept(decisions) == ["3", "4", "5"]
    assert reasons(decisions)["4"] == ("last: number 2 (damaged: takes no place)",)


def test_each_volume_counts_for_itself() -> None:
    backups = [made(f"{volume}{n}", NOW - n * DAY, volume) for volume in "ab" for n in range(3)]
    assert set(kept(decide(backups, Rules(last=1), now=NOW))) == {"a0", "b0"}


def test_series_count_apart_only_where_asked() -> None:
    backups = [
        made("n1", NOW - 4, name="nightly"),
        made("n2", NOW - 3, name="nightly"),
        made("h1", NOW - 2, name="hourly"),
        made("h2", NOW - 1, name="hourly"),
    ]
    assert kept(decide(backups, Rules(last=1), now=NOW)) == ["h2"]
    assert kept(decide(backups, Rules(last=1), now=NOW, by_series=True)) == ["n2", "h2"]


def test_only_the_chosen_are_decided_on() -> None:
    backups = [made("n1", NOW - 4), made("n2", NOW - 3), made("x", NOW - 2, name="other")]
    decisions = decide(
        backups, Rules(last=1), now=NOW, chosen=lambda backup: backup.head["name"] == "nightly"
    )
    assert [decision.backup.id for decision in decisions] == ["n1", "n2"]
    assert kept(decisions) == ["n2"]  # though the newest of the volume is "x"


@pytest.mark.parametrize(
    "seconds, text", [(7 * DAY, "7d"), (36 * HOUR, "1d12h"), (90, "1min30s"), (0, "0s")]
)
def test_durations(seconds, text) -> None:
    assert format_duration(seconds) == text


# -- what holds for every history -----------------------------------------------------------------


FAR = 300 * 365 * DAY

times = st.one_of(
    st.integers(NOW - 40 * DAY, NOW + 3 * DAY),
    st.integers(NOW - 5 * 365 * DAY, NOW + 365 * DAY),
    st.sampled_from([0, 1, FAR, -DAY, 10**15]),
)
counts = st.integers(0, 5)
rule_sets = (
    st.builds(
        Rules,
        last=st.integers(1, 5),
        hourly=counts,
        daily=counts,
        weekly=counts,
        monthly=counts,
        yearly=counts,
        within=st.none() | st.integers(0, 60 * DAY),
        after=st.none() | times,
    )
    | st.builds(Rules, within=st.integers(0, 60 * DAY), daily=counts)
    | st.builds(Rules, after=times)
)


@st.composite
def worlds(draw):
    """Backups with any clocks, and what is known of them."""
    count = draw(st.integers(0, 25))
    backups = [
        made(
            f"{number:02}",
            draw(times),
            volume=draw(st.sampled_from("ab")),
            name=draw(st.sampled_from("xy")),
        )
        for number in range(count)
    ]
    ids = [backup.id for backup in backups]
    some = st.sets(st.sampled_from(ids)) if ids else st.just(set())
    damaged, verified = draw(some), draw(some)
    stored = {backup_id: draw(times) for backup_id in draw(some)}
    findings = Findings(damaged=damaged, verified=verified, stored=stored)
    return backups, findings, draw(times), draw(st.booleans())


def surviving(world, rules, backups=None):
    all_backups, findings, now, by_series = world
    decisions = decide(
        all_backups if backups is None else backups,
        rules,
        now=now,
        findings=findings,
        by_series=by_series,
    )
    return {decision.backup.id: decision for decision in decisions if decision.keep}


@given(worlds(), rule_sets)
def test_every_backup_is_decided_on_with_a_reason(world, rules) -> None:
    backups, findings, now, by_series = world
    decisions = decide(backups, rules, now=now, findings=findings, by_series=by_series)
    assert sorted(decision.backup.id for decision in decisions) == [b.id for b in backups]
    assert all(decision.reasons for decision in decisions)


@given(worlds(), rule_sets)
def test_no_volume_is_left_empty_nor_without_its_newest_verified(world, rules) -> None:
    backups, findings, now, _ = world
    left = surviving(world, rules)
    for volume in {backup.volume_id for backup in backups}:
        mine = [backup for backup in backups if backup.volume_id == volume]
        assert any(backup.id in left for backup in mine)
        present = sorted((b.time, b.head["finished"], b.id) for b in mine if b.time <= now)
        assert not present or present[-1][2] in left
        for good in (
            [entry for entry in present if entry[2] not in findings.damaged],
            [e for e in present if e[2] in findings.verified and e[2] not in findings.damaged],
        ):
            assert not good or good[-1][2] in left


@given(worlds(), rule_sets)
def test_the_future_is_kept_and_changes_nothing(world, rules) -> None:
    backups, findings, now, by_series = world
    # But for the one that was stored last: that is never deleted, whatever its date says.
    findings = Findings(damaged=findings.damaged, verified=findings.verified)
    world = backups, findings, now, by_series
    future = {backup.id for backup in backups if backup.time > now}
    left = surviving(world, rules)
    assert future <= left.keys()
    without = [backup for backup in backups if backup.id not in future]
    assert left.keys() - future == surviving(world, rules, without).keys()


@given(worlds(), rule_sets, st.sampled_from("last hourly daily weekly monthly yearly".split()))
def test_a_rule_more_never_deletes_more(world, rules, name) -> None:
    more = dataclasses.replace(rules, **{name: getattr(rules, name) + 1})
    assert surviving(world, rules).keys() <= surviving(world, more).keys()
    longer = dataclasses.replace(rules, within=(rules.within or 0) + DAY)
    assert surviving(world, rules).keys() <= surviving(world, longer).keys()


@given(worlds(), rule_sets)
def test_pruning_twice_deletes_nothing_the_second_time(world, rules) -> None:
    left = surviving(world, rules)
    again = surviving(world, rules, [backup for backup in world[0] if backup.id in left])
    assert again.keys() == left.keys()


@given(worlds(), rule_sets)
def test_damaged_backups_displace_no_other(world, rules) -> None:
    backups, findings, now, by_series = world
    sound = [backup for backup in backups if backup.id not in findings.damaged]
    assert surviving(world, rules, sound).keys() <= surviving(world, rules).keys()


@given(worlds(), rule_sets, st.randoms())
def test_the_order_of_listing_does_not_matter(world, rules, randomness) -> None:
    shuffled = list(world[0])
    randomness.shuffle(shuffled)
    assert surviving(world, rules) == surviving(world, rules, shuffled)
