"""How long an object is there before it is found: average delay (Mao, Yang and Dally, ICCV 2019).

The threshold on the confidence is the one at which the detector makes `rate` false detections for each annotated box.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rdn_engine.evaluation.average_precision import ClassMatch
from rdn_engine.evaluation.boxes import Bool, Detected, Float, Int, Truth

RATES = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""False detections for each annotated box"""
LONGEST = 30
"""Frames; a longer delay counts as this"""


@dataclass(frozen=True)
class Delays:
    thresholds: Float
    """[rates] lowest confidence that is accepted"""
    frames: Float
    """[rates, instances] from an instance's first frame to the first in which it is found, at most LONGEST"""
    entering: Bool
    """[instances] appears after the first frame of its video"""

    def average(self, chosen: Bool) -> float | None:
        """Harmonic mean over the rates of 1 + the mean delay of the chosen instances, less the 1.

        Args:
            chosen: [instances].

        Returns:
            Frames, 0 or more; None where no instance is chosen.
        """
        if not chosen.any():
            return None
        return float(1 / np.mean(1 / (1 + self.frames[:, chosen].mean(axis=1))) - 1)


def delays(truth: Truth, found: Detected, matches: list[ClassMatch], starts: dict[int, int]) -> Delays:
    """How long each object waits until it is found. One that is never found has waited until the frame after its last.

    Args:
        truth: all annotated boxes, one instance or more among them.
        found: all detections.
        matches: of every class.
        starts: video -> `frame_id` of its first frame.

    Returns:
        Frames at each rate, for each instance.
    """
    rows, met = np.concatenate([m.rows for m in matches]), np.concatenate([m.met for m in matches])
    thresholds = _thresholds(found.confidence[rows[met < 0]], int((~truth.ignore).sum()))
    instances, first, last = _instances(truth)
    rows, met = rows[met >= 0], met[met >= 0]
    tracked = (truth.instance[met] >= 0) & ~truth.ignore[met]
    rows, met = rows[tracked], met[tracked]
    owner = _owner(truth, instances, met)
    confidence, time = found.confidence[rows], truth.time[met]
    frames = np.empty((len(RATES), len(first)))
    for row, threshold in zip(frames, thresholds, strict=True):
        seen = last + 1
        accepted = confidence >= threshold
        np.minimum.at(seen, owner[accepted], time[accepted])
        row[:] = np.minimum(seen - first, LONGEST)
    entering = first > np.array([starts[int(video)] for video in instances[:, 0]])
    return Delays(thresholds, frames, entering)


def _instances(truth: Truth) -> tuple[Int, Int, Int]:
    """(video, instance) [i, 2], and the times of its first and last frame [i]"""
    rows = np.flatnonzero((truth.instance >= 0) & ~truth.ignore)
    keys = np.stack([truth.video[rows], truth.instance[rows]], axis=1)
    instances, owner = np.unique(keys, axis=0, return_inverse=True)
    first = np.full(len(instances), np.iinfo(np.int64).max)
    last = np.full(len(instances), np.iinfo(np.int64).min)
    np.minimum.at(first, owner.ravel(), truth.time[rows])
    np.maximum.at(last, owner.ravel(), truth.time[rows])
    return instances, first, last


def _owner(truth: Truth, instances: Int, rows: Int) -> Int:
    """The row of `instances` of each of these annotated boxes."""
    numbers = {(int(v), int(i)): n for n, (v, i) in enumerate(instances)}
    pairs = zip(truth.video[rows].tolist(), truth.instance[rows].tolist(), strict=True)
    return np.array([numbers[pair] for pair in pairs], np.int64)


def _thresholds(wrong: Float, boxes: int) -> Float:
    """[rates] lowest threshold at which no more than rate * boxes of the false detections are accepted."""
    confidences = np.sort(wrong)[::-1]
    allowed = [int(rate * boxes + 1e-9) for rate in RATES]
    return np.array([np.nextafter(confidences[n], np.inf) if n < len(confidences) else 0.0 for n in allowed])
