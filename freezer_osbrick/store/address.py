# SPDX-License-Identifier: Apache-2.0
"""From a repository's address to the store behind it."""

from __future__ import annotations

import dataclasses
import importlib
import os
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any

from freezer_osbrick import errors, quantities
from freezer_osbrick.store import base, limit, local, retry, throttle

SCHEMES = ("file", "s3", "swift", "sftp", "ftp", "ftps")

_FORMS = {
    "s3": "s3://BUCKET/PREFIX",
    "swift": "swift://CONTAINER/PREFIX",
    "sftp": "sftp://USER@HOST:PORT/PATH",
    "ftp": "ftp://USER@HOST:PORT/PATH",
    "ftps": "ftps://USER@HOST:PORT/PATH",
}
_IN_QUERY = {"s3": ("endpoint", "region"), "swift": ("region",)}
_PORTS = {"sftp": 22, "ftp": 21, "ftps": 21}

_PASSWORD_VARIABLE = "FREEZER_OSBRICK_PASSWORD"  # noqa: S105 (the name of a variable)


@dataclasses.dataclass(frozen=True)
class Location:
    """An address taken apart.

    :param host: bucket or container for S3 and Swift.
    :param path: of a folder; for S3 and Swift what names begin with, without slashes at its ends.
    :param query: settings that stand in the address.
    """

    scheme: str
    path: str
    host: str = ""
    port: int | None = None
    user: str | None = None
    query: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def url(self) -> str:
        """The address in its one normal form."""
        if self.scheme == "file":
            return local.url_of(self.path)
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{urllib.parse.quote(self.user)}@" if self.user else ""
        port = f":{self.port}" if self.port not in (None, _PORTS.get(self.scheme)) else ""
        path = urllib.parse.quote(self.path.strip("/"))
        query = f"?{urllib.parse.urlencode(self.query, safe=':/')}" if self.query else ""
        return f"{self.scheme}://{user}{host}{port}/{path}".rstrip("/") + query


def normalise(address: str) -> str:
    """The address as a URL: an absolute path is short for ``file://``.

    :raises errors.BadRequest: it is no address of a repository.
    """
    return parse(address).url


def open_store(
    address: str,
    *,
    create: bool = False,
    settings: Mapping[str, Any] | None = None,
    session: Callable[[], Any] | None = None,
) -> base.Store:
    """The store at the address. A remote one is asked again where it does not answer.

    :param create: make the place where it keeps its objects if it is missing.
    :param settings: of the repository, by the names of their options; what is None is not set.
    :param session: gives the keystoneauth session that Swift is used with.
    :raises errors.BadRequest: it is no address of a repository.
    :raises errors.ConfigurationError: something is missing to use it.
    """
    location = parse(address)
    known = {name: value for name, value in (settings or {}).items() if value is not None}
    known.update(location.query)
    store: base.Store
    upload = quantities.parse_rate(known.get("upload_limit"))
    download = quantities.parse_rate(known.get("download_limit"))
    if location.scheme == "file":
        store = local.LocalStore(location.path, create=create)
    else:
        store = _open_remote(location, known, session, create)
        store = limit.LimitedStore(store, known.get("connections", limit.DEFAULT_CONNECTIONS))
    if upload or download:
        store = throttle.ThrottledStore(
            store,
            upload=throttle.Bucket(upload) if upload else None,
            download=throttle.Bucket(download) if download else None,
        )
    if location.scheme != "file":
        store = retry.RetryingStore(store, known.get("patience", retry.DEFAULT_PATIENCE))
    return store


def _open_remote(
    location: Location,
    known: Mapping[str, Any],
    session: Callable[[], Any] | None,
    create: bool,
) -> base.Store:
    make = {"s3": _s3, "swift": _swift, "sftp": _sftp, "ftp": _ftp, "ftps": _ftp}[location.scheme]
    return retry.patiently(
        lambda: make(location, known, session, create),
        f"open {location.url}",
        known.get("patience", retry.DEFAULT_PATIENCE),
    )


def _s3(location: Location, known: Mapping[str, Any], _session: Any, create: bool) -> base.Store:
    names = ("endpoint", "region", "access_key", "secret_key", "addressing", "conditional_put")
    return _module("s3", location).S3Store(
        location.host, location.path, create=create, **_chosen(known, *names, "ca_file")
    )


def _swift(
    location: Location,
    known: Mapping[str, Any],
    session: Callable[[], Any] | None,
    create: bool,
) -> base.Store:
    chosen = _chosen(known, "region", "interface", "storage_url", "ca_file")
    auth_url = known.get("auth_url") or os.environ.get("ST_AUTH")
    if auth_url:
        chosen["auth_url"] = auth_url
        chosen["user"] = known.get("user") or os.environ.get("ST_USER")
        chosen["key"] = _password(known) or os.environ.get("ST_KEY")
    elif session is not None:
        chosen["session"] = session()
    return _module("swift", location).SwiftStore(
        location.host, location.path, create=create, **chosen
    )


