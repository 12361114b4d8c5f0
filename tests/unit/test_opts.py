# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import pathlib
import stat

import pytest
from oslo_config import cfg

from freezer_osbrick import errors, named_repositories, opts


def configured(tmp_path: pathlib.Path, text: str) -> cfg.ConfigOpts:
    path = tmp_path / "test.conf"
    path.write_text(text)
    conf = cfg.ConfigOpts()
    opts.register(conf)
    opts.register(conf)  # both doors may do it
    conf([], project="test", default_config_files=[str(path)], default_config_dirs=[])
    return conf


def test_repositories_by_name(tmp_path: pathlib.Path) -> None:
    conf = configured(
        tmp_path,
        "[repository:nightly]\nurl = file:///srv/nightly\n[repository:empty]\n",
    )
    assert named_repositories.names(conf) == ["empty", "nightly"]
    assert named_repositories.url_of(conf, "nightly") == "file:///srv/nightly"
    with pytest.raises(errors.ConfigurationError, match="'weekly': known are: empty, nightly"):
        named_repositories.url_of(conf, "weekly")
    with pytest.raises(errors.ConfigurationError, match=r"\[repository:empty\] .* has no url"):
        named_repositories.url_of(conf, "empty")


def test_no_repository_at_all(tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.ConfigurationError, match="no configuration file names any"):
        named_repositories.url_of(configured(tmp_path, ""), "nightly")


def test_state_path_as_configured(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a" / "b"
    conf = configured(tmp_path, f"[osbrick]\nstate_path = {path}\n")
    assert opts.state_path(conf) == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("euid", "variables", "expected"),
    [
        (0, {}, "/var/lib/freezer-osbrick"),
        (1000, {}, "/home/me/.local/state/freezer-osbrick"),
        (1000, {"XDG_STATE_HOME": "/home/me/state"}, "/home/me/state/freezer-osbrick"),
    ],
)
def test_state_path_by_user(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    euid: int,
    variables: dict[str, str],
    expected: str,
) -> None:
    made: list[str] = []
    monkeypatch.setattr(os, "makedirs", lambda path, **options: made.append(path))
    monkeypatch.setattr(os, "geteuid", lambda: euid)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert opts.state_path(configured(tmp_path, "")) == expected
    assert made == [expected]


def test_a_state_path_that_cannot_be_made(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    conf = configured(tmp_path, f"[osbrick]\nstate_path = {tmp_path}/file/state\n")
    with pytest.raises(errors.ConfigurationError, match="cannot be made: Not a directory.*state_p"):
        opts.state_path(conf)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[osbrick]\nparalel = 3\n", r"\[osbrick\] has no option paralel; did you mean parallel\?"),
        ("[osbrick]\nstate-path = /x\n", "no option state-path; did you mean state_path\\?"),
        ("[cloud]\nfrobnicate = 3\n", "has no option frobnicate; there are os_cloud, region_name,"),
        ("[repository:x]\nurll = /x\n", r"\[repository:x\] has no option urll; did you mean url\?"),
        ("[osbrik]\nparallel = 3\n", r"no group \[osbrik\]; did you mean \[osbrick\]\?"),
    ],
)
def test_what_is_no_option_is_refused(tmp_path: pathlib.Path, text: str, said: str) -> None:
    path = tmp_path / "test.conf"
    path.write_text(text)
    with pytest.raises(errors.ConfigurationError, match=said):
        opts.load([str(path)])


def test_groups_of_others_are_theirs(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "freezer-agent.conf"
    path.write_text(
        "[DEFAULT]\nverbose = 1\n[os_brick]\nfoo = 1\n[osbrick]\nworkers = 2\n"
        "[service_user]\nauth_type = password\nusername = cinder\nuser_domain_name = Default\n"
    )
    assert opts.load([str(path)]).osbrick.parallel == 10


def test_every_option_has_a_help_text_and_a_group() -> None:
    groups = dict(opts.list_opts())
    assert set(groups) == {"osbrick", "cloud", "device", "service_user", "repository:NAME"}
    assert all(option.help for options in groups.values() for option in options)
