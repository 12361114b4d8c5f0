# SPDX-License-Identifier: Apache-2.0
"""One embedded cloud for all functional tests of a run."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator

import pytest

from devstack.embedded.embedded_cloud.client import EmbeddedCloud
from tests.functional.backup_host import BackupHost, backup_host


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedCloud]:
    """A running cloud.

    ``EMBEDDED_CLOUD_STATE`` names one to be used and left as it was found; else there is a new one
    in a temporary folder, of which nothing stays.
    """
    named = os.environ.get("EMBEDDED_CLOUD_STATE")
    if named:
        cloud = EmbeddedCloud(named)
        was_running = cloud.status()["running"]
        cloud.up()
        yield cloud
        if not was_running:
            cloud.down()
        return
    cloud = EmbeddedCloud(tmp_path_factory.mktemp("cloud") / "state")
    cloud.up()
    yield cloud
    pids = [pid for pid in cloud.status()["pids"].values() if pid]
    cloud.down(wipe=True)
    assert not [pid for pid in pids if pathlib.Path(f"/proc/{pid}/root").exists()]
    assert not cloud.loop_devices()
    assert not cloud.state.folder.exists()


@pytest.fixture(scope="module")
def host(cloud: EmbeddedCloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackupHost]:
    """A host with the real freezer-agent and freezer-osbrick, shared by the tests of a module."""
    with backup_host(cloud, tmp_path_factory.mktemp("host")) as host:
        yield host


@pytest.fixture(autouse=True)
def _faults_end_with_their_test(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "cloud" in request.fixturenames:
        request.getfixturevalue("cloud").clear_faults()
