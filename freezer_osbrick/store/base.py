# SPDX-License-Identifier: Apache-2.0
"""What a repository asks of the place where its objects lie."""

from __future__ import annotations

import abc
import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence

from freezer_osbrick import errors

Buffer = bytes | bytearray | memoryview

# Names are our own: lower-case words and hexadecimal, separated by slashes. Anything else would
# meet the peculiarities of one store or another.
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*")


@dataclasses.dataclass(frozen=True)
class ObjectInfo:
    """One object: its name, its size in bytes, and when it was put, in seconds on the *store's*
    clock."""

    name: str
    size: int
    modified: float


@dataclasses.dataclass(frozen=True)
class Capabilities:
    """What a store promises beyond the interface.

    :param conditional_put: of two simultaneous puts of one name exactly one succeeds.
    :param range_read: a part of an object is read without reading the rest.
    :param atomic_replace: a replaced object is never seen half-written or missing.
    :param ordered_listing: listings come sorted by name.
    :param consistent_listing: a listing shows everything that was put before it began.
    """

    conditional_put: bool
    range_read: bool
    atomic_replace: bool
    ordered_listing: bool
    consistent_listing: bool = True


class Store(abc.ABC):
    """Named, immutable objects. Methods may be called from several threads at once."""

    url: str
    capabilities: Capabilities

    @abc.abstractmethod
    def put(self, name: str, parts: Iterable[Buffer], *, replace: bool = False) -> int:
        """Store the concatenated parts under the name, durably and all at once.

        :param parts: may be gone through more than once; no reference to them is kept after
            returning.

        :returns: the object's size in bytes.
        :raises errors.ObjectExists: an object of that name exists and ``replace`` is false.
        """

    @abc.abstractmethod
    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Read the object, or ``length`` bytes of it from ``offset`` on.

        :raises errors.ObjectMissing: no such object.
        :raises errors.Damaged: the object ends before ``offset``, or before ``offset + length``.
        """

    @abc.abstractmethod
    def stat(self, name: str) -> ObjectInfo:
        """:raises errors.ObjectMissing: no such object."""

    @abc.abstractmethod
    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects whose names begin with the prefix, which ends in a slash or is empty.

        What has no name of ours is no object, and is passed over.

        :raises errors.StoreError: something could not be listed; a listing that ends without it is
            complete.
        """

    def list_after(self, prefix: str, after: str) -> Iterator[ObjectInfo]:
        """The objects of a listing whose names come after this one, which may be empty.

        Of use where ``capabilities.ordered_listing``: a listing that broke off goes on there.
        """
        return (info for info in self.list(prefix) if info.name > after)

    @abc.abstractmethod
    def delete(self, name: str) -> None:
        """Remove the object; one that is not there is no error."""

    @abc.abstractmethod
    def now(self) -> float:
        """The time on the store's clock, in seconds since the epoch."""

    def sweep(self, older_than: float = 86400.0) -> Sequence[str]:
        """Remove unfinished objects that a killed process left behind, where a store can have any.

        :param older_than: seconds on the store's clock since they were last written to; younger
            ones may be in use.
        :returns: what was removed.
        """
        return ()

    def close(self) -> None:  # noqa: B027 (most stores hold nothing)
        """Let go of connections. The store is not used afterwards."""

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def joined(parts: Iterable[Buffer]) -> bytes | bytearray:
    """The parts in one piece. Each is copied before the next is asked for, whose buffer may be the
    same."""
    if isinstance(parts, list | tuple) and len(parts) == 1 and isinstance(parts[0], bytes):
        return parts[0]
    whole = bytearray()
    for part in parts:
        whole += memoryview(part).cast("B")
    return whole


def is_name(name: str) -> bool:
    """Whether an object may have this name."""
    return bool(_NAME.fullmatch(name)) and len(name) <= 512


def check_name(name: str) -> str:
    """Return the name, or refuse what no store should be asked for.

    :raises errors.StoreError: the name is not one of ours.
    """
    if not is_name(name):
        raise errors.StoreError(f"{name!r} is no valid object name.")
    return name


def check_prefix(prefix: str) -> str:
    """Return the prefix of a listing, or refuse it.

    :raises errors.StoreError: it is neither empty nor a name with a slash at its end.
    """
    if prefix and not (prefix.endswith("/") and is_name(prefix[:-1])):
        raise errors.StoreError(f"{prefix!r} is no valid prefix of object names.")
    return prefix
