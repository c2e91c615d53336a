"""The relation kernels against the float64 definition (reference_relation.py), the window's lists against Window."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rdn_engine.kernels import cuda
from rdn_engine.kernels.arithmetic import ceil_div
from rdn_engine.kernels.cuda.relation import AttentionInputs, Partials, Queries, Supports
from tests import reference_relation
from tests.cuda_machines import Machine, fill
from tests.relation_cases import Case, draw_case


def make_case(
    n: int, supports: int, heads: int, head_dim: int, seed: int = 0, kind: str = "spread", scale: float = 1.0
) -> Case:
    """Arguments of `reference_relation.relation`: `supports` of them, in any order, out of some more."""
    rng = np.random.default_rng(seed)
    case = draw_case(rng, n, supports + 3, heads, head_dim, kind, scale)
    rows = rng.permutation(supports + 3)[:supports]
    return case | {"rows": rows, "multiplicity": case["multiplicity"][rows]}


def padded(case: Case) -> Case:
    """Supports in sixteens; those added repeat the first row and count 0."""
    missing = -len(case["rows"]) % 16
    return case | {
        "rows": np.pad(case["rows"], (0, missing), constant_values=case["rows"][0]),
        "multiplicity": np.pad(case["multiplicity"], (0, missing)),
    }


def run_case(
    machine: Machine, case: Case, split_size: int, kind: Any = np.float32, omega: tuple[int, int] | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """What `cpu.relation_attention` computes, through all the steps."""
    k, put = machine.kernels, machine.put
    (n, dim), heads, count = case["query"].shape, len(case["geometry_bias"]), len(case["rows"])
    queries = Queries(put(case["boxes"]))
    supports = Supports(put(case["support_boxes"]), put(case["rows"].astype(np.int32)), put(case["multiplicity"]))
    weight, bias = put(case["geometry_weight"]), put(case["geometry_bias"])
    arrays = {name: put(case[name].astype(kind)) for name in ("query", "keys", "values")}
    workspace = fill(machine, cuda.geometry_bytes(k, queries=n, supports=count), np.uint8)
    if kind is np.float16:
        gates = fill(machine, (1, heads, n, count), np.float16)
        every = {name: put(case[name][None]) for name in ("geometry_weight", "geometry_bias")}
        cuda.find_gates(k, queries, supports, **every, gates=gates, workspace=workspace)
        inputs = AttentionInputs(**arrays, gates=gates.reshape(heads, n, count))
    else:
        inputs = AttentionInputs(**arrays, geometry_weight=weight, geometry_bias=bias)
    splits = ceil_div(count, split_size)
    partials = Partials(fill(machine, (splits, n, dim)), fill(machine, (splits, n, heads, 2)))
    cuda.attend(k, queries, supports, inputs=inputs, split_size=split_size, partials=partials, workspace=workspace)
    out, sums = fill(machine, (n, dim)), fill(machine, (n, heads, 2))
    nothing = put(np.zeros((n, dim), np.float32))
    cuda.combine(k, partials, out, value_bias=nothing[0], residual=nothing, weight=sums)
    if omega is None:
        return machine.get(out), None
    found = fill(machine, (n, omega[1] - omega[0]))
    cuda.average_weights(
        k, queries, supports, inputs=inputs, weight=sums, omega_range=omega, omega=found, workspace=workspace
    )
    return machine.get(out), machine.get(found)


def relative_error(got: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))


def reference_omega(case: Case) -> np.ndarray:
    rows = case["rows"]
    return reference_relation.softmax_weights(
        case["query"], case["boxes"], case["keys"][rows], case["support_boxes"][rows], case["multiplicity"],
        case["geometry_weight"], case["geometry_bias"],
    ).mean(0)  # fmt: skip


SHAPES = [(1, 1, 1, 16), (5, 37, 2, 16), (9, 70, 3, 32), (70, 150, 2, 64)]


@pytest.mark.parametrize("kind", ["spread", "point", "same", "concentric"])
@pytest.mark.parametrize("split_size", [16, 10_000])
def test_float32_equals_the_definition(machine, kind, split_size):
    for n, count, heads, head_dim in SHAPES[:3]:
        case = make_case(n, count, heads, head_dim, kind=kind)
        out, omega = run_case(machine, case, split_size, omega=(0, count))
        assert relative_error(out, reference_relation.relation(**names(case))) < 2e-5
        assert relative_error(omega, reference_omega(case)) < 2e-5


def names(case: Case) -> Case:
    """Arguments by the definition's names."""
    return {("wg" if k == "geometry_weight" else "bg" if k == "geometry_bias" else k): v for k, v in case.items()}


@pytest.mark.parametrize("kind", ["spread", "point", "same"])
@pytest.mark.parametrize("shape", SHAPES)
def test_tensor_cores_are_as_near_as_float16_allows(machine, shape, kind):
    case = padded(make_case(*shape, kind=kind))
    count = len(case["rows"])
    out, omega = run_case(machine, case, 32 if shape[1] < 100 else 80, np.float16, omega=(0, count))
    assert relative_error(out, reference_relation.relation(**names(case))) < 2e-3
    assert relative_error(omega, reference_omega(case)) < 2e-3


