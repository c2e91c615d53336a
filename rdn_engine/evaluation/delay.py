"""How long an object is there before it is found: average delay (Mao, Yang and Dally, ICCV 2019).

The threshold on the confidence is the one at which the detector makes `rate` false detections for each annotated box.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rdn_engine.evaluation.average_precision import ClassMatch
from rdn_engine.evaluation.boxes import Bool, Detected, Float, Int, Truth, instances

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
    found: Bool
    """[rates, instances] whether it is found at all, within LONGEST frames"""
    entering: Bool
    """[instances] appears after the first frame of its video"""
    video: Int
    """[instances] `Video.id`"""
    first: Int
    """[instances] `frame_id` of its first frame"""

    def average(self, chosen: Bool) -> float | None:
        """Harmonic mean over the rates of 1 + the mean delay of the chosen instances, less the 1.

        Args:
            chosen: [instances].

        Returns:
            Frames, 0 or more; None where no instance is chosen.
        """
        return average(self.frames[:, chosen])


def average(frames: Float) -> float | None:
    """Harmonic mean over the rates of 1 + the mean delay, less the 1.

    Args:
        frames: [rates, instances], 0 or more.

    Returns:
        Frames, 0 or more; None without instances.
    """
    return float(1 / np.mean(1 / (1 + frames.mean(axis=1))) - 1) if frames.size else None


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
    known, first, last = _lives(truth)
    rows, met = rows[met >= 0], met[met >= 0]
    tracked = (truth.instance[met] >= 0) & ~truth.ignore[met]
    rows, met = rows[tracked], met[tracked]
    owner = _owner(truth, known, met)
    confidence, time = found.confidence[rows], truth.time[met]
    frames = np.empty((len(RATES), len(first)))
    seen_at_all = np.empty(frames.shape, bool)
    for row, seen_row, threshold in zip(frames, seen_at_all, thresholds, strict=True):
        seen = last + 1
        accepted = confidence >= threshold
        np.minimum.at(seen, owner[accepted], time[accepted])
        seen_row[:] = (seen <= last) & (seen - first <= LONGEST)
        row[:] = np.minimum(seen - first, LONGEST)
    entering = first > np.array([starts[int(video)] for video in known[:, 0]])
    return Delays(thresholds, frames, seen_at_all, entering, known[:, 0], first)


def _lives(truth: Truth) -> tuple[Int, Int, Int]:
    """(video, instance) [i, 2], and the times of its first and last frame [i]"""
    known, owner, rows = instances(truth)
    first = np.full(len(known), np.iinfo(np.int64).max)
    last = np.full(len(known), np.iinfo(np.int64).min)
    np.minimum.at(first, owner, truth.time[rows])
    np.maximum.at(last, owner, truth.time[rows])
    return known, first, last


def _owner(truth: Truth, known: Int, rows: Int) -> Int:
    """The row of `known` of each of these annotated boxes."""
    numbers = {(int(v), int(i)): n for n, (v, i) in enumerate(known)}
    pairs = zip(truth.video[rows].tolist(), truth.instance[rows].tolist(), strict=True)
    return np.array([numbers[pair] for pair in pairs], np.int64)


def _thresholds(wrong: Float, boxes: int) -> Float:
    """[rates] lowest threshold at which no more than rate * boxes of the false detections are accepted."""
    confidences = np.sort(wrong)[::-1]
    allowed = [int(rate * boxes + 1e-9) for rate in RATES]
    return np.array([np.nextafter(confidences[n], np.inf) if n < len(confidences) else 0.0 for n in allowed])
