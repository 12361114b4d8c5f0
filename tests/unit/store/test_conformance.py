# SPDX-License-Identifier: Apache-2.0
"""What every store does alike. Another store, or a wrapper, joins by one line in STORES."""

import array
import mmap
import os
import threading
import time

import pytest

from freezer_osbrick import errors
from freezer_osbrick.store.limit import LimitedStore
from freezer_osbrick.store.local import LocalStore
from freezer_osbrick.store.retry import RetryingStore
from freezer_osbrick.store.throttle import Bucket, ThrottledStore
from tests.unit.fakes import MemoryStore, WatchedStore
from tests.unit.store.flaky import FlakyStore

STORES = {
    "local": lambda folder: LocalStore(str(folder / "store"), create=True),
    "memory": lambda folder: MemoryStore(),
    "watched": lambda folder: WatchedStore(MemoryStore()),
    "retried": lambda folder: RetryingStore(
        FlakyStore(LocalStore(str(folder / "store"), create=True)), sleep=lambda seconds: None
    ),
    "limited": lambda folder: LimitedStore(MemoryStore(), connections=1),
    "throttled": lambda folder: ThrottledStore(
        LocalStore(str(folder / "store"), create=True),
        upload=Bucket(1 << 30),
        download=Bucket(1 << 30),
    ),
}


@pytest.fixture(params=STORES)
def store(request, tmp_path):
    with STORES[request.param](tmp_path) as made:
        yield made


@pytest.fixture
def clock_step():
    """Clocks of file systems tick some milliseconds late."""
    return 0.1


def names(store, prefix=""):
    return [info.name for info in store.list(prefix)]


def test_what_was_put_is_got(store):
    assert store.put("packs/ab/abcd", [b"one", b"two"]) == 6
    assert store.get("packs/ab/abcd") == b"onetwo"
    assert isinstance(store.get("packs/ab/abcd"), bytes)


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [
        (0, None, b"0123456789"),
        (3, None, b"3456789"),
        (0, 4, b"0123"),
        (9, 1, b"9"),
        (10, 0, b""),
        (4, 0, b""),
        (10, None, b""),
    ],
)
def test_ranges(store, offset, length, expected):
    store.put("config", [b"0123456789"])
    assert store.get("config", offset, length) == expected


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 11), (10, 1), (9, 2), (11, 0), (11, None), (1 << 40, 1), (0, 1 << 40), (-1, 1), (2, -1)],
)
def test_a_range_beyond_the_end_is_damage(store, offset, length):
    store.put("config", [b"0123456789"])
    with pytest.raises(errors.Damaged, match="config"):
        store.get("config", offset, length)


def test_missing_objects(store):
    for ask in (store.get, store.stat, lambda name: store.get(name, 5, 5)):
        with pytest.raises(errors.ObjectMissing, match="manifests/00"):
            ask("manifests/00")


@pytest.mark.parametrize("name", ["packs", "packs/ab", "packs/ab/abcd/e"])
def test_a_name_within_or_below_another_is_missing(store, name):
    store.put("packs/ab/abcd", [b"x"])
    for ask in (store.get, store.stat):
        with pytest.raises(errors.ObjectMissing):
            ask(name)
    store.delete(name)
    assert names(store) == ["packs/ab/abcd"]


def test_an_object_that_exists_is_left_untouched(store):
    store.put("config", [b"first"])
    with pytest.raises(errors.ObjectExists, match="config"):
        store.put("config", [b"second, and longer"])
    assert store.get("config") == b"first"
    assert names(store) == ["config"]


@pytest.mark.parametrize("existing", [None, b"old, and longer than the new one"])
def test_replace(store, existing):
    if existing:
        store.put("leases/1", [existing])
    assert store.put("leases/1", [b"new"], replace=True) == 3
    assert store.get("leases/1") == b"new"
    assert names(store) == ["leases/1"]


def test_listing_by_prefix(store):
    put = ["config", "manifests/00", "manifests/01", "packs/00/00aa", "packs/00/00ab", "packs/ff/f"]
    for name in reversed(put):
        store.put(name, [name.encode()])
    assert sorted(names(store)) == put
    assert sorted(names(store, "manifests/")) == put[1:3]
    assert sorted(names(store, "packs/")) == put[3:]
    assert names(store, "packs/ff/") == ["packs/ff/f"]
    assert names(store, "leases/") == []
    assert {info.name: info.size for info in store.list("")} == {name: len(name) for name in put}


def test_listings_are_in_order_where_the_store_says_so(store):
    put = ["a-b", "a.b", "a/b-c", "a/b/c", "a0", "ab/c", "b"]
    for name in reversed(put):
        store.put(name, [b""])
    listed = names(store)
    assert (listed if store.capabilities.ordered_listing else sorted(listed)) == put


def test_a_listing_from_a_name_on(store):
    put = [f"packs/{number:02}/x" for number in range(10)]
    for name in put:
        store.put(name, [b""])
    store.put("config", [b""])
    for after in ("", "packs/", "packs/04/x", "packs/04/xx", "packs/09/x", "z", "config"):
        listed = [info.name for info in store.list_after("packs/", after)]
        assert sorted(listed) == [name for name in put if name > after]


