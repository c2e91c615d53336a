"""Results of the frames that are not encoded: between two steps, or as still as the one before.

A frame between two steps gets the boxes that both have in common, on the straight line from one to the other, with the
confidence on the line between theirs. Boxes of two steps belong together where a tube joins them (`tracker_id`), else
where they overlap by more than MIN_IOU; of several the pair whose overlap and confidences add up to most. A box without
a partner stays where it is, with a confidence that falls to 0 on the way to the other step.

Where the step behind is not known, because results do not wait (`Dials.waits`), boxes go where the frame's picture
shows what they held in the step before (`rdn_engine.stream.following`). They are looked for where they go at the speed
at which they were found until then, and at first at that between the two steps before, the less the more of that may be
jitter of the detector; the less the picture tells, the nearer to there they are taken to be. What is followed is the
mean of what the step before has found and of what the one before that had there by then; it keeps its size, but for
what the edge of the frame cuts off or had cut off. A box is worth what its tube says, be it linked for that alone, and
the less the less like what it held it holds. A box that the step before has lost is looked for as well, by what it held
in the step before that.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from rdn_engine.config import Dials
from rdn_engine.kernels import cpu
from rdn_engine.results import Basis, Detections
from rdn_engine.stream.carried import Carried, Passing, part_of_way, unseen
from rdn_engine.stream.following import Picture
from rdn_engine.stream.linking import BoxLinker
from rdn_engine.stream.links import Linkable, Moved
from rdn_engine.stream.order import FrameInfo, Role
from rdn_engine.stream.pairs import (
    MIN_IOU,
    Pairs,
    interpolated,
    moved_on,
    on_frame,
    pair,
    rows_of,
    steadied,
    still_there,
    surely_moved,
    without,
)

LOST = np.float32(0.5)
"""What a box keeps of its confidence of which the next step shows nothing. Chosen as pairs.JITTER"""

FAINT = 0.1
"""Boxes of less confidence are not looked for, nor those that the next step lost. Chosen as pairs.JITTER"""

BY_OVERLAP = Dials(link="boxes", link_delay=0, score_threshold=0.0)
"""Links boxes that are followed and not linked"""


class _Step(NamedTuple):
    frame: Passing
    result: Detections
    found: Detections
    """The result of the encoded frame whose boxes these are, as it was taken"""


class _Going(NamedTuple):
    """The boxes of the last step, where they are followed."""

    boxes: Carried
    result: Detections
    """The same boxes in the same order, as they were linked"""
    linker: BoxLinker | None
    """By which, where the stream does not link; its ids are of no use to another"""

    def moved(self, frame: Passing) -> Moved:
        """How far each has moved by a frame behind the step, as far as is known until now."""
        return Moved(self.result, self.boxes.likely(frame))


class _Linked(NamedTuple):
    """A step whose boxes were linked to be followed."""

    frame: Passing
    linker: BoxLinker
    boxes: Detections


class Between:
    """Gives the frames of one stream their results, in order: those of encoded frames as they come, the others' made
    of them. Memory is that of the results that wait, and of the pictures of the two steps before and of those that
    wait.
    """

    def __init__(self, max_detections: int) -> None:
        """max_detections: of a frame, at most."""
        self._most = max_detections
        self._frames: deque[Passing] = deque()  # without a result, in order
        self._steps: deque[Passing] = deque()  # those of them that are steps
        self._found: deque[Detections] = deque()  # of the first encoded ones among them
        self._ready: list[Detections] = []  # where making a later one failed
        self._count = 0
        self._last: _Step | None = None
        self._around: Pairs | None = None  # of the step before and the one behind
        self._linked: _Linked | None = None  # the last one that was
        self._going: _Going | None = None
        self._lost: Carried | None = None  # the boxes of the step before the last that it has lost

    def append(self, info: FrameInfo, role: Role, picture: Picture | None = None) -> None:
        """A frame came.

        Args:
            info: of the frame, in the order of the stream.
            role: what becomes of it.
            picture: of the frame, by which boxes are followed to it or from it where results do not wait.
        """
        frame = Passing(info, role, self._count, picture)
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
            result = self._step(dials) if self._frames[0].role != "between" else self._between(dials, ended)
            if result is None:
                break
            self._ready.append(result)
            self._frames.popleft()
        if ended:
            self._last = self._linked = self._going = self._lost = None
            self._count = 0
        ready, self._ready = self._ready, []
        return ready

    def _step(self, dials: Dials) -> Detections | None:
        """The result of the first frame, a step, if it is known."""
        frame = self._frames[0]
        result = self._result(frame)
        if result is None:
            return None
        last = _Step(frame, result, result if frame.role == "encoded" or self._last is None else self._last.found)
        if dials.interval > 1 and not dials.waits:
            self._go_on(last)
        else:
            self._going = self._lost = None
        # After what may fail, and is tried again.
        if frame.role == "encoded":
            self._found.popleft()
        self._steps.popleft()
        self._last, self._around = last, None
        return result

    def _result(self, step: Passing) -> Detections | None:
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
            if self._around is None:
                self._around = pair(last.result, behind)
            part = part_of_way(last.frame, frame, self._steps[0])
            result = interpolated(last.result, behind, self._around, part)
            return self._given(result, frame, "interpolated", dials)
        if dials.waits and not ended:
            return None
        return self._given(self._followed(last, frame), frame, "extrapolated", dials)

    def moved(self) -> Moved | None:
        """How far the boxes of the last result of a step are likely to have moved by the next step, which has come;
        None where they were not followed.
        """
        return None if self._going is None or not self._steps else self._going.moved(self._steps[0])

    def _followed(self, last: _Step, frame: Passing) -> Detections:
        """Boxes of the last step, and those that it has lost, in a frame behind it."""
        if self._going is None:
            self._go_on(last)
        assert self._going is not None
        result, lost = _gone_on(self._going.boxes, frame), self._lost
        if lost is not None:
            result = _joined(result, _gone_on(lost, frame))
        return result if last.result.tracker_id is not None else replace(result, tracker_id=None)

    def _go_on(self, last: _Step) -> None:
        """The boxes of a step are followed from now on, and those of the step before it that are not among them."""
        going, boxes, found, linker = self._going, last.result, last.found, None
        moved = None if going is None else going.moved(last.frame)
        if boxes.tracker_id is None:
            if self._linked is None or self._linked.frame is not last.frame:  # once, though what follows may fail
                linker = BoxLinker() if going is None or going.linker is None else going.linker
                linkable = Linkable(boxes, np.zeros(len(boxes), np.int64), None)
                [boxes] = linker.push(linkable, BY_OVERLAP, moved)
                self._linked = _Linked(last.frame, linker, boxes)
            _, linker, boxes = self._linked
            found = boxes
        speed = np.zeros((len(boxes), 2), np.float32)
        if going is None or moved is None:
            self._going, self._lost = _Going(Carried(last.frame, boxes, speed, FAINT), found, linker), None
            return
        before = going.boxes
        same = going.linker is linker
        known = before.boxes if same else replace(before.boxes, tracker_id=None)
        there = replace(known, xyxy=on_frame(known, moved.by))
        pairs = pair(there, boxes)
        if last.frame.role == "encoded":  # else it shows what the one before showed, and nothing has moved
            speed[pairs.after] = surely_moved(known, boxes, pairs)
            if before.likeness is not None:
                sure = replace(there, confidence=there.confidence * still_there(before.likeness))
                boxes = steadied(sure, boxes, pairs)
        rows = without(pairs.before, len(there))
        rows = rows[there.confidence[rows] >= FAINT]
        hidden, _, _ = cpu.overlaps(
            there.xyxy[rows],
            there.class_id[rows],
            other_boxes=boxes.xyxy,
            other_classes=boxes.class_id,
            limit=MIN_IOU,
        )
        rows, lost = np.delete(rows, hidden), None
        if len(rows) and same:  # else they have no identity among those of this step
            gone = rows_of(known, rows)
            gone = replace(gone, confidence=LOST * gone.confidence)
            lost = Carried(before.frame, gone, moved.by[rows], FAINT, by=unseen(last.frame))
        boxes_on = Carried(last.frame, boxes, speed, FAINT, since=unseen(before.frame))
        self._going, self._lost = _Going(boxes_on, found, linker), lost

    def _given(self, result: Detections, frame: Passing, basis: Basis, dials: Dials) -> Detections:
        return _of_frame(_certain(result, dials.score_threshold, self._most), frame.info, basis)


def _certain(result: Detections, threshold: float, most: int) -> Detections:
    """Those above a confidence, the best of them; they come best first."""
    return rows_of(result, np.arange(min(int(np.count_nonzero(result.confidence > threshold)), most)))


def _gone_on(boxes: Carried, frame: Passing) -> Detections:
    """Boxes of a step in a frame behind it."""
    return moved_on(boxes.boxes, *boxes.follow(frame))


def _joined(one: Detections, other: Detections) -> Detections:
    """The boxes of two results of a frame, best first; both linked or both not."""
    both = replace(
        one,
        xyxy=np.concatenate([one.xyxy, other.xyxy]),
        confidence=np.concatenate([one.confidence, other.confidence]),
        class_id=np.concatenate([one.class_id, other.class_id]),
        tracker_id=None
        if one.tracker_id is None or other.tracker_id is None
        else np.concatenate([one.tracker_id, other.tracker_id]),
    )
    return rows_of(both, np.argsort(-both.confidence, kind="stable"))


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
