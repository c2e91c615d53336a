"""The relation attention kernel against the float64 definition (reference_relation.py)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rdn_engine.config import RelationConfig
from rdn_engine.kernels import _C, cpu
from tests import reference_relation as reference
from tests.fakes import empty_bank
from tests.relation_cases import (
    Case,
    allowed_error,
    arguments,
    attend,
    embedding_error,
    make_case,
    relative_error,
    run,
    wanted_out,
    wanted_weights,
)

pytestmark = pytest.mark.isa

ROOT = Path(__file__).resolve().parents[3]
UNIT = {"bfloat16": 2**-8, "float16": 2**-11}
SUBNORMAL = {"bfloat16": 0.0, "float16": 2**-25}
"""What a value is off by below the smallest normal number, 2^-14 in float16"""


@settings(deadline=None, max_examples=150)
@given(
    n=st.integers(1, 30),
    supports=st.integers(1, 70),
    heads=st.integers(1, 17),
    head_dim=st.sampled_from([16, 32, 48, 64, 80]),
    seed=st.integers(0, 2**32),
    kind=st.sampled_from(["spread", "point", "same", "concentric"]),
    scale=st.sampled_from([0.0, 0.5, 2.0]),
)
def test_output_is_the_reference_s(n, supports, heads, head_dim, seed, kind, scale):
    case = make_case(n, supports, heads, head_dim, seed, kind, scale)
    got = run(case)
    assert got.omega is None
    assert got.out.dtype == np.float32
    assert (np.abs(got.out - wanted_out(case)) <= allowed_error(case)).all()


@settings(deadline=None, max_examples=100)
@given(
    n=st.integers(1, 30),
    supports=st.integers(1, 70),
    heads=st.integers(1, 17),
    head_dim=st.sampled_from([16, 32, 48, 64, 80]),
    seed=st.integers(0, 2**32),
    scale=st.sampled_from([0.0, 0.5, 2.0]),
    precision=st.sampled_from(["bfloat16", "float16"]),
)
@example(n=24, supports=1, heads=13, head_dim=80, seed=0, scale=0.0, precision="float16")  # a value of 2e-5
def test_a_rounded_bank_is_the_reference_but_for_rounding(n, supports, heads, head_dim, seed, scale, precision):
    case = make_case(n, supports, heads, head_dim, seed, scale=scale)
    got = run(case, precision=precision).out
    assert got.dtype == np.float32
    assert (np.abs(got - wanted_out(case)) <= allowed_error(case, UNIT[precision]) + SUBNORMAL[precision]).all()


def test_a_float16_bank_is_read_as_the_numbers_it_holds():
    """Equal to the bit: products and sums are those of float32."""
    case = make_case(40, 300, 16, 64)
    rounded = case | {name: case[name].astype(np.float16).astype(np.float32) for name in ("keys", "values")}
    np.testing.assert_array_equal(run(case, (0, 300), precision="float16").out, run(rounded, (0, 300)).out)


@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 2**32), spread=st.floats(-6, 3))
def test_every_channel_of_the_geometry(seed, spread):
    """Head c sees channel c alone and values are unit vectors: the output is each support's (2 + E_c) / sum."""
    rng = np.random.default_rng(seed)
    heads, supports, n = 64, 16, 20
    case = make_case(n, supports, heads, 16, seed)
    near = case["boxes"][:supports] + rng.standard_normal((supports, 4)) * 10**spread
    near[:, 2:] = np.maximum(near[:, 2:], near[:, :2])
    case |= {
        "query": np.zeros((n, heads * 16), np.float32),
        "support_boxes": np.float32(near),
        "values": np.tile(np.eye(supports, dtype=np.float32), (1, heads)),
        "multiplicity": np.ones(supports, np.float32),
        "geometry_weight": np.eye(64, dtype=np.float32),
        "geometry_bias": np.full(heads, 2, np.float32),
    }
    gates = 2 + 1e-6 + reference.embedding(case["boxes"][:, None], case["support_boxes"][None]).transpose(0, 2, 1)
    got = run(case).out.reshape(n, heads, supports) * gates.sum(-1, keepdims=True)
    assert (np.abs(got - gates) <= embedding_error()[:, None] + 1e-6 * gates).all()


