"""Boxes joined along a video: the kernels of csrc/bindings/linking.cpp."""

from __future__ import annotations

import numpy as np

from rdn_engine.kernels import _C
from rdn_engine.kernels.cpu.arrays import Double, Float, Index


def assign(gain: Double) -> Index:
    """Pair rows with columns, each with one at most, so that the sum of the gains is largest (Kuhn 1955).

    Args:
        gain: [n, m] what a pair is worth, finite; a pair of 0 or less is none.

    Returns:
        [n] the column of each row, -1 for none.

    Raises:
        ValueError: an argument does not fit.
    """
    return _C.assign(np.ascontiguousarray(gain))


def overlaps(
    boxes: Float, classes: Index, *, other_boxes: Float, other_classes: Index, limit: float
) -> tuple[Index, Index, Float]:
    """Pairs of boxes of one class that overlap by more than a limit.

    Args:
        boxes: [n, 4].
        classes: [n].
        other_boxes: [m, 4].
        other_classes: [m].
        limit: IoU in 0..1 that a pair's is above.

    Returns:
        Of each pair the row, the row of the other, and the IoU; by row and then by other.

    Raises:
        ValueError: an argument does not fit.
    """
    return _C.overlaps(
        np.ascontiguousarray(boxes),
        np.ascontiguousarray(classes),
        np.ascontiguousarray(other_boxes),
        np.ascontiguousarray(other_classes),
        limit,
    )


def group_means(group: Index, score: Float, *, groups: int, better_half: bool) -> Double:
    """Mean score of each group.

    Args:
        group: [n] of each score, in 0..groups-1.
        score: [n].
        groups: how many there are, 0 or more.
        better_half: only the ceil(k / 2) highest of a group's k scores count (paper, section 3.4).

    Returns:
        [groups]; 0 for an empty one.

    Raises:
        ValueError: an argument does not fit.
    """
    return _C.group_means(np.ascontiguousarray(group), np.ascontiguousarray(score), groups, better_half)


def link_paths(
    *, value: Double, link_start: Index, source: Index, score: Double, rival_start: Index, rival: Index
) -> tuple[Index, int]:
    """The paths through linked boxes, each the best of those that better ones left (paper, equation 9).

    A path starts and ends anywhere and may be a single box; of equally good ones that is taken whose last box comes
    first, then its last but one, and so on. When a path takes a box, the box's rivals leave with it.

    Args:
        value: [n] what a path gains by each box, finite. Boxes are numbered frame by frame.
        link_start: [n + 1] the links into box b are link_start[b]..link_start[b + 1].
        source: [links] box at the other end of each, smaller than b, ascending for each b.
        score: [links] what a path gains by each, finite.
        rival_start: [n + 1] the rivals of box b are rival_start[b]..rival_start[b + 1].
        rival: [rivals] boxes, in 0..n-1.

    Returns:
        Number of each box's path [n], from 0, -1 for rivals that left; and how many paths there are. Of boxes that
        links or rivals join, directly or not, the better path has the smaller number.

    Raises:
        ValueError: an argument does not fit.
    """
    return _C.link_paths(
        np.ascontiguousarray(value),
        np.ascontiguousarray(link_start),
        np.ascontiguousarray(source),
        np.ascontiguousarray(score),
        np.ascontiguousarray(rival_start),
        np.ascontiguousarray(rival),
    )
