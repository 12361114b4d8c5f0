# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading
from concurrent import futures

from freezer_osbrick.store.limit import LimitedStore
from tests.unit.fakes import MemoryStore, WatchedStore


def test_no_more_at_a_time():
    lock = threading.Lock()
    under_way, most = 0, 0

    def before(number, verb, name):
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        threading.Event().wait(0.002)

    def after(number, verb, name):
        nonlocal under_way
        with lock:
            under_way -= 1

    store = LimitedStore(WatchedStore(MemoryStore(), before, after), 3)
    with futures.ThreadPoolExecutor(12) as executor:
        list(executor.map(lambda number: store.put(f"o/{number}", [b"x"]), range(60)))
    assert most == 3


def test_what_a_listing_shows_can_be_fetched_meanwhile():
    store = LimitedStore(MemoryStore(), 1)
    for number in range(3):
        store.put(f"o/{number}", [b"x"])
    assert [store.get(info.name) for info in store.list("o/")] == [b"x"] * 3


def test_room_is_given_back_after_a_failure():
    store = LimitedStore(MemoryStore(), 1)
    for _ in range(3):
        with futures.ThreadPoolExecutor(1) as executor:
            assert executor.submit(store.get, "o/1").exception() is not None
    assert store.put("o/1", [b"x"]) == 1