def naive_float32(case: Case) -> np.ndarray:
    """DESIGN section 2 word by word in float32, as a framework would compute it."""
    heads = len(case["geometry_bias"])
    (x1, y1, x2, y2), (u1, v1, u2, v2) = case["boxes"].T[..., None], case["support_boxes"].T
    w, h, small = x2 - x1 + 1, y2 - y1 + 1, np.float32(1e-3)
    dx, dy = (x1 + x2) / 2 - (u1 + u2) / 2, (y1 + y2) / 2 - (v1 + v2) / 2
    terms = [np.log(np.abs(dx) / w + small), np.log(np.abs(dy) / h + small),
             np.log(w / (u2 - u1 + 1)), np.log(h / (v2 - v1 + 1))]  # fmt: skip
    frequency = np.float32(100 / 1000 ** (np.arange(8) / 8))
    e = np.concatenate([f(p[..., None] * frequency) for p in terms for f in (np.sin, np.cos)], -1)
    gate = np.maximum(e @ case["geometry_weight"].T + case["geometry_bias"], 0) + np.float32(1e-6)
    q, k, v = (case[name].reshape(len(case[name]), heads, -1).swapaxes(0, 1) for name in ("query", "keys", "values"))
    logits = q @ k.swapaxes(1, 2) / np.float32(np.sqrt(q.shape[-1])) + np.log(gate).transpose(2, 0, 1)
    weights = case["multiplicity"] * np.exp(logits - logits.max(-1, keepdims=True))
    out = (weights / weights.sum(-1, keepdims=True)) @ v
    assert out.dtype == np.float32
    return out.swapaxes(0, 1).reshape(len(case["query"]), -1)


def test_accuracy_at_a_working_size():
    """1e-5 is what float32 frameworks reach the plain way; seen here: 6e-7, 1.2e-6 without fused multiply-adds."""
    case = make_case(40, 300, 16, 64)
    got, wanted = run(case, (0, 300)), wanted_out(case)
    assert relative_error(got.out, wanted) < 1e-5
    assert relative_error(got.out, wanted) <= relative_error(naive_float32(case), wanted)
    assert relative_error(got.omega, wanted_weights(case).mean(0)) < 1e-5


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_accuracy_of_a_rounded_bank_at_a_working_size(precision):
    case = make_case(40, 300, 16, 64)
    got, wanted = run(case, (0, 300), precision=precision), wanted_out(case)
    unit = UNIT[precision]
    assert unit / 40 < relative_error(got.out, wanted) < 2.5 * unit
    assert relative_error(got.omega, wanted_weights(case).mean(0)) < 2.5 * unit


def test_logits_of_several_hundred_do_not_overflow():
    case = make_case(9, 50, 2, 64, scale=12.0)
    logits = np.einsum("imd,jmd->mij", *(case[name].reshape(-1, 2, 64) for name in ("query", "keys"))) / 8
    assert np.abs(logits).max() > 300
    got = run(case).out
    assert (np.abs(got - wanted_out(case)) <= allowed_error(case)).all()


def test_supports_far_below_the_best_underflow_to_nothing():
    case = make_case(3, 300, 1, 16)
    case["query"][:] = 100
    case["keys"][:] = -100
    case["keys"][7] = 100
    got = run(case).out
    np.testing.assert_allclose(got, np.tile(case["values"][7], (3, 1)), rtol=3e-7)


@pytest.mark.parametrize("span", [(0, 0), (0, 1100), (500, 1050), (1099, 1100)])
def test_omega_is_the_mean_of_the_heads_weights(span):
    """1100 supports, so that a span crosses the blocks that the kernel works in."""
    case = make_case(7, 1100, 3, 16)
    a, b = span
    omega = run(case, span).omega
    assert omega is not None
    assert omega.shape == (7, b - a)
    assert omega.dtype == np.float32
    assert (omega.sum(1) <= 1 + 1e-5).all()
    np.testing.assert_allclose(omega, wanted_weights(case).mean(0)[:, a:b], rtol=2e-3, atol=1e-7)
    if span == (0, 1100):
        np.testing.assert_allclose(omega.sum(1), 1, atol=1e-5)


def test_asking_for_omega_leaves_the_output_alone():
    case = make_case(7, 90, 3, 16)
    np.testing.assert_array_equal(run(case).out, run(case, (5, 40)).out)


def test_a_repeated_support_is_its_multiplicity():
    case = make_case(11, 40, 4, 32)
    times = case["multiplicity"].astype(int)
    names = ("keys", "values", "support_boxes")
    repeated = case | {name: np.repeat(case[name], times, 0) for name in names}
    repeated |= {"multiplicity": np.ones(times.sum(), np.float32), "counts": np.array([times.sum()])}
    np.testing.assert_allclose(run(case).out, run(repeated).out, atol=2e-6)


def test_a_slot_may_be_looked_at_twice():
    case = make_case(11, 40, 4, 32) | {"multiplicity": np.ones(40, np.float32), "counts": np.array([40])}
    once = arguments(case)
    twice = once | {"slots": once["slots"].repeat(2), "counts": once["counts"].repeat(2)}
    twice["multiplicity"] = np.ones(80, np.float32)
    np.testing.assert_allclose(attend(**once).out, attend(**twice).out, rtol=0, atol=2e-6)


