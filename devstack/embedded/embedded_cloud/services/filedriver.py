# SPDX-License-Identifier: Apache-2.0
"""A small real Cinder volume driver on sparse files.

A volume is ``<pool>/volume-<id>``, a snapshot ``<pool>/snapshot-<id>``. Where the pool's file
system shares extents, snapshots and clones take no time and are atomic against writers.

Attachments are of os-brick's type ``local``, whose connector hands ``device_path`` back unchanged:
a loop device over the file (which the kernel keeps read-only for mode ``ro``), or the file itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from cinder import exception, interface
from cinder.objects import fields
from cinder.volume import configuration, driver
from oslo_config import cfg
from oslo_log import log as logging
from oslo_utils import units

from .. import loop, reflink
from .faultfile import FaultFile

LOG = logging.getLogger(__name__)

OPTIONS = [
    cfg.StrOpt("embedded_pool", help="Folder of the volumes' files"),
    cfg.StrOpt(
        "embedded_attach",
        default="loop",
        choices=["loop", "file"],
        help="What an attachment shows: a loop device or the file",
    ),
    cfg.StrOpt("embedded_faults", help="JSON file of faults, read at each call"),
]
cfg.CONF.register_opts(OPTIONS, group=configuration.SHARED_CONF_GROUP)

_loop_lock = threading.Lock()

# The file in the pool whose lock holds up writers.
HOLD = ".hold"


def _may_fail(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let the fault file delay or fail the call, by the method's name or by ``*``."""

    @functools.wraps(method)
    def wrapper(self: FileDriver, *args: Any, **kwargs: Any) -> Any:
        self.strike(method.__name__, *args, *kwargs.values())
        return method(self, *args, **kwargs)

    return wrapper


def _concerns(volume_id: str | None, arguments: tuple[Any, ...]) -> bool:
    """Whether one of the objects is the volume, a snapshot of it, or named after it; or no volume
    is given."""
    return volume_id is None or any(
        volume_id in str(getattr(argument, field, None))
        for argument in arguments
        for field in ("id", "volume_id", "display_name")
    )


