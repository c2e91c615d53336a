"""The kernels between the encoder's output and a stream's memory, against what numpy makes of the same arrays."""

from __future__ import annotations

import numpy as np
import pytest

from rdn_engine.kernels import cuda
from rdn_engine.kernels.cuda.ring import RingRows
from tests.cuda_machines import fill

SLOTS, STRIDE, ROWS, WIDTH, PLANES = 3, 16, 5, 8, 2


@pytest.mark.parametrize("ring_kind", [np.float32, np.float16])
@pytest.mark.parametrize("dense_kind", [np.float32, np.float16])
def test_a_frame_goes_into_its_slot_and_comes_out_again(machine, dense_kind, ring_kind):
    rng = np.random.default_rng(0)
    k, put, get = machine.kernels, machine.put, machine.get
    ring, scores = fill(machine, (PLANES, SLOTS * STRIDE, WIDTH), ring_kind), fill(machine, (1, SLOTS * STRIDE, 1))
    counts = put(np.full(SLOTS, -1, np.int32))
    frames = {}
    for number in range(7):
        # Two frames side by side, as a batch has them: the planes of one lie apart.
        batch = rng.standard_normal((PLANES, 2 * ROWS, WIDTH)).astype(dense_kind)
        both, objectness = put(batch), rng.random((1, ROWS, 1)).astype(np.float32)
        rows = [RingRows(both[:, ROWS:], ring, STRIDE), RingRows(put(objectness), scores, STRIDE)]
        count = put(np.array([number], np.int32))
        cuda.copy_ring(k, rows, number=put(np.array([number])), count=count, ring_counts=counts, store=True)
        frames[number] = batch[:, ROWS:], objectness
    assert get(counts).tolist() == [6, 4, 5]
    for number in (4, 5, 6):
        out, count = fill(machine, (PLANES, 3, WIDTH), ring_kind), fill(machine, 1, np.int32)
        score = fill(machine, (1, 3, 1))
        rows = [RingRows(out, ring, STRIDE), RingRows(score, scores, STRIDE)]
        cuda.copy_ring(k, rows, number=put(np.array([number])), count=count, ring_counts=counts, store=False, most=5)
        batch, objectness = frames[number]
        assert get(count).tolist() == [min(number, 5)]
        np.testing.assert_array_equal(get(out), batch[:, :3].astype(ring_kind))
        np.testing.assert_array_equal(get(score), objectness[:, :3])
    untouched = get(scores).reshape(SLOTS, STRIDE)[:, ROWS:]
    assert np.isnan(untouched).all()


def test_more_rows_than_a_slot_has_are_refused(machine):
    put = machine.put
    rows = RingRows(put(np.zeros((1, 9, 4), np.float32)), put(np.zeros((1, 16, 4), np.float32)), 8)
    with pytest.raises(RuntimeError, match="CUDA"):
        cuda.copy_ring(
            machine.kernels,
            [rows],
            number=put(np.array([0])),
            count=put(np.array([1], np.int32)),
            ring_counts=put(np.zeros(2, np.int32)),
            store=True,
        )


def test_numbers_are_those_of_the_call(machine):
    numbers = fill(machine, 2, np.int64)
    cuda.set_numbers(machine.kernels, numbers, frame=2**40, newest=-1)
    assert machine.get(numbers).tolist() == [2**40, -1]


def test_rows_are_taken(machine):
    source = np.arange(40, dtype=np.float32).reshape(10, 4)
    rows, out = np.array([9, 0, 3, 3], np.int32), fill(machine, (4, 4))
    cuda.take_rows(machine.kernels, machine.put(source), machine.put(rows), out=out)
    np.testing.assert_array_equal(machine.get(out), source[rows])


@pytest.mark.parametrize("kind", [np.float32, np.float16])
@pytest.mark.parametrize("relu", [False, True])
def test_bias_and_relu(machine, kind, relu):
    rng = np.random.default_rng(1)
    x, bias = rng.standard_normal((7, 36)).astype(kind), rng.standard_normal(36).astype(np.float32)
    wanted = x.astype(np.float32) + bias
    x = machine.put(x)
    cuda.add_bias(machine.kernels, x, machine.put(bias), relu=relu)
    np.testing.assert_array_equal(machine.get(x), (np.maximum(wanted, 0) if relu else wanted).astype(kind))
