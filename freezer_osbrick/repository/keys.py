# SPDX-License-Identifier: Apache-2.0
"""Keys: the master key of a sealed repository, and the secrets that unlock it.

The master key is random and never changes. For each secret there is an object below ``keys/`` with
the master key wrapped by a key that scrypt derives from the secret, so that secrets come and go
without a block being sealed anew.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
import zlib
from typing import Any

from cryptography import exceptions
from cryptography.hazmat.primitives.ciphers import aead
from cryptography.hazmat.primitives.kdf import scrypt

from freezer_osbrick import errors
from freezer_osbrick.repository import format as form
from freezer_osbrick.store.base import Store

MASTER_KEY_SIZE = 32

# 64 MiB and about a fifth of a second for each guess.
_SCRYPT = {"n": 1 << 16, "r": 8, "p": 1}

# What a key object may ask of us before it is believed: 1 GiB.
_MOST_SCRYPT_MEMORY = 1 << 30

_PAPER = "freezer-osbrick paper key"


@dataclasses.dataclass(frozen=True)
class Key:
    """A secret that unlocks the repository, as its object tells of it.

    :param created: seconds since the epoch.
    """

    id: str
    label: str
    created: int


def new_master_key() -> bytes:
    return os.urandom(MASTER_KEY_SIZE)


def add(store: Store, repository_id: bytes, master_key: bytes, secret: bytes, label: str) -> Key:
    """Let a secret unlock the repository.

    :raises errors.BadRequest: the secret is empty.
    """
    if not secret:
        raise errors.BadRequest("The key file is empty.")
    key_id = os.urandom(form.OBJECT_ID_SIZE)
    document: dict[str, Any] = {
        "format": form.VERSION,
        "key": key_id.hex(),
        "label": label,
        "created": int(time.time()),
        "kdf": "scrypt",
        **_SCRYPT,
        "salt": os.urandom(16).hex(),
    }
    nonce = os.urandom(12)
    wrapping = aead.AESGCM(_derive(document, secret))
    wrapped = wrapping.encrypt(nonce, master_key, _bound(repository_id, document))
    stored = {**document, "nonce": nonce.hex(), "wrapped": wrapped.hex()}
    store.put(_name(key_id.hex()), [json.dumps(stored, indent=1).encode() + b"\n"])
    return _key(document)


def unlock(store: Store, repository_id: bytes, secret: bytes) -> bytes:
    """The master key.

    :param secret: of any key, or the paper form of the master key.
    :raises errors.WrongKey: the secret unlocks nothing here.
    :raises errors.Damaged: there is no key.
    """
    if secret.lstrip().startswith(_PAPER.encode()):
        return from_paper(repository_id, secret)
    unreadable: errors.RepositoryError | None = None
    listed = False
    for info in store.list(form.KEYS):
        listed = True
        try:
            document = _read(store, info.name)
            wrapped, nonce = document.pop("wrapped"), document.pop("nonce")
            return aead.AESGCM(_derive(document, secret)).decrypt(
                bytes.fromhex(nonce), bytes.fromhex(wrapped), _bound(repository_id, document)
            )
        except (exceptions.InvalidTag, errors.ObjectMissing):
            continue  # another secret's, or removed while we were looking
        except (errors.Damaged, errors.UnknownFormat) as error:
            unreadable = unreadable or error  # another one may open it
    if not listed:
        raise errors.Damaged(
            f"The repository at {store.url} is sealed and no key of it is listed: where it was made"
            " just now, try again in some minutes."
        )
    raise unreadable or errors.WrongKey(f"The key does not open the repository at {store.url}.")


def keys(store: Store) -> list[Key]:
    """All keys, oldest first."""
    found = [_key(_read(store, info.name)) for info in store.list(form.KEYS)]
    return sorted(found, key=lambda key: (key.created, key.id))


def remove(store: Store, id_or_prefix: str) -> Key:
    """Let a secret unlock the repository no more.

    What somebody who had it has copied stays readable to him.

    :raises errors.BadRequest: no such key, several, or the last one.
    """
    present = keys(store)
    matching = [key for key in present if key.id.startswith(id_or_prefix.lower())]
    if not id_or_prefix or len(matching) != 1:
        raise errors.BadRequest(f"{len(matching)} keys begin with {id_or_prefix!r}: name one.")
    if len(present) == 1:
        raise errors.BadRequest("This is the last key: without it nothing can be restored.")
    store.delete(_name(matching[0].id))
    return matching[0]


def to_paper(repository_id: bytes, master_key: bytes) -> str:
    """The master key as lines to be printed and locked away. Whoever has them can read
    everything."""
    digits = master_key.hex()
    groups = [digits[start : start + 8] for start in range(0, len(digits), 8)]
    checksum = zlib.crc32(repository_id + master_key)
    return (
        f"{_PAPER} of repository {repository_id.hex()}\n"
        f"{' '.join(groups[:4])}\n{' '.join(groups[4:])}\nchecksum {checksum:08x}\n"
    )


def from_paper(repository_id: bytes, text: bytes) -> bytes:
    """The master key from its paper form, typed in again.

    :raises errors.WrongKey: mistyped, or of another repository.
    """
    try:
        words = text.decode("ascii").strip().lower().removeprefix(_PAPER).split()
        of, what, named, *groups, word, checksum = words
        master_key = bytes.fromhex("".join(groups))
        right = (of, what, word) == ("of", "repository", "checksum")
        typed = int(checksum, 16)
    except ValueError:
        raise errors.WrongKey("The paper key is not complete.") from None
    if named != repository_id.hex():
        raise errors.WrongKey("The paper key belongs to another repository.")
    if (
        not right
        or len(master_key) != MASTER_KEY_SIZE
        or typed != zlib.crc32(repository_id + master_key)
    ):
        raise errors.WrongKey("The paper key is mistyped: its checksum does not fit.")
    return master_key


def _derive(document: dict[str, Any], secret: bytes) -> bytes:
    if document["kdf"] != "scrypt":
        raise errors.UnknownFormat(
            f"Key {document['key']} needs a later version of freezer-osbrick ({document['kdf']})."
        )
    salt = bytes.fromhex(document["salt"])
    return scrypt.Scrypt(
        salt=salt, length=32, n=document["n"], r=document["r"], p=document["p"]
    ).derive(secret)


def _bound(repository_id: bytes, document: dict[str, Any]) -> bytes:
    """What the wrapped key is bound to: the repository and all that the key's object says."""
    return repository_id + json.dumps(document, sort_keys=True).encode()


def _read(store: Store, name: str) -> dict[str, Any]:
    try:
        document = json.loads(store.get(name))
        if document["format"] != form.VERSION:
            raise errors.UnknownFormat(f"Object {name} has an unknown format.")
        _key(document)
        for field, size in (("salt", 16), ("nonce", 12), ("wrapped", MASTER_KEY_SIZE + 16)):
            if len(bytes.fromhex(document[field])) != size:
                raise ValueError(f"its {field} has a wrong length")
        n, r, p, _ = (document[field] for field in ("n", "r", "p", "kdf"))
        if n < 2 or n & (n - 1) or r < 1 or not 1 <= p <= 16 or n * r > _MOST_SCRYPT_MEMORY // 128:
            raise ValueError("it asks for something impossible")
        return document
    except form.UNREADABLE_JSON as error:
        raise errors.Damaged(f"Object {name} is damaged: {form.told(error)}.") from None


def _key(document: dict[str, Any]) -> Key:
    return Key(id=document["key"], label=document["label"], created=document["created"])


def _name(key_id: str) -> str:
    return form.KEYS + key_id
