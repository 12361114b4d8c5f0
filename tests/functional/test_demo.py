# SPDX-License-Identifier: Apache-2.0
"""The demonstration that the README begins with."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

DEMO = pathlib.Path(__file__).parents[2] / "devstack" / "demo.py"


def demo(*words: str | pathlib.Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(DEMO), *map(str, words)], capture_output=True, text=True
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount what the demo looks into")
def test_it_plays_to_its_end_and_leaves_nothing(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "demo"
    done = demo("--folder", folder, "--files", "30")
    assert done.returncode == 0, done.stdout + done.stderr
    table = [line for line in done.stdout.splitlines() if line.startswith(("full", "incr", "rest"))]
    assert len(table) == 7, done.stdout
    assert [line.split()[-1] for line in table if line.startswith("rest")] == ["equal"] * 3
    assert done.stdout.endswith("every byte is right, and nothing is left\n")
    assert not folder.exists()
    assert str(folder) not in pathlib.Path("/proc/self/mounts").read_text()


def test_a_folder_that_cannot_be(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    done = demo("--folder", tmp_path / "file" / "demo")
    assert done.returncode == 1
    assert done.stderr.startswith("demo.py: ") and done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize("files", ["0", "451", "many"])
def test_files_that_do_not_fit(files: str) -> None:
    done = demo("--files", files)
    assert done.returncode == 2
    assert f"'{files}'" in done.stderr or f" {files} " in done.stderr, done.stderr
