"""Boxes of two steps: which of them belong together, and where they are at a moment between the two, or after both."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rdn_engine.kernels import cpu
from rdn_engine.kernels.cpu import Float, Index
from rdn_engine.results import NOBODY, Detections

MIN_IOU = 0.4
"""Boxes that belong together, where no tube says so, overlap by more: less joins boxes of little confidence, of which
every object has several, with each other's, and moves them away from it"""

JITTER = 0.2
"""Of a box's side: a movement of so much between two steps goes on by half, a larger one by more. Chosen on videos of
the split `tuning` (benchmarks/quality/interval_accuracy.py)"""

EARLIER = np.float32(0.4)
"""What the confidence of a box of the step before counts, beside that of the box of this step, in where both say that
their object is. Chosen as JITTER"""

ALIKE, ALIKE_WIDTH = np.float32(0.2), np.float32(0.15)
"""A box keeps half of its confidence where this likeness to what it held in its step is left, and nearly all, or hardly
any of it, a few times this width above or below: its object is hidden, or has left. Chosen as JITTER"""


AT_EDGE = np.float32(0.05)
"""Of a box's side: one that is no farther from the frame's edge is taken to be cut off by it. Chosen as JITTER"""


class Pairs(NamedTuple):
    """Boxes of two steps that belong together."""

    before: Index
    """[p] rows of the earlier step"""
    after: Index
    """[p] rows of the later one"""


def pair(before: Detections, after: Detections) -> Pairs:
    """Which boxes of two steps are of one object.

    Args:
        before, after: results of two steps, both linked or both not.

    Returns:
        Rows of both; no row twice.
    """
    rows = others = np.zeros(0, np.int64)
    if before.tracker_id is not None and after.tracker_id is not None:
        one, other = (np.flatnonzero(ids != NOBODY) for ids in (before.tracker_id, after.tracker_id))
        named = before.tracker_id[one], after.tracker_id[other]
        _, rows, others = np.intersect1d(*named, assume_unique=True, return_indices=True)
        rows, others = one[rows], other[others]
    left, right = without(rows, len(before)), without(others, len(after))
    target, source, iou = cpu.overlaps(
        after.xyxy[right],
        after.class_id[right],
        other_boxes=before.xyxy[left],
        other_classes=before.class_id[left],
        limit=MIN_IOU,
    )
    score = iou + before.confidence[left[source]] + after.confidence[right[target]]
    best = _best(source, target, score)
    return Pairs(np.concatenate([rows, left[source[best]]]), np.concatenate([others, right[target[best]]]))


def _best(source: Index, target: Index, score: Float) -> Index:
    """The pairs with the highest score, each row in one at most."""
    taken: set[int] = set()
    gone: set[int] = set()
    chosen = []
    for one in np.argsort(-score, kind="stable").tolist():
        s, t = int(source[one]), int(target[one])
        if s not in taken and t not in gone:
            taken.add(s)
            gone.add(t)
            chosen.append(one)
    return np.asarray(chosen, np.int64)


def without(rows: Index, count: int) -> Index:
    """The rows that are left.

    Args:
        rows: some of 0..count-1.
        count: how many there are.

    Returns:
        The others, growing.
    """
    there = np.ones(count, np.bool_)
    there[rows] = False
    return np.flatnonzero(there)


def interpolated(before: Detections, after: Detections, pairs: Pairs, part: float) -> Detections:
    """Boxes between two steps.

    Args:
        before, after: results of the steps.
        pairs: of their boxes.
        part: of the way from the first to the second, in 0..1.

    Returns:
        Those of the pairs on the straight line, and those without a partner where they are; facts as of `before`.
    """
    weight = np.float32(part)
    lone_before, lone_after = without(pairs.before, len(before)), without(pairs.after, len(after))
    first, second = before.confidence[pairs.before], after.confidence[pairs.after]
    confidence = [
        first + weight * (second - first),
        (1 - weight) * before.confidence[lone_before],
        weight * after.confidence[lone_after],
    ]
    moved = before.xyxy[pairs.before] + weight * (after.xyxy[pairs.after] - before.xyxy[pairs.before])
    rows = np.concatenate([pairs.before, lone_before])
    order = np.argsort(-np.concatenate(confidence), kind="stable")
    ids = None
    if before.tracker_id is not None and after.tracker_id is not None:
        ids = np.concatenate([before.tracker_id[rows], after.tracker_id[lone_after]])[order]
    return replace(
        before,
        xyxy=np.concatenate([moved, before.xyxy[lone_before], after.xyxy[lone_after]])[order],
        confidence=np.concatenate(confidence)[order],
        class_id=np.concatenate([before.class_id[rows], after.class_id[lone_after]])[order],
        tracker_id=ids,
    )


