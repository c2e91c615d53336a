"""From which confidence on to act, LRP (Oksuz et al. 2021), and what it is worth, D-ECE (Küppers et al. 2020).

Both take the meetings of the VID protocol; what lies in an ignore region does not count.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rdn_engine.evaluation.average_precision import VID_IOU, ClassMatch
from rdn_engine.evaluation.boxes import Bool, Detected, Float, Int, Truth, pair_iou

BINS = 20
"""Of confidence, equally wide"""
CERTAIN = 0.3
"""Confidence from which on the second calibration error counts, as in Küppers et al."""


@dataclass(frozen=True)
class Operating:
    """The confidence at which a class has its lowest LRP error."""

    threshold: float
    """0..1: accept what is above; midway between the last detection that is accepted and the next one"""
    lrp: float
    """0..1, lower is better"""
    localisation: float | None
    """Mean of 1 - IoU of the accepted that meet an object; None where none does"""
    precision: float
    """0..1"""
    recall: float
    """0..1"""


def operating_point(truth: Truth, found: Detected, match: ClassMatch) -> Operating | None:
    """Where to cut one class.

    Args:
        truth: all annotated boxes.
        found: all detections.
        match: of the class.

    Returns:
        The lowest LRP error and its threshold; of equal ones the highest threshold. None for a class without objects.
    """
    objects = len(match.precision)
    if objects == 0:
        return None
    rows, met = counted(truth, match)
    true = met >= 0
    error = np.zeros(len(rows))
    error[true] = 1 - pair_iou(found.xyxy[rows[true]], truth.xyxy[met[true]])
    confidence = found.confidence[rows]
    # A threshold accepts all of one confidence or none of them, and none in 0..1 accepts a confidence of 0; the first
    # choice accepts nothing.
    ends = np.flatnonzero(np.append(np.diff(confidence) < 0, True)) + 1 if len(rows) else np.zeros(0, np.int64)
    taken = np.concatenate([[0], ends[confidence[ends - 1] > 0]]).astype(np.int64)
    hits = np.concatenate([[0], np.cumsum(true)])[taken]
    loss = np.concatenate([[0.0], np.cumsum(error)])[taken]
    missed = objects - hits
    lrp = (loss / (1 - VID_IOU) + (taken - hits) + missed) / (taken + missed)
    best = int(lrp.argmin())
    n, hit = int(taken[best]), int(hits[best])
    above = float(confidence[n - 1]) if n else 1.0
    below = float(confidence[n]) if n < len(rows) else 0.0
    return Operating(
        threshold=(above + below) / 2 if n else above,
        lrp=float(lrp[best]),
        localisation=float(loss[best] / hit) if hit else None,
        precision=hit / n if n else 0.0,
        recall=hit / objects,
    )


def counted(truth: Truth, match: ClassMatch) -> tuple[Int, Int]:
    """The detections of a class that are right or wrong.

    Args:
        truth: all annotated boxes.
        match: of the class.

    Returns:
        Their rows, highest confidence first, and the object that each meets; -1 for none.
    """
    neutral = (match.met >= 0) & truth.ignore[match.met] if len(truth) else np.zeros(len(match.met), bool)
    return match.rows[~neutral], match.met[~neutral]


def accepted(found: Detected, points: list[Operating | None]) -> Bool:
    """Which detections are above the threshold of their class.

    Args:
        found: all detections.
        points: of every class; nothing is accepted of one without.

    Returns:
        [n].
    """
    thresholds = np.array([1.0 if point is None else point.threshold for point in points])
    kept: Bool = found.confidence > thresholds[found.label]
    return kept


@dataclass(frozen=True)
class Reliability:
    """How often detections of a confidence are right."""

    count: Int
    """[BINS] detections"""
    confidence: Float
    """[BINS] their mean, 0..1; NaN where there are none"""
    precision: Float
    """[BINS] part of them that meets an object, 0..1; NaN where there are none"""

    @property
    def error(self) -> float | None:
        """D-ECE, 0..1: mean |precision - confidence|, each bin weighted by its detections; None without any."""
        there = self.count > 0
        if not there.any():
            return None
        return float(np.average(np.abs(self.precision - self.confidence)[there], weights=self.count[there]))


def reliability(confidence: Float, right: Bool) -> Reliability:
    """Sorts detections into bins of confidence.

    Args:
        confidence: [n] in 0..1.
        right: [n] whether each meets an object.
    """
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    count = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):
        return Reliability(
            count,
            np.bincount(bins, confidence, BINS) / count,
            np.bincount(bins, right.astype(np.float64), BINS) / count,
        )
