# SPDX-License-Identifier: Apache-2.0
"""Where Freezer's storage options say that the repositories lie."""

from __future__ import annotations

import dataclasses
import os
import urllib.parse
from collections.abc import Mapping
from typing import Any

from freezer_osbrick import errors

_WORDS = ("storage", "container", "ssh_key", "ssh_username", "ssh_host", "ssh_port")
# What else a restore needs to find the repository, by the storage; no secret.
_FURTHER_WORDS = {
    "s3": ("endpoint", "access_key"),
    "ftp": ("ftp_host", "ftp_port", "ftp_username"),
    "ftps": ("ftp_host", "ftp_port", "ftp_username"),
}
_SECRET_FLAGS = ("--secret-key", "--ssh-password", "--ftp-password")


@dataclasses.dataclass(frozen=True)
class Place:
    """A repository.

    :param url: its address, or an absolute path.
    :param settings: options of ``[repository:NAME]`` that Freezer's options set.
    :param name: of its section, where there are several; the operations know it by this name.
    :param words: what Freezer's records say of the storage.
    """

    url: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    name: str | None = None
    words: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def address(self) -> str:
        return self.name or self.url


def of_run(
    values: Mapping[str, Any], storages: Mapping[str, Mapping[str, Any]]
) -> tuple[Place, ...]:
    """The repositories of a run: that of Freezer's options, or those of its ``[storage:NAME]``
    sections, each of which gets every backup.

    :param values: Freezer's arguments by name.
    :param storages: settings of the sections, by their names; what one does not say, ``values``
        say.
    :raises errors.BadRequest: the options do not say where one is.
    """
    if not storages:
        return (of(values),)
    places = []
    for name, settings in storages.items():
        if "storage" not in settings or "container" not in settings:
            raise errors.BadRequest(f"[{name}] needs a storage and a container.")
        try:
            place = of({**values, **settings})
        except errors.BadRequest as error:
            raise errors.BadRequest(f"[{name}]: {error}") from error
        places.append(dataclasses.replace(place, name=name if len(storages) > 1 else None))
    return tuple(places)


def of(values: Mapping[str, Any]) -> Place:
    """The repository that Freezer's options name.

    :param values: Freezer's arguments by name.
    :raises errors.BadRequest: the options do not say where it is.
    """
    kinds = {"local": _local, "swift": _swift, "s3": _s3, "ssh": _ssh, "ftp": _ftp, "ftps": _ftp}
    storage = str(values["storage"])
    if storage not in kinds:
        raise errors.BadRequest(f"Engine osbrick knows no storage {storage!r}.")
    place = kinds[storage](values, storage)
    limits = {name: values.get(name) for name in ("upload_limit", "download_limit")}
    given = {name: str(rate) for name, rate in limits.items() if rate not in (None, -1)}
    words = {name: values.get(name) or "" for name in _WORDS}
    further = _FURTHER_WORDS.get(storage, ())
    words.update(_set({name: place.settings.get(name) or values.get(name) for name in further}))
    return Place(place.url, {**place.settings, **given}, words=words)


def hide_secrets(command_line: list[str]) -> None:
    """Take passwords out of a command line that was read already: Freezer writes it into its
    log."""
    for index, word in enumerate(command_line):
        flag, sign, _ = word.partition("=")
        if flag not in _SECRET_FLAGS:
            continue
        if sign:
            command_line[index] = f"{flag}=***"
        elif index + 1 < len(command_line):
            command_line[index + 1] = "***"


def _local(values: Mapping[str, Any], storage: str) -> Place:
    return Place(os.path.normpath(_folder(values, storage)))


def _swift(values: Mapping[str, Any], storage: str) -> Place:
    return Place(f"swift://{_quoted(_needed(values, 'container', storage))}")


def _s3(values: Mapping[str, Any], storage: str) -> Place:
    settings = {
        name: values.get(name) or os.environ.get(name.upper())
        for name in ("endpoint", "access_key", "secret_key")
    }
    return Place(f"s3://{_quoted(_needed(values, 'container', storage))}", _set(settings))


def _ssh(values: Mapping[str, Any], storage: str) -> Place:
    # Freezer takes the key of any server. The first one that is seen is taken here too, but
    # remembered: another one is refused from then on.
    settings = {
        "ssh_key_file": None if values.get("ssh_password") else values.get("ssh_key"),
        "password": values.get("ssh_password"),
        "accept_new_host": True,
    }
    return Place(_server("sftp", "ssh", values, storage), _set(settings))


def _ftp(values: Mapping[str, Any], storage: str) -> Place:
    for name in ("ftp_keyfile", "ftp_certfile"):
        if values.get(name):
            raise errors.BadRequest(
                f"Engine osbrick shows no certificate of its own to an FTP server: leave out "
                f"--{name.replace('_', '-')}."
            )
    return Place(
        _server(storage, "ftp", values, storage), _set({"password": values.get("ftp_password")})
    )


def _server(scheme: str, options: str, values: Mapping[str, Any], storage: str) -> str:
    host = _needed(values, f"{options}_host", storage)
    user = _needed(values, f"{options}_username", storage)
    host = f"[{host}]" if ":" in host else host
    port = f":{values[f'{options}_port']}" if values.get(f"{options}_port") else ""
    folder = urllib.parse.quote(_folder(values, storage))
    return f"{scheme}://{urllib.parse.quote(user, safe='')}@{host}{port}{folder}"


def _folder(values: Mapping[str, Any], storage: str) -> str:
    container = str(values["container"])
    if not os.path.isabs(container):
        raise errors.BadRequest(
            f"--container must be the absolute path of a folder with --storage {storage}, not "
            f"{container!r}."
        )
    return container


def _needed(values: Mapping[str, Any], name: str, storage: str) -> str:
    value = values.get(name)
    if not value:
        raise errors.BadRequest(f"--storage {storage} needs --{name.replace('_', '-')}.")
    return str(value)


def _quoted(container: str) -> str:
    return urllib.parse.quote(container.strip("/"))


def _set(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value}
