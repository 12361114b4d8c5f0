# SPDX-License-Identifier: Apache-2.0
"""Whatever a store does to its objects: care names it, or nothing is lost; it never breaks down."""

from __future__ import annotations

import random

import pytest

from freezer_osbrick import errors
from freezer_osbrick.operations.check import check
from freezer_osbrick.operations.prune import PruneRequest, prune
from freezer_osbrick.operations.repair import repair
from freezer_osbrick.operations.stats import stats
from freezer_osbrick.operations.verify import VerifyRequest, verify
from freezer_osbrick.repository import format as form
from tests.unit.care.conftest import BLOCK, CHUNK, URL


@pytest.fixture
def made(shelf) -> list[str]:
    randomness = random.Random(1)
    content = bytearray(randomness.randbytes(CHUNK) + bytes(CHUNK) + b"text " * 300)
    first = shelf.backup(bytes(content), time=1)
    content[BLOCK : BLOCK + 4] = b"next"
    second = shelf.backup(bytes(content), time=2, parent=first)
    return [first, second]


def outcome(call) -> str:
    """What a verb says: nothing wrong, something wrong, or that it cannot work."""
    try:
        return "sound" if call() else "wrong"
    except errors.OsbrickError as error:
        assert str(error).strip().endswith((".", ")")), error
        return "refused"


def restores(shelf, backup_id: str) -> bool:
    try:
        assert shelf.restores(backup_id), "wrong data"
        return True
    except (errors.RepositoryError, errors.ObjectMissing):
        return False


def judge(shelf, context, made) -> None:
    """Ask everybody about a repository to which something was done."""
    right = [backup_id for backup_id in made if restores(shelf, backup_id)]
    verified = outcome(lambda: verify(context, URL, VerifyRequest()).ok)
    assert verified == "sound" or len(right) < len(made)
    if len(right) < len(made):
        assert verified != "sound"
    outcome(lambda: check(context, URL).ok)
    outcome(lambda: stats(context, URL))
    outcome(lambda: prune(context, URL, PruneRequest(keep_last=1), dry_run=True))
    mended = outcome(lambda: repair(context, URL).ok)
    for backup_id in right:
        assert shelf.restores(backup_id)
    if mended == "sound":
        assert outcome(lambda: check(context, URL).ok) == "sound"
        assert all(restores(shelf, backup_id) for backup_id in made if backup_id in shelf.ids())


def positions(data: bytes) -> list[int]:
    """The ends of an object byte by byte, the middle in steps."""
    size = len(data)
    return sorted({*range(min(size, 60)), *range(max(0, size - 60), size), *range(0, size, 331)})


def test_every_byte(shelf, context, made) -> None:
    whole = dict(shelf.store.objects)
    for name in sorted(whole):
        if not name.startswith((form.PACKS, form.MANIFESTS)):
            continue
        for position in positions(whole[name])[::7]:
            shelf.store.objects = dict(whole)
            bad = bytearray(whole[name])
            bad[position] ^= 1 << position % 8
            shelf.store.objects[name] = bytes(bad)
            judge(shelf, context, made)


def test_cut_lengthened_and_emptied(shelf, context, made) -> None:
    whole = dict(shelf.store.objects)
    for name in sorted(whole):
        if name == form.CONFIG_NAME or name.startswith(form.KEYS):
            continue
        good = whole[name]
        for bad in (b"", good[:1], good[:39], good[:-1], good[: len(good) // 2], good + b"\0"):
            shelf.store.objects = {**whole, name: bad}
            judge(shelf, context, made)


def test_removed_and_swapped(shelf, context, made) -> None:
    verify(context, URL, VerifyRequest())
    whole = dict(shelf.store.objects)
    names = [name for name in sorted(whole) if not name.startswith((form.CONFIG_NAME, form.KEYS))]
    for name in names:
        if not name.startswith(form.MANIFESTS):
            shelf.store.objects = {n: data for n, data in whole.items() if n != name}
            judge(shelf, context, made)
        for other in names:
            if other != name:
                shelf.store.objects = {**whole, name: whole[other], other: whole[name]}
                judge(shelf, context, made)
