"""Rounding to float16 and back, against numpy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdn_engine.kernels import cpu
from rdn_engine.kernels.cpu.arrays import Float, Half

pytestmark = pytest.mark.isa


def rounded(x: Float) -> Half:
    out = np.full(x.shape, np.nan, np.float16)
    cpu.narrow(x, out)
    return out


def test_every_float16_is_the_same_number_in_float32_and_back() -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16).reshape(-1, 256)
    wide = cpu.widen(every)
    np.testing.assert_array_equal(wide, every.astype(np.float32))
    finite = every[np.isfinite(every)][None]
    np.testing.assert_array_equal(rounded(cpu.widen(finite)).view(np.uint16), finite.view(np.uint16))


def test_ties_go_to_the_even_neighbour_and_nothing_else_does() -> None:
    """Between any two neighbours: their mean, the floats next to it, and the floats next to either."""
    positive = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    middle = (positive[:-1] + positive[1:]) / 2
    near = [np.nextafter(values, np.float32(to)) for values in (positive, middle) for to in (-1, 1e9)]
    x = np.concatenate([positive, middle, *near])
    x = x[x < 65504][None]
    for sign in (1, -1):
        signed = x * np.float32(sign)
        np.testing.assert_array_equal(rounded(signed), signed.astype(np.float16))


@settings(deadline=None)
@given(st.integers(0, 3), st.integers(0, 40), st.integers(0, 1000))
def test_of_any_size(n: int, width: int, seed: int) -> None:
    x = np.random.default_rng(seed).standard_normal((n, width)).astype(np.float32)
    np.testing.assert_array_equal(rounded(x), x.astype(np.float16))
    np.testing.assert_array_equal(cpu.widen(rounded(x)), x.astype(np.float16).astype(np.float32))


def test_what_is_beyond_the_largest_becomes_it() -> None:
    x = np.float32([[65504, 65519.99, 65520, 1e30, np.inf, np.nan]])
    np.testing.assert_array_equal(rounded(x), [[65504, 65504, 65504, 65504, 65504, np.nan]])
    np.testing.assert_array_equal(rounded(-x), [[-65504, -65504, -65504, -65504, -65504, np.nan]])


def test_what_does_not_fit_is_quoted() -> None:
    x, out = np.zeros((2, 3), np.float32), np.zeros((3, 2), np.float16)
    with pytest.raises(ValueError, match=r"float16 out \[n = 2, D = 3\], got float16 \[3, 2\]"):
        cpu.narrow(x, out)
    with pytest.raises(ValueError, match=r"wanted contiguous float32 x \[n, D\], got float64 \[2, 3\]"):
        cpu.narrow(x.astype(np.float64), out)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"wanted contiguous float16 x \[n, D\], got float32 \[2, 3\]"):
        cpu.widen(x)  # type: ignore[arg-type]