def test_a_listing_survives_changes_under_way(store):
    for number in range(20):
        store.put(f"packs/{number:02}/x", [b""])
    listing = store.list("packs/")
    seen = [next(listing).name]
    for number in range(0, 20, 2):
        store.delete(f"packs/{number:02}/x")
    seen += [info.name for info in listing]
    assert {f"packs/{number:02}/x" for number in range(1, 20, 2)} <= set(seen)


def test_delete_twice(store):
    store.put("packs/00/x", [b"x"])
    store.put("packs/00/y", [b"y"])
    for _ in range(2):
        store.delete("packs/00/x")
        assert names(store) == ["packs/00/y"]
    with pytest.raises(errors.ObjectMissing):
        store.get("packs/00/x")
    store.put("packs/00/x", [b"again"])
    assert store.get("packs/00/x") == b"again"


def test_stat_and_clock_agree(store, clock_step):
    before = store.now()
    store.put("config", [b"12345"])
    info = store.stat("config")
    assert (info.name, info.size) == ("config", 5)
    assert before - clock_step <= info.modified <= store.now() + clock_step
    assert abs(store.now() - time.time()) < 60


@pytest.mark.parametrize(
    "name",
    ["", "/", "/config", "../config", "packs/../config", "a/./b", "a//b", "a/", ".hidden"]
    + ["packs/.put-1", "UPPER", "with space", "back\\slash", "nul\0", "new\nline", "x\n", "ä"]
    + ["a" * 513, "-dash", "a:b", "%41"],
)
def test_bad_names_are_refused(store, name):
    for ask in (store.get, store.stat, store.delete, lambda name: store.put(name, [b"x"])):
        with pytest.raises(errors.StoreError, match="no valid object name"):
            ask(name)
    assert names(store) == []


@pytest.mark.parametrize("prefix", ["manifests", "/", "../", ".put-", "packs/../", "a//"])
def test_bad_prefixes_are_refused(store, prefix):
    with pytest.raises(errors.StoreError, match="no valid prefix"):
        list(store.list(prefix))


@pytest.mark.parametrize("replace", [False, True])
def test_of_several_puts_of_one_name_exactly_one_wins(store, replace):
    """Without ``replace``; with it, the object is one of them and whole.

    Where the store has no conditional put, several may believe that they won, and the object is of
    one of them.
    """
    contents = [bytes([number]) * 300_000 for number in range(8)]
    for round_number in range(5):
        name = f"manifests/{round_number:02}"
        barrier = threading.Barrier(len(contents))
        winners = []

        def put(content, name=name, barrier=barrier, winners=winners):
            barrier.wait()
            try:
                store.put(name, [content[:100_000], content[100_000:]], replace=replace)
                winners.append(content)
            except errors.ObjectExists:
                pass

        threads = [threading.Thread(target=put, args=(content,)) for content in contents]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if replace:
            assert len(winners) == len(contents)
        elif store.capabilities.conditional_put:
            assert len(winners) == 1
        assert store.get(name) in winners
        assert names(store, "manifests/")[-1] == name


def test_parts_of_every_buffer_type(store):
    pages = mmap.mmap(-1, 8192)
    pages[:] = os.urandom(8192)
    view = memoryview(pages)
    parts = [b"bytes", bytearray(b"bytearray"), memoryview(b"0123456789")[2:5], view[100:5000], b""]
    parts += [memoryview(array.array("I", [1, 2, 3])), memoryview(bytearray())]
    assert store.put("packs/00/x", parts) == sum(memoryview(part).nbytes for part in parts)
    assert store.get("packs/00/x") == b"".join(bytes(part) for part in parts)
    assert store.put("packs/00/y", iter(parts)) == store.stat("packs/00/y").size
    # No reference to the parts is kept: their memory can be used again.
    parts[1].extend(b"more")
    view.release()
    parts.clear()


@pytest.mark.parametrize("parts", [[], [b""], [b""] * 3000, iter(())])
def test_an_empty_object(store, parts):
    assert store.put("config", parts) == 0
    assert store.get("config") == b""
    assert store.stat("config").size == 0
    assert names(store) == ["config"]


def test_more_parts_than_the_system_takes_at_once(store):
    parts = [number.to_bytes(3, "big")[: number % 4] for number in range(5000)]
    store.put("packs/00/x", parts)
    assert store.get("packs/00/x") == b"".join(parts)


def test_a_large_object(store):
    block = os.urandom(1 << 20)
    assert store.put("packs/00/x", (block for _ in range(50))) == 50 << 20
    assert store.stat("packs/00/x").size == 50 << 20
    assert store.get("packs/00/x") == block * 50
    assert store.get("packs/00/x", (17 << 20) + 5, 1000) == block[5:1005]


def test_a_part_that_cannot_be_made_leaves_nothing(store):
    def parts():
        yield b"begin"
        raise errors.DeviceError("The device failed.")

    with pytest.raises(errors.DeviceError, match="^The device failed.$"):
        store.put("packs/00/x", parts())
    assert names(store) == []
    store.put("packs/00/x", [b"whole"])
    assert store.get("packs/00/x") == b"whole"


def test_many_threads_and_many_names(store):
    def work(number):
        for turn in range(20):
            name = f"packs/{turn:02}/{number:02}"
            store.put(name, [name.encode()])
            assert store.get(name) == name.encode()
            if turn % 2:
                store.delete(name)

    failures = []

    def guarded(number):
        try:
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(names(store)) == 60
