# SPDX-License-Identifier: Apache-2.0
"""This host, as Cinder and os-brick see it."""

from __future__ import annotations

import copy
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from typing import Any

from oslo_concurrency import lockutils  # noqa: F401  registers [oslo_concurrency]
from oslo_config import cfg
from oslo_log import log as logging
from oslo_utils import strutils

from freezer_osbrick import errors, opts
from freezer_osbrick.device import locks, places, release, traces

LOG = logging.getLogger(__name__)

_set_up = threading.Lock()
_is_set_up = False

_HELPERS_CONTEXT = ("--privsep_context", "os_brick.privileged.default")

# A share stays mounted after os-brick has "disconnected" a volume on it.
_SHARES = {"nfs", "glusterfs", "quobyte", "scality", "vzstorage", "smbfs"}

# A device of this host that was there before, and stays.
_LOCAL = {"local", "gpfs"}


class Host:
    """Connects volumes to this host and lets go of them.

    :ivar name: this host's name in Cinder's attachments and in the tags of what we create.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf
        self.name: str = conf.device.hostname or socket.gethostname()
        self._root_helper = _find_root_helper(conf.device.root_helper)
        self._properties: dict[str, Any] | None = None
        self._lock = threading.Lock()

    def set_up(self) -> None:
        """Import what connects volumes, in the main thread, before other threads do it.

        os-brick brings eventlet, which runs the module ``threading`` a second time: that makes a
        main thread of the one it happens in, and whoever joins that thread waits for ever.
        """
        self._set_up_brick()
        from os_brick.initiator import connector  # noqa: F401

        if self._root_helper is not None:
            import brick_cinderclient_ext.client  # noqa: F401

    def connector_properties(self) -> dict[str, Any]:
        """What Cinder must know of this host to let it connect: name, address, initiator, NQN."""
        with self._lock:
            if self._properties is None:
                self._properties = self._find_properties()
            return dict(self._properties)

    @property
    def multipath(self) -> bool:
        """Whether volumes are connected over several paths."""
        return bool(self._conf.device.use_multipath)

    def connect(
        self, connection_info: Mapping[str, Any], *, writable: bool = True
    ) -> dict[str, Any]:
        """Connect a volume; returns os-brick's device info, whose ``path`` is a path or a handle,
        with the ``traces`` of the volume on this host.

        :param connection_info: of Cinder's attachment.
        :raises errors.DeviceError: it cannot be connected.
        """
        LOG.debug("Connecting: %s", strutils.mask_dict_password(dict(connection_info)))
        protocol = _protocol(connection_info)
        if protocol == "rbd":
            return self._rbd().connect_volume(connection_info, writable=writable)
        properties = _for_brick(connection_info)
        # Cinder before 2023.2 does not hand back what it was told.
        properties.setdefault("enforce_multipath", self._conf.device.enforce_multipath)
        device_info = self._brick(
            "connected",
            lambda: self._connector(protocol, self.multipath).connect_volume(properties),
        )
        path = _path_of(device_info)
        if path and protocol not in _LOCAL:
            device_info["traces"] = traces.of(path)
        return dict(device_info)

    def disconnect(
        self,
        connection_info: Mapping[str, Any],
        device_info: Mapping[str, Any] | None,
        *,
        multipath: bool | None = None,
        force: bool = False,
    ) -> None:
        """Let go of a volume, also of one that a process connected which is dead by now; and prove
        that nothing of it is left on this host.

        :param device_info: what ``connect`` returned or ``describe`` kept of it.
        :param multipath: whether it was connected so; None: as it is configured now.
        :param force: even if what was written cannot be flushed. What fails on the way is nothing
            to complain of as long as nothing is left.
        :raises errors.DeviceError: the host still holds the volume.
        """
        protocol = _protocol(connection_info)
        if protocol == "rbd":
            self._brick("disconnected", lambda: self._rbd().disconnect_volume(device_info or {}))
            return
        connector = self._connector(protocol, self.multipath if multipath is None else multipath)
        place = places.told(connection_info)
        known = dict(device_info or {})
        left = known.pop("traces", None) or {}

        def disconnect() -> None:
            nonlocal known
            if isinstance(place, places.NVMe) and not known:
                known = release.namespace(connector, place)
            connector.disconnect_volume(
                _for_brick(connection_info), known or None, force=force, ignore_errors=force
            )

        try:
            self._brick("disconnected", disconnect)
        except errors.DeviceError as error:
            if not force or protocol in _LOCAL:
                raise
            LOG.warning("%s", error)
        if protocol not in _LOCAL:
            self._brick(
                "disconnected", lambda: release.prove_gone(connector, place, left, force=force)
            )

    @staticmethod
    def describe(device_info: Mapping[str, Any]) -> dict[str, Any]:
        """The device info as it can be kept in a journal: without a handle of a process."""
        return {
            key: value
            for key, value in device_info.items()
            if isinstance(value, str | int | float | bool | list | dict | type(None))
        }

    # -- os-brick ----------------------------------------------------------------------------------

    def _rbd(self) -> Any:
        self._set_up_brick()
        from freezer_osbrick.device.rbd import RBDConnector

        return RBDConnector(self._conf.device.ceph_keyring)

    def _connector(self, protocol: str, multipath: bool) -> Any:
        if protocol in _SHARES:
            raise errors.DeviceError(f"Volumes on {protocol} shares cannot be attached.")
        self._set_up_brick()
        from os_brick.initiator.connector import InitiatorConnector

        return InitiatorConnector.factory(
            protocol,
            self._root_helper or None,
            use_multipath=multipath,
            device_scan_attempts=self._conf.device.scan_attempts,
        )

    def _find_properties(self) -> dict[str, Any]:
        self._set_up_brick()
        device = self._conf.device
        properties: dict[str, Any] = {
            "platform": os.uname().machine,
            "os_type": sys.platform,
            "multipath": False,
            "do_local_attach": False,
        }
        if self._root_helper is not None:
            # The extension serves here: it asks every protocol of os-brick and finds our address.
            # The rest of it does not: it names a random instance in the attachment, leaves the
            # attachment behind when it refuses a protocol, and refuses all but iSCSI, FC and RBD.
            from brick_cinderclient_ext.client import Client

            properties.update(
                self._brick(
                    "described to Cinder",
                    lambda: Client().get_connector(
                        multipath=device.use_multipath, enforce_multipath=device.enforce_multipath
                    ),
                )
            )
        # Without root rights there is no initiator: files and Ceph need none.
        properties["ip"] = device.my_ip or properties.get("ip") or _own_address()
        properties["host"] = self.name
        return properties

    @staticmethod
    def _brick(what: str, function: Callable[[], Any]) -> Any:
        try:
            return function()
        except errors.OsbrickError:
            raise
        except Exception as error:  # os-brick raises its own, processutils' and plain ones
            text = strutils.mask_password(str(error)) or type(error).__name__
            LOG.debug("os-brick failed", exc_info=True)
            raise errors.DeviceError(
                f"The volume could not be {what} on this host: {_one_line(text)}"
            ) from error

    def _set_up_brick(self) -> None:
        """Prepare os-brick, once a process.

        Its options live in oslo.config's global object, whichever object holds ours.
        """
        global _is_set_up
        with _set_up:
            if _is_set_up:
                return
            import os_brick
            from os_brick import opts as brick_opts  # noqa: F401  registers [os_brick]
            from os_brick import privileged

            conf = cfg.CONF
            try:
                lock_path = conf.oslo_concurrency.lock_path
            except cfg.NotInitializedError:
                conf([], project="freezer-osbrick", default_config_files=[], default_config_dirs=[])
                lock_path = conf.oslo_concurrency.lock_path
            if not lock_path:
                lock_path = os.path.join(opts.state_path(self._conf), "lock")
                # Not lockutils.set_defaults: the value just read would stay in conf's cache.
                conf.set_default("lock_path", lock_path, "oslo_concurrency")
            os_brick.setup(conf)
            if self._conf.device.lock_path:
                lock_path = self._conf.device.lock_path
                conf.set_override("lock_path", lock_path, "os_brick")
            os.makedirs(lock_path, exist_ok=True)
            locks.warn_of_others(lock_path)
            contexts = (privileged.default, privileged.brick_privsep_hide_output)
            if os.geteuid() == 0:
                for context in contexts:
                    context.set_client_mode(False)  # we are root: no helper process
            elif self._root_helper:
                conf.set_default(
                    "helper_command",
                    f"{self._root_helper} {_privsep_helper()}",
                    group="privsep_osbrick",
                )
            _is_set_up = True


def _protocol(connection_info: Mapping[str, Any]) -> str:
    protocol = connection_info.get("driver_volume_type")
    if not protocol:
        raise errors.DeviceError("Cinder did not say how the volume is to be connected.")
    return str(protocol).lower()


def _for_brick(connection_info: Mapping[str, Any]) -> dict[str, Any]:
    """The connection as os-brick is told of it; it changes what it is given.

    What is encrypted is copied as it is. Told that a volume is, os-brick would make a link to its
    device for those who are about to decrypt it.
    """
    properties = copy.deepcopy(dict(connection_info))
    properties.pop("encrypted", None)
    return properties


def _path_of(device_info: Mapping[str, Any]) -> str | None:
    path = device_info.get("path")
    if isinstance(path, bytes):
        path = path.decode()
    return path if isinstance(path, str) else None


def _privsep_helper() -> str:
    # Beside the interpreter: sudo's PATH does not know a virtual environment.
    beside = os.path.join(os.path.dirname(sys.executable), "privsep-helper")
    return beside if os.path.exists(beside) else shutil.which("privsep-helper") or "privsep-helper"


def _find_root_helper(configured: str | None) -> str | None:
    """The command that makes a program root's; "" when we are root; None when there is no way."""
    if os.geteuid() == 0:
        return ""
    if configured is not None:
        return configured or None
    sudo = shutil.which("sudo")
    if sudo is None:
        return None
    # With the arguments that os-brick gives: the rules may allow for no others.
    socket_path = os.path.join(tempfile.gettempdir(), "tmp01234567", "privsep.sock")
    arguments = [*_HELPERS_CONTEXT, "--privsep_sock_path", socket_path]
    allowed = subprocess.run(
        [sudo, "-n", "-l", _privsep_helper(), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return "sudo" if allowed.returncode == 0 else None


def _own_address() -> str:
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return "127.0.0.1"


def _one_line(text: str) -> str:
    return " ".join(text.split())
