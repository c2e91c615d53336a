"""How fast annotated objects move: mean IoU of each with itself in the frames around it (FGFA, ICCV 2017)."""

from __future__ import annotations

import numpy as np

from rdn_engine.evaluation.boxes import Bool, Detected, Float, Truth, iou, pair_iou

NEARBY = 10
"""Frames on each side"""
SLOW_ABOVE, FAST_BELOW = 0.9, 0.7


def motion_iou(truth: Truth) -> Float:
    """How far each object stays where it is.

    Args:
        truth: all annotated boxes.

    Returns:
        [n] mean IoU, 0..1, of each annotated box with those of the same instance up to NEARBY frames away, itself left
        out. NaN where nobody followed the object or no other frame that near shows it, and for ignore regions.
    """
    result = np.full(len(truth), np.nan)
    tracked = np.flatnonzero((truth.instance >= 0) & ~truth.ignore)
    keys = np.stack([truth.video[tracked], truth.instance[tracked], truth.time[tracked]])
    tracked = tracked[np.lexsort(keys[::-1])]
    breaks = np.diff(truth.instance[tracked]) | np.diff(truth.video[tracked])
    for rows in np.split(tracked, np.flatnonzero(breaks) + 1):
        time, box = truth.time[rows], truth.xyxy[rows]
        # Pairs a given number of rows apart, both ways: no matrix the size of the track squared.
        total, count = np.zeros(len(rows)), np.zeros(len(rows))
        for step in range(1, min(NEARBY, len(rows) - 1) + 1):
            near = time[step:] - time[:-step] <= NEARBY
            same = pair_iou(box[step:], box[:-step])
            total[step:] += near * same
            total[:-step] += near * same
            count[step:] += near
            count[:-step] += near
        result[rows[count > 0]] = total[count > 0] / count[count > 0]
    return result


def speeds(truth: Truth) -> dict[str, Bool]:
    """The boxes of each speed; those whose speed nobody can tell are in none.

    Args:
        truth: all annotated boxes.

    Returns:
        slow, medium and fast -> [n].
    """
    motion = motion_iou(truth)
    return {
        "slow": motion > SLOW_ABOVE,
        "medium": (motion >= FAST_BELOW) & (motion <= SLOW_ABOVE),
        "fast": motion < FAST_BELOW,
    }


def shares(truth: Truth, found: Detected, groups: dict[str, Bool]) -> dict[str, Float]:
    """How far a detection that meets nothing is a false detection of each group.

    It is one of the group of the object, of any class, that it overlaps most. Where it overlaps none, each group bears
    its share of the frame's objects, or of all objects where the frame has none. So the groups can be compared,
    however unlike in size (FGFA's evaluation).

    Args:
        truth: all annotated boxes.
        found: all detections.
        groups: name -> [n] which boxes belong to it.

    Returns:
        Name -> [m] in 0..1.
    """
    objects = np.flatnonzero(~truth.ignore)
    objects = objects[np.argsort(truth.image[objects], kind="stable")]
    members = np.stack([counts[objects] for counts in groups.values()]).astype(float)
    result = np.repeat(members.mean(axis=1, keepdims=True), len(found), axis=1)
    order = np.argsort(found.image, kind="stable")
    images, starts = np.unique(truth.image[objects], return_index=True)
    for image, columns in zip(images, np.split(np.arange(len(objects)), starts[1:]), strict=True):
        low, high = np.searchsorted(found.image, [image, image + 1], sorter=order)
        rows = order[low:high]
        if len(rows):
            overlap = iou(found.xyxy[rows], truth.xyxy[objects[columns]])
            near = (overlap == overlap.max(axis=1, keepdims=True)).astype(float)
            result[:, rows] = members[:, columns] @ (near / near.sum(axis=1, keepdims=True)).T
    return dict(zip(groups, result, strict=True))
