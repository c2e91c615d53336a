"""Protocols of the evaluation against their definitions in loops, and against faster-coco-eval run over everything."""

from __future__ import annotations

import numpy as np
import pytest
from faster_coco_eval import COCO, COCOeval_faster
from hypothesis import given, settings
from hypothesis import strategies as st

from rdn_engine.evaluation.average_precision import match_class
from rdn_engine.evaluation.boxes import Detected, Truth
from rdn_engine.evaluation.coco_vid import to_coco_box
from rdn_engine.evaluation.motion import motion_iou
from rdn_engine.evaluation.score import RECALLS, precision_recall, score
from tests import reference_evaluation as reference
from tests.evaluation_cases import LENGTH, NAMES, as_found, as_videos, draw_case
from tests.reference_evaluation import Box, Detection

LABELS = range(len(NAMES))

cases = given(st.integers(0, 2**32 - 1))
few = settings(deadline=None, max_examples=12)


def scored(boxes, detections):
    return score(as_found(detections), as_videos(boxes), NAMES, 1)


def percent(values):
    there = [v for v in values if v is not None]
    return pytest.approx(100 * np.mean(there), abs=1e-9) if there else None


def has_objects(boxes):
    return any(not b.ignore for b in boxes)


@few
@cases
def test_vid_protocol_is_its_definition(seed):
    boxes, detections = draw_case(seed)
    if not has_objects(boxes):
        return
    result = scored(boxes, detections)
    wanted = [reference.vid_ap(boxes, detections, label) for label in LABELS]
    assert result["vid"]["AP50"] == percent(wanted)
    assert list(result["vid"]["per_class"].values()) == [percent([ap]) for ap in wanted]


@few
@cases
def test_a_part_that_is_everything_has_the_precision_of_faster_coco_eval(seed):
    boxes, detections = draw_case(seed)
    if not has_objects(boxes):
        return
    videos = as_videos(boxes)
    truth, found = Truth.of(videos.dataset), Detected.of(as_found(detections), videos.dataset, NAMES)
    for label in LABELS:
        match = match_class(truth, found, label)
        everything = match.part(~truth.ignore, np.ones(len(found)))
        np.testing.assert_allclose(everything, match.precision, atol=1e-12)
        met = reference.meet(boxes, detections, label)
        assert [found.confidence[r] for r in match.rows] == [d.confidence for d, _ in met]
        assert [i >= 0 for i in match.met] == [i is not None for _, i in met]


@few
@cases
def test_coco_protocol_is_that_of_one_run_over_all_classes(seed):
    boxes, detections = draw_case(seed)
    if not has_objects(boxes):
        return
    rows = [
        {
            "id": i + 1,
            "image_id": b.frame,
            "category_id": b.label,
            "bbox": to_coco_box(b.xyxy),
            "iscrowd": int(b.ignore),
        }
        for i, b in enumerate(boxes)
    ]
    truth = COCO(
        {
            "images": [{"id": i} for i in range(2 * LENGTH)],
            "categories": [{"id": i, "name": name} for i, name in enumerate(NAMES)],
            "annotations": [{**r, "area": r["bbox"][2] * r["bbox"][3]} for r in rows],
        }
    )
    found = [
        {"image_id": d.frame, "category_id": d.label, "bbox": to_coco_box(d.xyxy), "score": d.confidence}
        for d in detections
    ]
    evaluation = COCOeval_faster(truth, truth.loadRes(found), "bbox")
    evaluation.run()
    wanted = evaluation.stats_as_dict
    result = scored(boxes, detections)
    assert result["coco"]["AP"] == pytest.approx(100 * wanted["AP_all"])
    assert result["coco"]["AP50"] == pytest.approx(100 * wanted["AP_50"])
    for size in ("small", "medium", "large"):
        ap = wanted[f"AP_{size}"]
        assert result["size_coco"][size]["AP"] == (pytest.approx(100 * ap) if ap >= 0 else None)


@few
@cases
def test_ap_by_speed_is_its_definition(seed):
    boxes, detections = draw_case(seed)
    if not has_objects(boxes):
        return
    result = scored(boxes, detections)
    iou = [reference.motion(boxes, LENGTH, i) for i in range(len(boxes))]
    computed = motion_iou(Truth.of(as_videos(boxes).dataset))
    np.testing.assert_allclose(computed, [np.nan if v is None else v for v in iou], atol=1e-12)
    speeds = [reference.speed_of(v) for v in iou]
    for speed in ("slow", "medium", "fast"):
        counts = {i for i, s in enumerate(speeds) if s == speed}
        aps = [
            reference.average_precision(
                boxes,
                reference.meet(boxes, detections, label),
                counts & reference.objects_of(boxes, label),
                lambda d, speed=speed: reference.false_share(boxes, speeds, speed, d),
            )
            for label in LABELS
        ]
        assert result["speed"][speed] == {"AP50": percent(aps), "objects": len(counts)}
    objects = sum(not b.ignore for b in boxes)
    assert result["speed"]["objects_unknown"] == objects - sum(s is not None for s in speeds)


