"""roi_pool against the float64 definition in reference.py (test_torchvision.py compares it with torchvision)."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rdn_engine.config import RoIConfig
from rdn_engine.kernels import cpu
from tests import reference

pytestmark = pytest.mark.isa

seeds = st.integers(0, 2**32 - 1)
# Quarters of a pixel: a scale of 1/4 or 1/16 then rounds nothing, so both sides see the same number of samples.
coordinates = st.integers(-400, 1200).map(lambda quarters: quarters / 4)
one_box = st.one_of(
    st.tuples(coordinates, coordinates, coordinates, coordinates),  # inverted ones too
    st.tuples(coordinates, coordinates).map(lambda corner: (*corner, *corner)),
)


def random_map(seed: int, batch: int, height: int, width: int, channels: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((batch, height, width, channels)).astype(np.float32)


def on_the_rim(box, scale, size, height, width) -> bool:
    """Whether a sample lies where the map ends, give or take rounding: there roi_align jumps to 0."""
    for low, high, extent in ((box[0], box[2], width), (box[1], box[3], height)):
        side = max((high - low) * scale, 1) / size
        samples = int(np.ceil(side))
        points = low * scale + (np.arange(size * samples) + 0.5) * side / samples
        if np.min(np.abs(np.concatenate([points + 1, points - extent]))) < 1e-3:
            return True
    return False


@settings(deadline=None, max_examples=150)
@given(
    seeds,
    st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.sampled_from([0, 1, 3, 16, 21])),
    st.lists(one_box, max_size=4),
    st.sampled_from([1 / 16, 1 / 4]),
    st.integers(1, 7),
    st.sampled_from(["align", "max"]),
)
def test_equals_reference(seed, shape, boxes, scale, size, pooling):
    assume(pooling == "max" or not any(on_the_rim(box, scale, size, *shape[1:3]) for box in boxes))
    feature_map = random_map(seed, *shape)
    array = np.array(boxes, np.float32).reshape(-1, 4)
    images = np.random.default_rng(seed).integers(0, shape[0], len(boxes))
    rows = cpu.roi_pool(feature_map, array, images, config=RoIConfig(pooling, size), scale=scale)
    assert rows.shape == (len(boxes), cpu.pooled_width(size, shape[3]))
    assert not rows[:, size * size * shape[3] :].any()
    got = reference.cells(rows, size, shape[3])
    one = reference.roi_align if pooling == "align" else reference.roi_max
    for roi, image in enumerate(images):
        wanted = one(feature_map[image].astype(np.float64), array[roi], scale, size)
        np.testing.assert_allclose(got[roi], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pooling", ["align", "max"])
def test_a_box_far_larger_than_the_map_ends_soon_and_finite(pooling):
    feature_map = random_map(0, 1, 6, 7, 5)
    boxes = np.array([[-1e9, -1e9, 1e9, 1e9], [-3e38, 0, 3e38, 50], [1e30, 1e30, 1e30, 1e30]], np.float32)
    got = cpu.roi_pool(feature_map, boxes, np.zeros(3, np.int64), config=RoIConfig(pooling, 7), scale=1 / 16)
    assert np.isfinite(got).all()
    assert not got[2].any()


def test_max_pooling_of_57_cells_in_7_bins_ends_a_cell_late():
    # torchvision's rule: findings/roi_pool_reads_outside_its_box.sh
    feature_map = np.zeros((1, 60, 60, 1), np.float32)
    feature_map[0, 57, :] = 1
    rows = cpu.roi_pool(
        feature_map,
        np.array([[0, 0, 56, 56]], np.float32),
        np.zeros(1, np.int64),
        config=RoIConfig("max", 7),
        scale=1.0,
    )
    got = reference.cells(rows, 7, 1)
    assert got[0, 6].all()
    assert not got[0, 5].any()


@pytest.mark.parametrize(("side", "cell"), [(0.5, 1), (2.5, 3), (3.4375, 3), (-0.5, 0)])
def test_max_pooling_rounds_halves_away_from_zero(side, cell):
    feature_map = np.broadcast_to(np.arange(6, dtype=np.float32)[:, None], (1, 6, 6, 1))
    box = np.array([[side, side, side, side]], np.float32)
    got = cpu.roi_pool(feature_map, box, np.zeros(1, np.int64), config=RoIConfig("max", 1), scale=1.0)
    assert reference.cells(got, 1, 1).item() == cell  # at -1 the bin is off the map, so 0


def test_rows_lie_in_different_lines_of_a_cache():
    for size, channels in ((7, 2048), (7, 256), (7, 1), (5, 64), (1, 0)):
        width = cpu.pooled_width(size, channels)
        assert 0 <= width - size * size * channels <= 128
        starts = 4 * width * np.arange(12)  # bytes; the lines of a way of the first-level cache repeat after 4096
        assert len(np.unique(starts // 64 % 64)) == 12


def test_zeros_follow_the_cells_in_memory_that_was_used_before():
    feature_map, boxes = np.ones((1, 9, 9, 129), np.float32), np.tile(np.float32([0, 0, 140, 140]), (80, 1))
    for size, pooling in ((7, "align"), (6, "max"), (7, "max")):
        rows = cpu.roi_pool(feature_map, boxes, np.zeros(80, np.int64), config=RoIConfig(pooling, size), scale=1 / 16)
        assert (rows[:, : size * size * 129] == 1).all()
        assert rows.shape[1] > size * size * 129
        assert not rows[:, size * size * 129 :].any()


@pytest.mark.parametrize("pooling", ["align", "max"])
def test_threads_and_layout_do_not_change_a_bit(pooling):
    feature_map = random_map(2, 2, 20, 14, 257)
    boxes = np.random.default_rng(3).uniform(-50, 300, (400, 4)).astype(np.float32)  # enough to wake threads
    images = np.arange(400) % 2
    one = cpu.roi_pool(feature_map, boxes, images, config=RoIConfig(pooling, 7), scale=1 / 16)
    channels_first = np.ascontiguousarray(feature_map.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    many = cpu.roi_pool(
        channels_first, np.asfortranarray(boxes), images, config=RoIConfig(pooling, 7), scale=1 / 16, threads=3
    )
    np.testing.assert_array_equal(one, many)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"feature_map": np.zeros((3, 3, 2), np.float32)}, r"float32 \[3, 3, 2\]"),
        ({"feature_map": np.zeros((1, 3, 3, 2))}, r"float64 \[1, 3, 3, 2\]"),
        ({"feature_map": np.zeros((1, 0, 3, 2), np.float32)}, r"\(0, 3\)"),
        ({"boxes": np.zeros((2, 5), np.float32)}, r"\[2, 5\]"),
        ({"boxes": np.array([[0, 0, 1, 1], [0, np.nan, 1, 1]], np.float32)}, "finite, got nan at flat position 5"),
        ({"image_index": np.array([0])}, r"R = 2.*\[1\]"),
        ({"image_index": np.array([0, 1])}, r"0\.\.0, got 1 at flat position 1"),
        ({"image_index": np.array([-1, 0])}, "got -1 at flat position 0"),
        ({"image_index": np.zeros(2, np.int32)}, "int32"),
        ({"scale": 0.0}, "scale.*got 0"),
        ({"threads": 0}, "threads.*got 0"),
    ],
)
def test_refuses(change, message):
    good = {
        "feature_map": np.zeros((1, 3, 3, 2), np.float32),
        "boxes": np.zeros((2, 4), np.float32),
        "image_index": np.zeros(2, np.int64),
        "config": RoIConfig("align", 2),
        "scale": 1 / 16,
    }
    with pytest.raises(ValueError, match=message):
        cpu.roi_pool(**(good | change))


def test_large_results_reuse_memory_that_nobody_holds():
    feature_map = random_map(0, 1, 8, 9, 256)
    boxes = np.random.default_rng(0).uniform(0, 120, (40, 4)).astype(np.float32)

    def pool(rows: int = 40, sign: int = 1) -> np.ndarray:
        return cpu.roi_pool(
            sign * feature_map, boxes[:rows], np.zeros(rows, np.int64), config=RoIConfig("align", 7), scale=1 / 16
        )

    first, second = pool(), pool()
    assert not np.shares_memory(first, second)
    np.testing.assert_array_equal(first, second)
    address, part = first.ctypes.data, first[3:5]
    kept = part.copy()
    del first
    other = pool(sign=-1)
    np.testing.assert_array_equal(part, kept)  # a view holds the memory too
    np.testing.assert_array_equal(other, -second)
    del part
    again = pool(rows=39)
    assert again.ctypes.data == address
    np.testing.assert_array_equal(again, second[:39])
