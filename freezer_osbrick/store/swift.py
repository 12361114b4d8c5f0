# SPDX-License-Identifier: Apache-2.0
"""Objects in a container of Swift."""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import keystoneauth1.exceptions
import requests
import swiftclient
import urllib3.exceptions

from freezer_osbrick import errors
from freezer_osbrick.store import base, pool, ranges

T = TypeVar("T")

_PAGE = 10_000  # Swift's own limit of a listing
_REPLACE_TRIES = 8
_BUSY = (408, 409, 422, 429, 498, 499)  # 422: damaged on the way; 498: too many requests


class SwiftStore(base.Store):
    """A store in a container, below a prefix.

    Of several puts of one name that begin before any of them ends, Swift may accept more than one,
    and keeps the latest: there is no conditional put in the strict sense. One that begins after
    another has ended is refused.
    """

    capabilities = base.Capabilities(
        conditional_put=False,
        range_read=True,
        atomic_replace=True,
        ordered_listing=True,
        consistent_listing=False,
    )

    def __init__(
        self,
        container: str,
        prefix: str = "",
        *,
        session: Any = None,
        region: str | None = None,
        interface: str | None = None,
        auth_url: str | None = None,
        user: str | None = None,
        key: str | None = None,
        storage_url: str | None = None,
        ca_file: str | None = None,
        timeout: float = 60.0,
        create: bool = False,
    ) -> None:
        """
        :param prefix: names begin with it and a slash; may be empty.
        :param session: keystoneauth session; None where ``auth_url``, ``user`` and ``key`` are
            given for Swift's own login (version 1).
        :param region: whose endpoint in the catalogue is used.
        :param interface: kind of endpoint: public, internal or admin.
        :param storage_url: the account, where it is not the one that the login names.
        :param create: make the container if it is missing.
        :raises errors.StoreError: the container does not exist.
        """
        self._container = container
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.url = f"swift://{container}/{self._prefix}".rstrip("/")
        if session is None and not (auth_url and user and key):
            raise errors.ConfigurationError(
                f"There is no login for {self.url}: set the OS_* variables of a cloud, or "
                "auth_url, user and key in the repository's section of the configuration."
            )
        options = {"region_name": region, "endpoint_type": interface}
        options = {name: value for name, value in options.items() if value}
        if storage_url:
            options["object_storage_url"] = storage_url
        login = {"authurl": auth_url, "user": user, "key": key, "auth_version": "1"}
        arguments: dict[str, Any] = {"session": session} if session is not None else login
        # Ours rule: a wrapper tries again.
        arguments.update(retries=0, os_options=options, timeout=timeout, cacert=ca_file)
        _keep_quiet()
        if session is not None and not storage_url:
            self._find_service(session, region, interface)
        self._connections = pool.Pool(
            lambda: swiftclient.Connection(**arguments), lambda connection: connection.close()
        )
        self._find_container(create)

    def put(self, name: str, parts: Iterable[base.Buffer], *, replace: bool = False) -> int:
        path = self._path(name)
        data = base.joined(parts)
        checksum = hashlib.md5(data, usedforsecurity=False).hexdigest()
        headers = {} if replace else {"If-None-Match": "*"}

        def put(connection: Any) -> None:
            connection.put_object(
                self._container,
                path,
                bytes(data) if isinstance(data, bytearray) else data,
                content_length=len(data),
                etag=checksum,  # Swift refuses what does not arrive as it was sent
                headers=headers,
            )

        for left in reversed(range(_REPLACE_TRIES)):
            try:
                self._call(name, put)
                break
            except _Conflict:
                # Somebody else's put with a later time stamp was there first.
                if not replace:
                    raise errors.ObjectExists(f"{name} exists already.") from None
                if not left:
                    raise
        return len(data)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        path = self._path(name)
        if offset < 0 or (length is not None and length <= 0):
            ranges.check(name, self.url, offset, length, self.stat(name).size)
            return b""
        wanted = ranges.header(offset, length)
        headers = {"Range": wanted} if wanted else {}
        try:
            answer, body = self._call(
                name, lambda swift: swift.get_object(self._container, path, headers=headers)
            )
        except _NoSuchRange:
            ranges.check(name, self.url, offset, length, self.stat(name).size)
            return b""
        if len(body) != int(answer.get("content-length", len(body))):
            raise errors.StoreUnavailable(f"The connection to {self.url} broke at {name}.")
        return ranges.extract(name, self.url, body, offset, length, answer.get("content-range"))

    def stat(self, name: str) -> base.ObjectInfo:
        path = self._path(name)
        found = self._call(name, lambda swift: swift.head_object(self._container, path))
        return base.ObjectInfo(name, int(found["content-length"]), float(found["x-timestamp"]))

    def list(self, prefix: str) -> Iterator[base.ObjectInfo]:
        return self.list_after(prefix, "")

    def list_after(self, prefix: str, after: str) -> Iterator[base.ObjectInfo]:
        marker = self._prefix + after if after else ""
        return self._list(self._prefix + base.check_prefix(prefix), marker)

    def _list(self, prefix: str, marker: str) -> Iterator[base.ObjectInfo]:
        while page := self._page(prefix, marker):
            for found in page:
                name = found["name"][len(self._prefix) :]
                if base.is_name(name):
                    yield base.ObjectInfo(name, found["bytes"], _time(found["last_modified"]))
            marker = page[-1]["name"]

    def _page(self, prefix: str, marker: str) -> Sequence[dict[str, Any]]:
        return self._call_container(
            lambda swift: swift.get_container(
                self._container, prefix=prefix, marker=marker, limit=_PAGE
            )[1]
        )

    def delete(self, name: str) -> None:
        path = self._path(name)
        with contextlib.suppress(errors.ObjectMissing):
            self._call(name, lambda swift: swift.delete_object(self._container, path))

    def now(self) -> float:
        """The proxy's clock, in whole seconds."""
        headers = self._call_container(lambda swift: swift.head_container(self._container))
        return email.utils.parsedate_to_datetime(headers["date"]).timestamp()

    def close(self) -> None:
        self._connections.close()

    def _path(self, name: str) -> str:
        return self._prefix + base.check_name(name)

    def _find_service(self, session: Any, region: str | None, interface: str | None) -> None:
        with self._translated("the catalogue"):
            endpoint = session.get_endpoint(
                service_type="object-store", region_name=region, interface=interface or "public"
            )
        if endpoint is None:
            raise errors.ConfigurationError(
                f"The cloud has no object store for {self.url}: its catalogue names none"
                + (f" in region {region}." if region else ".")
            )

    def _find_container(self, create: bool) -> None:
        try:
            self._call("the container", lambda swift: swift.head_container(self._container))
        except errors.ObjectMissing:
            if not create:
                raise self._no_container() from None
            self._call("the container", lambda swift: swift.put_container(self._container))
        except _Forbidden:
            return  # it may be, although its objects are not

    def _no_container(self) -> errors.StoreError:
        return errors.StoreError(f"There is no container {self._container}.")

    def _call_container(self, call: Callable[[Any], T]) -> T:
        try:
            return self._call("the container", call)
        except errors.ObjectMissing:
            raise self._no_container() from None

    def _call(self, name: str, call: Callable[[Any], T]) -> T:
        """Call with a connection of this thread's own."""
        with (
            self._translated(name),
            self._connections.lent(healthy=(swiftclient.ClientException,)) as connection,
        ):
            try:
                return call(connection)
            except swiftclient.ClientException as error:
                # It gets a new token where one expired, but then puts only strings once more.
                if error.http_status or connection.token:
                    raise
                return call(connection)

    @contextlib.contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        """Turn what the client and the server say into our own errors."""
        try:
            yield
        except swiftclient.ClientException as error:
            raise self._of_answer(error, name) from error
        except keystoneauth1.exceptions.Unauthorized as error:
            raise errors.StoreAccessDenied(f"Keystone denies the login for {self.url}.") from error
        except (
            keystoneauth1.exceptions.EndpointNotFound,
            keystoneauth1.exceptions.MissingAuthPlugin,
        ) as error:
            raise errors.ConfigurationError(
                f"The cloud names no object store for {self.url}: {error}"
            ) from error
        except (requests.exceptions.SSLError, keystoneauth1.exceptions.SSLError) as error:
            raise errors.StoreError(f"No safe connection to {self.url}: {error}.") from error
        except (
            keystoneauth1.exceptions.ClientException,
            requests.exceptions.RequestException,
            urllib3.exceptions.HTTPError,  # an answer that broke off
            OSError,
        ) as error:
            raise errors.StoreUnavailable(f"{self.url} cannot be reached: {error}.") from error

    def _of_answer(self, error: swiftclient.ClientException, name: str) -> errors.StoreError:
        status = error.http_status
        said = error.http_reason or f"HTTP {status}"
        if not status:
            return self._of_login(error)
        if status == 409:
            return _Conflict(f"{name} of {self.url} was changed by somebody else.")
        if status == 412:
            return errors.ObjectExists(f"{name} exists already.")
        if status == 416:
            return _NoSuchRange(f"{name} of {self.url} has no such range.")
        if status in (413, 507):
            return errors.StoreFull(f"No room is left to store {name} in {self.url}: {said}.")
        if status >= 500 or status in _BUSY:
            return errors.StoreUnavailable(f"{self.url} is not available: {said}.")
        if status in (401, 403):
            denied = _Forbidden if status == 403 else errors.StoreAccessDenied
            return denied(f"{self.url} denies access to {name}: {said}.")
        if status == 404:
            return errors.ObjectMissing(f"{name} does not exist.")
        return errors.StoreError(f"{self.url} refused {name}: {said}.")

    def _of_login(self, error: swiftclient.ClientException) -> errors.StoreError:
        """An error without a status: swiftclient could not log in, or got no answer."""
        said = str(error).partition("\n")[0]
        if isinstance(error.__cause__ or error.__context__, OSError):
            return errors.StoreUnavailable(f"{self.url} cannot be reached: {said}.")
        return errors.StoreError(f"{self.url} cannot be used: {said}.")


class _Conflict(errors.StoreUnavailable):
    """Somebody else's change is there, with a later time stamp."""


class _Forbidden(errors.StoreAccessDenied):
    """Who asks is known, and may not."""


class _NoSuchRange(errors.StoreError):
    """The object ends before the range begins."""


def _time(text: str) -> float:
    """Seconds since the epoch from a listing's time, which is UTC without saying so."""
    return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.timezone.utc).timestamp()


def _keep_quiet() -> None:
    """What swiftclient says in its information and debug messages contains parts of tokens."""
    logger = logging.getLogger("swiftclient")
    if logger.getEffectiveLevel() < logging.WARNING:
        logger.setLevel(logging.WARNING)
