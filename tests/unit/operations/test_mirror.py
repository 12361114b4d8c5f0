# SPDX-License-Identifier: Apache-2.0
"""Several repositories: each gets the backup, and what one cannot do the others still do."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
from oslo_config import cfg

from freezer_osbrick import errors, named_repositories
from freezer_osbrick.operations import mirror
from freezer_osbrick.operations.context import Context
from freezer_osbrick.operations.mirror import Side
from freezer_osbrick.operations.report import CopyReport, VolumeReport
from tests.unit.pipeline.flow import new_repository


@pytest.fixture
def context() -> Context:
    conf = cfg.ConfigOpts()
    conf(args=[], default_config_files=[])
    return Context.open(conf)


# -- opening ---------------------------------------------------------------------------------------


def test_one_repository_is_opened_as_ever(context: Context, tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.RepositoryMissing):
        mirror.open_sides(context, str(tmp_path / "a"))
    (side,) = mirror.open_sides(context, str(tmp_path / "a"), create=True)
    assert side.repository is not None and side.error is None


def test_of_several_some_may_fail(context: Context, tmp_path: pathlib.Path) -> None:
    addresses = [str(tmp_path / "a"), "/proc/backups"]
    good, bad = mirror.open_sides(context, addresses, create=True)
    assert good.repository is not None
    assert bad.repository is None and "/proc/backups" in str(bad.error)


def test_all_of_several_must_not_fail(context: Context) -> None:
    with pytest.raises(errors.MirrorFailed, match="/proc/a: .*/proc/b: "):
        mirror.open_sides(context, ["/proc/a", "/proc/b"], create=True)


@pytest.mark.parametrize("second", ["{}/a", "{}/a/", "file://{}/a"])
def test_one_repository_twice_is_refused(context: Any, tmp_path: Any, second: str) -> None:
    with pytest.raises(errors.BadRequest, match="give it once"):
        mirror.open_sides(context, [f"{tmp_path}/a", second.format(tmp_path)], create=True)
    assert not (tmp_path / "a").exists()


def test_what_is_no_address_is_refused_before_anything_is_made(
    context: Context, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(errors.BadRequest):
        mirror.open_sides(context, [str(tmp_path / "a"), "tape://x"], create=True)
    with pytest.raises(errors.ConfigurationError, match="'vault'"):
        mirror.open_sides(context, [str(tmp_path / "a"), "vault"], create=True)
    assert not (tmp_path / "a").exists()


def test_buckets_of_one_name_at_two_services_are_two(context: Context) -> None:
    for name, endpoint in (("a", "http://a"), ("b", "http://b"), ("c", "http://b")):
        named_repositories.configure(context.conf, "s3://vault", {"endpoint": endpoint}, name=name)
    mirror._check(context, ["a", "b"])
    with pytest.raises(errors.BadRequest, match="b and c are the same"):
        mirror._check(context, ["a", "b", "c"])


# -- every repository gets the backup --------------------------------------------------------------


def sides(*names: str) -> list[Side]:
    return [Side(name, new_repository()) for name in names]


def stored(report: CopyReport, level: int = 0) -> None:
    report.level = level
    report.bytes_new = level * 10


def test_a_single_repository_shows_no_copies() -> None:
    report = VolumeReport("v1")
    mirror.each(sides("/a"), report, lambda repository, copy: stored(copy, 2))
    assert (report.state, report.level, report.bytes_new) == ("success", 2, 20)
    assert (report.copies, report.repository) == ([], None)


def test_a_single_repositorys_error_comes_as_it_is() -> None:
    report = VolumeReport("v1")

    def one(repository: Any, copy: CopyReport) -> None:
        copy.notes.append("A note.")
        raise errors.StoreFull("It is full.")

    with pytest.raises(errors.StoreFull, match="^It is full.$"):
        mirror.each(sides("/a"), report, one)
    assert report.notes == ["A note."]


def test_each_has_a_report_of_its_own() -> None:
    report = VolumeReport("v1")
    levels = iter((3, 0))

    def one(repository: Any, copy: CopyReport) -> None:
        stored(copy, next(levels))
        copy.notes.append("A note.")

    mirror.each(sides("/a", "/b"), report, one)
    assert [(copy.repository, copy.level) for copy in report.copies] == [("/a", 3), ("/b", 0)]
    assert (report.state, report.repository, report.level) == ("success", "/a", 3)
    assert report.notes == ["/a: A note.", "/b: A note."]


@pytest.mark.parametrize("bad", ["/a", "/b", "/c"])
def test_one_that_fails_makes_the_backup_partial(bad: str) -> None:
    report = VolumeReport("v1")

    def one(repository: Any, copy: CopyReport) -> None:
        if copy.repository == bad:
            raise errors.StoreUnavailable("It is gone.")
        stored(copy, 1)

    mirror.each(sides("/a", "/b", "/c"), report, one)
    assert report.state == "partial"
    good = [name for name in ("/a", "/b", "/c") if name != bad]
    assert report.reason == f"The backup is in {' and '.join(good)} only. {bad}: It is gone."
    assert report.repository == good[0]
    (failed,) = [copy for copy in report.copies if copy.state == "error"]
    assert (failed.repository, failed.reason, failed.level) == (bad, "It is gone.", None)


def test_one_that_could_not_be_opened_is_named() -> None:
    report = VolumeReport("v1")
    gone = Side("/b", None, errors.StoreUnavailable("It is gone."))
    mirror.each([*sides("/a"), gone], report, lambda repository, copy: stored(copy))
    assert (report.state, report.copies[1].reason) == ("partial", "It is gone.")


def test_where_all_fail_the_backup_fails() -> None:
    report = VolumeReport("v1")

    def one(repository: Any, copy: CopyReport) -> None:
        raise errors.StoreFull(f"{copy.repository} is full.")

    with pytest.raises(errors.MirrorFailed, match="/a: /a is full. /b: /b is full."):
        mirror.each(sides("/a", "/b"), report, one)
    assert [copy.state for copy in report.copies] == ["error", "error"]
    assert report.repository is None


def test_a_signal_ends_all_of_it() -> None:
    asked = []

    def one(repository: Any, copy: CopyReport) -> None:
        asked.append(copy.repository)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mirror.each(sides("/a", "/b"), VolumeReport("v1"), one)
    assert asked == ["/a"]
