"""One-to-one pairs of the largest sum, against the search through all of them."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdn_engine.kernels import cpu


def best_sum(gain: np.ndarray) -> float:
    """Every row takes a column of its own, or one of those beyond that are worth nothing."""
    n, m = gain.shape
    wide = np.concatenate([np.maximum(gain, 0), np.zeros((n, n))], 1)
    return max((float(wide[range(n), columns].sum()) for columns in permutations(range(m + n), n)), default=0.0)


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 4), st.integers(0, 4), st.data())
def test_pairs_are_those_of_the_largest_sum(n: int, m: int, data: st.DataObject) -> None:
    """Gains of few and exact values, so that ties are many."""
    some = st.integers(-2, 6).map(lambda k: k / 2)
    gain = np.array([data.draw(some) for _ in range(n * m)], np.float64).reshape(n, m)
    column = cpu.assign(gain)
    rows = np.flatnonzero(column >= 0)
    assert column.shape == (n,)
    assert ((column >= -1) & (column < m)).all()
    assert len(set(column[rows].tolist())) == len(rows)
    assert (gain[rows, column[rows]] > 0).all()
    assert gain[rows, column[rows]].sum() == best_sum(gain)


def test_a_row_gives_way_where_both_gain() -> None:
    """The best pair alone would leave the other row with nothing."""
    assert cpu.assign(np.array([[3.0, 2.0], [2.5, 0.0]])).tolist() == [1, 0]
    assert cpu.assign(np.array([[3.0, 0.1], [2.5, 0.0]])).tolist() == [0, -1]


def test_many_rows_and_columns() -> None:
    """A permutation that is worth a little more than anything else is found."""
    rng = np.random.default_rng(0)
    order = rng.permutation(80)[:60]
    gain = rng.uniform(0, 1, (60, 80))
    gain[np.arange(60), order] += 1
    assert cpu.assign(gain).tolist() == order.tolist()


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_gains_must_be_finite(wrong: float) -> None:
    with pytest.raises(ValueError, match="gain must be finite"):
        cpu.assign(np.array([[wrong]]))


def test_gains_are_a_table() -> None:
    with pytest.raises(ValueError, match=r"gain \[n, m\]"):
        cpu.assign(np.zeros(3))
