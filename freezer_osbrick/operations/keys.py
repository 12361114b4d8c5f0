# SPDX-License-Identifier: Apache-2.0
"""The keys of a sealed repository."""

from __future__ import annotations

from freezer_osbrick import errors
from freezer_osbrick.operations.context import Context, read_secret
from freezer_osbrick.repository import keys
from freezer_osbrick.repository.keys import Key
from freezer_osbrick.repository.repository import Repository


def add_key(context: Context, url: str, new_key_file: str, label: str) -> Key:
    """Let the secret in one more file unlock the repository. Nothing is sealed anew."""
    repository, master_key = _sealed(context, url)
    return keys.add(repository.store, repository.id, master_key, read_secret(new_key_file), label)


def list_keys(context: Context, url: str) -> list[Key]:
    """The keys of the repository, oldest first."""
    return keys.keys(_sealed(context, url)[0].store)


def remove_key(context: Context, url: str, key_id: str) -> Key:
    """Let a secret unlock the repository no more.

    :param key_id: or its first characters.
    """
    return keys.remove(_sealed(context, url)[0].store, key_id)


def export_key(context: Context, url: str) -> str:
    """The master key as text, to be locked away; in a key file it unlocks the repository."""
    repository, master_key = _sealed(context, url)
    return keys.to_paper(repository.id, master_key)


def _sealed(context: Context, url: str) -> tuple[Repository, bytes]:
    repository = context.open_repository(url)
    if repository.master_key is None:
        raise errors.BadRequest(f"The repository at {url} is not sealed: it has no keys.")
    return repository, repository.master_key
