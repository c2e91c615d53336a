"""The sliding refinement, step by step of a stream, against the float64 definition of each step's whole window."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rdn_engine.config import Dials, RelationConfig
from rdn_engine.host.features import EncodedFrame, SupportPool
from rdn_engine.host.window import Window
from rdn_engine.kernels import _C, cpu
from rdn_engine.kernels.cpu.arrays import Float, Index
from tests.fakes import random_boxes
from tests.host.test_window import some_dials
from tests.reference_relation import relation
from tests.relation_cases import allowed_error

ROOT = Path(__file__).resolve().parents[2]
CONFIG = RelationConfig(dim=32, heads=2, num_basic=0)


@dataclass(frozen=True)
class Weights:
    value_bias: Float
    geometry_weight: Float
    geometry_bias: Float

    @cached_property
    def geometry(self) -> Float:
        return cpu.prepare_geometry(self.geometry_weight, self.geometry_bias)


def make_weights(rng: np.random.Generator) -> Weights:
    bias, weight, geometry_bias = (rng.standard_normal(s).astype(np.float32) for s in (32, (2, 64), 2))
    return Weights(bias, weight * np.float32(0.2), geometry_bias + 1)


def make_frame(rng: np.random.Generator, n: int, k: int, key_scale: float = 1.0) -> EncodedFrame:
    def normal(rows: int) -> Float:
        return rng.standard_normal((rows, 32)).astype(np.float32)

    keys = normal(k)[None] * np.float32(key_scale)
    objectness = np.sort(rng.random(n, np.float32))[::-1]
    return EncodedFrame(random_boxes(rng, n), objectness, normal(n), normal(n), keys, normal(k)[None], normal(k))


def definition(pool: SupportPool, weights: Weights) -> NDArray[np.float64]:
    (keys,), (values,) = pool.plain()
    chosen = pool.advanced_rows
    found = relation(
        pool.refine_query[chosen], pool.boxes[chosen], keys, values, pool.boxes[pool.rows], np.arange(len(keys)),
        pool.multiplicity, weights.geometry_weight, weights.geometry_bias,
    )  # fmt: skip
    return pool.features[chosen] + found + weights.value_bias


def step(pool: SupportPool, weights: Weights) -> tuple[Float, NDArray[np.bool_]]:
    return pool.refinement.step(pool, 0, weights.value_bias, weights.geometry, 1)


def allowed(pool: SupportPool, weights: Weights) -> NDArray[np.float64]:
    """[A, D] bound of the error: `relation_cases.allowed_error` of the same attention, and one rounding of each sum of
    residual, bias and attention. Sums over the window are float64, and what is added is subtracted to the last bit, so
    that frames which came and went leave nothing behind.
    """
    (keys,), (values,) = pool.plain()
    chosen = pool.advanced_rows
    case = {
        "query": pool.refine_query[chosen],
        "boxes": pool.boxes[chosen],
        "keys": keys,
        "values": values,
        "support_boxes": pool.boxes[pool.rows],
        "multiplicity": pool.multiplicity,
        "geometry_weight": weights.geometry_weight,
        "geometry_bias": weights.geometry_bias,
    }
    added = np.abs(pool.features[chosen]) + np.abs(weights.value_bias) + np.abs(definition(pool, weights))
    return allowed_error(case) + 1.2e-7 * added


def assert_near(got: Float, pool: SupportPool, weights: Weights, rows: NDArray[np.bool_] | None = None) -> None:
    """Of all rows, or of some."""
    if not len(got):
        return
    rows = np.ones(len(got), np.bool_) if rows is None else rows
    with np.errstate(invalid="ignore"):
        difference, bound = np.abs(got - definition(pool, weights)), allowed(pool, weights)
    assert (difference[rows] <= bound[rows]).all(), (difference[rows] / bound[rows]).max()


def assert_step(pool: SupportPool, weights: Weights) -> None:
    """Rows that find no place are left to the caller, and no others."""
    got, left = step(pool, weights)
    assert left.sum() == max(0, len(left) - len(pool.refinement._row))
    assert_near(got, pool, weights, ~left)


def places(pool: SupportPool) -> Index:
    """[A] of the sums of the pool's advanced rows."""
    owners = pool.refinement._row.tolist()
    return np.array([owners.index(row) for row in pool.advanced_rows])


