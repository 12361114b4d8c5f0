# SPDX-License-Identifier: Apache-2.0
"""An opened volume: what the pipeline reads and writes."""

from __future__ import annotations

import abc
import threading
import time

from freezer_osbrick import errors
from freezer_osbrick.device.hints import Extents, FrozenState, Mark

Buffer = bytes | bytearray | memoryview

_ZEROS = bytes(1 << 20)

# Seconds of reading or writing after which a device is asked again who it is.
_PROOF_INTERVAL = 1.0


class Device(abc.ABC):
    """An opened volume. Every method may be called by several threads at once, except ``close``.

    :ivar name: what people may call it, in messages.
    :ivar size: in bytes.
    :ivar writable: False: ``write`` and ``zero`` refuse, whatever the connection would let pass.
    :ivar descriptor: of the file or block device that it is on this host; None where it is none.
    """

    descriptor: int | None = None
    #: Whether ``unallocated`` and ``unchanged`` are the word of a storage, which has to be proved.
    hearsay = False

    def __init__(self, name: str, size: int, *, writable: bool) -> None:
        self.name = name
        self.size = size
        self.writable = writable
        self._closed = False
        self._closing = threading.Lock()
        self._proving = threading.Lock()
        self._proved = time.monotonic()

    # -- what a kind of device does ----------------------------------------------------------------

    @abc.abstractmethod
    def _readinto(self, offset: int, buffer: memoryview) -> None: ...

    @abc.abstractmethod
    def _write(self, offset: int, data: memoryview) -> None: ...

    @abc.abstractmethod
    def _zero(self, offset: int, length: int) -> None: ...

    @abc.abstractmethod
    def _flush(self) -> None: ...

    @abc.abstractmethod
    def _close(self) -> None: ...

    def _holes(self) -> Extents:
        """Where nothing was ever written, as far as the device can tell."""
        return Extents()

    def _prove(self) -> None:  # noqa: B027  not every kind can tell
        """Ask the device itself who it is, where it can tell."""

    def _unallocated(self) -> Extents:
        """Where nothing was ever written, as the storage says."""
        return self._holes()

    def _mark(self, state: FrozenState) -> Mark | None:
        """What this storage must be told to name what has changed since."""
        return None

    def _unchanged(self, state: FrozenState, since: Mark) -> Extents:
        raise errors.HintsUnfit("The volume's storage does not tell what has changed.")

    # -- what callers use --------------------------------------------------------------------------

    def prove(self) -> None:
        """The device is the volume still: what was read so far came from it, and what was written
        went to it, as far as the device can tell.

        Reading and writing ask the same, once a second: another volume that turned up under the
        device's name is not written to for long. Only the last proof, when all is done, counts for
        what was read.

        :raises errors.IdentityError: it is another one by now.
        :raises errors.DeviceError: it does not answer.
        """
        self._check(0, 0)
        self._prove()
        self._proved = time.monotonic()

    def readinto(self, offset: int, buffer: memoryview) -> None:
        """Fill the whole buffer with what lies at ``offset`` (bytes).

        :raises errors.DeviceError: the range is not within the volume, or cannot be read.
        """
        self._check(offset, len(buffer))
        self._prove_now_and_then()
        self._readinto(offset, buffer)

    def holes(self) -> Extents:
        """Ranges that read as zeros, told without reading them; none where the device cannot tell.

        :raises errors.DeviceError: the device failed.
        """
        self._check(0, 0)
        return self._holes()

    def unallocated(self) -> Extents:
        """Ranges that read as zeros: proved ones, or by the word of the storage where the device is
        ``hearsay``.

        :raises errors.DeviceError: the device failed.
        """
        self._check(0, 0)
        return self._unallocated()

    def mark(self, state: FrozenState) -> Mark | None:
        """What names the state that the device shows, for :meth:`unchanged` of a later one; None
        where the storage does not tell what changes.

        :param state: what the device was made of.
        """
        self._check(0, 0)
        return self._mark(state)

    def unchanged(self, state: FrozenState, since: Mark) -> Extents:
        """Ranges that hold what they held in an earlier state, as the storage says.

        :param state: what the device was made of.
        :param since: the mark of the earlier state.
        :raises errors.HintsUnfit: it cannot tell; the message says why.
        """
        self._check(0, 0)
        return self._unchanged(state, since)

    def write(self, offset: int, data: Buffer) -> None:
        """Write all of ``data`` at ``offset`` (bytes).

        :raises errors.DeviceError: read-only, the range is not within the volume, or writing
            failed.
        """
        view = memoryview(data).cast("B")
        self._check_writable()
        self._check(offset, len(view))
        self._prove_now_and_then()
        self._write(offset, view)

    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeros, without sending zeros where the device can do it itself.

        :raises errors.DeviceError: as for ``write``.
        """
        self._check_writable()
        self._check(offset, length)
        if length:
            self._prove_now_and_then()
            self._zero(offset, length)

    def flush(self) -> None:
        """Return when everything written is durable on the volume.

        :raises errors.DeviceError: it is not certain to be.
        """
        self._check(0, 0)
        self._flush()

    def close(self) -> None:
        """Let go of the device; later calls do nothing."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        self._close()

    def _prove_now_and_then(self) -> None:
        if time.monotonic() - self._proved < _PROOF_INTERVAL:
            return
        # One of the threads asks; the others go on, and the last proof is for them, too.
        if self._proving.acquire(blocking=False):
            try:
                self.prove()
            finally:
                self._proving.release()

    # -- shared by the kinds -----------------------------------------------------------------------

    def _write_zeros(self, offset: int, length: int) -> None:
        while length:
            part = min(length, len(_ZEROS))
            self._write(offset, memoryview(_ZEROS)[:part])
            offset += part
            length -= part

    def _check_writable(self) -> None:
        if not self.writable:
            raise errors.DeviceError(f"{self.name} was opened for reading only.")

    def _check(self, offset: int, length: int) -> None:
        if self._closed:
            raise errors.DeviceError(f"{self.name} is closed.")
        if offset < 0 or length < 0 or offset + length > self.size:
            raise errors.DeviceError(
                f"{length} bytes at {offset} do not lie within {self.name} of {self.size} bytes."
            )
