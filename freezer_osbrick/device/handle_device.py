# SPDX-License-Identifier: Apache-2.0
"""A volume in Ceph, read and written through librbd without a device of the kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from oslo_log import log as logging

from freezer_osbrick import errors
from freezer_osbrick.device import identity
from freezer_osbrick.device.hints import Extents, FrozenState, Mark
from freezer_osbrick.device.volume_device import Device

LOG = logging.getLogger(__name__)


class HandleDevice(Device):
    """os-brick's ``RBDVolumeIOWrapper``.

    Its own read and write share one position; librbd's image below takes offsets, and several calls
    at a time: it lets Python's other threads run meanwhile, so that as many reads are under way as
    there are workers. Its asynchronous calls were measured to be no faster. The image may be open
    for writing whatever the attachment says, so ``writable`` is enforced here.
    """

    hearsay = True

    def __init__(
        self, handle: Any, *, size: int, writable: bool, connection_info: Mapping[str, Any]
    ) -> None:
        self._image = handle.rbd_image
        name = str(getattr(self._image, "name", "the Ceph image"))
        pool, _, told = str(connection_info.get("name") or "").rpartition("/")
        for what, found, wanted in (("image", name, told), ("pool", handle.rbd_pool, pool)):
            if wanted and found != wanted:
                raise errors.IdentityError(f"The Ceph {what} is {found} and not {wanted}.")
        actual = int(self._call(name, "looked at", self._image.size))
        identity.prove_size(name, actual, size)
        super().__init__(name, actual, writable=writable)

    def _prove(self) -> None:
        # An image stays itself while it is open, whatever gets its name.
        identity.prove_whole(
            self.name, int(self._call(self.name, "looked at", self._image.size)), self.size
        )

    def _readinto(self, offset: int, buffer: memoryview) -> None:
        data = self._call(self.name, f"read at {offset}", self._image.read, offset, len(buffer))
        if len(data) != len(buffer):
            raise errors.DeviceError(f"{self.name} ends at {offset + len(data)}: it was cut short.")
        buffer[:] = data

    def _write(self, offset: int, data: memoryview) -> None:
        # librbd's binding takes nothing but bytes.
        done = self._call(
            self.name, f"written at {offset}", self._image.write, data.tobytes(), offset
        )
        if done is not None and done != len(data):
            raise errors.DeviceError(f"{self.name} took {done} of {len(data)} bytes at {offset}.")

    def _zero(self, offset: int, length: int) -> None:
        # Not discard: librbd skips what is smaller than its granularity, and leaves the old bytes
        # there.
        write_zeroes = getattr(self._image, "write_zeroes", None)
        if write_zeroes is None:
            self._write_zeros(offset, length)
            return
        self._call(self.name, f"zeroed at {offset}", write_zeroes, offset, length)

    def _flush(self) -> None:
        self._call(self.name, "flushed", self._image.flush)

    def _unallocated(self) -> Extents:
        from freezer_osbrick.device import rbd_changes

        try:
            return rbd_changes.holes(self._image, self.size)
        except Exception as error:
            LOG.warning("Ceph does not tell what of %s is allocated: %s", self.name, error)
            return Extents()

    def _mark(self, state: FrozenState) -> Mark | None:
        from freezer_osbrick.device import rbd_changes

        return rbd_changes.mark(self._image, state)

    def _unchanged(self, state: FrozenState, since: Mark) -> Extents:
        from freezer_osbrick.device import rbd_changes

        return rbd_changes.unchanged(self._image, self.size, state, since)

    def _close(self) -> None:
        """Nothing: the connector closes image and cluster connection when it disconnects."""

    @staticmethod
    def _call(name: str, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
        # librbd has its own tree of errors, in a module that is not always installed.
        try:
            return function(*arguments)
        except Exception as error:
            raise errors.DeviceError(f"{name} could not be {what}: {error}.") from error