@pytest.mark.isa
@settings(deadline=None, max_examples=60)
@given(st.data())
def test_every_step_is_the_whole_window_s(data: st.DataObject) -> None:
    """Dials may change at every step; frames have any number of proposals; epochs end and begin; one ends with a flush.

    Look-ahead, edges, both sampling rules and T, K, r are among the dials, r above the capacity's too.
    """
    ratio = data.draw(st.sampled_from([0.25, 0.5, 1.0]), "r of the capacity")
    capacity = Dials(window=3, num_support=4, num_reference=6, advanced_ratio=ratio)
    rng = np.random.default_rng(data.draw(st.integers(0, 1000), "seed"))
    weights, window = make_weights(rng), Window(CONFIG, capacity)
    dials, due = data.draw(some_dials(capacity), "dials"), 0
    for _ in range(data.draw(st.integers(1, 25), "steps")):
        event = data.draw(st.sampled_from(["frame"] * 8 + ["dials", "epoch"]), "event")
        if event == "dials":
            dials = data.draw(some_dials(capacity), "dials")
        elif event == "epoch":
            window.reset()
            due = 0
        else:
            n = data.draw(st.integers(0, 6), "proposals")
            window.append(make_frame(rng, n, min(n, 4)))
        # A stream's queue never holds more than T + 1 frames that wait.
        due = max(due, window.newest - capacity.window)
        while due + dials.frames_ahead <= window.newest:
            assert_step(window.pool(due, dials), weights)
            due += 1
    for t in range(due, window.newest + 1):
        assert_step(window.pool(t, dials), weights)


@pytest.mark.isa
@pytest.mark.parametrize(
    ("products", "ring"), [("bfloat16", "float32"), ("float32", "float16"), ("bfloat16", "float16")]
)
def test_a_rounded_ring_is_the_float32_one_s_but_for_rounding(products: cpu.Precision, ring: cpu.RingPrecision) -> None:
    """And what is added is subtracted to the last bit."""
    rng = np.random.default_rng(0)
    dials = Dials(window=2, num_support=5, num_reference=5, advanced_ratio=0.5)
    weights, window, single = make_weights(rng), Window(CONFIG, dials, products, ring), Window(CONFIG, dials)
    geometry = cpu.prepare_geometry(weights.geometry_weight, weights.geometry_bias, products)
    tolerance = 5e-2 if products == "bfloat16" else 5e-3
    for t in range(60):
        frame = make_frame(rng, 5, 5)
        window.append(frame)
        single.append(frame)
        pool = window.pool(max(t - 2, 0), dials)
        got, left = pool.refinement.step(pool, 0, weights.value_bias, geometry, 1)
        assert not left.any()
        np.testing.assert_allclose(got, definition(single.pool(max(t - 2, 0), dials), weights), rtol=0, atol=tolerance)
    pool.refinement.forget()
    anew, _ = pool.refinement.step(pool, 0, weights.value_bias, geometry, 1)
    np.testing.assert_allclose(got, anew, rtol=2e-7, atol=2e-7)
    assert window.nbytes < single.nbytes


def test_rows_without_a_place_are_left_and_others_are_not_disturbed() -> None:
    """The capacity has places for 2 rows a frame, the dials ask for 4."""
    rng = np.random.default_rng(0)
    capacity = Dials(window=2, num_support=4, num_reference=4, advanced_ratio=0.5)
    weights, window = make_weights(rng), Window(CONFIG, capacity)
    for t in range(20):
        window.append(make_frame(rng, 4, 4))
        dials = replace(capacity, advanced_ratio=1.0 if 8 <= t < 12 else 0.5)
        pool = window.pool(max(t - 2, 0), dials)
        got, left = step(pool, weights)
        assert left.sum() == max(0, len(left) - 10)
        assert_near(got, pool, weights, ~left)


