# SPDX-License-Identifier: Apache-2.0
"""The project's frame keeps its word: sample, imports, requirements, the README's commands."""

from __future__ import annotations

import ast
import configparser
import importlib.metadata
import os
import pathlib
import re
import subprocess
import sys

import pytest
from oslo_config import generator

ROOT = pathlib.Path(__file__).parents[2]
PACKAGE = ROOT / "freezer_osbrick"

FOR_THE_BUILD = {"pbr"}
FOUND_ON_THE_HOST = {"rados", "rbd"}
# The extra "dashboard", which no environment of these tests has: Horizon lies in one of its own.
FOUND_IN_HORIZON = {"django", "freezer_ui", "freezerclient", "horizon", "openstack_dashboard"}


def tracked_files() -> list[pathlib.Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def required() -> dict[str, set[str]]:
    """The required distributions, each with the modules that it brings."""
    return with_modules((ROOT / "requirements.txt").read_text().splitlines())


def in_extras() -> dict[str, set[str]]:
    """The same of what is required for one purpose only."""
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg")
    extras = {name: lines for name, lines in setup["extras"].items() if name != "dashboard"}
    return with_modules([line for lines in extras.values() for line in lines.split()])


def with_modules(requirements: list[str]) -> dict[str, set[str]]:
    names = (re.match(r"[A-Za-z0-9._-]+", line) for line in requirements)
    return {name[0]: modules_of(name[0]) for name in names if name}


def modules_of(distribution: str) -> set[str]:
    files = importlib.metadata.files(distribution) or []
    return {file.parts[0].partition(".")[0] for file in files if file.suffix in (".py", ".so")}


def imported() -> set[str]:
    """Top-level modules that the package imports, its own and Python's left out."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"freezer_osbrick"}


def test_the_sample_configuration_is_what_the_options_say(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    fresh = tmp_path / "sample"
    generator.main(
        ["--config-file", "etc/oslo-config-generator.conf", "--output-file", os.fspath(fresh)]
    )
    sample = ROOT / "etc" / "freezer-osbrick.conf.sample"
    assert sample.read_text() == fresh.read_text(), (
        "run: oslo-config-generator --config-file etc/oslo-config-generator.conf"
    )


def test_imports_go_one_way() -> None:
    # In a process of its own: it changes the logging of the one it runs in.
    program = "import sys; from importlinter import cli; sys.exit(cli.lint_imports(no_cache=True))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Contracts: " in done.stdout


def test_what_is_imported_is_required() -> None:
    provided = [*required().values(), *in_extras().values()]
    elsewhere = FOUND_ON_THE_HOST | FOUND_IN_HORIZON
    assert imported() - elsewhere - set().union(*provided) == set()


def test_what_is_required_is_imported() -> None:
    used = imported()
    idle = {name for name, modules in required().items() if not modules & used}
    assert idle - FOR_THE_BUILD == set()


def test_no_file_names_a_place_of_one_machine() -> None:
    telling = re.compile(rb"%s\b|/root/\w" % re.escape(os.fsencode(ROOT)))
    found = {
        os.fspath(path.relative_to(ROOT)): match.group()
        for path in tracked_files()
        if (match := telling.search(path.read_bytes()))
    }
    assert found == {}


def test_every_module_names_its_license_first() -> None:
    modules = [path for path in tracked_files() if path.suffix == ".py"]
    assert modules
    mark = "# SPDX-License-Identifier: Apache-2.0"
    without = [
        os.fspath(path.relative_to(ROOT))
        for path in modules
        if path.stat().st_size and mark not in path.read_text().splitlines()[:2]
    ]
    assert without == []


def readme_command(marker: str) -> str:
    """The indented line after a marker of README.rst; there must be only one."""
    text = (ROOT / "README.rst").read_text()
    (block,) = re.findall(rf"^\.\. _{marker}:\n\n::\n\n((?:    .*\n)+)", text, re.MULTILINE)
    (line,) = block.splitlines()
    return line.strip()


def test_the_commands_of_the_readme_are_there() -> None:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    assert readme_command("the demo command") == "tools/get-tox && .venv/tox/bin/tox -e demo"
    assert readme_command("the test command") == "tools/get-tox && .venv/tox/bin/tox"
    assert "testenv:demo" in tox
    environments = re.split(r"[\s,]+", tox["tox"]["env_list"])
    assert environments[-1] == "tests", "the last line of a run counts all tests"
    assert {f"testenv:{name}" for name in environments[:-1]} <= set(tox.sections())
    for script in (".ci/run", "tools/get-tox"):
        assert os.access(ROOT / script, os.X_OK), script


def test_the_specification_names_tests_that_exist() -> None:
    """Each line of the table in the docs has a test, and each test that it names is there."""
    text = (ROOT / "doc" / "source" / "specification.rst").read_text()
    rows = [row.split("\n     - ") for row in re.split(r"\n   \* - ", text)[1:]]
    rows = [row for row in rows if row[0] != "Line"]
    assert len(rows) > 40
    for line, _, cell in rows:
        named = re.findall(r"``(\S+?\.py)(?:::(\w+))?``", cell)
        assert named, line
        for file, test in named:
            path = ROOT / "tests" / file
            assert path.is_file(), (line, file)
            assert not test or f"\ndef {test}(" in path.read_text(), (line, file, test)


def test_ci_runs_the_readmes_test_command(tmp_path) -> None:
    (tmp_path / ".ci").mkdir()
    (tmp_path / "tools").mkdir()
    script = tmp_path / ".ci" / "run"
    script.write_bytes((ROOT / ".ci" / "run").read_bytes())
    readme = (ROOT / "README.rst").read_text()
    (tmp_path / "README.rst").write_text(
        readme.replace(readme_command("the test command"), "pwd && cat && echo ran the tests")
    )
    with subprocess.Popen(
        ["bash", os.fspath(script)],
        cwd="/",
        stdin=subprocess.PIPE,  # never closed by us: CI must not read it
        stdout=subprocess.PIPE,
        text=True,
    ) as done:
        assert done.stdout is not None
        assert done.stdout.read().splitlines()[1:] == [os.fspath(tmp_path), "ran the tests"]
    assert done.returncode == 0


def test_ci_fails_when_the_tests_do(tmp_path) -> None:
    (tmp_path / ".ci").mkdir()
    script = tmp_path / ".ci" / "run"
    script.write_bytes((ROOT / ".ci" / "run").read_bytes())
    (tmp_path / "README.rst").write_text(".. _the test command:\n\n::\n\n    false && true\n")
    assert subprocess.run(["bash", os.fspath(script)], check=False).returncode == 1