def _sftp(location: Location, known: Mapping[str, Any], _session: Any, create: bool) -> base.Store:
    return _module("sftp", location).SftpStore(
        location.host,
        location.path,
        port=location.port or _PORTS["sftp"],
        user=location.user or known.get("user"),
        password=_password(known),
        create=create,
        **_chosen(known, "ssh_key_file", "known_hosts", "accept_new_host"),
    )


def _ftp(location: Location, known: Mapping[str, Any], _session: Any, create: bool) -> base.Store:
    return _module("ftp", location).FtpStore(
        location.host,
        location.path,
        port=location.port or _PORTS[location.scheme],
        user=location.user or known.get("user"),
        password=_password(known),
        encrypted=location.scheme == "ftps",
        create=create,
        **_chosen(known, "ca_file"),
    )


def parse(address: str) -> Location:
    """Take an address apart.

    :raises errors.BadRequest: it is no address of a repository.
    """
    if "\0" in address:
        raise errors.BadRequest(f"{address!r} is no repository address: what is that in it?.")
    if address.startswith("/"):
        return Location("file", os.path.normpath("/" + address.lstrip("/")))
    try:
        parts = urllib.parse.urlsplit(address)
        port = parts.port
    except ValueError:
        raise _no_address(address) from None
    if parts.scheme not in SCHEMES:
        raise _no_address(address)
    path = urllib.parse.unquote(parts.path)
    if "\0" in path or (parts.scheme != "file" and not path.isprintable()):
        raise errors.BadRequest(f"{address!r} is no repository address: what is that in it?.")
    if parts.scheme == "file":
        if parts.netloc or not path.startswith("/") or parts.query or parts.fragment:
            raise errors.BadRequest(f"{address!r} must be file:///PATH with an absolute path.")
        return Location("file", os.path.normpath("/" + path.lstrip("/")))
    if parts.password is not None:
        raise errors.BadRequest(
            "A password does not belong in an address: set password or password_file in the "
            f"repository's section of the configuration, or {_PASSWORD_VARIABLE}."
        )
    remote = parts.scheme in _PORTS
    if not parts.hostname or parts.fragment or (not remote and (port or parts.username)):
        raise errors.BadRequest(f"{address!r} must be {_FORMS[parts.scheme]}.")
    return Location(
        parts.scheme,
        path.strip("/") if not remote else os.path.normpath("/" + path.lstrip("/")),
        # Names of buckets and containers may have capitals, which .hostname takes away.
        parts.hostname if remote else urllib.parse.unquote(parts.netloc),
        port,
        urllib.parse.unquote(parts.username) if parts.username else None,
        _query(address, parts.scheme, parts.query),
    )


def _query(address: str, scheme: str, text: str) -> Mapping[str, str]:
    known = _IN_QUERY.get(scheme, ())
    found = urllib.parse.parse_qsl(text, keep_blank_values=True)
    for name, value in found:
        if name not in known or not value:
            allowed = f" There are: {', '.join(known)}." if known else ""
            raise errors.BadRequest(f"{address!r} has no setting {name!r} of its own.{allowed}")
    return dict(found)


def _no_address(address: str) -> errors.BadRequest:
    # What may be an address with a password in it is not repeated.
    shown = repr(address) if "@" not in address else "What was given"
    forms = ", ".join(_FORMS.values())
    return errors.BadRequest(
        f"{shown} is no repository address: give an absolute path, file:///PATH, {forms}."
    )


def _chosen(known: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: known[name] for name in names if name in known}


def _password(known: Mapping[str, Any]) -> str | None:
    """The password that is configured, in a file of its own, or in the environment."""
    if known.get("password"):
        return str(known["password"])
    path = known.get("password_file")
    if not path:
        return os.environ.get(_PASSWORD_VARIABLE)
    try:
        with open(os.path.expanduser(path), encoding="utf-8") as file:
            password = file.readline().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise errors.ConfigurationError(
            f"The password file {path} cannot be read: {error}."
        ) from error
    if not password:
        raise errors.ConfigurationError(f"The password file {path} is empty.")
    return password


def _module(name: str, location: Location) -> Any:
    """The module of a store; the libraries of most are wanted only where they are used."""
    extra = "ssh" if name == "sftp" else name
    try:
        return importlib.import_module(f"freezer_osbrick.store.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("freezer_osbrick"):
            raise
        raise errors.ConfigurationError(
            f"{location.url} needs the Python package {error.name}: install "
            f"freezer-osbrick[{extra}]."
        ) from error
