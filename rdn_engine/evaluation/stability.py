"""How steady detections are along an object: fragments, jitter of centre and shape (Zhang and Wang 2016)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rdn_engine.evaluation.average_precision import ClassMatch
from rdn_engine.evaluation.boxes import Bool, Detected, Float, Int, Truth, instances


@dataclass(frozen=True)
class Stability:
    """Means over the annotated instances that can tell."""

    fragments: float | None
    """0..1: how often an object is lost or found again, of the steps from frame to frame that could show it"""
    centre: float | None
    """Standard deviation of the centre's offset, in widths and in heights of the object, added"""
    shape: float | None
    """Standard deviation of the scale and of the ratio of sides, each over the object's own, added"""
    instances: int
    """Shown by two frames or more"""
    instances_found: int
    """Of those, the ones found in two frames or more, whose jitter counts"""


def stability(truth: Truth, found: Detected, matches: list[ClassMatch], kept: Bool) -> Stability:
    """The stability of the detections that are acted on.

    Args:
        truth: all annotated boxes.
        found: all detections.
        matches: of every class.
        kept: [n] which detections are acted on.

    Returns:
        Means over instances.
    """
    partner = _partner(len(truth), matches, kept)
    keys, owner, rows = instances(truth)
    fragments: list[float] = []
    centre: list[float] = []
    shape: list[float] = []
    ends = np.cumsum(np.bincount(owner, minlength=len(keys)))
    for own in np.split(rows[np.lexsort([truth.time[rows], owner])], ends[:-1]):
        if len(own) < 2:
            continue
        seen = partner[own] >= 0
        fragments.append(np.count_nonzero(np.diff(seen)) / (len(own) - 1))
        if seen.sum() < 2:
            continue
        offset, scale, ratio = _errors(truth[own[seen]], found[partner[own[seen]]])
        centre.append(float(offset.std(axis=0).sum()))
        shape.append(float(scale.std() + ratio.std()))
    return Stability(_mean(fragments), _mean(centre), _mean(shape), len(fragments), len(centre))


def _partner(boxes: int, matches: list[ClassMatch], kept: Bool) -> Int:
    """[boxes] the detection that meets each object, of those acted on; -1 for none."""
    partner = np.full(boxes, -1)
    for match in matches:
        # Ignore regions are met by several; nobody asks for theirs.
        taken = (match.met >= 0) & kept[match.rows]
        partner[match.met[taken]] = match.rows[taken]
    return partner


def _errors(truth: Truth, found: Detected) -> tuple[Float, Float, Float]:
    """Offset of the centre [n, 2] in sides of the object, scale [n] and ratio of sides [n] over the object's."""
    ours, theirs = found.xywh(), truth.xywh()
    offset = (ours[:, :2] + ours[:, 2:] / 2 - theirs[:, :2] - theirs[:, 2:] / 2) / theirs[:, 2:]
    sides = ours[:, 2:] / theirs[:, 2:]
    return offset, np.sqrt(sides.prod(axis=1)), sides[:, 0] / sides[:, 1]


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None
