# SPDX-License-Identifier: Apache-2.0
"""What is tried again, for how long, and what a lost answer may mean."""

import pytest

from freezer_osbrick import errors
from freezer_osbrick.store import base
from freezer_osbrick.store.retry import RetryingStore
from tests.unit.fakes import MemoryStore
from tests.unit.store.flaky import FlakyStore


class Unreachable:
    """Makes the first calls of a MemoryStore fail."""

    def __init__(self, times, error=errors.StoreUnavailable):
        self.left = times
        self.error = error

    def __call__(self, verb, name):
        if self.left:
            self.left -= 1
            raise self.error("The store does not answer.")


@pytest.fixture
def inner():
    return MemoryStore()


@pytest.fixture
def pauses():
    return []


@pytest.fixture
def store(inner, pauses):
    return RetryingStore(inner, sleep=pauses.append)


def test_a_store_that_comes_back(store, inner, pauses):
    inner.fault = Unreachable(5)
    assert store.put("packs/00/x", [b"x"]) == 1
    assert len(pauses) == 5
    assert pauses == sorted(pauses) and 0.25 <= pauses[0] < 0.6 and 4 <= pauses[4] < 4.6
    assert inner.objects == {"packs/00/x": b"x"}


def test_pauses_have_a_limit_and_differ(inner):
    def pauses_of_one():
        pauses = []
        inner.fault = Unreachable(12)
        with pytest.raises(errors.ObjectMissing):
            RetryingStore(inner, patience=1e9, sleep=pauses.append).get("packs/00/x")
        return pauses

    one, other = pauses_of_one(), pauses_of_one()
    assert len(one) == 12 and max(one) < 31 and one != other


def test_a_store_that_stays_away(inner):
    inner.fault = Unreachable(1 << 30)
    calls = []
    with pytest.raises(errors.StoreUnavailable, match="does not answer"):
        RetryingStore(inner, patience=0.2, sleep=calls.append).stat("config")
    assert len(inner.calls) == len(calls) + 1 > 1


@pytest.mark.parametrize(
    "error", [errors.StoreFull, errors.StoreAccessDenied, errors.StoreError, errors.Damaged]
)
def test_what_cannot_pass_is_not_tried_again(store, inner, pauses, error):
    inner.fault = Unreachable(1, error)
    with pytest.raises(error):
        store.put("config", [b"x"])
    assert pauses == [] and len(inner.calls) == 1


def test_a_put_whose_answer_was_lost(store, inner):
    """It is ours that is there: the caller is told that it is stored."""
    fails = Unreachable(1)

    class LosesTheAnswer(FlakyStore):
        def put(self, name, parts, *, replace=False):
            self.inner.put(name, parts, replace=replace)
            fails("put", name)

    store.inner = LosesTheAnswer(inner)
    assert store.put("manifests/00", [b"whole ", b"object"]) == 12
    assert inner.objects == {"manifests/00": b"whole object"}


@pytest.mark.parametrize("theirs", [b"other", b"longer than ours"])
def test_a_put_while_which_somebody_else_was_faster(store, inner, theirs):
    def overtaken(verb, name):
        inner.fault = lambda verb, name: None
        inner.objects["config"] = theirs
        raise errors.StoreUnavailable("The connection broke.")

    inner.fault = overtaken
    with pytest.raises(errors.ObjectExists):
        store.put("config", [b"ours!"])
    assert inner.objects == {"config": theirs}


def test_an_object_that_was_there_is_not_ours_though_it_is_equal(store, inner):
    inner.objects["config"] = b"same"
    with pytest.raises(errors.ObjectExists):
        store.put("config", [b"same"])


def test_parts_that_can_be_read_once_are_kept_for_the_next_try(store, inner):
    fails = Unreachable(2)

    class BreaksInTheMiddle(FlakyStore):
        def put(self, name, parts, *, replace=False):
            data = b"".join(parts)
            fails("put", name)
            return self.inner.put(name, [data], replace=replace)

    store.inner = BreaksInTheMiddle(inner, failing=0)
    buffer = bytearray(2)

    def parts():
        for number in range(100):
            buffer[:] = number.to_bytes(2, "big")
            yield buffer

    assert store.put("packs/00/x", parts()) == 200
    assert inner.objects["packs/00/x"] == b"".join(n.to_bytes(2, "big") for n in range(100))


@pytest.mark.parametrize("ordered", [True, False])
def test_a_listing_that_breaks_off_again_and_again_is_whole_and_has_nothing_twice(ordered):
    """In order it goes on where it was; without, each try has to get a little further."""

    class Breaking(MemoryStore):
        capabilities = base.Capabilities(True, True, True, ordered)
        limit = 0

        def _list(self, prefix):
            self.limit += 20
            for number, info in enumerate(super()._list(prefix)):
                if number == self.limit:
                    raise errors.StoreUnavailable("The connection broke.")
                yield info

    inner = Breaking()
    names = [f"packs/{number:02x}/x" for number in range(200)]
    for name in names:
        inner.put(name, [b"x"])
    store = RetryingStore(inner, sleep=lambda seconds: None)
    assert [info.name for info in store.list("packs/")] == names
    assert inner.limit >= 200


def test_a_listing_goes_on_where_it_broke_off():
    class Paged(MemoryStore):
        began_after = ()

        def list_after(self, prefix, after):
            self.began_after += (after,)
            for number, info in enumerate(super().list_after(prefix, after)):
                if number == 3:
                    raise errors.StoreUnavailable("The connection broke.")
                yield info

    inner = Paged()
    for number in range(7):
        inner.put(f"packs/{number}", [b"x"])
    store = RetryingStore(inner, sleep=lambda seconds: None)
    assert [info.name[-1] for info in store.list_after("packs/", "packs/0")] == list("123456")
    assert inner.began_after == ("packs/0", "packs/3")


def test_the_reason_is_logged(store, inner, caplog):
    inner.fault = Unreachable(1)
    store.now()
    store.put("config", [b"x"])
    assert "Could not put config at memory:: The store does not answer." in caplog.text
