"""What the online head remembers beside its window, against its definition and Python's own shuffle."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdn_engine.errors import ConfigError
from rdn_engine.host.cosine_memory import LocalAverage, ShuffledMemory
from tests.reference_cosine import average

pytestmark = pytest.mark.isa

DATA = Path(__file__).resolve().parents[1] / "data" / "parity_yolov" / "expected.npz"
UNIT = 2.0**-24


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Around three places, so that about a third overlap."""
    corner = rng.integers(0, 3, (count, 1)) * 100 + rng.uniform(0, 30, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(5, 60, (count, 2))], 1).astype(np.float32)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    dim=st.sampled_from([5, 32, 512]),
    frames=st.integers(1, 4),
    threads=st.integers(1, 2),
)
def test_results_are_averaged_with_those_of_the_last_frames(seed, dim, frames, threads):
    rng = np.random.default_rng(seed)
    local = LocalAverage(dim, frames=frames, proposals=12, threads=threads)
    assert local.nbytes == LocalAverage.nbytes_for(dim, frames=frames, proposals=12)
    past, mean = [], rng.standard_normal((3, dim))
    for _ in range(7):
        n = int(rng.integers(0, 13))
        out = (mean[rng.integers(0, 3, n)] + rng.standard_normal((n, dim))).astype(np.float32)
        frame = out, random_boxes(rng, n), rng.random(n, np.float32), rng.random(n, np.float32)
        got = local(*frame)
        assert got.shape == (n, dim)
        if past:
            memory = tuple(np.concatenate(part) for part in zip(*past[-frames:], strict=True))
            found = average(*frame, memory)
            # The exponent is 25 times a cosine, a sum of dim terms; weights that are off by a factor 1 + e move a mean
            # by at most 2 e times the terms' sizes. A score within one rounding of the margin decides either way.
            e = 25 * UNIT * (dim + 4)
            bound = e * found["weights"] @ np.abs(memory[0]) + 4 * UNIT * (np.abs(found["out"]) + np.abs(out))
            assert (np.abs(got - found["out"]) <= bound).all()
        else:
            assert (got == out).all()
        past.append(frame)


def test_a_box_that_overlaps_nothing_keeps_its_own_result():
    local = LocalAverage(4, frames=2, proposals=3)
    out, ones = np.arange(8, dtype=np.float32).reshape(2, 4), np.ones(2, np.float32)
    boxes = np.float32([[0, 0, 10, 10], [20, 20, 30, 30]])
    local(out, boxes, ones, ones)
    moved = boxes + np.float32([[0], [10]])  # the second touches where it was
    got = local.average(out + 1, moved, ones, ones, whole=True)
    assert (got.out[0] == out[0] + 0.5).all()
    assert (got.out[1] == out[1] + 1).all()
    assert np.allclose(got.weights, [[1, 0], [0, 0]], rtol=1e-6, atol=0)


def test_overlaps_are_rounded_as_the_public_code_rounds_them():
    """0.1 is no float16; two past rows of which one overlaps by it, and the other, the same row, wholly."""
    local = LocalAverage(16, frames=1, proposals=2)
    ones, row = np.ones(2, np.float32), np.ones((2, 16), np.float32)
    local(row, np.float32([[0, 0, 10, 10], [0, 0, 1, 10]]), ones, ones)
    got = local.average(row[:1], np.float32([[0, 0, 10, 10]]), ones[:1], ones[:1], whole=True)
    tenth = float(np.float16(0.1))
    assert np.allclose(got.weights, [[1 / (1 + tenth), tenth / (1 + tenth)]], rtol=1e-6, atol=0)


def test_a_new_epoch_forgets():
    rng = np.random.default_rng(0)
    local = LocalAverage(8, frames=2, proposals=3)
    frame = np.ones((3, 8), np.float32), random_boxes(rng, 3), np.ones(3, np.float32), np.ones(3, np.float32)
    local(*frame)
    local.clear()
    other = 2 * frame[0], *frame[1:]
    assert (local(*other) == other[0]).all()


@pytest.mark.parametrize(("frames", "kept"), [(2, 3), (31, 600)])
def test_the_public_order_is_one_list_that_is_shuffled_again_and_again(frames, kept):
    memory, listed = ShuffledMemory(frames=frames, kept=kept), []
    for t in range(kept + 20):
        chosen = memory()
        if t < 2:
            assert chosen is None
        else:
            random.seed(42)
            random.shuffle(listed)
            assert chosen == listed[:frames]
        listed = [*listed, t][-kept:]
        assert memory.append(t) == listed
    memory.clear()
    assert memory() is None


def test_the_public_order_is_what_the_public_code_took():
    """700 steps, of which the list loses a hundred; tests/host/test_cosine_parity.py says where the data are from."""
    with np.load(DATA, allow_pickle=False) as packed:
        table = packed["memory_table"]
    memory = ShuffledMemory()
    for t, wanted in enumerate(table):
        chosen = memory() or []
        assert chosen == [step for step in wanted.tolist() if step >= 0]
        memory.append(t)
    assert t == 699


def test_bad_sizes_are_refused():
    with pytest.raises(ConfigError, match="local memory of 0 frames of 3 proposals"):
        LocalAverage(8, frames=0, proposals=3)
    with pytest.raises(ConfigError, match="memory keeps 30 frames and gives 31"):
        ShuffledMemory(kept=30)
