"""propose, detect, suppress and sample_advanced against the float64 definition in reference.py."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rdn_engine.config import DetectionConfig, Dials, RPNConfig
from rdn_engine.kernels import _C, cpu
from tests import reference

pytestmark = pytest.mark.isa

# Float32 decides as float64 does where no IoU, score or gap between scores is nearer to its limit than this.
MARGIN = 1e-5
WEIGHTS = (10.0, 10.0, 5.0, 5.0)
IMAGE = (96, 144)

seeds = st.integers(0, 2**32 - 1)
quick = settings(deadline=None, max_examples=150)


def proposal_inputs(seed: int, batch: int, grid: tuple[int, int], anchors: int, spread: float):
    rng = np.random.default_rng(seed)
    count = grid[0] * grid[1] * anchors
    half = rng.uniform(2, 60, (anchors, 2))
    cells = np.concatenate([7.5 - half, 7.5 + half], 1).astype(np.float32)
    # One decimal makes equal scores common.
    objectness = rng.random((batch, count)).round(1).astype(np.float32)
    deltas = (rng.standard_normal((batch, count, 4)) * spread).astype(np.float32)
    return objectness, deltas, cells


def propose(objectness, deltas, grid, cells, top, threshold, most, network_size=IMAGE, threads=1):
    config = RPNConfig(pre_nms_top_n=top, nms_threshold=threshold)
    return cpu.propose(
        objectness, deltas, grid=grid, network_size=network_size, cell_anchors=cells, config=config, max_proposals=most,
        threads=threads,
    )  # fmt: skip


def detect(logits, deltas, boxes, score_threshold, nms_threshold, most, threads=1):
    config = DetectionConfig(nms_threshold, most, WEIGHTS)
    return cpu.detect(
        logits, deltas, boxes, network_size=IMAGE, config=config, score_threshold=score_threshold, threads=threads
    )


def wanted_proposals(objectness, deltas, grid, cells, image, dials, image_size=IMAGE):
    everywhere = reference.anchors(grid, cells, 16)
    with np.errstate(over="ignore", invalid="ignore"):
        return reference.propose(objectness[image], deltas[image], everywhere, image_size, *dials)


@quick
@given(
    seeds,
    st.integers(0, 3),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.3, 3.0, 1e3]),
    st.integers(1, 120),
    st.sampled_from([0.0, 0.3, 0.7, 1.0]),
    st.integers(1, 40),
)
def test_propose_equals_reference(seed, batch, grid, anchors, spread, top, threshold, most):
    objectness, deltas, cells = proposal_inputs(seed, batch, grid, anchors, spread)
    got = propose(objectness, deltas, grid, cells, top, threshold, most)
    assert got.boxes.shape == (batch, most, 4)
    for image in range(batch):
        boxes, indices, margin = wanted_proposals(objectness, deltas, grid, cells, image, (top, threshold, most))
        count = got.counts[image]
        assert not got.boxes[image, count:].any()
        assert not got.objectness[image, count:].any()
        if margin > MARGIN:
            assert count == len(indices)
            np.testing.assert_array_equal(got.objectness[image, :count], objectness[image, indices])
            np.testing.assert_allclose(got.boxes[image, :count], boxes, rtol=1e-5, atol=2e-3)
        kept = got.boxes[image, :count].astype(np.float64)
        overlaps = [reference.iou(a, b) for i, a in enumerate(kept) for b in kept[:i]]
        assert max(overlaps, default=0) <= threshold + MARGIN


def test_propose_suppresses_above_the_threshold_only():
    # Sides of 10 and 5 inside it: IoU exactly 0.5.
    cells = np.array([[0, 0, 9, 9], [0, 0, 9, 4]], np.float32)
    scores, still = np.array([[0.9, 0.8]], np.float32), np.zeros((1, 2, 4), np.float32)
    assert propose(scores, still, (1, 1), cells, 9, 0.5, 9).counts[0] == 2
    assert propose(scores, still, (1, 1), cells, 9, 0.499, 9).counts[0] == 1


def test_propose_clamps_growth_and_clips_to_the_last_pixel():
    cells = np.array([[0, 0, 0, 0]], np.float32)
    deltas = np.array([[[0, 0, 50, 0]]], np.float32)
    got = propose(np.ones((1, 1), np.float32), deltas, (1, 1), cells, 1, 0.7, 1, (600, 1000))
    np.testing.assert_allclose(got.boxes[0, 0], [0, 0, 0.5 + 62.5 / 2 - 1, 0], atol=1e-4)
    got = propose(np.ones((1, 1), np.float32), deltas, (1, 1), cells, 1, 0.7, 1, (1, 7))
    np.testing.assert_array_equal(got.boxes[0, 0], [0, 0, 6, 0])


def test_propose_orders_equal_scores_by_index_and_drops_what_is_no_number():
    grid = (1, 6)
    cells = np.array([[0, 0, 15, 15]], np.float32)
    scores = np.array([[0.5, np.nan, 0.5, -0.0, 0.0, np.inf]], np.float32)
    deltas = np.zeros((1, 6, 4), np.float32)
    deltas[0, 2, 0] = np.nan
    got = propose(scores, deltas, grid, cells, 6, 0.7, 6)
    assert got.counts[0] == 4
    np.testing.assert_array_equal(got.boxes[0, :4, 0], [80, 0, 48, 64])


@quick
@given(seeds, st.integers(0, 12), st.integers(1, 5), st.sampled_from([0.3, 3.0]), st.integers(1, 30))
def test_detect_equals_reference(seed, rows, classes, spread, most):
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((rows, classes + 1)).astype(np.float32)
    deltas = (rng.standard_normal((rows, 4 * (classes + 1))) * spread).astype(np.float32)
    corner, sides = rng.uniform(-20, 120, (rows, 2)), rng.uniform(-0.5, 60, (rows, 2))
    boxes = np.concatenate([corner, corner + sides], 1).astype(np.float32)
    got = detect(logits, deltas, boxes, 0.15, 0.4, most)
    wanted, margin = reference.detect(logits, deltas, boxes, IMAGE, WEIGHTS, 0.15, 0.4, most)
    assume(margin > MARGIN)
    assert got.class_id.tolist() == [one[1] for one in wanted]
    np.testing.assert_allclose(got.confidence, [one[0] for one in wanted], rtol=1e-5)
    np.testing.assert_allclose(got.xyxy, np.array([one[3] for one in wanted]).reshape(-1, 4), rtol=1e-5, atol=2e-3)


def test_detect_orders_equal_scores_by_class_then_proposal():
    boxes = np.array([[0, 0, 9, 9], [40, 0, 49, 9], [0, 40, 9, 49]], np.float32)
    got = detect(np.zeros((3, 3), np.float32), np.zeros((3, 12), np.float32), boxes, 0.1, 0.5, 5)
    assert got.class_id.tolist() == [0, 0, 0, 1, 1]
    np.testing.assert_allclose(got.xyxy, boxes[[0, 1, 2, 0, 1]], atol=1e-4)


def test_detect_wants_more_than_the_score_threshold_and_drops_what_is_no_number():
    boxes = np.array([[0, 0, 9, 9], [40, 0, 49, 9], [60, 0, 69, 9], [90, 0, 99, 9]], np.float32)
    logits = np.zeros((4, 2), np.float32)
    logits[1, 1] = np.nan
    boxes[2, 0] = np.nan
    zeros = np.zeros((4, 8), np.float32)
    assert len(detect(logits, zeros, boxes, 0.5, 0.5, 9).xyxy) == 0
    np.testing.assert_allclose(detect(logits, zeros, boxes, 0.49, 0.5, 9).xyxy, boxes[[0, 3]], atol=1e-4)


@quick
@given(
    seeds,
    st.lists(st.integers(0, 6), max_size=6),
    st.sampled_from([0.2, 0.29, 0.5, 0.58, 1.0]),
    st.integers(1, 80),
    st.sampled_from(["per_frame", "global"]),
)
def test_sample_advanced_equals_reference(seed, counts, ratio, num_support, sampling):
    assume(int(num_support * ratio) >= 1)
    dials = Dials(advanced_ratio=ratio, num_support=num_support, sampling=sampling)
    rng = np.random.default_rng(seed)
    start = np.cumsum([0, *counts])
    objectness = rng.random(start[-1]).round(1).astype(np.float32)
    multiplicity = rng.integers(1, 4, start[-1]).astype(np.float32)
    positions, counted = cpu.sample_advanced(objectness, multiplicity, start, dials=dials)
    wanted = reference.sample_advanced(objectness, multiplicity, start.tolist(), ratio, num_support, sampling)
    assert dict(zip(positions.tolist(), counted.tolist(), strict=True)) == wanted
    assert positions.tolist() == sorted(wanted)


def test_threads_and_layout_do_not_change_a_bit():
    grid = (6, 9)
    objectness, deltas, cells = proposal_inputs(5, 5, grid, 4, 0.4)
    one = propose(objectness, deltas, grid, cells, 100, 0.7, 50)
    strided = np.repeat(deltas, 2, axis=1)[:, ::2]
    many = propose(np.asfortranarray(objectness), strided, grid, cells, 100, 0.7, 50, threads=3)
    for a, b in zip(one, many, strict=True):
        np.testing.assert_array_equal(a, b)
    rng = np.random.default_rng(6)
    logits, head = (rng.standard_normal((400, width)).astype(np.float32) for width in (101, 404))
    boxes = np.tile(one.boxes[0], (8, 1))  # enough rows and classes to wake threads
    ones = detect(logits, head, boxes, 0.01, 0.5, 100)
    threes = detect(np.asfortranarray(logits), head, boxes, 0.01, 0.5, 100, threads=3)
    for a, b in zip(ones, threes, strict=True):
        np.testing.assert_array_equal(a, b)


BAD_PROPOSE = {
    "objectness": ({"objectness": np.zeros((1, 7), np.float32)}, r"H\*W\*A = 8.*float32 \[1, 7\]"),
    "type": ({"objectness": np.zeros((1, 8))}, r"float64 \[1, 8\]"),
    "deltas": ({"deltas": np.zeros((2, 8, 4), np.float32)}, r"B = 1.*\[2, 8, 4\]"),
    "anchors": ({"cell_anchors": np.zeros((2, 5), np.float32)}, r"\[2, 5\]"),
    "image": ({"network_size": (0, 9)}, r"image_size.*\(0, 9\)"),
    "most": ({"max_proposals": -1}, "max_proposals.*got -1"),
    "threads": ({"threads": 0}, "threads.*got 0"),
}


@pytest.mark.parametrize(("change", "message"), BAD_PROPOSE.values(), ids=BAD_PROPOSE)
def test_propose_refuses(change, message):
    good = {
        "objectness": np.zeros((1, 8), np.float32),
        "deltas": np.zeros((1, 8, 4), np.float32),
        "grid": (2, 2),
        "cell_anchors": np.zeros((2, 4), np.float32),
        "network_size": (9, 9),
        "config": RPNConfig(pre_nms_top_n=8),
        "max_proposals": 4,
        "threads": 1,
    }
    cpu.propose(**good)
    with pytest.raises(ValueError, match=message):
        cpu.propose(**(good | change))


BAD_DETECT = {
    "logits": ({"logits": np.zeros((3, 1), np.float32)}, r"foreground.*\[3, 1\]"),
    "deltas": ({"deltas": np.zeros((3, 8), np.float32)}, r"= 12.*\[3, 8\]"),
    "boxes": ({"boxes": np.zeros((2, 4), np.float32)}, r"n = 3.*\[2, 4\]"),
    "score": ({"score_threshold": 1.5}, "score_threshold.*1.5"),
}


@pytest.mark.parametrize(("change", "message"), BAD_DETECT.values(), ids=BAD_DETECT)
def test_detect_refuses(change, message):
    good = {
        "logits": np.zeros((3, 3), np.float32),
        "deltas": np.zeros((3, 12), np.float32),
        "boxes": np.zeros((3, 4), np.float32),
        "network_size": (9, 9),
        "config": DetectionConfig(max_detections=5),
        "score_threshold": 0.1,
    }
    cpu.detect(**good)
    with pytest.raises(ValueError, match=message):
        cpu.detect(**(good | change))


@quick
@given(seeds, st.integers(0, 60), st.integers(1, 4), st.integers(1, 70), st.sampled_from([0.0, 0.3, 0.7, 1.0]),
       st.integers(1, 40))  # fmt: skip
def test_suppress_equals_reference(seed, rows, classes, top, threshold, most):
    rng = np.random.default_rng(seed)
    corner, sides = rng.uniform(0, 60, (rows, 2)), rng.uniform(4, 60, (rows, 2))
    boxes = np.concatenate([corner, corner + sides], 1).astype(np.float32)
    # One decimal makes equal scores common.
    scores = rng.random(rows).round(1).astype(np.float32)
    scores[rng.random(rows) < 0.1] = np.nan
    boxes[rng.random(rows) < 0.1, 2] = np.nan
    labels = rng.integers(0, classes, rows)
    order = reference.best_first(scores)[:top]
    kept, margin = [], np.inf
    for label in range(classes):
        mine = [i for i in order if labels[i] == label and not np.isnan(boxes[i]).any()]
        stay, near = reference.nms(boxes[mine].astype(np.float64), threshold)
        kept += [mine[k] for k in stay]
        margin = min(margin, near)
    assume(margin > MARGIN)
    wanted = sorted(kept, key=lambda i: (-scores[i], i))[:most]
    for threads in (1, 3):
        got = cpu.suppress(boxes, scores, labels, num_classes=classes, top_n=top, nms_threshold=threshold, most=most,
                           threads=threads)  # fmt: skip
        assert got.tolist() == wanted


BAD_SUPPRESS = {
    "boxes": ({"boxes": np.zeros((2, 5), np.float32)}, r"boxes \[n, 4\], got float32 \[2, 5\]"),
    "scores": ({"scores": np.zeros(3, np.float32)}, r"scores \[n = 2\], got float32 \[3\]"),
    "labels": ({"labels": np.array([0, 3])}, r"labels must lie in 0..2, got 3 at flat position 1"),
    "negative": ({"labels": np.array([-1, 0])}, r"labels must lie in 0..2, got -1"),
    "classes": ({"num_classes": 0}, "classes must lie in 1.*got 0"),
    "top": ({"top_n": 0}, "top_n must be positive, got 0"),
    "most": ({"most": 0}, "most must be positive, got 0"),
    "threshold": ({"nms_threshold": 1.5}, "nms_threshold.*1.5"),
}


@pytest.mark.parametrize(("change", "message"), BAD_SUPPRESS.values(), ids=BAD_SUPPRESS)
def test_suppress_refuses(change, message):
    good = {
        "boxes": np.zeros((2, 4), np.float32),
        "scores": np.zeros(2, np.float32),
        "labels": np.zeros(2, np.int64),
        "num_classes": 3,
        "top_n": 2,
        "nms_threshold": 0.5,
        "most": 2,
    }
    assert cpu.suppress(**good).tolist() == [0]
    with pytest.raises(ValueError, match=message):
        cpu.suppress(**(good | change))


BAD_SAMPLE = {
    "multiplicity": ({"multiplicity": np.array([1, 0, 1], np.float32)}, "multiplicity.*got 0.* at flat position 1"),
    "length": ({"multiplicity": np.ones(2, np.float32)}, r"S = 3.*\[2\]"),
    "end": ({"frame_start": np.array([0, 2])}, r"S = 3, got \[0 2\]"),
    "order": ({"frame_start": np.array([0, 3, 1, 3])}, "ascend"),
}


@pytest.mark.parametrize(("change", "message"), BAD_SAMPLE.values(), ids=BAD_SAMPLE)
def test_sample_advanced_refuses(change, message):
    good = {
        "objectness": np.zeros(3, np.float32),
        "multiplicity": np.ones(3, np.float32),
        "frame_start": np.array([0, 1, 3]),
        "dials": Dials(num_support=2, advanced_ratio=0.5),
    }
    cpu.sample_advanced(**good)
    with pytest.raises(ValueError, match=message):
        cpu.sample_advanced(**(good | change))


BAD_NUMBERS = {
    "stride": ("propose", {"stride": 0}, "stride.*got 0"),
    "top": ("propose", {"pre_nms_top_n": 0}, "pre_nms_top_n.*got 0"),
    "nms": ("propose", {"nms_threshold": float("nan")}, "nms_threshold.*nan"),
    "size": ("roi_pool", {"size": 0}, "size.*got 0"),
    "weights": ("detect", {"box_weights": [1.0, 1.0, 1.0]}, "4 values, got 3"),
    "zero weight": ("detect", {"box_weights": [1.0, 0.0, 1.0, 1.0]}, "box_weights.*got 0"),
    "most": ("detect", {"max_detections": 0}, "max_detections.*got 0"),
    "ratio": ("sample_advanced", {"ratio": 1.1}, "ratio.*1.1"),
    "support": ("sample_advanced", {"num_support": -1}, "num_support.*got -1"),
}


@pytest.mark.parametrize(("name", "change", "message"), BAD_NUMBERS.values(), ids=BAD_NUMBERS)
def test_the_module_itself_refuses_what_no_configuration_holds(name, change, message):
    def zeros(*shape):
        return np.zeros(shape, np.float32)

    good = {
        "propose": {
            "objectness": zeros(1, 8), "deltas": zeros(1, 8, 4), "grid": (2, 2), "cell_anchors": zeros(2, 4),
            "stride": 16, "image_size": (9, 9), "pre_nms_top_n": 8, "nms_threshold": 0.7, "max_proposals": 4,
            "threads": 1,
        },
        "roi_pool": {
            "feature_map": zeros(1, 3, 3, 2), "boxes": zeros(2, 4), "image_index": np.zeros(2, np.int64),
            "scale": 1 / 16, "size": 2, "max": False, "row": 64, "threads": 1,
        },
        "detect": {
            "logits": zeros(3, 3), "deltas": zeros(3, 12), "boxes": zeros(3, 4), "image_size": (9, 9),
            "box_weights": list(WEIGHTS), "score_threshold": 0.1, "nms_threshold": 0.5, "max_detections": 5,
            "threads": 1,
        },
        "sample_advanced": {
            "objectness": zeros(3), "multiplicity": np.ones(3, np.float32), "frame_start": np.array([0, 1, 3]),
            "ratio": 0.5, "num_support": 2, "global": False,
        },
    }[name]  # fmt: skip
    kernel = getattr(_C, name)
    kernel(*good.values())
    with pytest.raises(ValueError, match=message):
        kernel(*(good | change).values())
