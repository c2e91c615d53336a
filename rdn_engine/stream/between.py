"""Results of the frames that are not encoded: between two steps, or as still as the one before.

A frame between two steps gets the boxes that both have in common, on the straight line from one to the other, with the
confidence on the line between theirs. Boxes of two steps belong together where a tube joins them (`tracker_id`), else
where they overlap by more than MIN_IOU; of several the pair whose overlap and confidences add up to most. A box without
a partner stays where it is, with a confidence that falls to 0 on the way to the other step.

Where the step behind is not known, because results do not wait (`Dials.waits`), boxes go where the frame's picture
shows what they held in the step before (`rdn_engine.stream.following`). They are looked for where they go at the speed
at which they were found until then, and at first at that between the two steps before, the less the more of that may be
jitter of the detector; there they are taken to be where no picture is there or nothing in it tells. None grows.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from rdn_engine.config import Dials
from rdn_engine.kernels import cpu
from rdn_engine.kernels.cpu import Float, Index
from rdn_engine.results import NOBODY, Basis, Detections
from rdn_engine.stream.following import Picture, followed
from rdn_engine.stream.order import FrameInfo, Role

MIN_IOU = 0.4
"""Boxes that belong together, where no tube says so, overlap by more: less joins boxes of little confidence, of which
every object has several, with each other's, and moves them away from it"""

JITTER = 0.2
"""Of a box's side: a movement of so much between two steps goes on by half, a larger one by more. Chosen on videos of
the split `tuning` (benchmarks/quality/interval_accuracy.py)"""

ALIKE = 0.5
"""A box that holds something less like what it held in the step before is doubted: its object is hidden, or has left.
Chosen as JITTER"""

UNLIKE = np.float32(0.3)
"""What such a box keeps of its confidence. Chosen as JITTER"""

FAINT = 0.05
"""Boxes of less confidence are not looked for: there may be hundreds, and they go where they were likely to go"""

MOST_FASTER = 2.0
"""A box is looked for at most so many times as far as it had moved by the frame before: the second frame behind a step
is twice as far from it as the first"""


class _Frame(NamedTuple):
    """A frame whose result is still to come, or of a step that was given out."""

    info: FrameInfo
    role: Role
    number: int
    """Its own in the epoch, from 0"""
    picture: Picture | None
    """None where boxes are not followed"""


class _Step(NamedTuple):
    frame: _Frame
    result: Detections


def _unseen(frame: _Frame) -> _Frame:
    """A frame of which the time is still wanted, not the picture."""
    return frame._replace(picture=None)


class Between:
    """Gives the frames of one stream their results, in order: those of encoded frames as they come, the others' made
    of them. Memory is that of the results that wait, and of the pictures of the step before and of those that wait.
    """

    def __init__(self, max_detections: int) -> None:
        """max_detections: of a frame, at most."""
        self._most = max_detections
        self._frames: deque[_Frame] = deque()  # without a result, in order
        self._steps: deque[_Frame] = deque()  # those of them that are steps
        self._found: deque[Detections] = deque()  # of the first encoded ones among them
        self._ready: list[Detections] = []  # where making a later one failed
        self._count = 0
        self._earlier: _Step | None = None
        self._last: _Step | None = None
        self._behind: Pairs | None = None  # of the two steps before
        self._around: Pairs | None = None  # of the step before and the one behind
        self._gone: tuple[_Frame, Float] | None = None  # a frame to which boxes were followed, and how far

    def append(self, info: FrameInfo, role: Role, picture: Picture | None = None) -> None:
        """A frame came.

        Args:
            info: of the frame, in the order of the stream.
            role: what becomes of it.
            picture: of the frame, by which boxes are followed to it or from it where results do not wait.
        """
        frame = _Frame(info, role, self._count, picture)
        self._count += 1
        self._frames.append(frame)
        if role != "between":
            self._steps.append(frame)

    def promote(self) -> None:
        """The last frame that came is encoded after all."""
        frame = self._frames[-1]._replace(role="encoded")
        self._frames[-1] = frame
        self._steps.append(frame)

    def take(self, found: list[Detections], dials: Dials, *, ended: bool = False) -> list[Detections]:
        """The results that are ready.

        Args:
            found: results of the next encoded frames, linked if they are to be.
            dials: say whether a frame between waits for the step behind it, and what is too uncertain to be given out.
            ended: whether no more frames of this epoch will come. `found` is complete then; the next frame begins anew.

        Returns:
            Of each frame one, in order, all in all.
        """
        self._found += found
        while self._frames:
            result = self._step() if self._frames[0].role != "between" else self._between(dials, ended)
            if result is None:
                break
            self._ready.append(result)
            self._frames.popleft()
        if ended:
            self._earlier = self._last = self._gone = None
            self._count = 0
        ready, self._ready = self._ready, []
        return ready

    def _step(self) -> Detections | None:
        """The result of the first frame, a step, if it is known."""
        result = self._result(self._frames[0])
        if result is None:
            return None
        if self._frames[0].role == "encoded":
            self._found.popleft()
        self._steps.popleft()
        self._earlier = None if self._last is None else _Step(_unseen(self._last.frame), self._last.result)
        self._last = _Step(self._frames[0], result)
        self._behind, self._around, self._gone = self._around, None, None
        return result

    def _result(self, step: _Frame) -> Detections | None:
        """Of the first step that waits."""
        if step.role == "encoded":
            return self._found[0] if self._found else None
        assert self._last is not None, "a still step comes after an encoded one"
        return _of_frame(self._last.result, step.info, "still")

    def _between(self, dials: Dials, ended: bool) -> Detections | None:
        """The result of the first frame, which is between two steps, if it need not wait."""
        frame, last = self._frames[0], self._last
        assert last is not None, "an epoch begins with a step"
        behind = self._result(self._steps[0]) if self._steps else None
        if behind is not None:
            after = _Step(self._steps[0], behind)
            if self._around is None:
                self._around = pair(last.result, behind)
            part = _part(last.frame, frame, after.frame)
            result = interpolated(last.result, behind, self._around, part)
            return self._given(result, frame, "interpolated", dials)
        if dials.waits and not ended:
            return None
        return self._given(moved_on(last.result, *self._moved(last, frame)), frame, "extrapolated", dials)

    def _moved(self, last: _Step, frame: _Frame) -> tuple[Float, Float]:
        """[n, 2] how far the boxes of the step before have moved, in x and y, by a frame behind it, and [n] how like
        what they held then what they hold now is.
        """
        likeness = np.ones(len(last.result), np.float32)
        moved = np.zeros((len(last.result), 2), np.float32)
        if self._gone is not None:
            before, moved = self._gone
            moved = moved * np.float32(min(_part(last.frame, frame, before), MOST_FASTER))
        elif self._earlier is not None:
            if self._behind is None:
                self._behind = pair(self._earlier.result, last.result)
            # No farther than the distance on which the velocity was seen.
            part = min(_part(self._earlier.frame, frame, last.frame) - 1, 1.0)
            moved[self._behind.after] = np.float32(part) * surely_moved(self._earlier.result, last.result, self._behind)
        if last.frame.picture is not None and frame.picture is not None:
            sure = int(np.count_nonzero(last.result.confidence >= FAINT))  # they come best first
            moved[:sure], likeness[:sure] = followed(
                last.frame.picture, frame.picture, last.result.xyxy[:sure], moved[:sure]
            )
            self._gone = _unseen(frame), moved
        return moved, likeness

    def _given(self, result: Detections, frame: _Frame, basis: Basis, dials: Dials) -> Detections:
        return _of_frame(_certain(result, dials.score_threshold, self._most), frame.info, basis)


