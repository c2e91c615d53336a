"""Fits how often detections of a confidence are right, and refuses a fit that frames held out do not bear out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from rdn_engine.bundle.confidence import ConfidenceMap, ConfidenceTest, Knots
from rdn_engine.errors import BackendUnavailable, CalibrationError, DatasetError
from rdn_engine.evaluation.annotated import Annotated
from rdn_engine.evaluation.average_precision import match_class, mean
from rdn_engine.evaluation.boxes import Bool, Detected, Float, Truth
from rdn_engine.evaluation.operating import CERTAIN, counted, reliability
from rdn_engine.results import Detections

FITTED = 0.75
"""Part of the frames, the first ones, that maps are fitted to; the others test them"""
ENOUGH = 30
"""Right detections that a class wants for a map of its own; the others share one"""
SLOPE = 0.05
"""Of every map at least, so that what the model tells apart stays apart"""
SAME_AP = 0.01
"""Percent: AP may change by this where float32 makes ties of mapped confidences"""


def calibrate(found: Mapping[int, Detections], annotated: Annotated, class_names: tuple[str, ...]) -> ConfidenceMap:
    """Maps of a model's confidences, by isotonic regression, and their test.

    Args:
        found: `Frame.id` -> results of the model, not linked, without a threshold; classes are those of the data set.
        annotated: what they are scored against.
        class_names: of the model, in its order.

    Returns:
        The maps with what they were tested on. Whether that is good enough `check_calibration` says.

    Raises:
        CalibrationError: where the fitted or the tested frames show no object that was found.
        DatasetError: frames or classes are not the data set's, or there are fewer than two frames.
        BackendUnavailable: without scipy.
    """
    names = annotated.dataset.class_names
    before = _Met(found, annotated)
    fitted, tested = before.counts & before.early, before.counts & ~before.early & (before.confidence >= CERTAIN)
    for part, which in ((fitted, "fitted"), (tested, f"held out, with a confidence of {CERTAIN} or more")):
        if not before.right[part].any():
            raise CalibrationError(
                f"no annotated object was found in the frames that are {which} ({part.sum()} detections); wanted more "
                "videos of what the model detects"
            )
    shared = _knots(before.confidence[fitted], before.right[fitted])
    maps: dict[str, Knots] = {}
    for label, name in enumerate(names):
        own = fitted & (before.label == label)
        enough = before.right[own].sum() >= ENOUGH
        maps[name] = _knots(before.confidence[own], before.right[own]) if enough else shared
    made = ConfidenceMap(
        tuple(maps.get(name, shared) for name in class_names),
        ConfidenceTest(annotated.name, before.fitted_frames, before.tested_frames, 0, 0, 0, 0),
    )
    # In the order of the data set's classes, as `found` has them.
    ordered = replace(made, classes=tuple(maps[name] for name in names))
    after = _Met({i: _mapped(result, ordered) for i, result in found.items()}, annotated)
    test = replace(
        made.test,
        error_before=before.error(tested),
        error_after=after.error(tested),
        ap50_before=before.ap50,
        ap50_after=after.ap50,
    )
    return replace(made, test=test)


def check_calibration(made: ConfidenceMap) -> None:
    """Refuses maps that frames held out do not bear out.

    Args:
        made: of `calibrate`.

    Raises:
        CalibrationError: where the calibration error of the frames held out did not fall, or AP changed.
    """
    test = made.test
    if test.error_after >= test.error_before:
        raise CalibrationError(
            f"on {test.tested_frames} frames held out the calibration error is {test.error_after:.4f} with the maps "
            f"and {test.error_before:.4f} without; wanted less (more videos, or --accept)"
        )
    if abs(test.ap50_after - test.ap50_before) > SAME_AP:
        raise CalibrationError(
            f"AP50 is {test.ap50_after:.3f} with the maps and {test.ap50_before:.3f} without; wanted the same within "
            f"{SAME_AP} (--accept takes it all the same)"
        )


class _Met:
    """All detections, whether they count and are right in the VID protocol, and where they stand."""

    def __init__(self, found: Mapping[int, Detections], annotated: Annotated) -> None:
        truth = Truth.of(annotated.dataset)
        detected = Detected.of(found, annotated.dataset, tuple(annotated.dataset.class_names))
        matches = [match_class(truth, detected, c) for c in range(len(annotated.dataset.categories))]
        self.ap50 = mean(m.ap for m in matches) or 0.0
        self.confidence: Float = detected.confidence
        self.label = detected.label
        self.counts: Bool = np.zeros(len(detected), bool)
        self.right: Bool = np.zeros(len(detected), bool)
        for rows, met in (counted(truth, m) for m in matches):
            self.counts[rows] = True
            self.right[rows] = met >= 0
        # By place in the data set: whole videos come before others, and early frames before late ones.
        order = [frame.id for _, frames in annotated.videos() for frame in frames]
        if len(order) < 2:
            raise DatasetError(f"the data set has {len(order)} frames; wanted some to fit and some to test")
        self.fitted_frames = max(1, min(int(FITTED * len(order)), len(order) - 1))
        self.tested_frames = len(order) - self.fitted_frames
        self.early: Bool = np.isin(detected.image, order[: self.fitted_frames])

    def error(self, tested: Bool) -> float:
        """D-ECE of some of the detections"""
        chosen = tested & self.counts
        return reliability(self.confidence[chosen], self.right[chosen]).error or 0.0


def _mapped(result: Detections, maps: ConfidenceMap) -> Detections:
    return replace(result, confidence=maps.apply(result.confidence, result.class_id))


def _knots(confidence: Float, right: Bool) -> Knots:
    """The rising steps nearest to what is right, joined by straight lines, and tilted so that they rise strictly."""
    try:
        from scipy.optimize import isotonic_regression
    except ImportError as error:
        raise BackendUnavailable(f"calibrate needs scipy ({error}); pip install scipy") from error
    if len(confidence) == 0:
        return (0.0, 0.0), (1.0, 1.0)
    order = np.argsort(confidence, kind="stable")
    steps = isotonic_regression(right[order].astype(np.float64))
    starts = steps.blocks[:-1]
    count = np.diff(steps.blocks)
    raw = np.add.reduceat(confidence[order], starts) / count
    value = steps.x[starts]
    # Places that are as good as one have one value: lines between them would be as steep as they like.
    raw, place = np.unique(raw.round(6), return_inverse=True)
    value = np.bincount(place, value * count) / np.bincount(place, count)
    inner = (raw > 0) & (raw < 1)
    x = np.concatenate([[0.0], raw[inner], [1.0]])
    y = (1 - SLOPE) * np.interp(x, raw, value) + SLOPE * x
    return tuple(zip(x.tolist(), y.tolist(), strict=True))
