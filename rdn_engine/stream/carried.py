"""Boxes of one step carried to the frames behind it, by what their pictures show."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from rdn_engine.kernels import cpu
from rdn_engine.kernels.cpu import Float
from rdn_engine.results import Detections
from rdn_engine.stream.following import Picture, followed
from rdn_engine.stream.order import FrameInfo, Role
from rdn_engine.stream.pairs import MIN_IOU

MOST_FASTER = 2.0
"""A box is looked for at most so many times as far as it had moved by the frame before: the second frame behind a step
is twice as far from it as the first"""


class Passing(NamedTuple):
    """A frame that came, as long as it is wanted."""

    info: FrameInfo
    role: Role
    number: int
    """Its own in the epoch, from 0"""
    picture: Picture | None
    """None where boxes are not followed"""


def unseen(frame: Passing) -> Passing:
    """A frame of which the time is still wanted, not the picture."""
    return frame._replace(picture=None)


class Carried:
    """Boxes of a step that go on behind it."""

    def __init__(
        self,
        frame: Passing,
        boxes: Detections,
        moved: Float,
        faint: float,
        *,
        since: Passing | None = None,
        by: Passing | None = None,
    ) -> None:
        """
        Args:
            frame: of the step.
            boxes: in it; their confidence is what they are worth.
            moved: [n, 2] x and y that each has moved since a frame before the step, or by one behind it.
            faint: boxes of less confidence are not looked for: there may be hundreds, and they go with the one that
                they overlap most, or else where they were likely to go.
            since, by: that frame; without either they have not moved.
        """
        self.frame = frame
        self.boxes = boxes
        self.likeness: Float | None = None
        """[n] of what each holds in the last frame to which it was followed to what it held in the step"""
        self.by = by
        """The last frame to which they were followed"""
        self._moved, self._since = moved, since
        self._leader = np.arange(len(boxes))  # the box that each goes with
        self._sought = np.flatnonzero(boxes.confidence >= faint)
        others = np.flatnonzero(boxes.confidence < faint)
        xyxy, same = boxes.xyxy, np.zeros(len(boxes), np.int64)  # of whatever class
        target, source, iou = cpu.overlaps(
            xyxy[others], same[others], other_boxes=xyxy[self._sought], other_classes=same[self._sought], limit=MIN_IOU
        )
        nearest = np.argsort(iou, kind="stable")  # of several the last stays
        self._leader[others[target[nearest]]] = self._sought[source[nearest]]

    def likely(self, frame: Passing) -> Float:
        """[n, 2] how far each has moved by a frame behind the step, as far as is known until now."""
        part = 0.0
        if self.by is not None:
            part = min(part_of_way(self.frame, frame, self.by), MOST_FASTER)
        elif self._since is not None:
            # No farther than the distance on which the velocity was seen.
            part = min(part_of_way(self._since, frame, self.frame) - 1, 1.0)
        return self._moved * np.float32(part)

    def follow(self, frame: Passing) -> tuple[Float, Float]:
        """Look for the boxes in the next frame behind the step, or say again what was found there.

        Returns:
            [n, 2] x and y that each has moved since the step, in pixels. And [n] how like what it held then what it
            holds now is, at most 1.
        """
        if self.likeness is not None and self.by is not None and self.by.info is frame.info:
            return self._moved, self.likeness
        moved, likeness = self.likely(frame), np.ones(len(self.boxes), np.float32)
        if self.frame.picture is not None and frame.picture is not None:
            rows = self._sought
            moved[rows], likeness[rows] = followed(
                self.frame.picture, frame.picture, self.boxes.xyxy[rows], moved[rows]
            )
            moved, likeness = moved[self._leader], likeness[self._leader]
        self._moved, self.by, self.likeness = moved, unseen(frame), likeness
        return moved, likeness


def part_of_way(a: Passing, b: Passing, c: Passing) -> float:
    """(b - a) / (c - a) in time: by timestamps where all three have one, else by their places in the source, else by
    how many frames came. What does not go up as the frames came tells nothing, nor what goes up by more than there are
    numbers.
    """
    for times in (
        (a.info.pts, b.info.pts, c.info.pts),
        (a.info.frame_index, b.info.frame_index, c.info.frame_index),
    ):
        first, there, last = times
        if first is None or there is None or last is None or min(there, last) <= first:
            continue
        if last - first < math.inf and (there - last) * (b.number - c.number) >= 0:
            return (there - first) / (last - first)
    return (b.number - a.number) / (c.number - a.number)