def test_what_a_slot_holds_past_its_count_does_not_matter():
    case = make_case(11, 40, 4, 32) | {"counts": np.array([20, 20])}
    args = arguments(case)
    wanted = attend(**args, omega_range=(0, 40))
    for slot in range(3):
        bank = cpu.SupportBank(*(array[slot] for array in args["bank"]))
        past = 20 if slot in args["slots"] else 0
        bank.values[:, past:], bank.boxes[past:] = np.nan, np.nan
        for column in range(past, bank.values.shape[1]):
            bank.keys[:, column // 16, :, column % 16] = np.nan
    got = attend(**args, omega_range=(0, 40))
    np.testing.assert_array_equal(got.out, wanted.out)
    np.testing.assert_array_equal(got.omega, wanted.omega)


def test_residual_and_bias_are_added():
    case = make_case(11, 40, 4, 32)
    rng = np.random.default_rng(1)
    added = {
        "residual": rng.standard_normal((11, 128)).astype(np.float32),
        "value_bias": rng.standard_normal(128).astype(np.float32),
    }
    got = attend(**(arguments(case) | added)).out
    np.testing.assert_allclose(got, run(case).out + added["residual"] + added["value_bias"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("counts", [[], [0], [0, 0]])
def test_no_support_gives_the_residual(counts):
    case = make_case(4, 0, 2, 16) | {"counts": np.array(counts, np.int64)}
    residual = np.arange(128, dtype=np.float32).reshape(4, 32)
    added = {"residual": residual, "value_bias": np.ones(32, np.float32)}
    got = attend(**(arguments(case) | added), omega_range=(0, 0))
    np.testing.assert_array_equal(got.out, residual)
    assert got.omega is not None
    assert got.omega.shape == (4, 0)


def test_no_query_gives_no_row():
    got = run(make_case(0, 9, 2, 16), (2, 9))
    assert got.out.shape == (0, 32)
    assert got.omega is not None
    assert got.omega.shape == (0, 7)


@pytest.mark.parametrize("n", [49, 100])
def test_threads_do_not_change_a_bit(n):
    case = make_case(n, 2100, 8, 64)  # large enough for several threads to be woken (parallel.h)
    one = run(case, (600, 650))
    for threads in (2, 3, 8, 40):
        some = run(case, (600, 650), threads)
        np.testing.assert_array_equal(some.out, one.out)
        np.testing.assert_array_equal(some.omega, one.omega)


def test_rows_do_not_depend_on_each_other():
    case = make_case(61, 90, 13, 16)
    every = run(case).out
    for i in (0, 12, 60):
        alone = run(case | {name: case[name][i : i + 1] for name in ("query", "boxes")})
        np.testing.assert_array_equal(alone.out[0], every[i])


def test_arrays_need_not_be_contiguous():
    args = arguments(make_case(12, 50, 2, 32))
    strided = {
        name: np.asfortranarray(array) if array.ndim == 2 else np.repeat(array, 2)[::2]
        for name, array in args.items()
        if name != "bank"
    }
    strided["bank"] = cpu.SupportBank(*map(np.asfortranarray, args["bank"]))
    np.testing.assert_array_equal(attend(**strided).out, attend(**args).out)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["query", "boxes"])
def test_a_query_that_is_no_number_spoils_its_own_row_alone(name, bad):
    case = make_case(30, 60, 2, 16)
    clean = run(case).out
    case[name][7] = bad
    got = run(case, (0, 60))
    others = np.arange(30) != 7
    assert np.isnan(got.out[7]).all()
    np.testing.assert_array_equal(got.out[others], clean[others])
    assert np.isfinite(got.omega[others]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["keys", "support_boxes", "values", "geometry_weight", "geometry_bias"])
def test_what_all_rows_look_at_spoils_all_rows(name, bad):
    case = make_case(5, 20, 2, 16)
    case[name][0] = bad
    first_head = run(case).out[:, :16]
    spoiled = ~np.isfinite(first_head)  # an infinite value gives an infinity
    assert spoiled.all()


def test_every_instruction_set_agrees(tmp_path):
    names = ("baseline", "avx2", "avx512", "avx512_bf16")
    case = make_case(31, 200, 7, 48)
    here = run(case).out
    code = (
        "import sys, numpy; from tests import relation_cases as t; from rdn_engine.kernels import _C; "
        "numpy.savez(sys.argv[1], isa=_C.isa, out=t.run(t.make_case(31, 200, 7, 48)).out)"
    )
    for isa in names[: names.index(_C.isa) + 1]:
        saved = tmp_path / f"{isa}.npz"
        environment = os.environ | {"RDN_ISA": isa, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", code, str(saved)], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        with np.load(saved) as results:
            assert results["isa"] == isa
            assert (np.abs(results["out"] - here) <= 2 * allowed_error(case)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": np.zeros((4, 32))}, r"float32 query \[n, D\], got float64 \[4, 32\]"),
        ({"query": np.zeros((4, 34), np.float32)}, r"multiple of 16 .* 2 heads, got float32 \[4, 34\]"),
        ({"boxes": np.zeros((3, 4), np.float32)}, r"boxes \[n = 4, 4\], got float32 \[3, 4\]"),
        ({"residual": np.zeros((4, 31), np.float32)}, r"residual \[n = 4, D = 32\], got float32 \[4, 31\]"),
        ({"value_bias": np.zeros(31, np.float32)}, r"value_bias \[D = 32\], got float32 \[31\]"),
        (
            {"bank": empty_bank(2, 16, 1, 16)},
            r"keys \[slots, M = 1, C / 16, d = 32, 16\], got float32 \[2, 1, 1, 16, 16\]",
        ),
        (
            {"bank": empty_bank(2, 16, 2, 16)._replace(values=np.zeros((2, 2, 15, 16), np.float32))},
            r"values \[slots = 2, M = 2, C = 16, d = 16\], got float32 \[2, 2, 15, 16\]",
        ),
        (
            {"bank": empty_bank(2, 16, 2, 16)._replace(boxes=np.zeros((2, 15, 4), np.float32))},
            r"boxes \[slots = 2, C = 16",
        ),
        ({"slots": np.zeros(1, np.int32)}, r"int64 slots \[F\], got int32 \[1\]"),
        ({"slots": np.array([9])}, r"slots must lie in 0..slots-1 with slots = 2, got 9 at 0"),
        ({"counts": np.array([17])}, r"counts must lie in 0..C with C = 16, got 17 at 0"),
        ({"counts": np.array([4, 5])}, r"counts \[F = 1\], got int64 \[2\]"),
        ({"multiplicity": np.ones(8, np.float32)}, r"multiplicity \[S = 9\], got float32 \[8\]"),
        ({"multiplicity": np.full(9, np.nan, np.float32)}, r"multiplicity must be finite and positive, got nan at 0"),
        ({"multiplicity": np.zeros(9, np.float32)}, r"multiplicity must be finite and positive, got 0.0+ at 0"),
        (
            {"geometry": np.zeros((17, 16), np.float32)},
            r"geometry of prepare_geometry for M = 2, got float32 \[17, 16\]",
        ),
        ({"omega_range": (3, 10)}, r"0 <= a <= b <= S = 9, got \(3, 10\)"),
        ({"omega_range": (5, 4)}, r"got \(5, 4\)"),
        ({"omega_range": (-1, 4)}, r"got \(-1, 4\)"),
        ({"threads": 0}, r"threads must be at least 1, got 0"),
    ],
)
def test_arguments_that_do_not_fit_are_quoted(change, message):
    args = arguments(make_case(4, 9, 2, 16) | {"counts": np.array([9])})
    with pytest.raises(ValueError, match=message):
        attend(**(args | change))


@pytest.mark.parametrize(
    ("weight", "bias", "message"),
    [
        (np.zeros((2, 63), np.float32), np.zeros(2, np.float32), r"weight \[M, 64\], got float32 \[2, 63\]"),
        (np.zeros((0, 64), np.float32), np.zeros(0, np.float32), r"at least one head, got float32 \[0, 64\]"),
        (np.zeros((2, 64), np.float32), np.zeros(3, np.float32), r"bias \[M = 2\], got float32 \[3\]"),
    ],
)
def test_geometry_that_does_not_fit_is_quoted(weight, bias, message):
    with pytest.raises(ValueError, match=message):
        cpu.prepare_geometry(weight, bias)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_kernels_read_lies_on_cache_lines(precision: cpu.Precision) -> None:
    rng = np.random.default_rng(0)
    stored: cpu.StoredPrecision = "float16" if precision == "float32" else precision
    for _ in range(8):
        arrays = [
            *cpu.empty_supports((2,), room=16, config=RelationConfig(dim=32, heads=2), precision=stored),
            cpu.pack_weight(rng.standard_normal((20, 32), np.float32), precision),
            cpu.prepare_geometry(rng.standard_normal((2, 64), np.float32), np.zeros(2, np.float32), precision),
        ]
        assert [array.ctypes.data % 64 for array in arrays] == [0, 0, 0, 0]
