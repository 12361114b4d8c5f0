# SPDX-License-Identifier: Apache-2.0
"""A Ceph cluster of one monitor and one OSD, in user space, from the distribution's packages."""

from __future__ import annotations

import os
import pathlib
import shutil
import socket
import subprocess
import uuid
from collections.abc import Callable

from . import configuration, virtualenv
from .errors import CloudError
from .process import Service
from .state import State

PACKAGES = ("ceph-mon", "ceph-osd", "ceph-common", "python3-rados", "python3-rbd")
POOL = "volumes"
USER = "cinder"
_PROGRAMS = ("ceph-mon", "ceph-osd", "ceph", "rbd", "ceph-authtool", "monmaptool")
_MODULES = ("rados", "rbd")
_DIST_PACKAGES = pathlib.Path("/usr/lib/python3/dist-packages")
_OSD_BYTES = 32 << 30  # sparse
Say = Callable[[str], None]


def require(install: bool, say: Say) -> None:
    """See that Ceph is installed; with ``install`` let apt-get do it."""
    absent = [name for name in _PROGRAMS if shutil.which(name) is None]
    absent += [name for name in _MODULES if not list(_DIST_PACKAGES.glob(f"{name}.cpython-*.so"))]
    if not absent:
        return
    command = ["apt-get", "install", "-y", "--no-install-recommends", *PACKAGES]
    if not install:
        raise CloudError(
            f"Ceph is not installed ({', '.join(absent)} missing); "
            f"give --install-ceph as root, or run: {' '.join(command)}"
        )
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise CloudError("Ceph can be installed by root on Debian or Ubuntu only")
    say(f"installing Debian packages: {' '.join(PACKAGES)}")
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode:
        raise CloudError("apt-get failed: " + "\n".join(done.stdout.splitlines()[-5:]))


def link_modules(venv: pathlib.Path) -> None:
    """Show Debian's compiled ``rados`` and ``rbd`` modules to a virtual environment."""
    folder = virtualenv.site_packages(venv)
    if folder is None:
        raise CloudError(f"{venv} is no virtual environment")
    tag = "cpython-" + folder.parent.name.removeprefix("python").replace(".", "")
    for name in _MODULES:
        built = sorted(_DIST_PACKAGES.glob(f"{name}.{tag}-*.so"))
        if not built:
            raise CloudError(
                f"the distribution's module {name} is not built for the {folder.parent.name} "
                f"of {venv}"
            )
        link = folder / built[0].name
        if not link.exists():
            link.unlink(missing_ok=True)
            link.symlink_to(built[0])


