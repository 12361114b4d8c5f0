# SPDX-License-Identifier: Apache-2.0
"""Manifests: whatever is done to one, it is equal, or damaged, or missing: no other outcome."""

import functools
import json
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from freezer_osbrick import errors
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository import manifest as module
from freezer_osbrick.repository.manifest import ZERO_ENTRY, Entry, Manifest, ManifestWriter
from freezer_osbrick.repository.manifest_start import read_head
from tests.unit.pipeline.flow import CHUNK, new_head, new_repository

BACKUP = bytes(range(16))
PACKS = [bytes([number]) * 16 for number in (1, 2, 3)]
CHUNKS = 10

pytestmark = pytest.mark.usefixtures("short_segments")


@pytest.fixture
def short_segments(monkeypatch):
    monkeypatch.setattr(module, "SEGMENT_CHUNKS", 4)


def entry(number):
    if number % 3 == 0:
        return ZERO_ENTRY
    return Entry(bytes([number]) * 32, PACKS[number % 2], 40 + number, 100 + number)


def written(order=range(CHUNKS), size=CHUNK * CHUNKS - 5, **fields):
    repo = new_repository()
    writer = ManifestWriter(repo, BACKUP, size)
    for number in order:
        writer.set(number, entry(number))
    for pack in PACKS[:2]:
        writer.count(pack, form.KIND_MAPS, 1000)
    writer.count(PACKS[2], form.KIND_BLOCKS, 5000)
    writer.count(b"x" * 16, form.KIND_BLOCKS, 7)
    writer.count(b"x" * 16, form.KIND_BLOCKS, -7)
    told = writer.store(new_head(BACKUP, size=size, bytes={}, **fields), {PACKS[0]: 1234})
    writer.close()
    assert told == len(repo.store.objects[form.manifest_name(BACKUP)])
    return repo


def content(repo):
    manifest = Manifest(repo, BACKUP)
    return manifest.head, manifest.packs, list(manifest.entries())


@pytest.mark.parametrize("order", [range(CHUNKS), range(CHUNKS - 1, -1, -1), [*range(1, 10), 0]])
def test_what_was_written_is_read(order):
    head, packs, entries = content(written(order, note="«ü» \0"))
    assert entries == [entry(number) for number in range(CHUNKS)]
    assert head["note"] == "«ü» \0"
    assert {pack: (use.kind, use.live, use.size) for pack, use in packs.items()} == {
        PACKS[0]: (form.KIND_MAPS, 1000, 1234),
        PACKS[1]: (form.KIND_MAPS, 1000, 0),
        PACKS[2]: (form.KIND_BLOCKS, 5000, 0),
    }


def test_a_long_head_is_read_whole():
    note = "".join(chr(0x4E00 + number % 20000) for number in range(100_000))
    repo = written(note=note)
    assert read_head(repo, BACKUP)["note"] == note
    assert content(repo)[2] == [entry(number) for number in range(CHUNKS)]


def test_a_manifest_lacking_chunks_is_not_stored():
    writer = ManifestWriter(new_repository(), BACKUP, CHUNK * CHUNKS)
    for number in range(CHUNKS - 1):
        writer.set(number, ZERO_ENTRY)
    with pytest.raises(AssertionError):
        writer.store(new_head(BACKUP), {})


@functools.cache
def shared():
    """One stored manifest for all examples, and what it says."""
    repo = written()
    return repo, content(repo)


fuzz = settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def read_or_refused(repo, expected):
    try:
        assert content(repo) == expected
    except (errors.Damaged, errors.UnknownFormat, errors.BackupMissing):
        return False
    return True


