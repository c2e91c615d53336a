"""Boxes joined along a video: the kernels of csrc/bindings/linking.cpp."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rdn_engine.kernels import _C
from rdn_engine.kernels.cpu.arrays import Float, Index


def overlaps(
    boxes: Float, classes: Index, other_boxes: Float, other_classes: Index, limit: float
) -> tuple[Index, Index, Float]:
    """Pairs of boxes [n, 4] and other_boxes [m, 4] of one class (classes [n], other_classes [m]) of an IoU > limit.

    -> row, row of the other, IoU of each pair, by row and then by other.
    """
    return _C.overlaps(
        np.ascontiguousarray(boxes),
        np.ascontiguousarray(classes),
        np.ascontiguousarray(other_boxes),
        np.ascontiguousarray(other_classes),
        limit,
    )


def group_means(group: Index, score: Float, groups: int, better_half: bool) -> NDArray[np.float64]:
    """Mean score [groups] of each group, or of the ceil(n / 2) highest of its n; 0 for an empty one.

    group [n] in 0..groups-1 of each score [n].
    """
    return _C.group_means(np.ascontiguousarray(group), np.ascontiguousarray(score), groups, better_half)


def link_paths(
    value: NDArray[np.float64],
    link_start: Index,
    source: Index,
    score: NDArray[np.float64],
    rival_start: Index,
    rival: Index,
) -> tuple[Index, int]:
    """The paths through linked boxes, each the best of those that better ones left (paper, equation 9).

    Boxes are numbered frame by frame. value [n]: what a path gains by each; the links into box b are
    link_start[b]..link_start[b + 1] (link_start [n + 1]): source [links] is their other end, ascending and smaller
    than b, score [links] what a path gains by it. When a path takes box b, the boxes
    rival[rival_start[b]..rival_start[b + 1]] leave with it. A path starts and ends anywhere and may be a single box;
    of equally good ones that is taken whose last box comes first, then its last but one, and so on.
    -> number of each box's path [n], from 0, -1 for rivals that left; and how many paths there are. Of boxes that links
    or rivals join, directly or not, the better path has the smaller number.
    """
    return _C.link_paths(
        np.ascontiguousarray(value),
        np.ascontiguousarray(link_start),
        np.ascontiguousarray(source),
        np.ascontiguousarray(score),
        np.ascontiguousarray(rival_start),
        np.ascontiguousarray(rival),
    )