@pytest.mark.isa
def test_nothing_is_left_behind_over_many_steps() -> None:
    """After 200 steps the sums are as accurate as sums that began anew; seen: the same to 1e-15."""
    rng = np.random.default_rng(0)
    dials = Dials(window=2, num_support=6, num_reference=6, advanced_ratio=0.5)
    weights, window = make_weights(rng), Window(CONFIG, dials)
    for t in range(200):
        window.append(make_frame(rng, 6, 6))
        pool = window.pool(max(t - 2, 0), dials)
        got, _ = step(pool, weights)
    held, sums = places(pool), [array.copy() for array in pool.refinement._sums]
    pool.refinement.forget()
    anew, _ = step(pool, weights)
    for before, after in zip(sums[:2], pool.refinement._sums, strict=False):
        np.testing.assert_allclose(before[held], after[places(pool)], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(got, anew, rtol=2e-7, atol=2e-7)
    assert_near(got, pool, weights)


@pytest.mark.parametrize("common", [0, 100])
def test_a_step_computes_the_new_frame_s_rows_and_columns_alone(monkeypatch: pytest.MonkeyPatch, common: float) -> None:
    """Also where keys have so much in common that their lengths bound no score."""
    rng = np.random.default_rng(0)
    dials = Dials(window=3, num_support=4, num_reference=4, advanced_ratio=0.5)
    weights, window = make_weights(rng), Window(CONFIG, dials)
    pairs: list[int] = []
    real = cpu.relation_refine

    def watched(*args: Any, counts: Index, change: Float, **others: Any) -> cpu.Refined:
        pairs.append(int(((change != 0) * counts).sum()))
        return real(*args, counts=counts, change=change, **others)

    monkeypatch.setattr(cpu, "relation_refine", watched)
    for t in range(12):
        frame = make_frame(rng, 4, 4)
        window.append(replace(frame, keys=frame.keys + np.float32(common)))
        if t >= 3:
            pool = window.pool(t - 3, dials)
            got, left = step(pool, weights)
            assert not left.any()
            assert_near(got, pool, weights)
    # 7 frames: 12 rows see one frame come and one go, 2 rows are new; at the end no frame stands in for another.
    assert pairs[-2:] == [12 * 8 + 2 * 28] * 2


def test_a_row_is_summed_anew_where_nearly_nothing_is_left() -> None:
    """One frame outweighs all others by 1e9: once it has left, the rest is what cancellation left of it."""
    rng = np.random.default_rng(0)
    dials = Dials(window=1, num_support=4, num_reference=4, advanced_ratio=0.5, edges="clip")
    weights, window = make_weights(rng), Window(CONFIG, dials)
    for t in range(8):
        frame = make_frame(rng, 4, 4)
        # Queries along one direction in each head, keys too: logits of 1, and 30 in frame 2.
        direction = np.tile(np.eye(1, 16, dtype=np.float32), 2)
        keys = np.repeat(direction[None], 4, 1) * np.float32(30 if t == 2 else 1)
        query = np.repeat(direction, 4, 0) * np.float32(4)
        window.append(replace(frame, keys=keys, refine_query=query))
        if t >= 1:
            pool = window.pool(t - 1, dials)
            assert_step(pool, weights)
            peak, normaliser = pool.refinement._sums.peak, pool.refinement._sums.normaliser
            held = places(pool)
            assert (normaliser[held] > 1e-6 * peak[held]).all()
    assert peak[held].max() < 1e3


@pytest.mark.parametrize("scale", [30, 300])
def test_a_frame_of_large_logits_comes_and_goes(scale: float) -> None:
    """Far above those that a row began with, and then far below."""
    rng = np.random.default_rng(0)
    dials = Dials(window=1, num_support=4, num_reference=4, advanced_ratio=0.5, edges="clip")
    weights, window = make_weights(rng), Window(CONFIG, dials)
    for t in range(9):
        window.append(make_frame(rng, 4, 4, key_scale=scale if t in (3, 7) else 1))
        if t >= 1:
            pool = window.pool(t - 1, dials)
            got, left = step(pool, weights)
            assert not left.any()
            assert_near(got, pool, weights)


@pytest.mark.parametrize("bad", ["nan key", "nan value", "nan query", "nan box"])
def test_rows_that_cannot_be_summed_are_left_to_the_caller(bad: str) -> None:
    """And no trace of it stays when the frame has left."""
    rng = np.random.default_rng(0)
    dials = Dials(window=1, num_support=4, num_reference=4, advanced_ratio=0.5, edges="clip")
    weights, window = make_weights(rng), Window(CONFIG, dials)
    left_at = {}
    for t in range(9):
        frame = make_frame(rng, 4, 4)
        if t == 3:
            name = {"key": "keys", "value": "values", "query": "refine_query", "box": "boxes"}[bad.split()[1]]
            getattr(frame, name)[..., 0, :] = np.nan
        window.append(frame)
        if t >= 1:
            pool = window.pool(t - 1, dials)
            got, left = step(pool, weights)
            left_at[t - 1] = left
            assert_near(got, pool, weights, ~left)
    every = {t for t, left in left_at.items() if left.all()}
    some = {t for t, left in left_at.items() if left.any()}
    # Frame 3's own row 0 is refined in the windows of frames 2, 3 and 4.
    assert some == {2, 3, 4}
    assert every == (set() if bad == "nan query" else {2, 3, 4})


def test_a_failing_kernel_leaves_no_half_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    dials = Dials(window=1, num_support=4, num_reference=4, advanced_ratio=0.5)
    weights, window = make_weights(rng), Window(CONFIG, dials)
    for _ in range(5):
        window.append(make_frame(rng, 4, 4))
    assert_step(window.pool(3, dials), weights)
    window.append(make_frame(rng, 4, 4))
    real = cpu.relation_refine

    def failing(*args: Any, **others: Any) -> cpu.Refined:
        real(*args, **others)
        raise MemoryError

    pool = window.pool(4, dials)
    with monkeypatch.context() as patch:
        patch.setattr(cpu, "relation_refine", failing)
        with pytest.raises(MemoryError):
            step(pool, weights)
    assert_step(pool, weights)


def sliding_case(threads: int = 1) -> Float:
    """Six steps of a larger stream, the refined rows of each."""
    rng = np.random.default_rng(3)
    dials = Dials(window=4, num_support=90, num_reference=90, advanced_ratio=0.9)
    weights, window = make_weights(rng), Window(CONFIG, dials)
    outs = []
    for t in range(12):
        window.append(make_frame(rng, 90, 90))
        if t >= 4:
            pool = window.pool(t - 4, dials)
            outs.append(pool.refinement.step(pool, 0, weights.value_bias, weights.geometry, threads)[0])
    assert_step(window.pool(7, dials), weights)
    return np.concatenate(outs)


def test_threads_do_not_change_a_bit() -> None:
    one = sliding_case()
    for threads in (2, 7):
        np.testing.assert_array_equal(sliding_case(threads), one)


def test_every_instruction_set_agrees(tmp_path: Path) -> None:
    names = ("baseline", "avx2", "avx512", "avx512_bf16")
    here = sliding_case()
    code = (
        "import sys, numpy; from tests.host.test_refinement import sliding_case, _C; "
        "numpy.savez(sys.argv[1], isa=_C.isa, out=sliding_case())"
    )
    for isa in names[: names.index(_C.isa)]:
        saved = tmp_path / f"{isa}.npz"
        environment = os.environ | {"RDN_ISA": isa, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", code, str(saved)], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        with np.load(saved) as results:
            assert results["isa"] == isa
            np.testing.assert_allclose(results["out"], here, rtol=0, atol=2e-5)
