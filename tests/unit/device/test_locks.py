# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pathlib

import pytest

from freezer_osbrick.device import locks


@pytest.mark.parametrize(
    ("text", "theirs"),
    [
        ("[oslo_concurrency]\nlock_path = /var/lock/nova\n", "/var/lock/nova"),
        ("[oslo_concurrency]\nlock_path = $state_path/tmp\n", "/var/lib/nova/tmp"),
        ("[DEFAULT]\nstate_path = /srv\n[oslo_concurrency]\nlock_path = $state_path/l\n", "/srv/l"),
        ("[oslo_concurrency]\nlock_path = /a\n[os_brick]\nlock_path = /b\n", "/b"),
    ],
)
def test_another_folder_than_nova(tmp_path: pathlib.Path, text: str, theirs: str) -> None:
    path = tmp_path / "nova.conf"
    path.write_text(text)
    (told,) = locks.warn_of_others("/ours", {"nova": str(path)})
    assert f"keeps its locks in {theirs}, ours keeps them in /ours" in told
    assert locks.warn_of_others(theirs, {"nova": str(path)}) == []


def test_folders_of_configuration_count_too(tmp_path: pathlib.Path) -> None:
    (tmp_path / "cinder.conf").write_text("[oslo_concurrency]\nlock_path = /a\n")
    (tmp_path / "cinder.conf.d").mkdir()
    (tmp_path / "cinder.conf.d" / "1.conf").write_text("[oslo_concurrency]\nlock_path = /c\n")
    assert locks.warn_of_others("/c", {"cinder": str(tmp_path / "cinder.conf")}) == []


@pytest.mark.parametrize("text", ["", "no section\n", "[oslo_concurrency]\nlock_path = $nowhere\n"])
def test_a_configuration_that_tells_nothing(tmp_path: pathlib.Path, text: str) -> None:
    path = tmp_path / "nova.conf"
    path.write_text(text)
    none = str(tmp_path / "none.conf")
    assert locks.warn_of_others("/ours", {"nova": str(path), "cinder": none}) == []
