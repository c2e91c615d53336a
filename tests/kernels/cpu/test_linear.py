"""Fully connected layers, and the packing of weights and support proposals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdn_engine.kernels import cpu
from rdn_engine.kernels.arithmetic import ceil_div
from tests.fakes import empty_bank

pytestmark = pytest.mark.isa


def test_packing_and_its_inverse():
    """Supports lie where SupportBank says, zeros past them; key lengths bound."""
    rng = np.random.default_rng(0)
    bank = empty_bank(2, 32, 3, 16)
    keys, values = (rng.standard_normal((19, 48)).astype(np.float32) for _ in range(2))
    bank.keys[:], bank.values[:] = np.nan, np.nan
    cpu.pack_supports(keys, values, bank, slot=1)
    assert np.isnan(bank.keys[0]).all()
    plain = bank.keys[1].transpose(1, 3, 0, 2).reshape(32, 48)  # [C / 16, 16, M, d]
    np.testing.assert_array_equal(plain, np.pad(keys, [(0, 13), (0, 0)]))
    np.testing.assert_array_equal(bank.values[1].swapaxes(0, 1).reshape(32, 48), np.pad(values, [(0, 13), (0, 0)]))
    lengths = np.linalg.norm(keys.reshape(19, 3, 16), axis=-1).max(0)
    np.testing.assert_allclose(bank.key_length[1], lengths, rtol=1e-6)
    keys[3, 20] = np.nan
    cpu.pack_supports(keys, values, bank, slot=0)
    assert np.isnan(bank.key_length[0]).tolist() == [False, True, False]
    with pytest.raises(ValueError, match=r"n must be at most C = 32, got float32 \[33, 48\]"):
        cpu.pack_supports(np.zeros((33, 48), np.float32), np.zeros((33, 48), np.float32), bank, slot=0)


def test_packing_of_bfloat16_pairs():
    rng = np.random.default_rng(0)
    bank = empty_bank(2, 32, 3, 16, "bfloat16")
    keys, values = (rng.standard_normal((19, 48)).astype(np.float32) for _ in range(2))
    bank.keys[:], bank.values[:] = 0x7FC0, 0x7FC0
    cpu.pack_supports(keys, values, bank, slot=1)
    assert (bank.keys[0] == 0x7FC0).all()
    packed_keys, packed_values = ((a[1].astype(np.uint32) << 16).view(np.float32) for a in (bank.keys, bank.values))
    plain = packed_keys.transpose(1, 3, 0, 2, 4).reshape(32, 48)  # [C / 16, 16, M, d / 2, 2]
    np.testing.assert_array_equal(plain, np.pad(rounded(keys), [(0, 13), (0, 0)]))
    plain = packed_values.transpose(1, 3, 0, 2).reshape(32, 48)  # [C / 2, 2, M, d]
    np.testing.assert_array_equal(plain, np.pad(rounded(values), [(0, 13), (0, 0)]))


def test_packing_of_float16():
    """As of float32, but for rounding."""
    rng = np.random.default_rng(0)
    bank, single = empty_bank(1, 32, 3, 16, "float16"), empty_bank(1, 32, 3, 16)
    keys, values = (100 * rng.standard_normal((19, 48)).astype(np.float32) for _ in range(2))
    keys[2, 3], values[4, 5] = 1e9, -1e9
    bank.keys[:], bank.values[:] = np.nan, np.nan
    cpu.pack_supports(keys, values, bank, slot=0)
    cpu.pack_supports(keys.clip(-65504, 65504), values.clip(-65504, 65504), single, slot=0)
    assert bank.keys.dtype == bank.values.dtype == np.float16
    np.testing.assert_array_equal(bank.keys, single.keys.astype(np.float16))
    np.testing.assert_array_equal(bank.values, single.values.astype(np.float16))
    assert (bank.key_length >= single.key_length).all()


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(0, 40), depth=st.integers(1, 600), columns=st.integers(1, 70), relu=st.booleans(), seed=st.integers(0)
)
def test_linear_is_the_product(n, depth, columns, relu, seed):
    rng = np.random.default_rng(seed)
    x, weight, bias = (rng.standard_normal(s).astype(np.float32) for s in ((n, depth), (columns, depth), (columns,)))
    wanted = np.float64(x) @ np.float64(weight).T + bias
    wanted = np.maximum(wanted, 0) if relu else wanted
    got = cpu.linear(x, cpu.pack_weight(weight), bias, relu=relu)
    assert got.dtype == np.float32
    allowed = 1e-6 * (np.abs(x) @ np.abs(weight).T + np.abs(bias))
    assert (np.abs(got - wanted) <= allowed).all()


def rounded(array: np.ndarray) -> np.ndarray:
    """To bfloat16 and back, ties to even: 8 significant bits."""
    mantissa, exponent = np.frexp(np.float64(array))
    return np.ldexp(np.rint(mantissa * 256) / 256, exponent)


@settings(deadline=None, max_examples=60)
@given(n=st.integers(0, 40), depth=st.integers(1, 600), columns=st.integers(1, 70), seed=st.integers(0))
def test_bfloat16_rounds_both_operands(n, depth, columns, seed):
    rng = np.random.default_rng(seed)
    depth *= 2
    x, weight, bias = (rng.standard_normal(s).astype(np.float32) for s in ((n, depth), (columns, depth), (columns,)))
    packed = cpu.pack_weight(weight, "bfloat16")
    assert packed.shape == (ceil_div(columns, 16), depth // 2, 16, 2)
    wanted = rounded(x) @ rounded(weight).T + bias
    allowed = 1e-6 * (np.abs(x) @ np.abs(weight).T + np.abs(bias))
    assert (np.abs(cpu.linear(x, packed, bias) - wanted) <= allowed).all()


def test_bfloat16_ties_go_to_even_and_what_is_no_number_stays():
    x = np.array([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, np.inf, np.nan, 3.4e38], np.float32)
    with np.errstate(invalid="ignore"):
        got = cpu.linear(np.stack([x, x * 0], 1), cpu.pack_weight(np.eye(2, dtype=np.float32)[:1], "bfloat16"),
                         np.zeros(1, np.float32))  # fmt: skip
    np.testing.assert_array_equal(got[:, 0], [1, 1 + 2**-6, -1, np.nan, np.nan, np.inf])
    weight = cpu.pack_weight(x[None], "bfloat16")[0, :, 0].ravel()
    np.testing.assert_array_equal(weight, [0x3F80, 0x3F82, 0xBF80, 0x7F80, 0x7FC0, 0x7F80])


def test_linear_does_not_depend_on_threads_and_keeps_what_is_no_number():
    rng = np.random.default_rng(0)
    x, weight, bias = (rng.standard_normal(s).astype(np.float32) for s in ((200, 1024), (500, 1024), (500,)))
    x[3, 5] = np.nan
    one = cpu.linear(x, cpu.pack_weight(weight), bias, relu=True)
    assert np.isnan(one[3]).all()
    assert np.isfinite(np.delete(one, 3, 0)).all()
    for threads in (2, 5):
        np.testing.assert_array_equal(cpu.linear(x, cpu.pack_weight(weight), bias, relu=True, threads=threads), one)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((3, 19), np.float32)}, r"x \[n, K = 20\], got float32 \[3, 19\]"),
        ({"bias": np.zeros(33, np.float32)}, r"panels that 33 columns fill, got float32 \[2, 20, 16\]"),
        ({"weight": np.zeros((2, 20, 8), np.float32)}, r"weight \[panels, K, 16\], got float32 \[2, 20, 8\]"),
    ],
)
def test_linear_quotes_what_does_not_fit(change, message):
    args = {"x": np.zeros((3, 20), np.float32), "weight": np.zeros((2, 20, 16), np.float32)}
    with pytest.raises(ValueError, match=message):
        cpu.linear(**(args | {"bias": np.zeros(20, np.float32)} | change))
