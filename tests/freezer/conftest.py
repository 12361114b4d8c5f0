# SPDX-License-Identifier: Apache-2.0
"""Keystone, Cinder and freezer-api for all tests of this folder; a backup host for each module.

``FREEZER_OSBRICK_DATABASE=mariadb`` lets freezer-api lie on a MariaDB server of its own instead of
sqlite.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("freezer")
pytest.importorskip("freezerclient")

from devstack.embedded.embedded_cloud.client import EmbeddedCloud
from tests.freezer import browser, rig
from tests.freezer.client import Person
from tests.functional.backup_host import BackupHost, backup_host

PICTURES = rig.SERVICES.folder / "pictures"  # of all pages that the tests look at


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedCloud]:
    cloud = EmbeddedCloud(tmp_path_factory.mktemp("cloud") / "state")
    try:
        rig.bring_up(cloud)
        yield cloud
    finally:
        cloud.down(wipe=True)


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of freezer-api's database."""
    kind = os.environ.get("FREEZER_OSBRICK_DATABASE", "sqlite")
    folder = tmp_path_factory.mktemp("database")
    if kind == "sqlite":
        yield f"sqlite:///{folder}/freezer.sqlite"
        return
    assert kind == "mariadb", "FREEZER_OSBRICK_DATABASE is sqlite or mariadb"
    if not shutil.which("mariadb-install-db"):
        pytest.skip("MariaDB is not installed: package mariadb-server")
    with rig.mariadb(folder) as url:
        yield url


@pytest.fixture(scope="session")
def freezer_api(
    cloud: EmbeddedCloud, database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of freezer-api."""
    with rig.freezer_api(cloud, tmp_path_factory.mktemp("freezer-api"), database) as address:
        yield address


@pytest.fixture(scope="module")
def host(cloud: EmbeddedCloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackupHost]:
    """A host with freezer-agent and freezer-scheduler, shared by the tests of a module."""
    with backup_host(cloud, tmp_path_factory.mktemp("host")) as host:
        yield host


@pytest.fixture(scope="module")
def person(cloud: EmbeddedCloud, freezer_api: str) -> Person:
    """The user ``demo`` with freezerclient."""
    return Person(cloud.env("demo"), freezer_api)


@pytest.fixture(scope="module")
def scheduler(host: BackupHost, freezer_api: str) -> Iterator[rig.Scheduler]:
    """The host's scheduler, which takes its jobs from freezer-api."""
    with scheduler_of(host) as running:
        yield running


@contextlib.contextmanager
def scheduler_of(
    host: BackupHost, project: str = "demo", **options: str
) -> Iterator[rig.Scheduler]:
    folder = host.folder / f"scheduler-{project}"
    with rig.scheduler(folder, host.environment(project), **options) as running:
        yield running


@pytest.fixture(scope="session")
def horizon(
    cloud: EmbeddedCloud, freezer_api: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of Horizon."""
    with rig.horizon(cloud, tmp_path_factory.mktemp("horizon")) as address:
        yield address


@pytest.fixture
def window(horizon: str, cloud: EmbeddedCloud) -> Iterator[browser.Person]:
    """A browser window, logged in as ``demo``."""
    with window_of(horizon, cloud) as window:
        yield window


@contextlib.contextmanager
def window_of(
    horizon: str, cloud: EmbeddedCloud, project: str = "demo", **settings: Any
) -> Iterator[browser.Person]:
    """A browser window, logged in; settings are those of ``browser.person``."""
    with browser.person(horizon, PICTURES, **settings) as window:
        window.log_in(cloud.env(project))
        yield window


@pytest.fixture(autouse=True)
def _faults_end_with_their_test(cloud: EmbeddedCloud) -> Iterator[None]:
    yield
    cloud.clear_faults()