@interface.volumedriver
class FileDriver(driver.VolumeDriver):
    """Volumes as files. Every method here is one of Cinder's driver interface."""

    VERSION = "1.0.0"
    CI_WIKI_NAME = "none"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.configuration.append_config_values(OPTIONS)
        self._pool = self.configuration.embedded_pool
        self._faults = FaultFile(self.configuration.embedded_faults)

    @staticmethod
    def get_driver_options() -> list[Any]:
        return OPTIONS

    def strike(self, call: str, *arguments: Any) -> None:
        """Delay or fail the call if the fault file says so."""
        faults = self._faults.read() or {}
        fault = faults.get(call) or faults.get("*")
        if (
            not fault
            or not _concerns(fault.get("of"), arguments)
            or not self._faults.strikes(call, fault)
        ):
            return
        LOG.info("fault for %s: %s", call, fault)
        time.sleep(fault.get("delay", 0))
        if fault.get("busy"):  # Cinder then puts the object back to available
            if call == "delete_snapshot":
                raise exception.SnapshotIsBusy(snapshot_name="injected")
            raise exception.VolumeIsBusy(volume_name="injected")
        if "error" in fault:
            raise exception.VolumeDriverException(message=f"{call}: {fault['error']}")

    # -- files and loop devices

    def _volume(self, volume: Any) -> str:
        # name_id, not id: after a migration the two differ
        return os.path.join(self._pool, f"volume-{volume.name_id}")

    def local_path(self, volume: Any) -> str:
        return self._volume(volume)

    def _snapshot(self, snapshot: Any) -> str:
        return os.path.join(self._pool, f"snapshot-{snapshot.id}")

    @staticmethod
    def _flush(path: str) -> None:
        """Bring what the page caches of its devices hold into the file, and the file to disk."""
        for name in [*loop.of(path), path]:
            descriptor = os.open(name, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    @staticmethod
    def _detach(path: str) -> None:
        with _loop_lock:
            for device in loop.of(path):
                loop.detach(device)

    @contextlib.contextmanager
    def _writers_held(self) -> Iterator[None]:
        """Hold up all writes, as an array does while it snapshots several volumes at one instant.

        Files cannot do that by themselves: who plays a guest takes the shared lock for each write.
        """
        with open(os.path.join(self._pool, HOLD), "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _remove(self, path: str) -> None:
        self._detach(path)
        if os.path.exists(path):
            os.unlink(path)

    def _copy(self, source: str, target: str, volume: Any) -> None:
        """Make the volume's file of another, and bring it to the volume's size."""
        reflink.copy(source, target)
        os.truncate(target, volume.size * units.Gi)

    # -- the backend

    def do_setup(self, context: Any) -> None:
        os.makedirs(self._pool, exist_ok=True)

    def check_for_setup_error(self) -> None:
        if not os.access(self._pool, os.W_OK):
            raise exception.VolumeBackendAPIException(data=self._pool)

    def _update_volume_stats(self) -> None:
        status = os.statvfs(self._pool)
        blocks_per_gib = units.Gi / status.f_frsize
        name = self.configuration.safe_get("volume_backend_name")
        self._stats = {
            "volume_backend_name": name,
            "vendor_name": "freezer_osbrick",
            "driver_version": self.VERSION,
            "storage_protocol": "local",
            "pools": [
                {
                    "pool_name": name,
                    # files are sparse: a small disk holds large volumes
                    "total_capacity_gb": max(1000, round(status.f_blocks / blocks_per_gib, 2)),
                    "free_capacity_gb": max(1000, round(status.f_bavail / blocks_per_gib, 2)),
                    "reserved_percentage": 0,
                    "provisioned_capacity_gb": 0,
                    "thin_provisioning_support": True,
                    "max_over_subscription_ratio": 100.0,
                    "multiattach": True,
                    "QoS_support": False,
                    "consistent_group_snapshot_enabled": True,
                    "filter_function": self.get_filter_function(),
                    "goodness_function": self.get_goodness_function(),
                }
            ],
        }

    # -- volumes

    @_may_fail
    def create_volume(self, volume: Any) -> None:
        with open(self._volume(volume), "wb") as stream:
            stream.truncate(volume.size * units.Gi)

    @_may_fail
    def delete_volume(self, volume: Any) -> None:
        self._remove(self._volume(volume))

    @_may_fail
    def extend_volume(self, volume: Any, new_size: int) -> None:
        path = self._volume(volume)
        os.truncate(path, new_size * units.Gi)
        for device in loop.of(path):
            loop.refresh_size(device)

    @_may_fail
    def create_cloned_volume(self, volume: Any, src_vref: Any) -> None:
        self._flush(self._volume(src_vref))
        self._copy(self._volume(src_vref), self._volume(volume), volume)

    # -- snapshots

    @_may_fail
    def create_snapshot(self, snapshot: Any) -> None:
        source = self._volume(snapshot.volume)
        self._flush(source)
        reflink.copy(source, self._snapshot(snapshot))

    @_may_fail
    def delete_snapshot(self, snapshot: Any) -> None:
        self._remove(self._snapshot(snapshot))

    @_may_fail
    def create_volume_from_snapshot(self, volume: Any, snapshot: Any) -> None:
        self._copy(self._snapshot(snapshot), self._volume(volume), volume)

    @_may_fail
    def revert_to_snapshot(self, context: Any, volume: Any, snapshot: Any) -> None:
        self._copy(self._snapshot(snapshot), self._volume(volume), volume)

    # -- generic volume groups

    @_may_fail
    def create_group(self, context: Any, group: Any) -> dict[str, Any]:
        return {"status": fields.GroupStatus.AVAILABLE}

    def update_group(
        self, context: Any, group: Any, add_volumes: Any = None, remove_volumes: Any = None
    ) -> tuple[None, None, None]:
        return None, None, None

    @_may_fail
    def delete_group(self, context: Any, group: Any, volumes: Any) -> tuple[Any, Any]:
        updates = []
        for volume in volumes:
            self.delete_volume(volume)
            updates.append({"id": volume.id, "status": "deleted"})
        return {"status": fields.GroupStatus.DELETED}, updates

    @_may_fail
    def create_group_snapshot(
        self, context: Any, group_snapshot: Any, snapshots: Any
    ) -> tuple[Any, Any]:
        updates = []
        with self._writers_held():
            for snapshot in snapshots:
                self._flush(self._volume(snapshot.volume))
            for snapshot in snapshots:
                reflink.copy(self._volume(snapshot.volume), self._snapshot(snapshot))
                updates.append({"id": snapshot.id, "status": fields.SnapshotStatus.AVAILABLE})
        return {"status": fields.GroupSnapshotStatus.AVAILABLE}, updates

    @_may_fail
    def delete_group_snapshot(
        self, context: Any, group_snapshot: Any, snapshots: Any
    ) -> tuple[Any, Any]:
        updates = []
        for snapshot in snapshots:
            self.delete_snapshot(snapshot)
            updates.append({"id": snapshot.id, "status": fields.SnapshotStatus.DELETED})
        return {"status": fields.GroupSnapshotStatus.DELETED}, updates

    @_may_fail
    def create_group_from_src(
        self,
        context: Any,
        group: Any,
        volumes: Any,
        group_snapshot: Any = None,
        snapshots: Any = None,
        source_group: Any = None,
        source_vols: Any = None,
    ) -> tuple[None, None]:
        for volume, source in zip(volumes, snapshots or source_vols, strict=True):
            if snapshots:
                self.create_volume_from_snapshot(volume, source)
            else:
                self.create_cloned_volume(volume, source)
        return None, None

    # -- attachments

    def ensure_export(self, context: Any, volume: Any) -> None:
        """At a start: show attached volumes again, whose loop devices ``down`` took away.

        The number of a device may be another one then; the attachment is told.
        """
        for attachment in volume.volume_attachment:
            info = attachment.connection_info
            if not info or "device_path" not in info:
                continue
            path = self._show(self._volume(volume), attachment.attach_mode)
            if path != info["device_path"]:
                attachment.connection_info = {**info, "device_path": path}
                attachment.save()

    def create_export(self, context: Any, volume: Any, connector: Any) -> None:
        """Nothing to do: a file needs no export."""

    def remove_export(self, context: Any, volume: Any) -> None:
        self._detach(self._volume(volume))

    def _show(self, path: str, mode: str) -> str:
        if self.configuration.embedded_attach == "file":
            return path
        with _loop_lock:
            try:
                return loop.attach(path, read_only=mode == "ro")
            except loop.LoopError as error:
                raise exception.VolumeDriverException(message=str(error)) from error

    @_may_fail
    def initialize_connection(
        self, volume: Any, connector: dict[str, Any] | None, **kwargs: Any
    ) -> dict[str, Any]:
        mode = (connector or {}).get("mode") or "rw"
        path = self._show(self._volume(volume), mode)
        data = {"device_path": path, "access_mode": mode}
        return {"driver_volume_type": "local", "data": data}

    @_may_fail
    def terminate_connection(self, volume: Any, connector: Any, **kwargs: Any) -> None:
        # the manager calls this for the last attachment on a host only
        self._detach(self._volume(volume))