@fuzz
@given(st.data())
def test_changed_and_cut_manifests(data):
    repo, expected = shared()
    name = form.manifest_name(BACKUP)
    good = repo.store.objects[name]
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(bad) - 1))
        bad[position : position + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    end = data.draw(st.none() | st.integers(0, len(bad)))
    try:
        repo.store.objects[name] = bytes(bad[:end])
        assert not read_or_refused(repo, expected) or bytes(bad[: len(good)]) == good
    finally:
        repo.store.objects[name] = good


@fuzz
@given(st.binary(max_size=300))
def test_any_bytes(data):
    repo, expected = shared()
    name = form.manifest_name(BACKUP)
    good = repo.store.objects[name]
    for bad in (data, good[:40] + data, good[:48] + data):
        try:
            repo.store.objects[name] = bad
            assert not read_or_refused(repo, expected)
        finally:
            repo.store.objects[name] = good


def forged(repo, head=None, index=None, segments=()):
    """A manifest whose tags are right, as somebody with the key could make it."""
    object_id = b"f" * 16

    def box(position, data, compressed=True):
        data = form.compress(data) if compressed else data
        return b"".join(repo.sealer.seal(form.KIND_MANIFEST, object_id, position, data))

    boxes = [box(0, head), box(1, index), *(box(2 + n, data) for n, data in enumerate(segments))]
    header = form.header(form.KIND_MANIFEST, 0, repo.id, object_id)
    lengths = struct.pack("<II", len(boxes[0]), len(boxes[1]))
    repo.store.objects[form.manifest_name(BACKUP)] = b"".join((header, lengths, *boxes))
    return [len(box) for box in boxes[2:]]


GOOD_HEAD = new_head(BACKUP, size=0, bytes={})

HEADS = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'"text"',
    b"[" * 100_000,
    b"\xff\xfe",
    b"9" * 5000,
    *(
        json.dumps(
            {**GOOD_HEAD, "size": size},
        ).encode()
        for size in (-1, 1.5, "1", None, True, [], 1e400, 10**30)
    ),
    json.dumps({**GOOD_HEAD, "backup": "00" * 16}).encode(),
    json.dumps({"backup": BACKUP.hex()}).encode(),
]


@pytest.mark.parametrize("head", HEADS, ids=range(len(HEADS)))
def test_forged_heads(head):
    repo = new_repository()
    forged(repo, head, struct.pack("<II", 0, 0))
    with pytest.raises(errors.Damaged):
        Manifest(repo, BACKUP)


@fuzz
@given(st.binary(max_size=200))
def test_forged_indexes(index):
    repo = new_repository()
    forged(repo, json.dumps({**GOOD_HEAD, "size": CHUNK * 3}).encode(), index)
    with pytest.raises(errors.Damaged):
        list(Manifest(repo, BACKUP).entries())


@fuzz
@given(st.binary(min_size=96, max_size=96) | st.binary(max_size=200))
def test_forged_segments(segment):
    repo = new_repository()
    head = json.dumps({**GOOD_HEAD, "size": CHUNK * 2}).encode()
    index = struct.pack("<II16sBQQ", 1, 1, b"p" * 16, 1, 5, 5)
    [length] = forged(repo, head, index + b"0000", [segment])
    forged(repo, head, index + struct.pack("<I", length), [segment])
    try:
        assert len(list(Manifest(repo, BACKUP).entries())) == 2
    except errors.Damaged:
        return
    assert len(segment) == 96


def test_an_index_that_lists_a_pack_twice():
    repo = new_repository()
    row = struct.pack("<16sBQQ", b"p" * 16, 1, 5, 5)
    forged(repo, json.dumps(GOOD_HEAD).encode(), struct.pack("<II", 2, 0) + row + row)
    with pytest.raises(errors.Damaged, match="twice"):
        Manifest(repo, BACKUP)


def test_a_manifest_of_a_later_format():
    repo = written()
    name = form.manifest_name(BACKUP)
    later = bytearray(repo.store.objects[name])
    later[4] = 2
    repo.store.objects[name] = bytes(later)
    with pytest.raises(errors.UnknownFormat, match="format 2"):
        Manifest(repo, BACKUP)