@few
@cases
def test_delay_is_its_definition(seed):
    boxes, detections = draw_case(seed)
    if not has_objects(boxes):
        return
    met = [pair for label in LABELS for pair in reference.meet(boxes, detections, label)]
    wanted = reference.average_delay(boxes, met, LENGTH, sum(not b.ignore for b in boxes))
    result = scored(boxes, detections)["delay"]
    assert result["frames"] == pytest.approx(wanted)
    assert result["look_ahead"] == 1


@few
@cases
def test_curves_have_the_areas_that_are_reported(seed):
    boxes, detections = draw_case(seed)
    if not has_objects(boxes):
        return
    found, videos = as_found(detections), as_videos(boxes)
    result = score(found, videos, NAMES, 1)
    curves = precision_recall(found, videos, NAMES)
    assert curves.keys() - {"all"} == {s for s in ("slow", "medium", "fast") if result["speed"][s]["objects"]}
    for name, precision in curves.items():
        ap = result["vid"] if name == "all" else result["speed"][name]
        assert (np.diff(precision) <= 1e-12).all()
        # A hundred strips of a falling curve: the area lies between their lower and their upper sums.
        assert 100 * precision[1:].mean() - 1e-9 <= ap["AP50"] <= 100 * precision[:-1].mean() + 1e-9
    assert len(RECALLS) == len(curves["all"])


def moving(pixels_a_frame):
    """A box of 20 x 20 pixels through all frames of video 0, and a detection on each."""
    path = [(pixels_a_frame * t, 0.0, pixels_a_frame * t + 19, 19.0) for t in range(LENGTH)]
    return [Box(t, 0, xyxy, False, 7) for t, xyxy in enumerate(path)]


@pytest.mark.parametrize(("pixels", "speed"), [(0, "slow"), (0.1, "slow"), (0.7, "medium"), (2, "fast"), (40, "fast")])
def test_speeds_of_a_box_that_moves_evenly(pixels, speed):
    boxes = moving(pixels)
    iou = motion_iou(Truth.of(as_videos(boxes).dataset))
    steps = [abs(t - 6) for t in range(LENGTH) if 0 < abs(t - 6) <= 10]
    by_hand = np.mean([max(20 - pixels * s, 0) / (20 + min(pixels * s, 20)) for s in steps])
    assert iou[6] == pytest.approx(by_hand)
    assert reference.speed_of(iou[6]) == speed


def test_two_videos_may_use_the_same_instance_number():
    boxes = [Box(3, 0, (0, 0, 9, 9), False, 1), Box(LENGTH + 3, 0, (50, 50, 59, 59), False, 1)]
    assert np.isnan(motion_iou(Truth.of(as_videos(boxes).dataset))).all()


def test_delay_by_hand():
    """Found at once with confidence 0.9; then one found late, one never; false ones come at 0.6 and 0.4."""
    at_once, late, never = ((0, 0, 19, 19), (40, 0, 59, 19), (0, 40, 19, 59))
    boxes = [Box(t, 0, at_once, False, 1) for t in range(10)]
    boxes += [Box(t, 0, late, False, 2) for t in range(2, 12)]
    boxes += [Box(t, 1, never, False, 3) for t in range(4, 9)]
    found = [Detection(0, 0, at_once, 0.9), Detection(7, 0, late, 0.8), Detection(4, 0, late, 0.5)]
    found += [Detection(t, 2, (70, 70, 79, 79), 0.6) for t in range(3)]
    found = sorted([*found, *(Detection(t, 2, (70, 70, 79, 79), 0.4) for t in range(6))], key=lambda d: d.frame)
    result = scored(boxes, found)["delay"]
    # 25 boxes: rate 0.1 allows 2 of the 9 false detections, so that only what is above 0.6 counts; 0.2 allows 5.
    means = [row["frames"] for row in result["per_rate"]]
    assert means == pytest.approx([(0 + 5 + 5) / 3, (0 + 2 + 5) / 3] + [(0 + 2 + 5) / 3] * 4)
    assert [row["confidence"] > 0.6 for row in result["per_rate"]] == [True] + [False] * 5
    assert result["frames"] == pytest.approx(6 / (1 / (1 + 10 / 3) + 5 / (1 + 7 / 3)) - 1)
    assert (result["instances"], result["instances_entering"]) == (3, 2)


def test_thirds_hold_all_objects_and_only_their_own_false_detections():
    sizes = [4, 5, 6, 14, 15, 16, 28, 29, 30]
    boxes = [Box(i, 0, (10, 10, 9 + s, 9 + s), False, i) for i, s in enumerate(sizes)]
    found = [Detection(b.frame, 0, b.xyxy, 0.5) for b in boxes] + [Detection(8, 0, (60, 60, 63, 63), 0.9)]
    result = scored(boxes, found)["size"]
    assert [result[name]["objects"] for name in ("small", "medium", "large")] == [3, 3, 3]
    # The false one of 4 x 4 pixels comes first: precisions 1/2, 2/3, 3/4, of which the best stands at every recall.
    assert [result[name]["AP50"] for name in ("small", "medium", "large")] == [75, 100, 100]
