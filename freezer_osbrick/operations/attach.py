# SPDX-License-Identifier: Apache-2.0
"""A volume attached to this host for as long as a block of code runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from oslo_log import log as logging

from freezer_osbrick import errors
from freezer_osbrick.cloud import attachments
from freezer_osbrick.cloud.clients import Cloud
from freezer_osbrick.cloud.ledger import Run
from freezer_osbrick.cloud.unwinding import Unwinding
from freezer_osbrick.device.host import Host
from freezer_osbrick.device.opening import open_device
from freezer_osbrick.device.volume_device import Device

LOG = logging.getLogger(__name__)


@contextlib.contextmanager
def attached(
    cloud: Cloud, host: Host, run: Run, volume_id: str, *, size_gib: int, writable: bool
) -> Iterator[Device]:
    """Attach a volume that this run made or has borrowed, prove that the device is the volume,
    and open it. When the block has ended well, the device is proved to be the volume still.

    At the end, whatever happened: flush, close, disconnect, delete the attachment, in this order.
    While the host still holds the volume the attachment stays: deleted too early, it lets
    another's volume appear under our device.

    :raises errors.CloudError: Cinder or the storage refused.
    :raises errors.DeviceError: it cannot be connected, or what was written is not durable.
    :raises errors.IdentityError: the device is not the volume, or is another one at the end.
    :raises errors.Leftovers: the host holds the volume, or the attachment could not be deleted.
    """
    with Unwinding() as unwinding:
        attachment_id = attachments.reserve(cloud, run, volume_id, writable=writable)
        connection = _Connection(host, run, volume_id, attachment_id)
        unwinding.push(lambda: _delete_attachment(cloud, connection))
        connection_info = attachments.connection(
            cloud, volume_id, attachment_id, host.connector_properties(), writable=writable
        )
        unwinding.push(lambda: connection.close(writable=writable))
        device_info = connection.open(connection_info, writable=writable)
        device = open_device(
            device_info,
            size=size_gib << 30,
            writable=writable,
            connection_info=connection_info,
        )
        unwinding.push(device.close)
        if writable:
            unwinding.push(device.flush)
        attachments.complete(cloud, volume_id, attachment_id)
        yield device
        device.prove()  # that what was read or written was the volume


class _Connection:
    """The host's hold on a volume, in the journal from before it begins until it is over."""

    def __init__(self, host: Host, run: Run, volume_id: str, attachment_id: str) -> None:
        self.run = run
        self.volume_id = volume_id
        self.attachment_id = attachment_id
        self.held = False
        self._host = host
        self._connection_info: Mapping[str, Any] = {}
        self._device_info: Mapping[str, Any] | None = None
        # The setting may change before a later run has to disconnect.
        self._multipath = host.multipath

    def open(self, connection_info: Mapping[str, Any], *, writable: bool) -> Mapping[str, Any]:
        self._connection_info = connection_info
        self.run.record(
            "connecting",
            attachment_id=self.attachment_id,
            connection_info=dict(connection_info),
            multipath=self._multipath,
        )
        self.held = True
        self._device_info = self._host.connect(connection_info, writable=writable)
        self.run.record(
            "connected",
            attachment_id=self.attachment_id,
            device_info=self._host.describe(self._device_info),
        )
        return self._device_info

    def close(self, *, writable: bool) -> None:
        if not self.held:
            return
        try:
            self._disconnect(writable)
        except errors.DeviceError as error:
            raise errors.Leftovers(
                f"This host still holds the volume {self.volume_id}, so its attachment "
                f"{self.attachment_id} stays: {error}"
            ) from error
        self.held = False
        self.run.record("disconnected", attachment_id=self.attachment_id)

    def _disconnect(self, writable: bool) -> None:
        # What a connection that never came to be left half done may be thrown away, and so may
        # everything of a volume that was only read.
        try:
            self._let_go(force=self._device_info is None)
        except errors.DeviceError as error:
            if writable:
                raise
            LOG.warning("%s Trying again by force.", error)
            self._let_go(force=True)

    def _let_go(self, *, force: bool) -> None:
        self._host.disconnect(
            self._connection_info, self._device_info, multipath=self._multipath, force=force
        )


def _delete_attachment(cloud: Cloud, connection: _Connection) -> None:
    if connection.held:
        return  # and the error of the disconnection tells so
    attachments.delete(cloud, connection.volume_id, connection.attachment_id)
    connection.run.record("detached", attachment_id=connection.attachment_id)
