# SPDX-License-Identifier: Apache-2.0
"""One tree of errors.

The message of each error is one clear sentence for a person. The class says the rest: which exit
status a command ends with, and whether trying again can help (``Retriable``).
"""

from __future__ import annotations

from collections.abc import Iterable


class OsbrickError(Exception):
    """Anything that this package refuses or fails to do."""

    exit_status = 1


class Retriable:
    """Mixed into errors that may pass when the same thing is tried again."""


class BadRequest(OsbrickError):
    """What the caller asked for makes no sense: nothing was started."""

    exit_status = 2


class ConfigurationError(OsbrickError):
    """The configuration lacks something or contradicts itself: nothing was started."""

    exit_status = 2


class Interrupted(OsbrickError):
    """The run was ended by a signal, after cleaning up."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_status = 128 + signal_number


# -- stores ----------------------------------------------------------------------------------------


class StoreError(OsbrickError):
    """A store could not do what it was asked."""


class StoreUnavailable(StoreError, Retriable):
    """The store cannot be reached or is overloaded."""


class StoreFull(StoreError):
    """The store has no room left, or a quota refuses more."""


class StoreAccessDenied(StoreError):
    """The credentials in use may not do this."""


class ObjectMissing(StoreError):
    """No object of that name."""


class ObjectExists(StoreError):
    """An object of that name is there already; it was left as it is."""


# -- repositories ----------------------------------------------------------------------------------


class RepositoryError(OsbrickError):
    """A repository cannot be used."""


class RepositoryMissing(RepositoryError):
    """There is no repository at that address."""


class UnknownFormat(RepositoryError):
    """Written by a later version, or with a feature that this version does not know."""


class WrongKey(RepositoryError):
    """The repository is sealed and the key does not open it."""


class Damaged(RepositoryError):
    """Stored bytes are not what was written."""


class LeaseLost(RepositoryError):
    """The run was taken for dead meanwhile: what it built upon may be gone."""


class BackupMissing(RepositoryError):
    """No backup answers to what was asked."""


class MirrorFailed(RepositoryError):
    """None of several repositories could do what was asked; the message names each."""


class DamagedRanges(Damaged):
    """Parts of a backup cannot be restored.

    :param ranges: ``(offset, length)`` pairs in bytes of the volume.
    """

    def __init__(self, message: str, ranges: Iterable[tuple[int, int]]) -> None:
        super().__init__(message)
        self.ranges = list(ranges)


# -- the cloud -------------------------------------------------------------------------------------


class CloudError(OsbrickError):
    """The cloud refused or failed."""


class CloudUnavailable(CloudError, Retriable):
    """The cloud's API cannot be reached or answers with a server error."""


class CloudAccessDenied(CloudError):
    """The credentials in use may not do this."""


class ResourceMissing(CloudError):
    """A volume, snapshot or attachment that does not exist, or is hidden from this project."""


class ResourceFailed(CloudError):
    """A volume, snapshot or attachment went to an error state."""


class CloudRefused(CloudError):
    """The cloud understood and will not: a wrong state, an unknown type, a conflict."""


class QuotaExceeded(CloudError):
    """A quota of the project refuses more; the message names it."""


class CloudTimeout(CloudError):
    """The cloud did not get there before the deadline."""


# -- devices ---------------------------------------------------------------------------------------


class DeviceError(OsbrickError):
    """A volume cannot be connected to, read or written on this host."""


class IdentityError(DeviceError):
    """The device is not proved to be the volume, or has become another one: what was read from it
    is not used."""


class HintsUnfit(DeviceError):
    """The storage cannot tell what has changed since an earlier state; reading tells."""


class NoFileSystem(DeviceError):
    """File mode was asked for, and the volume holds no file system that it can read."""


class JournalDirty(DeviceError):
    """A file system was not unmounted: its journal has to be replayed, which writes to it."""


class ReadBackFailed(DeviceError):
    """A restored volume does not hold what was written to it."""


class Leftovers(OsbrickError):
    """Something that we made could not be removed; the message names each."""


def annotate(error: BaseException, text: str) -> None:
    """Add a sentence to what an error says, without changing what it is.

    Our own errors say it in their message, others in a note (Python 3.11 and later).
    """
    if isinstance(error, OsbrickError):
        error.args = (f"{error} {text}", *error.args[1:])
    elif hasattr(error, "add_note"):
        error.add_note(text)
