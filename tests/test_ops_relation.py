"""The relation attention kernel against the float64 definition (reference_relation.py)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference_relation as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from rdn_engine import _C, ops

ROOT = Path(__file__).resolve().parents[1]
Case = dict[str, Any]


def random_boxes(rng: np.random.Generator, count: int, kind: str) -> np.ndarray:
    """[count, 4] in a 1000 x 600 image."""
    centre = rng.uniform(0, [1000, 600], (count, 2))
    side = np.exp(rng.uniform(0, 6, (count, 2)))
    if kind == "point":  # x1 = x2, y1 = y2: sides of one pixel
        side[:] = 1
    if kind == "same":  # the centre terms are log(1e-3)
        centre[:], side[:] = centre[:1], side[:1]
    if kind == "concentric":  # thousandths of a pixel apart
        centre[:] = centre[:1] + rng.normal(0, 2e-3, (count, 2))
    return np.concatenate([centre - side / 2, centre + side / 2 - 1], 1).astype(np.float32)


def make_case(
    n: int, supports: int, heads: int, head_dim: int, seed: int = 0, kind: str = "spread", scale: float = 1.0
) -> Case:
    """Arguments of `ops.relation_attention`; logits q.k / sqrt(d) have deviation scale^2."""
    rng = np.random.default_rng(seed)
    dim, storage = heads * head_dim, supports + 3

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    drawn = random_boxes(rng, n + storage, kind)
    return {
        "query": normal(n, dim) * np.float32(scale),
        "boxes": drawn[:n],
        "keys": normal(storage, dim) * np.float32(scale),
        "values": normal(storage, dim),
        "support_boxes": drawn[n:],
        "rows": rng.permutation(storage)[:supports],
        "multiplicity": rng.integers(1, 4, supports).astype(np.float32),
        "geometry_weight": normal(heads, 64) * np.float32(0.2),
        "geometry_bias": normal(heads),
    }


def wanted_out(case: Case) -> np.ndarray:
    renamed = {"geometry_weight": "wg", "geometry_bias": "bg"}
    return reference.relation(**{renamed.get(name, name): value for name, value in case.items()})


def wanted_weights(case: Case) -> np.ndarray:
    rows = case["rows"]
    return reference.softmax_weights(
        case["query"], case["boxes"], case["keys"][rows], case["support_boxes"][rows], case["multiplicity"],
        case["geometry_weight"], case["geometry_bias"],
    )  # fmt: skip


def relative_error(got: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))


def embedding_error() -> np.ndarray:
    """[64] how far the kernel's E may be off, radians.

    The phase of frequency k is 100 / 1000^(k/8) times a logarithm that float32 holds to about 6e-8: DESIGN section 2,
    Conditioning. Worst seen in 50,000 pairs, nearly concentric ones too: 6e-6 at k = 0 (1e-5 without fused
    multiply-adds), 6e-7 at the high k and in the size terms, which are computed in float64.
    """
    return 2e-6 + np.repeat([1.5e-5, 0], 32) / 1000 ** (np.tile(np.arange(8), 8) / 8)


def allowed_error(case: Case) -> np.ndarray:
    """[n, D] bound of the output's error, from the errors of gates and logits.

    If every softmax term is off by a factor 1 + e_j, the output moves by sum w_j e_j (v_j - out) / (1 + sum w_j e_j).
    Absolute tolerances would not do: where relu(Wg.E + b) is near 0 for all supports, the conditioning is arbitrary.
    Dot products of 64 terms are trusted to 16 roundings; the sums over S supports to all S of them, since many equal
    small weights after a large one are all rounded the same way.
    """
    rows, heads = case["rows"], len(case["geometry_bias"])
    wg, bg = np.float64(case["geometry_weight"]), np.float64(case["geometry_bias"])
    g = reference.embedding(case["boxes"][:, None], case["support_boxes"][rows][None]) @ wg.T + bg
    off = np.abs(wg) @ embedding_error() + 1e-6 * (np.abs(wg).sum(1) + np.abs(bg))
    gate = np.where(g > -off, off / (np.maximum(g, 0) + 1e-6), 0).transpose(2, 0, 1)
    q, k, v = (
        np.float64(a).reshape(len(a), heads, -1) for a in (case["query"], case["keys"][rows], case["values"][rows])
    )
    logit = np.einsum("imd,jmd->mij", np.abs(q), np.abs(k)) / np.sqrt(q.shape[-1])
    e = gate + 1e-6 * logit + 1e-6
    sums = 6e-8 * (len(rows) + 16)
    w = wanted_weights(case)
    out = np.einsum("mij,jmd->imd", w, v)
    moved = np.einsum("mij,ijmd->imd", w * e, np.abs(v[None] - out[:, None]))
    total = (w * e).sum(-1).T[..., None]
    with np.errstate(divide="ignore"):
        bound = np.where(total < 1, moved / (1 - total), np.inf) + sums * np.einsum("mij,jmd->imd", w, np.abs(v))
    return bound.reshape(len(q), -1)


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
    got = ops.relation_attention(**case)
    assert got.omega is None
    assert got.out.dtype == np.float32
    assert (np.abs(got.out - wanted_out(case)) <= allowed_error(case)).all()


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
        "keys": case["keys"][:supports],
        "values": np.tile(np.eye(supports, dtype=np.float32), (1, heads)),
        "rows": np.arange(supports),
        "multiplicity": np.ones(supports, np.float32),
        "geometry_weight": np.eye(64, dtype=np.float32),
        "geometry_bias": np.full(heads, 2, np.float32),
    }
    gates = 2 + 1e-6 + reference.embedding(case["boxes"][:, None], case["support_boxes"][None]).transpose(0, 2, 1)
    got = ops.relation_attention(**case).out.reshape(n, heads, supports) * gates.sum(-1, keepdims=True)
    assert (np.abs(got - gates) <= embedding_error()[:, None] + 1e-6 * gates).all()


def naive_float32(case: Case) -> np.ndarray:
    """DESIGN section 2 word by word in float32, as a framework would compute it."""
    rows, heads = case["rows"], len(case["geometry_bias"])
    (x1, y1, x2, y2), (u1, v1, u2, v2) = case["boxes"].T[..., None], case["support_boxes"][rows].T
    w, h, small = x2 - x1 + 1, y2 - y1 + 1, np.float32(1e-3)
    dx, dy = (x1 + x2) / 2 - (u1 + u2) / 2, (y1 + y2) / 2 - (v1 + v2) / 2
    terms = [np.log(np.abs(dx) / w + small), np.log(np.abs(dy) / h + small),
             np.log(w / (u2 - u1 + 1)), np.log(h / (v2 - v1 + 1))]  # fmt: skip
    frequency = np.float32(100 / 1000 ** (np.arange(8) / 8))
    e = np.concatenate([f(p[..., None] * frequency) for p in terms for f in (np.sin, np.cos)], -1)
    gate = np.maximum(e @ case["geometry_weight"].T + case["geometry_bias"], 0) + np.float32(1e-6)
    q, k, v = (
        a.reshape(len(a), heads, -1).swapaxes(0, 1) for a in (case["query"], case["keys"][rows], case["values"][rows])
    )
    logits = q @ k.swapaxes(1, 2) / np.float32(np.sqrt(q.shape[-1])) + np.log(gate).transpose(2, 0, 1)
    weights = case["multiplicity"] * np.exp(logits - logits.max(-1, keepdims=True))
    out = (weights / weights.sum(-1, keepdims=True)) @ v
    assert out.dtype == np.float32
    return out.swapaxes(0, 1).reshape(len(case["query"]), -1)


def test_accuracy_at_a_working_size():
    """1e-5 is what float32 frameworks reach the plain way; seen here: 6e-7, 1.2e-6 without fused multiply-adds."""
    case = make_case(40, 300, 16, 64)
    got, wanted = ops.relation_attention(**case, omega_range=(0, 300)), wanted_out(case)
    assert relative_error(got.out, wanted) < 1e-5
    assert relative_error(got.out, wanted) <= relative_error(naive_float32(case), wanted)
    assert relative_error(got.omega, wanted_weights(case).mean(0)) < 1e-5


def test_logits_of_several_hundred_do_not_overflow():
    case = make_case(9, 50, 2, 64, scale=12.0)
    logits = np.einsum("imd,jmd->mij", *(case[name].reshape(-1, 2, 64) for name in ("query", "keys"))) / 8
    assert np.abs(logits).max() > 300
    got = ops.relation_attention(**case).out
    assert (np.abs(got - wanted_out(case)) <= allowed_error(case)).all()


def test_supports_far_below_the_best_underflow_to_nothing():
    case = make_case(3, 300, 1, 16)
    best = case["rows"][0]
    case["query"][:] = 100
    case["keys"][:] = -100
    case["keys"][best] = 100
    got = ops.relation_attention(**case).out
    np.testing.assert_allclose(got, np.tile(case["values"][best], (3, 1)), rtol=3e-7)


@pytest.mark.parametrize("span", [(0, 0), (0, 1100), (500, 1050), (1099, 1100)])
def test_omega_is_the_mean_of_the_heads_weights(span):
    """1100 supports, so that a span crosses the blocks that the kernel works in."""
    case = make_case(7, 1100, 3, 16)
    a, b = span
    omega = ops.relation_attention(**case, omega_range=span).omega
    assert omega is not None
    assert omega.shape == (7, b - a)
    assert omega.dtype == np.float32
    assert (omega.sum(1) <= 1 + 1e-5).all()
    np.testing.assert_allclose(omega, wanted_weights(case).mean(0)[:, a:b], rtol=2e-3, atol=1e-7)
    if span == (0, 1100):
        np.testing.assert_allclose(omega.sum(1), 1, atol=1e-5)


def test_asking_for_omega_leaves_the_output_alone():
    case = make_case(7, 90, 3, 16)
    np.testing.assert_array_equal(
        ops.relation_attention(**case).out, ops.relation_attention(**case, omega_range=(5, 40)).out
    )


def test_a_repeated_row_is_its_multiplicity():
    case = make_case(11, 40, 4, 32)
    counts = case["multiplicity"].astype(int)
    repeated = case | {
        "rows": np.repeat(case["rows"], counts),
        "multiplicity": np.ones(counts.sum(), np.float32),
    }
    one, other = ops.relation_attention(**case), ops.relation_attention(**repeated)
    np.testing.assert_allclose(one.out, other.out, atol=2e-6)


def test_multiplicity_zero_leaves_a_support_out_whatever_it_holds():
    case = make_case(11, 40, 4, 32, kind="concentric")
    gone = case["rows"][[3, 17, 39]]
    for name in ("keys", "values", "support_boxes"):
        case[name][gone] = np.nan
    stay = ~np.isin(case["rows"], gone)
    case["multiplicity"][~stay] = 0
    without = case | {"rows": case["rows"][stay], "multiplicity": case["multiplicity"][stay]}
    got, wanted = (ops.relation_attention(**c, omega_range=(0, len(c["rows"]))) for c in (case, without))
    np.testing.assert_allclose(got.out, wanted.out, atol=2e-6)
    assert got.omega is not None
    assert (got.omega[:, ~stay] == 0).all()


@pytest.mark.parametrize("storage", [0, 5])
def test_no_support_gives_zeros(storage):
    case = make_case(4, 2, 2, 16)
    empty = case | {name: case[name][:storage] for name in ("keys", "values", "support_boxes")}
    empty |= {"rows": case["rows"][:0], "multiplicity": case["multiplicity"][:0]}
    assert (ops.relation_attention(**empty).out == np.zeros((4, 32))).all()


def test_only_supports_of_multiplicity_zero_give_zeros():
    case = make_case(4, 9, 2, 16)
    case["multiplicity"][:] = 0
    got = ops.relation_attention(**case, omega_range=(2, 9))
    assert (got.out == np.zeros((4, 32))).all()
    assert (got.omega == np.zeros((4, 7))).all()


def test_no_query_gives_no_row():
    got = ops.relation_attention(**make_case(0, 9, 2, 16), omega_range=(2, 9))
    assert got.out.shape == (0, 32)
    assert got.omega is not None
    assert got.omega.shape == (0, 7)


@pytest.mark.parametrize("n", [49, 100])
def test_threads_do_not_change_a_bit(n):
    case = make_case(n, 2100, 8, 64)  # large enough for several threads to be woken (parallel.h)
    one = ops.relation_attention(**case, omega_range=(600, 650), threads=1)
    for threads in (2, 3, 8, 40):
        some = ops.relation_attention(**case, omega_range=(600, 650), threads=threads)
        np.testing.assert_array_equal(some.out, one.out)
        np.testing.assert_array_equal(some.omega, one.omega)


def test_rows_do_not_depend_on_each_other():
    case = make_case(61, 90, 13, 16)
    every = ops.relation_attention(**case).out
    for i in (0, 12, 60):
        alone = ops.relation_attention(**(case | {name: case[name][i : i + 1] for name in ("query", "boxes")}))
        np.testing.assert_array_equal(alone.out[0], every[i])


def test_arrays_need_not_be_contiguous():
    case = make_case(12, 50, 2, 32)
    strided = {
        name: np.asfortranarray(array) if array.ndim == 2 else np.repeat(array, 2)[::2] for name, array in case.items()
    }
    np.testing.assert_array_equal(ops.relation_attention(**strided).out, ops.relation_attention(**case).out)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["query", "boxes"])
def test_a_query_that_is_no_number_spoils_its_own_row_alone(name, bad):
    case = make_case(30, 60, 2, 16)
    clean = ops.relation_attention(**case).out
    case[name][7] = bad
    got = ops.relation_attention(**case, omega_range=(0, 60))
    others = np.arange(30) != 7
    assert np.isnan(got.out[7]).all()
    np.testing.assert_array_equal(got.out[others], clean[others])
    assert np.isfinite(got.omega[others]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["keys", "support_boxes", "values", "geometry_weight", "geometry_bias"])
def test_what_all_rows_look_at_spoils_all_rows(name, bad):
    case = make_case(5, 20, 2, 16)
    case[name][case["rows"][0] if name in ("keys", "support_boxes", "values") else 0] = bad
    first_head = ops.relation_attention(**case).out[:, :16]
    spoiled = ~np.isfinite(first_head)  # an infinite value gives an infinity
    assert spoiled.all()


def test_every_instruction_set_agrees(tmp_path):
    names = ("baseline", "avx2", "avx512")
    case = make_case(31, 200, 7, 48)
    here = ops.relation_attention(**case).out
    code = (
        "import sys, numpy, test_ops_relation as t; from rdn_engine import _C, ops; "
        "numpy.savez(sys.argv[1], isa=_C.isa, out=ops.relation_attention(**t.make_case(31, 200, 7, 48)).out)"
    )
    for isa in names[: names.index(_C.isa) + 1]:
        saved = tmp_path / f"{isa}.npz"
        environment = os.environ | {"RDN_ISA": isa, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
        done = subprocess.run([sys.executable, "-c", code, str(saved)], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        with np.load(saved) as results:
            assert results["isa"] == isa
            assert (np.abs(results["out"] - here) <= 2 * allowed_error(case)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": np.zeros((4, 32))}, r"float32 query \[n, D\], got float64 \[4, 32\]"),
        ({"query": np.zeros((4, 34), np.float32)}, r"multiple of 16 .* 2 heads .* got float32 \[4, 34\]"),
        ({"boxes": np.zeros((3, 4), np.float32)}, r"boxes \[n = 4, 4\], got float32 \[3, 4\]"),
        ({"keys": np.zeros((12, 16), np.float32)}, r"keys \[R, D = 32\], got float32 \[12, 16\]"),
        ({"values": np.zeros((11, 32), np.float32)}, r"values \[R = 12, D = 32\], got float32 \[11, 32\]"),
        ({"support_boxes": np.zeros((12, 5), np.float32)}, r"support_boxes \[R = 12, 4\], got float32 \[12, 5\]"),
        ({"rows": np.arange(9, dtype=np.int32)}, r"int64 rows \[S\], got int32 \[9\]"),
        ({"rows": np.full(9, 12)}, r"rows must lie in 0..R-1 with R = 12, got 12 at 0"),
        ({"rows": np.array([0] * 8 + [-1])}, r"got -1 at 8"),
        ({"multiplicity": np.ones(8, np.float32)}, r"multiplicity \[S = 9\], got float32 \[8\]"),
        (
            {"multiplicity": np.full(9, np.nan, np.float32)},
            r"multiplicity must be finite and not negative, got nan at 0",
        ),
        ({"multiplicity": np.full(9, -1, np.float32)}, r"multiplicity must be finite and not negative, got -1"),
        ({"geometry_weight": np.zeros((2, 63), np.float32)}, r"geometry_weight \[M, 64\], got float32 \[2, 63\]"),
        ({"geometry_weight": np.zeros((0, 64), np.float32)}, r"at least one head, got float32 \[0, 64\]"),
        ({"geometry_bias": np.zeros(3, np.float32)}, r"geometry_bias \[M = 2\], got float32 \[3\]"),
        ({"omega_range": (3, 10)}, r"0 <= a <= b <= S = 9, got \(3, 10\)"),
        ({"omega_range": (5, 4)}, r"got \(5, 4\)"),
        ({"omega_range": (-1, 4)}, r"got \(-1, 4\)"),
        ({"threads": 0}, r"threads must be at least 1, got 0"),
    ],
)
def test_arguments_that_do_not_fit_are_quoted(change, message):
    with pytest.raises(ValueError, match=message):
        ops.relation_attention(**(make_case(4, 9, 2, 16) | change))