def test_float16_is_at_most_twice_as_far_as_float16_arithmetic_rounds(machine):
    """The error against float64 is that of rounding what enters, and no more than once again."""
    case = padded(make_case(40, 300, 4, 64, scale=1.5))
    wanted = reference_relation.relation(**names(case))
    rounded = case | {name: case[name].astype(np.float16) for name in ("query", "keys", "values", "geometry_weight")}
    entering = relative_error(reference_relation.relation(**names(rounded)), wanted)
    out, _ = run_case(machine, case, 160, np.float16)
    assert relative_error(out, wanted) < 2 * max(entering, 2**-11)


def test_part_of_omega(machine):
    case = padded(make_case(7, 90, 2, 16))
    _, whole = run_case(machine, case, 48, omega=(0, 96))
    for kind in (np.float32, np.float16):
        _, part = run_case(machine, case, 48, kind, omega=(32, 80))
        np.testing.assert_allclose(part, whole[:, 32:80], atol=1e-6 if kind is np.float32 else 2e-3)


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_large_logits_and_dead_gates_stay_finite(machine, kind):
    case = padded(make_case(6, 40, 2, 16, scale=12.0))
    case["geometry_bias"][0] = -1e4  # every gate of this head is 1e-6
    out, _ = run_case(machine, case, 16, kind)
    assert relative_error(out, reference_relation.relation(**names(case))) < (1e-4 if kind is np.float32 else 0.1)


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_nothing_is_read_of_supports_that_count_zero(machine, kind):
    case = padded(make_case(5, 40, 2, 16))
    wanted, _ = run_case(machine, case, 16, kind)
    stale = np.setdiff1d(np.arange(len(case["keys"])), case["rows"][:40])
    case["rows"][40:] = stale[0]
    for name in ("keys", "values"):
        case[name][stale] = np.nan
    got, _ = run_case(machine, case, 16, kind)
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_no_support_at_all_gives_zeros(machine, kind):
    case = padded(make_case(3, 20, 2, 16))
    case["multiplicity"][:] = 0
    out, omega = run_case(machine, case, 16, kind, omega=(0, 32))
    assert not out.any()
    assert not omega.any()


@pytest.mark.parametrize("kind", [np.float32, np.float16])
@pytest.mark.parametrize("name", ["query", "boxes"])
def test_a_query_that_is_no_number_spoils_its_own_row_alone(machine, name, kind):
    case = padded(make_case(20, 40, 2, 16))
    clean, _ = run_case(machine, case, 32, kind)
    case[name][7] = np.nan
    got, _ = run_case(machine, case, 32, kind)
    others = np.arange(20) != 7
    assert np.isnan(got[7]).all()
    np.testing.assert_array_equal(got[others], clean[others])


def test_two_modules_and_many_heads_share_one_pass_over_the_geometry(machine):
    rng = np.random.default_rng(0)
    case = make_case(9, 48, 1, 16)
    weight = rng.standard_normal((2, 18, 64)).astype(np.float32) * np.float32(0.2)
    bias = rng.standard_normal((2, 18)).astype(np.float32)
    queries = Queries(machine.put(case["boxes"]))
    supports = Supports(machine.put(case["support_boxes"][:48]), None, machine.put(np.ones(48, np.float32)))
    gates = fill(machine, (2, 18, 9, 48), np.float16)
    workspace = fill(machine, cuda.geometry_bytes(machine.kernels, queries=9, supports=48), np.uint8)
    cuda.find_gates(
        machine.kernels,
        queries,
        supports,
        geometry_weight=machine.put(weight),
        geometry_bias=machine.put(bias),
        gates=gates,
        workspace=workspace,
    )
    e = reference_relation.embedding(case["boxes"][:, None], case["support_boxes"][None, :48])
    wanted = np.maximum(np.einsum("ijc,mhc->mhij", e, weight) + bias[..., None, None], 0) + 1e-6
    assert np.abs(machine.get(gates).astype(float) / 64 - wanted).max() < 5e-3


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_combine_adds_bias_and_residual_and_counts_splits(machine, kind):
    rng = np.random.default_rng(1)
    values, weights = rng.standard_normal((3, 4, 32)).astype(np.float32), rng.random((3, 4, 2, 2)).astype(np.float32)
    weights[2, 1] = 0  # a split without supports
    residual, bias = rng.standard_normal((9, 32)).astype(kind), rng.standard_normal(32).astype(np.float32)
    rows, count = np.array([8, 0, 3, 3], np.int32), np.array([2, 0, 1], np.float32)
    out, put = fill(machine, (4, 32), kind), machine.put
    values[1] = np.nan  # counted never, so not read
    cuda.combine(
        machine.kernels, Partials(put(values), put(weights)), out, split_count=put(count), value_bias=put(bias),
        residual=put(residual), residual_rows=put(rows),
    )  # fmt: skip
    share = count[:, None, None] * weights[..., 1] * 2.0 ** weights[..., 0]
    share[1] = 0
    heads = np.nan_to_num(values).reshape(3, 4, 2, 16)
    mean = (share[..., None] * heads).sum(0) / share.sum(0)[..., None]
    wanted = residual[rows].astype(float) + mean.reshape(4, 32) + bias
    np.testing.assert_allclose(machine.get(out), wanted, rtol=2e-3 if kind is np.float16 else 1e-5, atol=1e-5)
