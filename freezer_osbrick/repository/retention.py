# SPDX-License-Identifier: Apache-2.0
"""Retention: which backups are kept, and why. A pure calculation: nothing is read, nothing deleted.

Hours, days, weeks (ISO 8601: they begin on Monday), months and years are those of UTC, so that no
change of a zone moves a backup from one to another.

Whatever the rules say, of every volume there stays the newest backup, the newest that no
verification found damaged, and the newest that was verified whole. A backup from the future is kept
and counts for nothing. A damaged one takes no place: where a rule would keep it, it is kept, and so
is the next one that is not damaged.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping

from freezer_osbrick import errors
from freezer_osbrick.repository.catalogue import Backup, Condition

Bucket = Callable[[datetime.datetime], str]

# Of each counted rule: how it calls the span of time in which a moment lies. The names sort as time
# goes.
_BUCKETS: dict[str, Bucket] = {
    "hourly": lambda moment: f"{moment:%Y-%m-%d %H}h",
    "daily": lambda moment: f"{moment:%Y-%m-%d}",
    "weekly": lambda moment: "{:04}-W{:02}".format(*moment.isocalendar()),
    "monthly": lambda moment: f"{moment:%Y-%m}",
    "yearly": lambda moment: f"{moment:%Y}",
}

_SPANS = {
    "hourly": "hour",
    "daily": "day",
    "weekly": "week",
    "monthly": "month",
    "yearly": "year",
}


@dataclasses.dataclass(frozen=True)
class Rules:
    """What is to be kept; a backup that any rule keeps is kept.

    :param last: so many newest backups.
    :param hourly, daily, weekly, monthly, yearly: of so many hours, days, … that have a backup, the
        newest one of each.
    :param within: all that are at most so many seconds old.
    :param after: all that were made later than this, in seconds since the epoch.
    """

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: float | None = None
    after: float | None = None

    def __post_init__(self) -> None:
        if min(self.last, *(getattr(self, name) for name in _BUCKETS), self.within or 0) < 0:
            raise errors.BadRequest("A retention rule cannot keep less than nothing.")
        if not self:
            raise errors.BadRequest(
                "No retention rule is given: say what is to be kept, such as --keep-daily 7."
            )

    def __bool__(self) -> bool:
        counts = any(getattr(self, name) for name in ("last", *_BUCKETS))
        return counts or self.within is not None or self.after is not None


@dataclasses.dataclass(frozen=True)
class Decision:
    """What becomes of a backup.

    :param reasons: a few words each; at least one.
    """

    backup: Backup
    keep: bool
    reasons: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Findings:
    """What is known of backups beyond their heads; ids in hexadecimal.

    :param damaged: that a verification found damaged.
    :param verified: that were read whole and found undamaged.
    :param stored: when each was stored, in seconds on the store's clock.
    """

    damaged: Collection[str] = ()
    verified: Collection[str] = ()
    stored: Mapping[str, float] = dataclasses.field(default_factory=dict)


def decide(
    backups: Iterable[Backup],
    rules: Rules,
    *,
    now: float,
    findings: Findings | None = None,
    chosen: Condition | None = None,
    by_series: bool = False,
) -> list[Decision]:
    """Decide on the chosen backups, oldest first.

    :param backups: all of the repository, or at least all of each volume.
    :param now: seconds on the store's clock.
    :param chosen: the rules count these, and only these may be deleted. What is never deleted is
        found among all.
    :param by_series: count the backups of a volume apart that have another host name or backup
        name.
    """
    findings = findings or Findings()
    history = sorted(backups, key=_age)
    reasons: dict[str, list[str]] = defaultdict(list)
    groups: dict[tuple, list[Backup]] = defaultdict(list)
    considered = [backup for backup in history if chosen is None or chosen(backup)]
    for backup in considered:
        if backup.time > now:
            reasons[backup.id].append("from the future: kept, counts for nothing")
            continue
        series = (backup.head["hostname"], backup.head["name"]) if by_series else ()
        groups[backup.volume_id, series].append(backup)
    for group in groups.values():
        _apply(rules, group[::-1], now, findings.damaged, reasons)
    _protect(history, now, findings, reasons)
    return [
        _decision(backup, reasons[backup.id], backup.id in findings.damaged)
        for backup in considered
    ]


def _age(backup: Backup) -> tuple[float, float, str]:
    return backup.time, backup.head["finished"], backup.id


def _apply(
    rules: Rules,
    newest_first: list[Backup],
    now: float,
    damaged: Collection[str],
    reasons: dict[str, list[str]],
) -> None:
    """Add to the reasons what the rules say of backups that are counted together."""
    for backup in newest_first:
        if rules.within is not None and now - backup.time <= rules.within:
            reasons[backup.id].append(f"within {format_duration(rules.within)}")
        if rules.after is not None and backup.time > rules.after:
            reasons[backup.id].append(f"later than {_moment(rules.after):%Y-%m-%dT%H:%M:%SZ}")
    _count(newest_first, damaged, reasons, rules.last, lambda backup: backup.id, _last_reason)
    for name, bucket in _BUCKETS.items():
        _count(
            newest_first,
            damaged,
            reasons,
            getattr(rules, name),
            _place(bucket),
            _reason(name),
        )


def _place(bucket: Bucket) -> Callable[[Backup], str]:
    return lambda backup: bucket(_moment(backup.time))


def _reason(name: str) -> Callable[[int, str], str]:
    return lambda number, place: f"{name} {place}: newest of that {_SPANS[name]}"


def _last_reason(number: int, place: str) -> str:
    return f"last: number {number}"


def _count(
    newest_first: list[Backup],
    damaged: Collection[str],
    reasons: dict[str, list[str]],
    count: int,
    place_of: Callable[[Backup], str],
    reason: Callable[[int, str], str],
) -> None:
    """Keep one undamaged backup in each of so many places, and damaged ones that are newer than
    it.
    """
    filled: set[str] = set()
    for backup in newest_first:
        if len(filled) >= count:
            return
        place = place_of(backup)
        if place in filled:
            continue
        if backup.id in damaged:
            reasons[backup.id].append(f"{reason(len(filled) + 1, place)} (damaged: takes no place)")
        else:
            filled.add(place)
            reasons[backup.id].append(reason(len(filled), place))


def _protect(
    history: list[Backup], now: float, findings: Findings, reasons: dict[str, list[str]]
) -> None:
    """Add what is never deleted: the newest of each volume, in each meaning of the word."""
    volumes: dict[str, list[Backup]] = defaultdict(list)
    for backup in history:
        volumes[backup.volume_id].append(backup)
    for backups in volumes.values():
        present = [backup for backup in backups if backup.time <= now]
        undamaged = [backup for backup in present if backup.id not in findings.damaged]
        verified = [backup for backup in undamaged if backup.id in findings.verified]
        newest: dict[str, list[str]] = defaultdict(list)
        if present:
            newest[present[-1].id].append("newest backup of the volume")
        # A host whose clock was wrong made a backup that only looks old, or one that looks newer
        # than those after it.
        last = _stored_last(undamaged, findings)
        if last and not newest[last]:
            newest[last].append("stored last of all backups of the volume")
        if undamaged and not newest[undamaged[-1].id]:
            newest[undamaged[-1].id].append("newest undamaged backup of the volume")
        if verified:
            newest[verified[-1].id].append("newest verified backup of the volume")
        last = _stored_last(verified, findings)
        if last and not newest[last]:
            newest[last].append("stored last of all verified backups of the volume")
        for backup_id, why in newest.items():
            reasons[backup_id] += why


def _stored_last(backups: Iterable[Backup], findings: Findings) -> str | None:
    """The id of the backup that the store got last."""
    stored = [backup for backup in backups if backup.id in findings.stored]
    if not stored:
        return None
    return max(stored, key=lambda backup: (findings.stored[backup.id], *_age(backup))).id


def _decision(backup: Backup, reasons: list[str], damaged: bool) -> Decision:
    if reasons:
        return Decision(backup, True, tuple(reasons))
    why = ("no rule keeps it", "damaged") if damaged else ("no rule keeps it",)
    return Decision(backup, False, why)


def _moment(epoch: float) -> datetime.datetime:
    """The moment in UTC; the first or the last that a calendar has, where it lies beyond."""
    try:
        return datetime.datetime.fromtimestamp(epoch, tz=datetime.timezone.utc)
    except (OverflowError, ValueError, OSError):
        extreme = datetime.datetime.max if epoch > 0 else datetime.datetime.min
        return extreme.replace(tzinfo=datetime.timezone.utc)


def format_duration(seconds: float) -> str:
    """A span of time in days and hours: ``7d``, ``1d12h``, ``36s``."""
    rest = int(seconds)
    text = ""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        number, rest = divmod(rest, length)
        text += f"{number}{unit}" if number else ""
    return text or "0s"
