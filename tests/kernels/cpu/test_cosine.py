"""The cosine attention's kernels: exact products, and what they refuse. Their results are tested in tests/host."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdn_engine.kernels import cpu

pytestmark = pytest.mark.isa


@settings(deadline=None, max_examples=80)
@given(
    n=st.integers(0, 30),
    depth=st.integers(1, 300),
    columns=st.integers(1, 70),
    threads=st.integers(1, 3),
    seed=st.integers(0, 2**32),
)
def test_exact_products_are_those_of_float64(n, depth, columns, threads, seed):
    rng = np.random.default_rng(seed)
    x, weight = (rng.standard_normal(shape, dtype=np.float32) for shape in ((n, depth), (columns, depth)))
    bias = rng.standard_normal(columns)
    got = cpu.linear_exact(x, cpu.pack_weight(weight), bias, threads=threads)
    bound = 2.0**-53 * (depth + 2) * (np.abs(x) @ np.abs(np.float64(weight)).T + np.abs(bias))
    assert got.shape == (n, columns)
    assert (np.abs(got - (np.float64(x) @ np.float64(weight).T + bias)) <= bound).all()


@pytest.mark.parametrize("slots", [1, 40])  # of a few pages, and of huge ones
def test_an_empty_bank_is_zero_and_its_arrays_lie_apart_from_whole_cache_lines_on(slots):
    bank, sums = cpu.empty_cosine(slots, room=48, heads=4, head_dim=32, masks=1)
    arrays = (*bank, *sums)
    assert not any(array.any() for array in arrays)
    for i, array in enumerate(arrays):
        assert array.ctypes.data % 64 == 0
        array.fill(i + 1)
    assert all((array == i + 1).all() for i, array in enumerate(arrays))


def packed(rows=3, room=16):
    """A bank of two slots, and the arguments that write to its first."""
    bank, sums = cpu.empty_cosine(2, room=room, heads=2, head_dim=16, masks=1)
    projected = tuple(np.ones((rows, 96)) for _ in range(2))
    return bank, sums, projected, tuple(np.ones(rows, np.float32) for _ in range(2))


def test_a_frame_must_fit_its_slot():
    bank, _, projected, scores = packed()
    cpu.pack_cosine(projected, scores, bank, slot=0)
    _, _, many, ones = packed(rows=17)
    for message, call in (
        ("n must be at most C = 16, got float64 .17, 96.", lambda: cpu.pack_cosine(many, ones, bank, slot=0)),
        ("slot must lie in 0..slots-1 with slots = 2, got 2", lambda: cpu.pack_cosine(projected, scores, bank, slot=2)),
        ("wanted contiguous float64 projected_cls .n, 3 M d = 96., got float64 .3, 95.",
         lambda: cpu.pack_cosine((projected[0][:, 1:], projected[1]), scores, bank, slot=0)),
        ("projected_reg .n = 3, 3 M d = 96., got float64 .2, 96.",
         lambda: cpu.pack_cosine((projected[0], projected[1][1:]), scores, bank, slot=0)),
        ("scores must lie in 0..1, got 2",
         lambda: cpu.pack_cosine(projected, (scores[0], scores[1] * 2), bank, slot=0)),
        ("wanted contiguous float32 keys .slots = 2, 2, M = 2, C / 16 with C = 16, d = 16, 16.",
         lambda: cpu.pack_cosine(projected, scores, bank._replace(keys=bank.keys[:1]), slot=0)),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            call()


def test_rows_and_frames_must_be_the_bank_s():
    bank, sums, projected, scores = packed()
    cpu.pack_cosine(projected, scores, bank, slot=0)

    def refine(slots=(0, 1), counts=(3, 0), summed=2, included=0, sums=sums):
        held = np.full((2, 2), included, np.int8)
        cpu.cosine_refine(
            np.array(slots, np.int64),
            np.array(counts, np.int64),
            bank=bank,
            sums=sums,
            summed=np.zeros(summed, np.int64),
            included=held,
        )
        return held

    assert refine().all()
    for message, wrong in (
        ("slot must lie in 0..slots-1 with slots = 2, got 2", {"slots": (0, 2)}),
        ("slot must lie in 0..slots-1 with slots = 2, got -1", {"slots": (-1,)}),
        ("slots must be distinct, got 1 at 0 and 1", {"slots": (1, 1)}),
        ("counts .slots = 2., got int64 .1.", {"counts": (3,)}),
        ("counts must lie in 0..C with C = 16, got 17 at 0", {"counts": (17, 0)}),
        ("summed .slots = 2., got int64 .3.", {"summed": 3}),
        ("included must be 0 or 1, got -1", {"included": -1}),
        ("wanted contiguous float64 peak .2, M = 2, R = 32., got float64 .2, 2, 31.",
         {"sums": sums._replace(peak=np.zeros((2, 2, 31)))}),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            refine(**wrong)
    for message, wrong in (
        ("rows must lie in 0..C with C = 16, got 17", {"rows": 17}),
        ("thresholds .masks = 1., got float32 .2.", {"thresholds": np.ones(2, np.float32)}),
        ("0 <= a <= b <= S = 3, got .2, 4.", {"omega_range": (2, 4)}),
        ("0 <= a <= b <= S = 3, got .2, 1.", {"omega_range": (2, 1)}),
    ):
        arguments = {"slot": 0, "rows": 3, "thresholds": np.float32([0.75])} | wrong
        with pytest.raises(ValueError, match=message):
            cpu.cosine_average(
                bank=bank, sums=sums, slots=np.array([0], np.int64), counts=np.array([3], np.int64), **arguments
            )


def test_a_bank_that_is_read_only_is_not_written_to():
    bank, _, projected, scores = packed()
    bank.values.flags.writeable = False
    with pytest.raises(ValueError, match="wanted a writable values"):
        cpu.pack_cosine(projected, scores, bank, slot=0)


def test_past_frames_must_fit_each_other():
    arguments = {
        "past": np.zeros((2, 4, 8), np.float32),
        "past_length": np.zeros((2, 4)),
        "past_boxes": np.zeros((2, 4, 4), np.float32),
        "past_score": np.zeros((2, 4), np.float32),
        "counts": np.array([4, 0], np.int64),
    }
    x, boxes, score = np.zeros((3, 8), np.float32), np.zeros((3, 4), np.float32), np.zeros(3, np.float32)
    assert cpu.local_average(x, boxes, score, **arguments).out.shape == (3, 8)
    for message, wrong in (
        ("past .F, C, D = 8., got float32 .2, 4, 7.", {"past": np.zeros((2, 4, 7), np.float32)}),
        ("past_boxes .F = 2, C = 4, 4., got", {"past_boxes": np.zeros((2, 3, 4), np.float32)}),
        ("counts must lie in 0..C with C = 4, got 5 at 1", {"counts": np.array([4, 5], np.int64)}),
    ):
        with pytest.raises(ValueError, match=message):
            cpu.local_average(x, boxes, score, **arguments | wrong)
