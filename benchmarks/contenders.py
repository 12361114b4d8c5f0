# SPDX-License-Identifier: Apache-2.0
"""Who is compared: how each is installed, and how it backs up and restores one file."""

from __future__ import annotations

import abc
import importlib.metadata
import json
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence

import measure

HERE = pathlib.Path(__file__).resolve().parent
MIB = 1 << 20

Command = Sequence[str | os.PathLike[str]]


class Unavailable(Exception):
    """A contender cannot be had here; the message says why."""


class Contender(abc.ABC):
    """One program, with a repository of its own on the local disk.

    Backups are made one after the other; each may build on those before it. What differs from a
    program's defaults is what makes it fit for volumes: blocks of a fixed size where it knows such,
    zstd, and reading all data although the file seems not to have changed, because a block device
    never tells.
    """

    name: str
    about: str
    incremental = True

    def __init__(self, installs: pathlib.Path, threads: int) -> None:
        """:param installs: folder for environments, kept from run to run."""
        self.installs = installs
        self.threads = threads

    @abc.abstractmethod
    def install(self) -> str:
        """Make it ready to run; its version.

        :raises Unavailable: that cannot be done here.
        """

    def begin(self, folder: pathlib.Path) -> None:
        """Use an empty folder; the repository is its subfolder ``repository``."""
        self.folder = folder
        self.repository = folder / "repository"
        self.log = folder / "log"
        self.repository.mkdir(parents=True)
        self.prepare()

    def prepare(self) -> None:  # noqa: B027 (most make their repository with the first backup)
        """Make the repository, which is not measured."""

    @property
    def environment(self) -> Mapping[str, str]:
        return {}

    def backup(self, image: pathlib.Path) -> measure.Cost:
        return self._measured(self.backup_command(image), self.repository)

    def restore(self, size: int) -> tuple[measure.Cost, pathlib.Path]:
        """Restore the newest backup, of ``size`` bytes, to a file that does not exist yet."""
        target = self.folder / "restored"
        target.mkdir()
        cost = self._measured(self.restore_command(target, size), target, target)
        (found,) = (path for path in target.rglob("*") if path.is_file())
        return cost, found

    @abc.abstractmethod
    def backup_command(self, image: pathlib.Path) -> Command: ...

    @abc.abstractmethod
    def restore_command(self, target: pathlib.Path, size: int) -> Command:
        """:param target: an empty folder."""

    def _measured(
        self, command: Command, written: pathlib.Path, folder: pathlib.Path | None = None
    ) -> measure.Cost:
        return measure.run(
            command,
            log=self.log,
            written=written,
            environment=self.environment,
            folder=folder or self.folder,
        )

    def _call(self, *command: str | os.PathLike[str]) -> str:
        done = subprocess.run(
            command,
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            told = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise Unavailable(f"{command[0]} failed: {' '.join(told)}")
        return done.stdout.strip()

    def _environment_with(self, name: str, *installations: Sequence[str]) -> pathlib.Path:
        """A virtual environment of its own; its folder of programs."""
        folder = self.installs / name
        if not (folder / "ready").exists():
            shutil.rmtree(folder, ignore_errors=True)
            self._call(sys.executable, "-m", "venv", folder)
            for arguments in installations:
                self._call(folder / "bin" / "pip", "install", "--quiet", *arguments)
            (folder / "ready").touch()
        return folder / "bin"


class Ours(Contender):
    name = "freezer-osbrick"
    about = "blocks of 64 KiB, zstd 1, BLAKE3"
    options: tuple[str, ...] = ()

    def install(self) -> str:
        self._call(sys.executable, "-c", "import freezer_osbrick.pipeline.backup")
        try:
            return importlib.metadata.version("freezer-osbrick")
        except importlib.metadata.PackageNotFoundError:
            return "of this checkout"

    def prepare(self) -> None:
        self._call(*self._driver("init"))

    @property
    def environment(self) -> Mapping[str, str]:
        return {"PYTHONPATH": str(HERE.parent)}

    def backup_command(self, image: pathlib.Path) -> Command:
        return self._driver("backup", image)

    def restore_command(self, target: pathlib.Path, size: int) -> Command:
        return self._driver("restore", _sparse(target / "volume", size))

    def _driver(self, verb: str, *rest: pathlib.Path) -> list[str | os.PathLike[str]]:
        driver = HERE / "drive_ours.py"
        threads = ["--threads", str(self.threads)]
        return [sys.executable, driver, *self.options, *threads, verb, self.repository, *rest]


class OursSealed(Ours):
    name = "freezer-osbrick sealed"
    about = Ours.about + ", AES-256-GCM"
    options = ("--sealed",)


class Restic(Contender):
    name = "restic"
    about = "repository version 2; always encrypted"

    def install(self) -> str:
        _program("restic", "restic", self)
        version = self._call("restic", "version").split()[1]
        # Holes in the restored file instead of zeros: since 0.15.
        self._sparse = ["--sparse"] if _numbers(version) >= (0, 15) else []
        return version

    @property
    def environment(self) -> Mapping[str, str]:
        if not hasattr(self, "folder"):
            return {}
        return {
            "RESTIC_REPOSITORY": str(self.repository),
            "RESTIC_PASSWORD": "benchmark",
            "RESTIC_CACHE_DIR": str(self.folder / "cache"),
        }

    def prepare(self) -> None:
        self._call("restic", "init", "--repository-version", "2")

    def backup_command(self, image: pathlib.Path) -> Command:
        return ["restic", "backup", "--force", image]

    def restore_command(self, target: pathlib.Path, size: int) -> Command:
        return ["restic", "restore", *self._sparse, "--target", target, "latest"]


class Borg(Contender):
    name = "borg"
    about = "fixed chunks of 4 MiB, zstd 1, not encrypted"

    def install(self) -> str:
        self._count = 0
        try:
            if os.geteuid() == 0:
                _apt(
                    self,
                    "libacl1-dev",
                    "liblz4-dev",
                    "libssl-dev",
                    "libxxhash-dev",
                    "libzstd-dev",
                    "pkg-config",
                )
            self._program = self._environment_with("borg", ["borgbackup<2"]) / "borg"
        except Unavailable:
            self._program = pathlib.Path(_program("borg", "borgbackup", self))
        return self._call(self._program, "--version").split()[-1]

    @property
    def environment(self) -> Mapping[str, str]:
        if not hasattr(self, "folder"):
            return {}
        return {
            "BORG_BASE_DIR": str(self.folder),
            "BORG_REPO": str(self.repository),
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
        }

    def prepare(self) -> None:
        self._count = 0
        self._call(self._program, "init", "--encryption", "none")

    def backup_command(self, image: pathlib.Path) -> Command:
        self._count += 1
        options = ["--compression", "zstd,1", "--chunker-params", "fixed,4194304"]
        options += ["--files-cache", "disabled"]
        return [self._program, "create", *options, f"::{self._count}", image]

    def restore_command(self, target: pathlib.Path, size: int) -> Command:
        return [self._program, "extract", "--sparse", f"::{self._count}"]


class Benji(Contender):
    name = "benji"
    about = "blocks of 4 MiB, zstd 1, BLAKE2b, not encrypted"

    # As its own requirements, but for ruamel.yaml, whose named release does not build on Python
    # 3.11, and psycopg2, which SQLite does not need.
    _REQUIREMENTS = (
        "PrettyTable<1",
        "alembic<2",
        "argcomplete<2",
        "attrs<22",
        "cerberus<2",
        "colorama<1",
        "dateparser<2",
        "diskcache",
        "pycryptodome<4",
        "pyparsing<3",
        "python-dateutil<3",
        "ruamel.yaml>=0.17,<0.18",
        "semantic-version<3",
        "setproctitle<2",
        "setuptools<80",
        "sparsebitfield<1",
        "sqlalchemy>=1.4.14,<2",
        "structlog",
        "zstandard",
    )

    def install(self) -> str:
        programs = self._environment_with(
            "benji", ["--no-deps", "benji==0.17.0"], self._REQUIREMENTS
        )
        self._program = programs / "benji"
        return "0.17.0"

    def prepare(self) -> None:
        self._count = 0
        parallel = {"simultaneousReads": self.threads, "simultaneousWrites": self.threads}
        config = {
            "configurationVersion": "1",
            "databaseEngine": f"sqlite:///{self.folder}/benji.sqlite",
            "defaultStorage": "local",
            "storages": [
                {
                    "name": "local",
                    "module": "file",
                    "storageId": 1,
                    "configuration": {
                        "path": str(self.repository),
                        "activeTransforms": ["zstd"],
                        **parallel,
                    },
                }
            ],
            "transforms": [{"name": "zstd", "module": "zstd", "configuration": {"level": 1}}],
            "ios": [{"name": "file", "module": "file", "configuration": parallel}],
        }
        # JSON is YAML.
        (self.folder / "benji.yaml").write_text(json.dumps(config))
        self._call(*self._benji("database-init"))

    def backup_command(self, image: pathlib.Path) -> Command:
        self._count += 1
        return self._benji("backup", "--uid", f"V{self._count}", f"file:{image}", "volume")

    def restore_command(self, target: pathlib.Path, size: int) -> Command:
        volume = _sparse(target / "volume", size)
        return self._benji("restore", "--force", "--sparse", f"V{self._count}", f"file:{volume}")

    def _benji(self, *arguments: str) -> list[str | os.PathLike[str]]:
        config = self.folder / "benji.yaml"
        return [self._program, "--config-file", config, "--log-level", "WARNING", *arguments]


class CinderZlib(Contender):
    name = "cinder-backup zlib"
    about = "the posix driver with its defaults, not encrypted"
    algorithm = "zlib"

    def install(self) -> str:
        # The releases have constraints of their own; without them pip may take newer libraries.
        programs = self._environment_with("cinder", ["cinder>=27", "zstd", "setuptools<81"])
        self._python = programs / "python"
        code = "import importlib.metadata as m; print(m.version('cinder'))"
        return self._call(self._python, "-c", code)

    def backup_command(self, image: pathlib.Path) -> Command:
        return self._driver("backup", image)

    def restore_command(self, target: pathlib.Path, size: int) -> Command:
        return self._driver("restore", _sparse(target / "volume", size))

    def _driver(self, verb: str, image: pathlib.Path) -> list[str | os.PathLike[str]]:
        driver = [self._python, HERE / "drive_cinder.py", "--algorithm", self.algorithm]
        return [*driver, verb, self.repository, self.folder / "rows.json", image]


class CinderZstd(CinderZlib):
    name = "cinder-backup zstd"
    algorithm = "zstd"


class Zstd(Contender):
    """Not a backup: what compressing the image costs, and nothing else."""

    name = "limit: zstd -1 -T2"
    about = "compresses the whole image into one file"
    incremental = False

    def install(self) -> str:
        _program("zstd", "zstd", self)
        version = self._call("zstd", "--version")
        return next((w.strip("v,") for w in version.split() if w.startswith("v")), version)

    def backup_command(self, image: pathlib.Path) -> Command:
        packed = self.repository / "image.zst"
        return ["zstd", "-1", "-T2", "-q", "-f", image, "-o", packed]

    def restore_command(self, target: pathlib.Path, size: int) -> Command:
        return ["zstd", "-d", "-q", self.repository / "image.zst", "-o", target / "volume"]


ALL: tuple[type[Contender], ...] = (
    Ours,
    OursSealed,
    Restic,
    Borg,
    Benji,
    CinderZlib,
    CinderZstd,
    Zstd,
)


def _program(name: str, package: str, contender: Contender) -> str:
    """The path of a program, installed from Debian's packages if need be."""
    found = shutil.which(name)
    if not found:
        if os.geteuid():
            raise Unavailable(f"{name} is not installed (Debian's package is {package})")
        _apt(contender, package)
        found = shutil.which(name)
    if not found:
        raise Unavailable(f"{name} is not in the package {package}")
    return found


def _apt(contender: Contender, *packages: str) -> None:
    if not shutil.which("apt-get"):
        raise Unavailable(f"there is no apt-get to install {' '.join(packages)}")
    contender._call("apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages)


def _sparse(path: pathlib.Path, size: int) -> pathlib.Path:
    """A new file that reads as zeros, as a new volume mostly does."""
    with open(path, "wb") as file:
        file.truncate(size)
    return path


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
