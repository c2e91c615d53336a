"""The window's lists on the device against their definition, and the refinement that slides over them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from rdn_engine.kernels import cuda
from rdn_engine.kernels.cuda.relation import Attention, Partials, Queries, Supports
from rdn_engine.kernels.cuda.window import Ring, SlideLists
from tests import reference, reference_relation
from tests.cuda_machines import Machine, fill
from tests.kernels.cuda.test_relation import make_case, relative_error


def window_definition(t: int, newest: int, before: int, ahead: int, replicate: bool) -> dict[int, int]:
    """Frame -> how often it counts."""
    last = min(t + ahead, newest)
    frames = [n for n in range(t - before, t + ahead + 1) if replicate or 0 <= n <= last]
    clamped = [min(max(n, 0), last) for n in frames]
    return {n: clamped.count(n) for n in set(clamped)}


SLOTS, STRIDE, ROOM = 5, 6, 16


def ring_of(machine: Machine, t: int, newest: int, counts: np.ndarray, ahead: int, k: int, replicate: bool) -> Ring:
    frame, last = (machine.put(np.array([number], np.int64)) for number in (t, newest))
    return Ring(frame, last, machine.put(counts), STRIDE, 2, ahead, k, replicate)


@pytest.mark.parametrize("replicate", [False, True])
@pytest.mark.parametrize(("t", "newest", "ahead"), [(0, 0, 2), (0, 2, 2), (1, 1, 0), (7, 9, 2), (9, 9, 2), (8, 9, 1)])
def test_window_and_slide_list_the_frames_of_the_window(machine, t, newest, ahead, replicate):
    counts = np.array([6, 0, 3, 5, 6], np.int32)
    ring = ring_of(machine, t, newest, counts, ahead, 4, replicate)
    repeats = window_definition(t, newest, 2, ahead, replicate)
    rows, multiplicity = fill(machine, (3 + ahead, 8), np.int32), fill(machine, (3 + ahead, 8))
    cuda.list_window(machine.kernels, ring, rows, multiplicity)
    got = machine.get(rows)[machine.get(multiplicity) > 0]
    wanted = [n % SLOTS * STRIDE + k for n in sorted(repeats) for k in range(min(4, counts[n % SLOTS]))]
    assert got.tolist() == wanted
    often = machine.get(multiplicity)
    assert often[often > 0].tolist() == [repeats[n] for n in sorted(repeats) for _ in range(min(4, counts[n % SLOTS]))]

    lists = slide_lists(machine)
    cuda.list_slide(machine.kernels, ring, 2, lists)
    by_slot = {n % SLOTS: times for n, times in repeats.items()}
    assert machine.get(lists.slot_repeats).tolist() == [by_slot.get(slot, 0) for slot in range(SLOTS)]
    slot = newest % SLOTS
    assert machine.get(lists.new_slot) == slot
    present = [
        min(4, counts[s]) if s in {n % SLOTS for n in range(max(0, newest - 4), newest + 1)} else 0 for s in range(5)
    ]
    assert machine.get(lists.multiplicity).sum(1).tolist() == present
    assert machine.get(lists.new_multiplicity).sum() == present[slot]
    np.testing.assert_array_equal(machine.get(lists.new_rows), machine.get(lists.rows)[slot])
    np.testing.assert_array_equal(machine.get(lists.new_places), slot * ROOM + np.arange(ROOM))
    taken = machine.get(lists.advanced_multiplicity)
    assert taken.sum(1).tolist() == [by_slot.get(s, 0) * min(2, present[s]) for s in range(SLOTS)]


def slide_lists(machine: Machine) -> SlideLists:
    def ints(*shape: int) -> Any:
        return fill(machine, shape, np.int32)

    return SlideLists(
        ints(SLOTS, 16), fill(machine, (SLOTS, 16)), fill(machine, SLOTS),
        ints(SLOTS, ROOM), fill(machine, (SLOTS, ROOM)),
        ints(1), ints(16), fill(machine, 16), ints(ROOM), ints(ROOM),
    )  # fmt: skip


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("whole_pool", [False, True])
@pytest.mark.parametrize("levels", [3, 1000])
def test_sampling_takes_what_the_definition_takes(machine, whole_pool, ratio, levels):
    rng = np.random.default_rng(levels)
    frames, stride, most = 5, 16, 11
    rows = rng.permutation(frames * stride).reshape(frames, stride).astype(np.int32)
    counts = rng.integers(0, most + 1, frames)
    multiplicity = np.where(np.arange(stride) < counts[:, None], rng.integers(1, 4, (frames, 1)), 0).astype(np.float32)
    objectness = (rng.integers(0, levels, frames * stride) / levels).astype(np.float32)
    capacity = cuda.advanced_capacity(machine.kernels, frames, most, ratio, whole_pool)
    assert capacity % 16 == 0
    positions, taken, counted = (fill(machine, capacity, dtype) for dtype in (np.int32, np.int32, np.float32))
    pool = machine.put(objectness), machine.put(rows), machine.put(multiplicity)
    cuda.sample_advanced(machine.kernels, *pool, most, ratio, whole_pool, positions, taken, counted)
    positions, taken, counted = (machine.get(array) for array in (positions, taken, counted))

    there = np.flatnonzero(multiplicity.ravel() > 0)
    starts = [0, *np.cumsum(counts).tolist()]
    assert [b - a for a, b in pairwise(starts)] == counts.tolist()
    wanted = reference.sample_advanced(
        objectness[rows.ravel()[there]], multiplicity.ravel()[there], starts, ratio, most,
        "global" if whole_pool else "per_frame",
    )  # fmt: skip
    chosen = counted > 0
    # The pool with repeats can be larger than what its frames hold once; the room is for that.
    assert dict(zip(positions[chosen].tolist(), counted[chosen].tolist(), strict=True)) == {
        int(there[j]): times for j, times in list(wanted.items())[: capacity if whole_pool else None]
    }
    assert (np.diff(positions[chosen]) > 0).all()
    np.testing.assert_array_equal(taken[chosen], rows.ravel()[positions[chosen]])


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_sliding_refinement_equals_refining_everything_at_every_step(machine, kind):
    """A stream of 9 frames through a ring of 5: what is kept and what is new give what the definition gives."""
    k, put = machine.kernels, machine.put
    rng = np.random.default_rng(3)
    heads, head_dim, taken, support = 2, 16, 2, 4
    dim, storage = heads * head_dim, SLOTS * STRIDE
    boxes, counts = np.zeros((storage, 4), np.float32), np.zeros(SLOTS, np.int32)
    arrays = {name: np.zeros((storage, dim), np.float32) for name in ("query", "keys", "values")}
    case = make_case(1, 1, heads, head_dim)
    weight, bias = case["geometry_weight"], case["geometry_bias"]
    places = SLOTS * ROOM
    partials = Partials(fill(machine, (SLOTS, places, dim)), fill(machine, (SLOTS, places, heads, 2)))
    for newest in range(9):
        slot = newest % SLOTS
        counts[slot] = rng.integers(1, STRIDE + 1)
        rows = slice(slot * STRIDE, slot * STRIDE + counts[slot])
        boxes[rows] = np.cumsum(rng.uniform(5, 80, (counts[slot], 2, 2)), 1).reshape(-1, 4)
        for array in arrays.values():
            array[rows] = rng.standard_normal((counts[slot], dim)).astype(kind)
        t = max(newest - 2, 0)
        ring, lists = ring_of(machine, t, newest, counts, 2, support, True), slide_lists(machine)
        cuda.list_slide(k, ring, taken, lists)

        def attend(queries: Queries, supports: Supports, split_size: int, **places: Any) -> None:
            n, count = queries.rows.size, supports.rows.size
            workspace = fill(machine, cuda.geometry_bytes(k, n, count), np.uint8)
            stored = [put(arrays[name].astype(kind)) for name in ("query", "keys", "values")]
            attention = Attention(*stored, put(weight), put(bias))
            if kind is np.float16:
                gates = fill(machine, (1, heads, n, count), np.float16)
                geometry = put(weight[None]), put(bias[None])
                cuda.find_gates(k, queries, supports, *geometry, gates, workspace)
                attention = Attention(*stored, gates=gates.reshape(heads, n, count))
            cuda.attend(k, queries, supports, attention, split_size, partials, workspace=workspace, **places)

        stored_boxes = put(boxes)
        every = Supports(stored_boxes, lists.rows.reshape(-1), lists.multiplicity.reshape(-1))
        attend(Queries(stored_boxes, lists.new_advanced_rows), every, 16, query_places=lists.new_places)
        new = Supports(stored_boxes, lists.new_rows, lists.new_multiplicity)
        attend(Queries(stored_boxes, lists.advanced_rows.reshape(-1)), new, 16, split_places=lists.new_slot)
        out = fill(machine, (places, dim))
        cuda.combine(k, partials, out, split_count=lists.slot_repeats)

        often = window_definition(t, newest, 2, 2, True)
        pool = [
            (n % SLOTS * STRIDE + j, often[n]) for n in sorted(often) for j in range(min(support, counts[n % SLOTS]))
        ]
        rows_of_pool, multiplicity = np.array([p for p, _ in pool]), np.array([m for _, m in pool], np.float64)
        chosen = np.flatnonzero(machine.get(lists.advanced_multiplicity).ravel())
        at = machine.get(lists.advanced_rows).ravel()[chosen]
        wanted = reference_relation.relation(
            arrays["query"][at],
            boxes[at],
            arrays["keys"],
            arrays["values"],
            boxes,
            rows_of_pool,
            multiplicity,
            weight,
            bias,
        )
        assert relative_error(machine.get(out)[chosen], wanted) < (2e-5 if kind is np.float32 else 3e-3)
