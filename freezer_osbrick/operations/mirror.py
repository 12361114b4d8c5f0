# SPDX-License-Identifier: Apache-2.0
"""Several repositories that mirror each other: each gets every backup whole.

A backup has one id in all of them. What one of them cannot do, the others still do; where they all
fail, the run fails.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from oslo_log import log

from freezer_osbrick import errors, named_repositories
from freezer_osbrick.operations.context import Context
from freezer_osbrick.operations.report import ERROR, PARTIAL, CopyReport, VolumeReport
from freezer_osbrick.repository.repository import Repository
from freezer_osbrick.store import address

LOG = log.getLogger(__name__)

# What makes two repositories of one URL different ones.
_PLACE = ("endpoint", "region", "auth_url", "storage_url")


# Of a copy, told of the volume too.
_FIELDS = (
    *("level", "bytes_read", "bytes_zero", "bytes_reused", "bytes_new", "bytes_stored"),
    *("hints", "blocks_audited"),
)

# Says that the volume has to be attached in another way, whatever the repository.
_OF_THE_VOLUME = (errors.NoFileSystem, errors.JournalDirty)


@dataclasses.dataclass(frozen=True)
class Side:
    """One of the repositories of a run.

    :param address: as the caller gave it.
    :param repository: None where it could not be opened: ``error`` says why.
    """

    address: str
    repository: Repository | None
    error: errors.OsbrickError | None = None


def open_sides(context: Context, given: str | Sequence[str], *, create: bool = False) -> list[Side]:
    """Open the repositories at the addresses. Of several some may fail.

    :param create: make those that there are not.
    :raises errors.BadRequest: one is given twice, or is no address.
    :raises errors.ConfigurationError: one is not configured as it must be.
    :raises errors.OsbrickError: none could be opened.
    """
    addresses = [given] if isinstance(given, str) else list(given)
    if len(addresses) == 1:
        return [Side(addresses[0], context.open_repository(addresses[0], create=create))]
    _check(context, addresses)
    sides = [_open(context, address, create) for address in addresses]
    failed = {side.address: side.error for side in sides if side.error}
    if len(failed) == len(sides):
        raise errors.MirrorFailed(f"No repository can be used. {told(failed)}")
    return sides


def each(
    sides: Sequence[Side],
    report: VolumeReport,
    one: Callable[[Repository, CopyReport], None],
) -> None:
    """Let every repository get the backup, one after the other; tell of it in the report.

    :raises errors.OsbrickError: the only one failed, or all did.
    """
    copies = [CopyReport(side.address) for side in sides]
    if len(sides) > 1:
        report.copies = copies
    failed: dict[str, errors.OsbrickError] = {}
    for side, copy in zip(sides, copies, strict=True):
        try:
            if side.repository is None:
                assert side.error is not None
                raise side.error
            one(side.repository, copy)
        except _OF_THE_VOLUME:
            raise
        except errors.OsbrickError as error:
            copy.state, copy.reason = ERROR, str(error)
            if len(sides) == 1:
                _sum_up(report, copies)
                raise
            failed[side.address] = error
            LOG.error("Volume %s, repository %s: %s", report.volume_id, side.address, error)
    _sum_up(report, copies)
    if len(failed) == len(sides):
        raise errors.MirrorFailed(f"No repository got the backup. {told(failed)}")
    if failed:
        report.state = PARTIAL
        where = " and ".join(copy.repository for copy in copies if copy.state != ERROR)
        before = f"{report.reason} " if report.reason else ""
        report.reason = f"{before}The backup is in {where} only. {told(failed)}"


def told(failed: dict[str, errors.OsbrickError]) -> str:
    """What failed where, a sentence each."""
    return " ".join(f"{where}: {error}" for where, error in failed.items())


def _check(context: Context, addresses: Sequence[str]) -> None:
    """Refuse one repository that is given twice: it would hold every backup twice."""
    seen: dict[tuple[str, ...], str] = {}
    for name in addresses:
        settings = named_repositories.settings_of(context.conf, name)
        place = (address.normalise(settings["url"]), *(str(settings[key]) for key in _PLACE))
        if place in seen:
            raise errors.BadRequest(
                f"{seen[place]} and {name} are the same repository: give it once."
                if seen[place] != name
                else f"The repository {name} is given twice: give it once."
            )
        seen[place] = name


def _open(context: Context, name: str, create: bool) -> Side:
    try:
        return Side(name, context.open_repository(name, create=create))
    except (errors.BadRequest, errors.ConfigurationError):
        raise
    except errors.OsbrickError as error:
        LOG.error("Repository %s cannot be used: %s", name, error)
        return Side(name, None, error)


def _sum_up(report: VolumeReport, copies: Sequence[CopyReport]) -> None:
    """Tell of the first copy that was stored in the fields of the volume, and all notes."""
    alone = len(copies) == 1
    for copy in copies:
        report.notes += copy.notes if alone else [f"{copy.repository}: {n}" for n in copy.notes]
    stored = next((copy for copy in copies if copy.state != ERROR), None)
    if stored is None:
        return
    report.repository = None if alone else stored.repository
    report.state, report.reason = stored.state, stored.reason
    for field in _FIELDS:
        setattr(report, field, getattr(stored, field))
