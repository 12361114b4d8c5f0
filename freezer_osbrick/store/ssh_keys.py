# SPDX-License-Identifier: Apache-2.0
"""Keys of SSH: those of servers, which are taken or refused, and our own."""

from __future__ import annotations

import base64
import hashlib
import os

import paramiko

from freezer_osbrick import errors


class RefuseNew(paramiko.MissingHostKeyPolicy):
    """Takes no key that is not known."""

    def missing_host_key(
        self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey
    ) -> None:
        raise errors.StoreAccessDenied(
            f"The key of {hostname} is in no file of known hosts; {fingerprint(key)} came. If it "
            "is right, add it with ssh-keyscan, or set accept_new_host in the repository's section "
            "of the configuration."
        )


class TakeNew(paramiko.MissingHostKeyPolicy):
    """Takes the key of a server that is seen for the first time, and remembers it."""

    def __init__(self, path: str) -> None:
        self._path = path

    def missing_host_key(
        self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey
    ) -> None:
        line = f"{hostname} {key.get_name()} {key.get_base64()}\n"
        try:
            os.makedirs(os.path.dirname(self._path) or ".", mode=0o700, exist_ok=True)
            with open(self._path, "a", encoding="ascii") as file:
                file.write(line)
        except OSError as error:
            raise errors.ConfigurationError(
                f"The key of {hostname} cannot be written to {self._path}: {error.strerror}."
            ) from error


def check_key(path: str, passphrase: str | None) -> None:
    """A private key can be used.

    :raises errors.ConfigurationError: the file is no private key that this passphrase opens.
    """
    secret = passphrase.encode() if passphrase else None
    try:
        paramiko.PKey.from_path(path, secret)
    except paramiko.PasswordRequiredException:
        raise errors.ConfigurationError(
            f"The key in {path} is locked: set password to its passphrase."
        ) from None
    except OSError as error:
        raise errors.ConfigurationError(
            f"The key file {path} cannot be read: {error.strerror}."
        ) from error
    except (paramiko.SSHException, paramiko.pkey.UnknownKeyType, ValueError, TypeError) as error:
        raise errors.ConfigurationError(f"{path} holds no private key: {error}.") from error


def fingerprint(key: paramiko.PKey) -> str:
    """As OpenSSH writes it."""
    digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")
    return f"{key.get_name()} SHA256:{digest}"