class Cluster:
    """The cluster of one state folder."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._folder = state.ceph
        self.conf = state.ceph / "ceph.conf"
        self.keyring = state.ceph / f"client.{USER}.keyring"
        self.monitor = Service(state, "ceph-mon")
        self.osd = Service(state, "ceph-osd")
        self._made = state.ceph / "made"

    def start(self) -> None:
        """Bring the monitor and the OSD up; the first time also make them and the pool."""
        if not self._made.exists():
            self._make()
        if self.monitor.pid() is None:
            self._move_monitor_if_taken()
            self.monitor.start(["ceph-mon", "-i", "a", "-f", "-c", str(self.conf)])
        self.monitor.wait(lambda: self._asks("mon", "stat"), "Ceph's monitor")
        if not (self._folder / "osd" / "whoami").exists():
            self._make_osd()
        if self.osd.pid() is None:
            self.osd.start(["ceph-osd", "-i", "0", "-f", "-c", str(self.conf)])
        self.osd.wait(self._osd_is_up, "Ceph's OSD")
        if not self._asks("osd", "pool", "get", POOL, "size"):
            self._ceph("osd", "pool", "create", POOL, "8", "8", "replicated")
            self._ceph("osd", "pool", "application", "enable", POOL, "rbd")
        self.osd.wait(self._pool_answers, "Ceph's pool")

    def stop(self) -> list[str]:
        """Stop both; returns the names of those that ran."""
        return [each.name for each in (self.osd, self.monitor) if each.stop()]

    # -- making it

    def _make(self) -> None:
        """Keys, monitor map and the monitor's store."""
        shutil.rmtree(self._folder, ignore_errors=True)  # of an interrupted start
        for name in ("mon", "osd", "crash"):
            (self._folder / name).mkdir(parents=True)
        self._folder.chmod(0o700)
        ceph = self._state.settings["ceph"]
        ceph.update(fsid=str(uuid.uuid4()), osd=str(uuid.uuid4()))
        self._choose_ports()
        self._write_conf()
        self._make_keys()
        self._write_monitor_map()
        _run(
            "ceph-mon",
            "--mkfs",
            "-i",
            "a",
            "--monmap",
            str(self._folder / "monmap"),
            "--keyring",
            str(self._folder / "keyring"),
            "-c",
            str(self.conf),
        )
        self._made.touch()

    def _make_keys(self) -> None:
        ring = str(self._folder / "keyring")
        everything = {"mon": "allow *", "osd": "allow *"}
        keys = {
            "mon.": {"mon": "allow *"},
            "client.admin": everything,
            "osd.0": {"mon": "allow profile osd", "osd": "allow *"},
            f"client.{USER}": {"mon": "profile rbd", "osd": "profile rbd"},
        }
        _run("ceph-authtool", "-C", ring)
        for name, capabilities in keys.items():
            caps = [word for kind, cap in capabilities.items() for word in ("--cap", kind, cap)]
            _run("ceph-authtool", ring, "--gen-key", "-n", name, *caps)
        key = _run("ceph-authtool", "-p", "-n", f"client.{USER}", ring).strip()
        self.keyring.write_text(f"[client.{USER}]\n\tkey = {key}\n", encoding="ascii")
        for path in (self._folder / "keyring", self.keyring):
            path.chmod(0o600)

    def _make_osd(self) -> None:
        shutil.rmtree(self._folder / "osd")
        (self._folder / "osd").mkdir()
        identity = self._state.settings["ceph"]["osd"]  # the same when this is tried again
        self._ceph("osd", "new", identity, "0")
        _run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", identity, "-c", str(self.conf))

    # -- the monitor's address

    def _choose_ports(self) -> None:
        for name in ("ceph-v2", "ceph-v1"):
            self._state.listener(name).close()

    def _monitor_addresses(self) -> str:
        ports = self._state.settings["ports"]
        return f"[v2:127.0.0.1:{ports['ceph-v2']},v1:127.0.0.1:{ports['ceph-v1']}]"

    def _write_monitor_map(self) -> None:
        path = self._folder / "monmap"
        path.unlink(missing_ok=True)
        _run(
            "monmaptool",
            "--create",
            "--fsid",
            self._state.settings["ceph"]["fsid"],
            "--addv",
            "a",
            self._monitor_addresses(),
            str(path),
        )

    def _move_monitor_if_taken(self) -> None:
        """A monitor knows its own address: another port has to be told to it."""
        before = self._monitor_addresses()
        self._choose_ports()
        self._write_conf()
        if self._monitor_addresses() != before:
            self._write_monitor_map()
            _run(
                "ceph-mon",
                "-i",
                "a",
                "--inject-monmap",
                str(self._folder / "monmap"),
                "-c",
                str(self.conf),
            )

    def _write_conf(self) -> None:
        folder, log = self._folder, self._state.log
        configuration.write(
            self.conf,
            {
                "global": {
                    "fsid": self._state.settings["ceph"]["fsid"],
                    "mon_host": self._monitor_addresses(),
                    "public_addr": "127.0.0.1",
                    "cluster_addr": "127.0.0.1",
                    "ms_bind_ipv6": "false",
                    "auth_cluster_required": "cephx",
                    "auth_service_required": "cephx",
                    "auth_client_required": "cephx",
                    "auth_allow_insecure_global_id_reclaim": "false",
                    "keyring": folder / "keyring",
                    "run_dir": folder,
                    "admin_socket": "",  # its path could grow too long for a socket
                    "log_file": f"{log}/$name.log",
                    "pid_file": "",
                    "crash_dir": folder / "crash",
                    "osd_pool_default_size": 1,
                    "osd_pool_default_min_size": 1,
                    "osd_pool_default_pg_num": 8,
                    "osd_pool_default_pgp_num": 8,
                    "osd_pool_default_pg_autoscale_mode": "off",
                    "osd_crush_chooseleaf_type": 0,
                    "mon_allow_pool_size_one": "true",
                    "mon_warn_on_pool_no_redundancy": "false",
                    "mon_max_pg_per_osd": 500,
                    "rbd_default_features": 61,  # with object-map and fast-diff, for change hints
                },
                "mon.a": {
                    "mon_data": folder / "mon",
                    "mon_data_avail_crit": 1,
                    "mon_data_avail_warn": 1,
                    "mon_osd_cache_size": 50,
                    "rocksdb_cache_size": 33554432,
                },
                "osd.0": {
                    "osd_data": folder / "osd",
                    "osd_objectstore": "bluestore",
                    "bluestore_block_size": _OSD_BYTES,
                    "bluestore_block_create": "true",
                    "bluestore_fsck_on_mount": "false",
                    "osd_memory_target": 939524096,
                    "bluestore_cache_autotune": "false",
                    "bluestore_cache_size": 134217728,
                    "osd_op_num_shards": 2,
                    "osd_scrub_begin_hour": 0,
                    "osd_scrub_end_hour": 0,
                },
            },
        )

    # -- asking it

    def _ceph(self, *arguments: str) -> str:
        return _run("ceph", "-c", str(self.conf), "--connect-timeout", "10", *arguments)

    def _asks(self, *arguments: str) -> bool:
        try:
            self._ceph(*arguments)
        except CloudError:
            return False
        return True

    def _osd_is_up(self) -> bool:
        try:
            return "1 up" in self._ceph("osd", "stat")
        except CloudError:
            return False

    def _pool_answers(self) -> bool:
        """Whether Cinder's user can make an image and remove it again."""
        rbd = ["rbd", "-c", str(self.conf), "-n", f"client.{USER}"]
        image = f"{POOL}/probe-{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
        try:
            _run(*rbd, "create", image, "--size", "1M", seconds=20)
            _run(*rbd, "rm", "--no-progress", image, seconds=20)
        except CloudError:
            return False
        return True


def _run(*command: str, seconds: float = 60) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise CloudError(f"{' '.join(command)} did not end within {seconds:.0f} s") from error
    if done.returncode:
        raise CloudError(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")
    return done.stdout
