"""Boxes carried from one frame to a later one by what the two pictures show."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rdn_engine.kernels import cpu
from rdn_engine.kernels.cpu import Float

UNLIKE, SURE = np.float32(0.4), np.float32(0.9)
"""Correlations of something else, and of what is surely the same. Between the two a box goes a part of the way from
where it was likely to go to what is most like it. Chosen, as are the numbers of csrc/cpu/following.cpp, on videos of
the split `tuning` (benchmarks/quality/interval_accuracy.py)"""


class Picture(NamedTuple):
    """A frame in small."""

    colours: NDArray[np.uint8]
    """[h, w, 3] mean of each colour over each block of the frame"""
    side: tuple[int, int]
    """(height, width) of a block, pixels of the frame"""


def followed(before: Picture, after: Picture, boxes: Float, guess: Float) -> tuple[Float, Float]:
    """Where boxes have moved to.

    Args:
        before: of the frame that the boxes are of.
        after: of a later frame of the same size.
        boxes: [n, 4] xyxy in pixels of the frame, the last pixel included.
        guess: [n, 2] x and y that each is likely to have moved, in pixels of the frame.

    Returns:
        [n, 2] x and y that each has moved, in pixels of the frame: the nearer to the guess the less the pictures tell.
        And [n] how like what it held then what is most like it now is, -1..1.
    """
    scale = np.array([before.side[1], before.side[0]], np.float32)
    edges = boxes + np.array([0, 0, 1, 1], np.float32)
    # A box of no width, at the edge of the frame, shows nothing; the kernel wants some.
    edges[:, 2:] = np.maximum(edges[:, 2:], edges[:, :2] + 1)
    small = (edges.reshape(-1, 2, 2) / scale).reshape(-1, 4)
    moved, likeness = cpu.follow(before.colours, after.colours, boxes=small, guess=guess / scale)
    told = ((likeness - UNLIKE) / (SURE - UNLIKE)).clip(0, 1)[:, None]
    # What the kernel cannot compute, of a box as wide as numbers go, tells nothing.
    farther = np.where(np.isfinite(moved), moved * scale - guess, np.float32(0))
    return guess + told * farther, likeness
