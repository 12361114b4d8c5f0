# SPDX-License-Identifier: Apache-2.0
"""One cloud with a real Ceph for the tests of this folder that a process runs."""

from __future__ import annotations

import os
import pathlib
import shutil
import sys
from collections.abc import Iterator

import pytest
from os_brick.initiator import linuxrbd

from devstack.embedded.embedded_cloud.client import EmbeddedCloud
from tests.ceph.ceph_bench import CephBench, Images, load_modules


@pytest.fixture(scope="session")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    """A folder with Ceph's two modules, where this Python can load them and does not have them."""
    if shutil.which("ceph-mon") is None:
        pytest.skip("Ceph is not installed")
    folder = tmp_path_factory.mktemp("modules")
    before = linuxrbd.rados, linuxrbd.rbd
    try:
        load_modules(folder)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    yield folder
    sys.path.remove(str(folder))
    linuxrbd.rados, linuxrbd.rbd = before


@pytest.fixture(scope="session")
def ceph_cloud(
    modules: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedCloud]:
    """``EMBEDDED_CLOUD_CEPH`` is the state folder of one that runs, and is left as it is."""
    named = os.environ.get("EMBEDDED_CLOUD_CEPH")
    if named:
        yield EmbeddedCloud(named)
        return
    own = EmbeddedCloud(tmp_path_factory.mktemp("ceph") / "state")
    try:
        own.up("--ceph")
        yield own
    finally:
        own.down(wipe=True)


@pytest.fixture(scope="session")
def images(ceph_cloud: EmbeddedCloud) -> Iterator[Images]:
    images = Images(ceph_cloud.status()["ceph_conf"], ceph_cloud.status()["ceph_keyring"])
    yield images
    images.close()


@pytest.fixture
def bench(
    ceph_cloud: EmbeddedCloud, images: Images, modules: pathlib.Path, tmp_path: pathlib.Path
) -> Iterator[CephBench]:
    bench = CephBench(ceph_cloud, tmp_path, images)
    bench.use_ceph(ceph_cloud.status()["ceph_keyring"], modules)
    yield bench
    bench.close()
    assert images.names() == []