def surely_moved(earlier: Detections, last: Detections, pairs: Pairs) -> Float:
    """How far boxes moved from one step to the next, less what may be jitter of the detector.

    Args:
        earlier, last: results of two steps.
        pairs: of their boxes.

    Returns:
        [p, 2] x and y of the centre of each pair.
    """
    corners = last.xyxy[pairs.after] - earlier.xyxy[pairs.before]
    moved = (corners[:, :2] + corners[:, 2:]) / 2
    # A box of hardly any width in the network input has less than none where the frame is larger.
    area = np.maximum(_sides(last)[pairs.after], 1).prod(1, keepdims=True)
    squared = (moved**2).sum(1, keepdims=True)
    # It is float32 already, which NumPy 2.5's types do not tell.
    sure: Float = (squared / (squared + JITTER**2 * area) * moved).astype(np.float32, copy=False)
    return sure


def steadied(earlier: Detections, last: Detections, pairs: Pairs) -> Detections:
    """Boxes of a step that go on behind it: where a detector put them once is not as sure as where it put them twice.

    Args:
        earlier: boxes of the step before, where they have gone to by now, with what they keep of their confidence.
        last: result of the step.
        pairs: of their boxes.

    Returns:
        `last` with the boxes of pairs between what both say, by their confidences. Sides that the frame's edge cuts off
        stay where they are.
    """
    before, after = EARLIER * earlier.confidence[pairs.before], last.confidence[pairs.after]
    weight = (before / np.maximum(before + after, np.finfo(np.float32).tiny))[:, None]
    xyxy, cut_off = last.xyxy.copy(), np.concatenate(_cut_off(last), 1)[pairs.after]
    xyxy[pairs.after] += np.where(cut_off, 0, weight * (earlier.xyxy[pairs.before] - xyxy[pairs.after]))
    return replace(last, xyxy=xyxy)


def still_there(likeness: Float) -> Float:
    """What a box keeps of its confidence, behind its step.

    Args:
        likeness: [n] of what it holds to what it held then, at most 1.

    Returns:
        [n] parts of 1; 1 of the same.
    """
    kept: Float = (1 + np.exp((ALIKE - 1) / ALIKE_WIDTH)) / (1 + np.exp((ALIKE - likeness) / ALIKE_WIDTH))
    return kept


def moved_on(last: Detections, moved: Float, likeness: Float) -> Detections:
    """Boxes after the last step that is known.

    Args:
        last: result of the step.
        moved: [n, 2] x and y that each of its boxes has moved since.
        likeness: [n] of what each holds now to what it held then, at most 1.

    Returns:
        Those boxes, as large as they were but for what is outside the frame, best first; facts as of `last`.
    """
    result = replace(last, xyxy=on_frame(last, moved), confidence=last.confidence * still_there(likeness))
    return rows_of(result, np.argsort(-result.confidence, kind="stable"))


def rows_of(result: Detections, rows: Index) -> Detections:
    """Some of the boxes of a result.

    Args:
        result: of a frame.
        rows: [n] of its boxes.

    Returns:
        Those boxes, in that order; facts as of `result`.
    """
    return replace(
        result,
        xyxy=result.xyxy[rows],
        confidence=result.confidence[rows],
        class_id=result.class_id[rows],
        tracker_id=None if result.tracker_id is None else result.tracker_id[rows],
    )


def on_frame(boxes: Detections, moved: Float) -> Float:
    """Boxes after they moved. What would lie outside the frame is cut off, as it is in what is found; and what was cut
    off comes in: a side that was at the frame's edge stays there while the other one leaves it behind, until the box is
    as wide as it is tall, or as tall as it is wide. In a corner of the frame nobody knows how large it is.

    Args:
        boxes: of a frame, which knows its size.
        moved: [n, 2] x and y, pixels.

    Returns:
        [n, 4] xyxy.
    """
    cut_first, cut_second = _cut_off(boxes)
    sides = _sides(boxes)
    hidden = np.where((cut_first | cut_second)[:, ::-1], np.inf, np.maximum(sides[:, ::-1] - sides, 0))
    hidden = np.where(cut_first == cut_second, 0, hidden)
    first = boxes.xyxy[:, :2] + moved - np.where(cut_first, np.minimum(moved, hidden).clip(0), 0)
    second = boxes.xyxy[:, 2:] + moved + np.where(cut_second, np.minimum(-moved, hidden).clip(0), 0)
    edge = np.array([boxes.width - 1, boxes.height - 1] * 2, np.float32)
    xyxy: Float = np.concatenate([first, second], 1).clip(0, edge)
    return xyxy


def _sides(boxes: Detections) -> Float:
    """[n, 2] width and height, pixels."""
    sides: Float = boxes.xyxy[:, 2:] - boxes.xyxy[:, :2] + 1
    return sides


def _cut_off(boxes: Detections) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """[n, 2] whether the frame's edge cuts off the left and the upper side, and the same of the right and the lower."""
    edge = np.array([boxes.width - 1, boxes.height - 1], np.float32)
    near = AT_EDGE * _sides(boxes)
    return boxes.xyxy[:, :2] <= near, boxes.xyxy[:, 2:] >= edge - near
