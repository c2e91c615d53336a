"""Links between the boxes of a frame and those of the one before it (paper, equation 8), and for Seq-NMS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from rdn_engine.config import LinkMethod
from rdn_engine.kernels import cpu
from rdn_engine.kernels.cpu import Double, Float, Index
from rdn_engine.results import Detections
from rdn_engine.stream.pairs import on_frame

MIN_IOU = 0.3
"""Boxes of a tube's neighbouring frames overlap by more."""
MOVED_MIN_IOU = 0.4
"""The same where it is known how far those of the first have moved. Chosen on videos of the split `tuning`
(benchmarks/quality/interval_accuracy.py)"""
STAYED_MIN_IOU = 0.6
"""The same of boxes that are taken to have moved and did not, where results wait: a pattern that repeats itself
misleads what follows them. Chosen as MOVED_MIN_IOU, by how often identities change; where nothing waits it costs
accuracy"""
SEQ_NMS_LINK_IOU = 0.5
SEQ_NMS_RIVAL_IOU = 0.3


class Linkable(NamedTuple):
    """One frame's boxes and what links them to the next frame's."""

    found: Detections
    """Boxes above `detection_threshold`, not linked"""
    proposal: Index
    """[n] reference proposal of each box"""
    omega: Float | None
    """[N, W] weights of the reference proposals for the first W proposals of the next frame; None: no relations"""
    features: Float | None = None
    """[m, D] of the proposals of the first m boxes, m <= n; None where there are none, or none are wanted"""


class Moved(NamedTuple):
    """How far the boxes of a frame are likely to have moved since."""

    result: Detections
    """The frame's: the very object that the linker gave out, or that it was given"""
    by: Float
    """[n, 2] x and y of each of its boxes, in pixels"""


@dataclass(frozen=True)
class LinkedFrame:
    """A frame and its links to the frame before; those of the first one that waits lead to the rows of the tubes."""

    found: Detections
    """Not linked"""
    source: Index
    """[links] row in the frame before, ascending within `target`"""
    target: Index
    """[links] row in this frame, ascending"""
    score: Double
    """[links] what a path gains by each"""
    value: Double
    """[n] what a path gains by each box"""
    rival_of: Index
    """[rivals] row, ascending"""
    rival: Index
    """[rivals] row that leaves when a path takes `rival_of`"""
    features: Float | None
    """[m, D] of the first m boxes"""


def moved_boxes(found: Detections, rows: Index | slice, by: Float) -> Detections:
    """Boxes some of which have moved.

    Args:
        found: of a frame.
        rows: that have moved.
        by: [rows, 2] x and y of each, in pixels.

    Returns:
        All of them. What would lie outside the frame is cut off, as it is in what is found.
    """
    moved = np.zeros((len(found), 2), np.float32)
    moved[rows] = by
    return replace(found, xyxy=on_frame(found, moved))


def linked(
    before: Linkable | None, now: Linkable, method: LinkMethod, places: Sequence[tuple[Detections, float]] = ()
) -> LinkedFrame:
    """Link a frame to the one before it (equation 8).

    Args:
        before: of the epoch; None for its first frame.
        now: the frame.
        method: what links them.
        places: where the boxes of the frame before may be by now, and by how much a link's boxes overlap there at
            least; of Seq-NMS by SEQ_NMS_LINK_IOU or more. Where they were, if nothing is given.
    """
    found, none, no_scores = now.found, np.zeros(0, np.int64), np.zeros(0)
    source, target, score = none, none, no_scores
    if before is not None:
        least = SEQ_NMS_LINK_IOU if method == "seq_nms" else 0.0
        first, *others = places or [(before.found, MIN_IOU)]
        target, source, iou = _overlaps(found, first[0], max(first[1], least))
        for boxes, limit in others:
            more = _overlaps(found, boxes, max(limit, least))
            target, source, iou = _either((target, source, iou), more, len(boxes))
        if method == "boxes":
            before = before._replace(omega=None)
        score = np.zeros(len(iou)) if method == "seq_nms" else _link_scores(before, now, source, target, iou)
    value, rival_of, rival = np.zeros(len(found)), none, none
    if method == "seq_nms":
        value = found.confidence.astype(np.float64)
        rival_of, rival, _ = _overlaps(found, found, SEQ_NMS_RIVAL_IOU)
    return LinkedFrame(found, source, target, score, value, rival_of, rival, now.features)


def _link_scores(before: Linkable, now: Linkable, source: Index, target: Index, iou: Float) -> Double:
    """Equation 8 for each link."""
    score = before.found.confidence[source].astype(np.float64) + now.found.confidence[target] + iou
    if before.omega is None:
        return score
    i, j = before.proposal[source], now.proposal[target]
    supports = j < before.omega.shape[1]
    score[supports] *= np.exp(before.omega[i[supports], j[supports]].astype(np.float64))
    return score


def _overlaps(a: Detections, b: Detections, limit: float) -> tuple[Index, Index, Float]:
    return cpu.overlaps(a.xyxy, a.class_id, other_boxes=b.xyxy, other_classes=b.class_id, limit=limit)


def _either(
    one: tuple[Index, Index, Float], other: tuple[Index, Index, Float], sources: int
) -> tuple[Index, Index, Float]:
    """Pairs that are in one of two lists of overlaps, in the order of either; of those in both the larger."""
    target, source = np.concatenate([one[0], other[0]]), np.concatenate([one[1], other[1]])
    iou = np.concatenate([one[2], other[2]])
    order = np.lexsort((-iou, source, target))
    pair = (target * sources + source)[order]
    first = np.ones(len(pair), np.bool_)
    first[1:] = pair[1:] != pair[:-1]
    kept = order[first]
    return target[kept], source[kept], iou[kept]
