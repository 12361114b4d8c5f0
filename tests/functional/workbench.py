# SPDX-License-Identifier: Apache-2.0
"""What tests of the cloud side work with: our classes on the embedded cloud, and what is left."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from oslo_config import cfg

from devstack.embedded.embedded_cloud.client import EmbeddedCloud
from freezer_osbrick import opts
from freezer_osbrick.cloud import volumes
from freezer_osbrick.cloud.clients import Cloud
from freezer_osbrick.cloud.ledger import Ledger
from freezer_osbrick.cloud.volumes import VolumeRecord
from freezer_osbrick.device.host import Host
from freezer_osbrick.device.volume_device import Device
from freezer_osbrick.operations.attach import attached
from tests.staged import frozen_clone

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]


def configuration(state_path: str | os.PathLike[str]) -> cfg.ConfigOpts:
    """Our options with a state path of their own, and short pauses."""
    conf = cfg.ConfigOpts()
    opts.register(conf)
    conf([], project="freezer-osbrick", default_config_files=[], default_config_dirs=[])
    conf.set_override("state_path", str(state_path), "osbrick")
    conf.set_override("poll_interval", 0.2, "cloud")
    conf.set_override("my_ip", "127.0.0.1", "device")
    return conf


class Workbench:
    """Our side of the embedded cloud, for the project ``demo``."""

    def __init__(self, embedded: EmbeddedCloud, state_path: pathlib.Path) -> None:
        self.embedded = embedded
        self.state_path = state_path
        self.conf = configuration(state_path)
        self.cloud = self.as_project("demo")
        self.host = Host(self.conf)
        self.ledger = Ledger(str(state_path / "ledger"), self.host.name)
        self.modules = ""
        self._made: list[str] = []

    def use_ceph(self, keyring: str, modules: pathlib.Path) -> None:
        """Sign in to Ceph with this key; children find Ceph's modules in this folder."""
        self.conf.set_override("ceph_keyring", keyring, "device")
        self.modules = str(modules)

    def as_project(self, project: str) -> Cloud:
        before = {key: os.environ.pop(key) for key in list(os.environ) if key.startswith("OS_")}
        os.environ.update(self.embedded.env(project))
        try:
            return Cloud.from_environment(self.conf)
        finally:
            for key in self.embedded.env(project):
                os.environ.pop(key, None)
            os.environ.update(before)

    def volume(self, size: int = 1, **fields: Any) -> VolumeRecord:
        """A volume of the user's, deleted by ``close``."""
        made = self.embedded.create_volume(size, **fields)
        self._made.append(made["id"])
        return volumes.capture(self.cloud, made["id"])

    @contextlib.contextmanager
    def frozen(
        self, record: VolumeRecord, *, size_gib: int | None = None
    ) -> Iterator[tuple[str, Device]]:
        """What a backup reads: the id of a frozen clone of a volume, and the clone, attached.

        :param size_gib: that it is said to have; by default the true one.
        """
        size_gib = size_gib or record.size_gib
        with (
            self.ledger.start("backup") as run,
            frozen_clone(self.cloud, run, record) as clone_id,
            attached(
                self.cloud, self.host, run, clone_id, size_gib=size_gib, writable=False
            ) as device,
        ):
            yield clone_id, device

    def file_of(self, volume_id: str) -> pathlib.Path:
        """The file that a volume lies in."""
        return self.embedded.pool / f"volume-{volume_id}"

    def users_own(self, volume_id: str) -> None:
        """Let ``close`` delete one more volume, which is expected to stay until then."""
        self._made.append(volume_id)

    def leftovers(self) -> dict[str, list[str]]:
        """What is there beside the user's volumes; empty if there is nothing."""
        cinder = self.embedded.cinder
        found = {
            "volumes": [
                f"{volume['id']} {volume['status']}"
                for volume in cinder("GET", "/volumes/detail")["volumes"]
                if volume["id"] not in self._made
            ],
            "snapshots": [
                f"{snapshot['id']} {snapshot['status']}"
                for snapshot in cinder("GET", "/snapshots/detail")["snapshots"]
            ],
            "attachments": [
                attachment["id"]
                for attachment in cinder("GET", "/attachments")["attachments"]
                if attachment.get("instance") is None
            ],
            "loop devices": [
                device
                for device, path in self.embedded.loop_devices().items()
                if pathlib.Path(path).name.removeprefix("volume-") not in self._servers_volumes()
            ],
            "journals": self.ledger.runs(),
            "scratch": [path.name for path in (self.state_path / "ledger").glob("*.scratch")],
        }
        return {kind: items for kind, items in found.items() if items}

    def _servers_volumes(self) -> set[str]:
        servers = self.embedded.servers().values()
        return {volume_id for server in servers for volume_id in server["volumes"]}

    def child(
        self, *arguments: str, state_path: pathlib.Path | None = None, **streams: Any
    ) -> subprocess.Popen[str]:
        """A run in a process of its own: see ``doomed_run``."""
        keyring = self.conf.device.ceph_keyring
        env = {key: value for key, value in os.environ.items() if not key.startswith("OS_")}
        env.update(
            self.embedded.env("demo"),
            PYTHONPATH=os.pathsep.join(filter(None, [str(CHECKOUT), self.modules])),
        )
        return subprocess.Popen(
            [
                sys.executable,
                "-W",
                "ignore",
                "-m",
                "tests.functional.doomed_run",
                str(state_path or self.state_path),
                *arguments,
                *(["--ceph-keyring", keyring] if keyring else []),
            ],
            env=env,
            cwd=CHECKOUT,
            text=True,
            **streams,
        )

    def close(self) -> None:
        self.embedded.clear_faults()
        held = self._servers_volumes()
        for volume_id in self._made:
            if volume_id in held:
                self.embedded.release_server(volume_id)
            self.embedded.delete_volume(volume_id)
