# SPDX-License-Identifier: Apache-2.0
"""Grouping reads: every piece is covered exactly once, and the bounds hold."""

from hypothesis import given
from hypothesis import strategies as st

from freezer_osbrick.repository.ranges import Run, Wanted, common, merge, runs

pieces = st.lists(
    st.tuples(st.sampled_from([b"a" * 16, b"b" * 16]), st.integers(0, 5000), st.integers(1, 300)),
    max_size=40,
)


@given(pieces, st.integers(0, 500), st.integers(1, 2000))
def test_every_piece_lies_in_exactly_one_run(places, gap, most):
    wanted = [Wanted(*place, target=number) for number, place in enumerate(places)]
    found = list(runs(wanted, gap=gap, most=most))
    assert sorted(piece.target for run in found for piece in run.pieces) == list(range(len(wanted)))
    for run in found:
        assert all(piece.pack == run.pack for piece in run.pieces)
        assert run.offset == min(piece.offset for piece in run.pieces)
        assert run.offset + run.length == max(p.offset + p.length for p in run.pieces)
        assert run.length <= most or len(run.pieces) == 1 or _one_end(run, most)
        _assert_no_gap_above(run, gap)


def _one_end(run: Run, most: int) -> bool:
    """Longer than the bound only where the first piece alone is."""
    return run.pieces[0].length > most and run.length == run.pieces[0].length


def _assert_no_gap_above(run, gap):
    end = run.offset
    for piece in run.pieces:
        assert piece.offset - end <= gap
        end = max(end, piece.offset + piece.length)


@given(pieces)
def test_neighbours_are_read_together(places):
    """With unbounded gap and length there is one run a pack."""
    wanted = [Wanted(*place, target=0) for place in places]
    found = list(runs(wanted, gap=10**9, most=10**9))
    assert len(found) == len({piece.pack for piece in wanted})


def test_the_order_of_asking_does_not_matter():
    one, two, far = (Wanted(b"p" * 16, offset, 10, offset) for offset in (0, 10, 10**9))
    assert list(runs([far, two, one])) == [
        Run(b"p" * 16, 0, 20, [one, two]),
        Run(b"p" * 16, 10**9, 10, [far]),
    ]
    assert list(runs([])) == []


@given(*[st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), max_size=8)] * 2)
def test_what_two_have_in_common(some, others):
    def bytes_of(parts):
        return {at for start, length in parts for at in range(start, start + length)}

    found = common(merge(some), merge(others))
    assert bytes_of(found) == bytes_of(some) & bytes_of(others)
    assert found == sorted(found) and all(length > 0 for _, length in found)
