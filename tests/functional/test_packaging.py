# SPDX-License-Identifier: Apache-2.0
"""Every way of installing the package brings the .pth of the hook; removing it leaves nothing."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import venv
import zipfile
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PTH = "freezer-osbrick.pth"
IS_HOOKED = (
    "import sys; print([f.__module__ for f in sys.meta_path if isinstance(f, type) "
    "and f.__module__.startswith('freezer_osbrick')])"
)
HOOKED = "['freezer_osbrick.agent.boot']\n"


def run(*command: str | pathlib.Path, cwd: pathlib.Path | None = None) -> str:
    """Standard output of a program; it must succeed and have nothing to complain about."""
    kept = ("HOME", "PATH", "LANG", "TMPDIR", "SSL_CERT_FILE")
    environment = {
        key: value
        for key, value in os.environ.items()
        if key in kept or key.startswith("PIP_") or key.lower().endswith("_proxy")
    }
    environment["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Environment:
    """A virtual environment without pip; the builder's pip installs into it."""

    def __init__(self, folder: pathlib.Path) -> None:
        venv.create(folder, symlinks=True)
        self.folder = folder
        self.python = folder / "bin" / "python"
        (self.site_packages,) = folder.glob("lib/python*/site-packages")

    def files(self) -> set[str]:
        """All that lies in the environment, byte code aside."""
        return {
            str(path.relative_to(self.folder))
            for path in self.folder.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The interpreter of an environment with pip and what pyproject.toml builds with."""
    folder = tmp_path_factory.mktemp("builder")
    venv.create(folder, with_pip=True, symlinks=True)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "pbr>=6.1.1", "setuptools>=64", "wheel")
    return python


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A repository with the tracked files as they are now: building leaves traces in a checkout."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("pbr builds from a git checkout")
    folder = tmp_path_factory.mktemp("checkout")
    for name in run("git", "ls-files", "-z", cwd=ROOT).rstrip("\0").split("\0"):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    who = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    run("git", "init", "-q", cwd=folder)
    run("git", "add", "--all", cwd=folder)
    run("git", *who, "commit", "-q", "-m", "as it is", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(
    builder: pathlib.Path, checkout: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> pathlib.Path:
    return build_wheel(builder, checkout, tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def environment(tmp_path: pathlib.Path) -> Iterator[Environment]:
    """An empty environment, in which nothing of ours may be left at the end."""
    made = Environment(tmp_path / "venv")
    before = made.files()
    yield made
    assert made.files() == before
    done = subprocess.run([made.python, "-c", IS_HOOKED], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def build_wheel(builder: pathlib.Path, source: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    pip_wheel = ("-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation")
    run(builder, *pip_wheel, "-w", target, source)
    (built,) = target.glob("*.whl")
    return built


def pip(builder: pathlib.Path, environment: Environment, *words: str | pathlib.Path) -> None:
    run(builder, "-m", "pip", "--python", environment.python, *words)


def check_content(wheel: pathlib.Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert archive.read(PTH) == (ROOT / PTH).read_bytes()
    assert names.count(PTH) == 1
    assert "freezer_osbrick/agent/boot.py" in names
    assert not [name for name in names if "setup_commands" in name or name.startswith("tests/")]


def installed_names(wheel: zipfile.ZipFile) -> set[str]:
    """What the wheel installs, metadata aside."""
    return {
        name for name in wheel.namelist() if ".dist-info/" not in name and not name.endswith("/")
    }


def test_a_wheel_brings_the_hook_and_takes_it_away(
    builder: pathlib.Path, wheel: pathlib.Path, environment: Environment
) -> None:
    check_content(wheel)
    pip(builder, environment, "install", "-q", "--no-deps", wheel)
    assert run(environment.python, "-c", IS_HOOKED) == HOOKED
    pip(builder, environment, "uninstall", "-q", "-y", "freezer-osbrick")


def test_a_wheel_made_of_an_sdist_is_the_same(
    builder: pathlib.Path, checkout: pathlib.Path, wheel: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    script = "import pbr.build, sys; pbr.build.build_sdist(sys.argv[1])"
    run(builder, "-c", script, tmp_path, cwd=checkout)
    (sdist,) = tmp_path.glob("*.tar.gz")
    shutil.unpack_archive(sdist, tmp_path)
    (source,) = (path for path in tmp_path.iterdir() if path.is_dir())
    rebuilt = build_wheel(builder, source, tmp_path / "wheel")
    check_content(rebuilt)
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(rebuilt) as second:
        assert installed_names(first) == installed_names(second)


def test_an_editable_installation_brings_the_hook_and_takes_it_away(
    builder: pathlib.Path, checkout: pathlib.Path, environment: Environment, tmp_path: pathlib.Path
) -> None:
    source = tmp_path / "source"  # its own, since an editable installation writes into it
    shutil.copytree(checkout, source)
    words = ("install", "-q", "--no-deps", "--no-build-isolation", "-e", source)
    # pip builds with the interpreter that it installs for: lend it the builder's packages.
    lent = environment.site_packages / "zz-builder.pth"
    (packages,) = builder.parents[1].glob("lib/python*/site-packages")
    lent.write_text(f"{packages}\n")
    pip(builder, environment, *words)
    lent.unlink()
    assert run(environment.python, "-c", IS_HOOKED) == HOOKED
    where = run(
        environment.python, "-c", "import freezer_osbrick.agent as a; print(a.__file__)"
    ).strip()
    assert pathlib.Path(where).is_relative_to(source)
    pip(builder, environment, "uninstall", "-q", "-y", "freezer-osbrick")