def _certain(result: Detections, threshold: float, most: int) -> Detections:
    """Those above a confidence, the best of them; they come best first."""
    count = min(int(np.count_nonzero(result.confidence > threshold)), most)
    return replace(
        result,
        xyxy=result.xyxy[:count],
        confidence=result.confidence[:count],
        class_id=result.class_id[:count],
        tracker_id=None if result.tracker_id is None else result.tracker_id[:count],
    )


def _of_frame(result: Detections, info: FrameInfo, basis: Basis) -> Detections:
    """Boxes of one frame as those of another."""
    return replace(
        result,
        frame_index=info.frame_index,
        pts=info.pts,
        source_id=info.source_id,
        capture=info.capture,
        basis=basis,
    )


def _part(a: _Frame, b: _Frame, c: _Frame) -> float:
    """(b - a) / (c - a) in time: by timestamps where all three have one, else by their places in the source, else by
    how many frames came. What does not go up as the frames came tells nothing.
    """
    for times in (
        (a.info.pts, b.info.pts, c.info.pts),
        (a.info.frame_index, b.info.frame_index, c.info.frame_index),
    ):
        first, there, last = times
        if first is None or there is None or last is None or min(there, last) <= first:
            continue
        if (there - last) * (b.number - c.number) >= 0:
            return (there - first) / (last - first)
    return (b.number - a.number) / (c.number - a.number)


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
    left, right = _without(rows, len(before)), _without(others, len(after))
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


def _without(rows: Index, count: int) -> Index:
    """Those of 0..count-1 that are not among some."""
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
    lone_before, lone_after = _without(pairs.before, len(before)), _without(pairs.after, len(after))
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
    # A box of hardly any width in the network input has less than none where the frame is larger.
    sides = np.maximum(last.xyxy[pairs.after, 2:] - last.xyxy[pairs.after, :2] + 1, 1)
    moved = (corners[:, :2] + corners[:, 2:]) / 2
    squared = (moved**2).sum(1, keepdims=True)
    sure = squared / (squared + JITTER**2 * sides.prod(1, keepdims=True))
    found: Float = sure * moved
    return found


def moved_on(last: Detections, moved: Float, likeness: Float) -> Detections:
    """Boxes after the last step that is known.

    Args:
        last: result of the step.
        moved: [n, 2] x and y that each of its boxes has moved since.
        likeness: [n] of what each holds now to what it held then, at most 1.

    Returns:
        Those boxes, as large as they were but for what is outside the frame, best first; facts as of `last`.
    """
    xyxy = (last.xyxy + np.tile(moved, 2)).clip(0, np.array([last.width - 1, last.height - 1] * 2, np.float32))
    confidence = last.confidence * np.where(likeness < ALIKE, UNLIKE, np.float32(1))
    order = np.argsort(-confidence, kind="stable")
    return replace(
        last,
        xyxy=xyxy[order],
        confidence=confidence[order],
        class_id=last.class_id[order],
        tracker_id=None if last.tracker_id is None else last.tracker_id[order],
    )
