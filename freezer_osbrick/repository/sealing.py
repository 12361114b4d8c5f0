# SPDX-License-Identifier: Apache-2.0
"""Boxes: what protects each piece of stored data, and ties it to its place.

A box is the data followed by a tag of 16 bytes. The tag is made over the data *and* its place:
format, repository, kind of object, the object's id, the position in the object and the id of the
data. A box that was changed, cut, or moved elsewhere does not open. A repository without a key
uses :class:`Checked`, whose tag finds damage but keeps no secret.
"""

from __future__ import annotations

import abc
import functools
import hmac
import struct

import blake3
from cryptography import exceptions
from cryptography.hazmat.primitives.ciphers import aead

from freezer_osbrick import errors
from freezer_osbrick.repository import format as form
from freezer_osbrick.store.base import Buffer

TAG_SIZE = 16

_NONCE = struct.Struct("<Q4x")
_PLACE = struct.Struct("<BB16s16sQ")


class Sealer(abc.ABC):
    """Makes boxes and opens them, for one repository."""

    code: int
    """What an object's header says of its sealing."""

    def __init__(self, repository_id: bytes) -> None:
        self._repository_id = repository_id

    def place(self, kind: int, object_id: bytes, position: int, data_id: bytes = b"") -> bytes:
        """The additional data of a box."""
        return _PLACE.pack(form.VERSION, kind, self._repository_id, object_id, position) + data_id

    @abc.abstractmethod
    def seal(
        self, kind: int, object_id: bytes, position: int, data: Buffer, data_id: bytes = b""
    ) -> list[Buffer]:
        """The box, in pieces to be stored one after the other.

        :param kind: one of the kinds in :mod:`~freezer_osbrick.repository.format`.
        :param object_id: 16 bytes, random for each object.
        :param position: a number that is used once in an object.
        :param data_id: the id of the data, where it has one.
        """

    @abc.abstractmethod
    def open(
        self, kind: int, object_id: bytes, position: int, box: memoryview, data_id: bytes = b""
    ) -> Buffer:
        """The data in the box.

        :raises errors.Damaged: it is not the box that was made for this place.
        """


class Checked(Sealer):
    """No secrecy: the tag is a keyed BLAKE3 whose key follows from the repository's id."""

    code = 0

    def __init__(self, repository_id: bytes) -> None:
        super().__init__(repository_id)
        self._key = form.derive_key("tags", repository_id)

    def seal(
        self, kind: int, object_id: bytes, position: int, data: Buffer, data_id: bytes = b""
    ) -> list[Buffer]:
        return [data, self._tag(kind, object_id, position, data, data_id)]

    def open(
        self, kind: int, object_id: bytes, position: int, box: memoryview, data_id: bytes = b""
    ) -> Buffer:
        data = box[:-TAG_SIZE]
        tag = self._tag(kind, object_id, position, data, data_id)
        if len(box) < TAG_SIZE or not hmac.compare_digest(tag, box[-TAG_SIZE:]):
            raise errors.Damaged("Stored data does not match its tag.")
        return data

    def _tag(
        self, kind: int, object_id: bytes, position: int, data: Buffer, data_id: bytes
    ) -> bytes:
        hasher = blake3.blake3(self.place(kind, object_id, position, data_id), key=self._key)
        hasher.update(data)
        return hasher.digest(length=TAG_SIZE)


class Sealed(Sealer):
    """AES-256-GCM. Each object has a key of its own, so that a position in it is nonce enough."""

    code = 1

    def __init__(self, repository_id: bytes, master_key: bytes) -> None:
        """:param master_key: 32 bytes."""
        super().__init__(repository_id)
        self._kind_keys = {
            kind: form.derive_key(f"sealing {name}", master_key)
            for kind, name in form.KIND_NAMES.items()
        }
        self._cipher = functools.lru_cache(maxsize=64)(self._new_cipher)

    def seal(
        self, kind: int, object_id: bytes, position: int, data: Buffer, data_id: bytes = b""
    ) -> list[Buffer]:
        place = self.place(kind, object_id, position, data_id)
        return [self._cipher(kind, object_id).encrypt(_NONCE.pack(position), data, place)]

    def open(
        self, kind: int, object_id: bytes, position: int, box: memoryview, data_id: bytes = b""
    ) -> Buffer:
        place = self.place(kind, object_id, position, data_id)
        try:
            return self._cipher(kind, object_id).decrypt(_NONCE.pack(position), box, place)
        except (exceptions.InvalidTag, ValueError):
            raise errors.Damaged("Stored data does not match its tag.") from None

    def _new_cipher(self, kind: int, object_id: bytes) -> aead.AESGCM:
        return aead.AESGCM(blake3.blake3(object_id, key=self._kind_keys[kind]).digest())
