"""Thresholds and calibration errors against their definitions in loops, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rdn_engine.evaluation.operating import BINS, reliability
from rdn_engine.evaluation.score import score
from tests import reference_evaluation as reference
from tests.evaluation_cases import NAMES, as_found, as_videos, draw_case
from tests.reference_evaluation import Box, Detection

few = settings(deadline=None, max_examples=12)


def lrp(boxes, met, objects, threshold):
    """Of one class, above a threshold"""
    hits = [(d, i) for d, i in met if d.confidence > threshold and i is not None and not boxes[i].ignore]
    false = sum(1 for d, i in met if d.confidence > threshold and i is None)
    missed = objects - len(hits)
    loss = sum(2 * (1 - reference.iou(d.xyxy, boxes[i].xyxy)) for d, i in hits)
    return (loss + false + missed) / (len(hits) + false + missed)


@few
@example(1380410)  # a detection of confidence 0
@given(st.integers(0, 2**32 - 1))
def test_the_threshold_has_the_lowest_lrp(seed):
    boxes, detections = draw_case(seed)
    if all(b.ignore for b in boxes):
        return
    result = score(as_found(detections), as_videos(boxes), NAMES, 0)["operating"]
    lowest = []
    for label, name in enumerate(NAMES):
        met, objects = reference.meet(boxes, detections, label), len(reference.objects_of(boxes, label))
        point = result["per_class"][name]
        if not objects:
            assert point is None
            continue
        lowest.append(min(lrp(boxes, met, objects, t) for t in [*(d.confidence for d, _ in met), 0.0, 1.0]))
        assert point["lrp"] == pytest.approx(lowest[-1])
        assert lrp(boxes, met, objects, point["threshold"]) == pytest.approx(lowest[-1])
    assert result["oLRP"] == pytest.approx(100 * np.mean(lowest))


@few
@given(st.integers(0, 2**32 - 1))
def test_calibration_error_is_its_definition(seed):
    boxes, detections = draw_case(seed)
    if all(b.ignore for b in boxes):
        return
    pairs = [pair for label in range(len(NAMES)) for pair in reference.meet(boxes, detections, label)]
    counted = [(d.confidence, i is not None) for d, i in pairs if i is None or not boxes[i].ignore]
    error = 0.0
    for b in range(BINS):
        inside = [(c, right) for c, right in counted if b <= c * BINS < b + 1 or (b == BINS - 1 and c == 1)]
        if inside:
            error += len(inside) * abs(np.mean([r for _, r in inside]) - np.mean([c for c, _ in inside]))
    result = score(as_found(detections), as_videos(boxes), NAMES, 0)["calibration"]
    assert result["D_ECE"] == pytest.approx(error / len(counted))
    assert sum(b["detections"] for b in result["bins"]) == result["detections"] == len(counted)


def test_operating_point_by_hand():
    """Three objects: two are found well at 0.9 and 0.7, a false detection lies at 0.8, more of them at 0.3."""
    places = [(0, 0, 19, 19), (40, 0, 59, 19), (0, 40, 19, 59)]
    boxes = [Box(0, 0, xyxy) for xyxy in places]
    detections = [Detection(0, 0, places[0], 0.9), Detection(0, 0, places[1], 0.7)]
    detections += [Detection(0, 0, (70, 70 + i, 80, 80), c) for i, c in enumerate((0.8, 0.3, 0.3))]
    point = score(as_found(detections), as_videos(boxes), NAMES, 0)["operating"]["per_class"][NAMES[0]]
    # Above 0.5: one false, one missed of four; above 0.85: none false, two missed of three.
    assert point["lrp"] == pytest.approx(2 / 4)
    assert point["threshold"] == pytest.approx(0.5)
    assert (point["precision"], point["recall"]) == pytest.approx((2 / 3, 2 / 3))
    assert point["localisation"] == 0


def test_nothing_found_is_the_worst_and_accepts_nothing():
    result = score(as_found([]), as_videos([Box(0, 0, (0, 0, 9, 9))]), NAMES, 0)
    assert result["operating"]["per_class"][NAMES[0]] == {
        "threshold": 1.0, "lrp": 1.0, "localisation": None, "precision": 0.0, "recall": 0.0,
    }  # fmt: skip
    assert result["calibration"]["D_ECE"] is None


def test_what_is_right_as_often_as_it_says_has_no_error():
    confidence = np.repeat([0.2, 0.8], 10)
    right = np.arange(20) % 10 < np.repeat([2, 8], 10)
    assert reliability(confidence, right).error == pytest.approx(0)
    assert reliability(confidence, ~right).error == pytest.approx(0.6)
    assert reliability(np.array([1.0]), np.array([True])).error == 0
