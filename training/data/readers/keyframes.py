"""Boxes between the keyframes of an annotation tool."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rdn_engine.evaluation.coco_vid import Box


@dataclass(frozen=True, slots=True)
class Keyframe:
    """What an annotator drew, or the tool's own answer at a frame"""

    t: int
    box: Box
    alive: bool
    """Whether the object is there after this frame; the last keyframe holds up to the end of the video."""
    shown: bool = True
    """Whether it is there in this frame"""
    ignore: bool = False
    """Whether it is an ignore region from this frame on, up to the next keyframe"""


def at_frames(keyframes: Sequence[Keyframe], frames: Sequence[int]) -> Iterator[tuple[int, Box, bool]]:
    """The boxes of one object in the frames of its video, moved linearly between keyframes.

    Args:
        keyframes: growing in t, each t once.
        frames: of the video, growing; a keyframe in none of them counts as the end of a stretch all the same.

    Yields:
        Frame, box and whether it is an ignore region, for each frame in which the object is there.
    """
    if not keyframes:
        return
    wanted = iter(frames)
    t = next(wanted, None)
    for one, after in itertools.zip_longest(keyframes, keyframes[1:]):
        while t is not None and t < one.t:
            t = next(wanted, None)
        if t is not None and t == one.t:
            if one.shown:
                yield t, one.box, one.ignore
            t = next(wanted, None)
        while one.alive and t is not None and (after is None or t < after.t):
            part = 0.0 if after is None else (t - one.t) / (after.t - one.t)
            yield t, _between(one.box, one.box if after is None else after.box, part), one.ignore
            t = next(wanted, None)


def _between(a: Box, b: Box, part: float) -> Box:
    x1, y1, x2, y2 = (v + (w - v) * part for v, w in zip(a, b, strict=True))
    return x1, y1, x2, y2
