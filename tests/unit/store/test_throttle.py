# SPDX-License-Identifier: Apache-2.0
"""Limits of bandwidth, on a clock of our own."""

import threading

import pytest

from freezer_osbrick import errors, quantities
from freezer_osbrick.store.throttle import Bucket, ThrottledStore
from tests.unit.fakes import MemoryStore


class Clock:
    def __init__(self):
        self.now = 1000.0
        self.pauses = []
        self.lock = threading.Lock()

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        with self.lock:
            self.pauses.append(seconds)
            self.now += seconds


@pytest.fixture
def clock():
    return Clock()


def test_puts_take_their_time(clock):
    bucket = Bucket(1 << 20, clock=clock, sleep=clock.sleep)
    store = ThrottledStore(MemoryStore(), upload=bucket)
    assert store.put("packs/00/x", [bytes(5 << 20), bytes(5 << 20)]) == 10 << 20
    assert clock.now - 1000 == pytest.approx(10, abs=0.11)
    assert max(clock.pauses) < 0.1, "sent evenly"
    store.get("packs/00/x")
    assert clock.now - 1000 == pytest.approx(10, abs=0.11), "downloads have no limit"


def test_gets_take_their_time(clock):
    bucket = Bucket(1000, clock=clock, sleep=clock.sleep)
    store = ThrottledStore(MemoryStore(), download=bucket)
    store.put("packs/00/x", [bytes(50_000)])
    assert clock.pauses == []
    for start in range(0, 50_000, 5_000):
        store.get("packs/00/x", start, 5_000)
    assert clock.now - 1000 == pytest.approx(50, abs=0.11)


def test_a_pause_is_not_saved_for_later(clock):
    bucket = Bucket(1000, clock=clock, sleep=clock.sleep)
    bucket.take(1000)
    clock.now += 3600
    before = clock.now
    bucket.take(1000)
    bucket.take(1000)
    assert clock.now - before == pytest.approx(2, abs=0.11)


def test_a_sleep_that_ends_late_costs_no_bandwidth(clock):
    late = Bucket(1 << 30, clock=clock, sleep=lambda seconds: clock.sleep(seconds + 0.001))
    for _ in range(16 << 10):
        late.take(1 << 16)
    assert clock.now - 1000 == pytest.approx(1, abs=0.11)


def test_threads_share_one_limit():
    """Real clock: eight threads together take as long as one."""
    bucket = Bucket(1 << 20)
    began = bucket._clock()
    threads = [
        threading.Thread(target=lambda: [bucket.take(1 << 13) for _ in range(8)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bucket._clock() - began >= 0.5 - 0.11


@pytest.mark.parametrize(
    ("text", "rate"),
    [(None, None), ("", None), ("-1", None), (-1, None), ("1", 1), (2048, 2048), ("10K", 10240)]
    + [("120M", 120 << 20), ("1.5G", 3 << 29), ("10k", 10240), ("2 MiB/s", 2 << 20), ("3KB", 3072)],
)
def test_rates(text, rate):
    assert quantities.parse_rate(text) == rate


@pytest.mark.parametrize("text", ["0", "fast", "-5", "10X", "1e3", "0.0001K", "M", "10 M x"])
def test_rates_that_are_none(text):
    with pytest.raises(errors.BadRequest):
        quantities.parse_rate(text)
