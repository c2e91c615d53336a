"""The definition of the box, pooling and sampling kernels: float64, loops, no cleverness.

A side is x2 - x1 + 1. Boxes are xyxy in pixels of the network input.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LARGEST_LOG_SCALE = math.log(1000 / 16)


def decode(box: Array, delta: Array, weights: tuple[float, ...] = (1, 1, 1, 1)) -> Array:
    x1, y1, x2, y2 = (float(value) for value in box)
    dx, dy, dw, dh = (float(value) / weight for value, weight in zip(delta, weights, strict=True))
    w, h = x2 - x1 + 1, y2 - y1 + 1
    cx, cy = x1 + w / 2 + dx * w, y1 + h / 2 + dy * h
    w, h = w * math.exp(min(dw, LARGEST_LOG_SCALE)), h * math.exp(min(dh, LARGEST_LOG_SCALE))
    return np.array([cx - w / 2, cy - h / 2, cx + w / 2 - 1, cy + h / 2 - 1])


def clip(box: Array, image_size: tuple[int, int]) -> Array:
    height, width = image_size
    return np.clip(box, 0, [width - 1, height - 1, width - 1, height - 1])


def iou(a: Array, b: Array) -> float:
    """0 where both boxes have no area."""
    w = max(min(a[2], b[2]) - max(a[0], b[0]) + 1, 0)
    h = max(min(a[3], b[3]) - max(a[1], b[1]) + 1, 0)
    areas = [(c[2] - c[0] + 1) * (c[3] - c[1] + 1) for c in (a, b)]
    union = areas[0] + areas[1] - w * h
    return float(w * h / union) if union > 0 else 0.0


def nms(boxes: Array, threshold: float) -> tuple[list[int], float]:
    """Positions kept of boxes in order, best first, and how near the nearest IoU came to the threshold."""
    kept: list[int] = []
    margin = math.inf
    for i in range(len(boxes)):
        overlaps = [iou(boxes[i], boxes[j]) for j in kept]
        margin = min([margin, *(abs(overlap - threshold) for overlap in overlaps)])
        if all(overlap <= threshold for overlap in overlaps):
            kept.append(i)
    return kept, margin


def best_first(scores: Array) -> list[int]:
    """Indices by score, highest first, equal scores by index; NaN is left out."""
    return sorted((i for i in range(len(scores)) if not math.isnan(scores[i])), key=lambda i: (-scores[i], i))


def anchors(grid: tuple[int, int], cell_anchors: Array, stride: int) -> Array:
    rows = [
        np.add(anchor, [x * stride, y * stride, x * stride, y * stride])
        for y in range(grid[0])
        for x in range(grid[1])
        for anchor in cell_anchors
    ]
    return np.array(rows).reshape(-1, 4)


def propose(
    objectness: Array,
    deltas: Array,
    all_anchors: Array,
    image_size: tuple[int, int],
    pre_nms_top_n: int,
    nms_threshold: float,
    max_proposals: int,
) -> tuple[Array, list[int], float]:
    """Of one image: boxes [n, 4], the index of each among the anchors, and the margin of `nms`."""
    order = best_first(objectness)[:pre_nms_top_n]
    boxes = [clip(decode(all_anchors[i], deltas[i]), image_size) for i in order]
    numbers = [k for k, box in enumerate(boxes) if not np.isnan(box).any()]
    kept, margin = nms(np.array([boxes[k] for k in numbers]).reshape(-1, 4), nms_threshold)
    best = [numbers[k] for k in kept[:max_proposals]]
    return np.array([boxes[k] for k in best]).reshape(-1, 4), [order[k] for k in best], margin


def detect(
    logits: Array,
    deltas: Array,
    boxes: Array,
    image_size: tuple[int, int],
    box_weights: tuple[float, ...],
    score_threshold: float,
    nms_threshold: float,
    max_detections: int,
) -> tuple[list[tuple[float, int, int, Array]], float]:
    """(score, class, proposal, box) of each detection, best first; and how near any decision came to its limit."""
    shifted = np.exp(np.asarray(logits, np.float64) - np.max(logits, axis=1, keepdims=True))
    scores = shifted / shifted.sum(axis=1, keepdims=True)
    found: list[tuple[float, int, int, Array]] = []
    margin = math.inf
    for label in range(1, scores.shape[1]):
        order = [i for i in best_first(scores[:, label]) if scores[i, label] > score_threshold]
        decoded = [clip(decode(boxes[i], deltas[i, 4 * label : 4 * label + 4], box_weights), image_size) for i in order]
        kept, nearest = nms(np.array(decoded).reshape(-1, 4), nms_threshold)
        margin = min([margin, nearest, *np.abs(scores[:, label] - score_threshold)])
        found += [(float(scores[order[k], label]), label - 1, order[k], decoded[k]) for k in kept]
    found.sort(key=lambda one: (-one[0], one[1], one[2]))
    gaps = [a[0] - b[0] for a, b in pairwise(found)]
    return found[:max_detections], min([margin, *gaps])


def _bilinear(plane: Array, y: float, x: float) -> Array:
    height, width = plane.shape[:2]
    if not (-1 <= y <= height and -1 <= x <= width):
        return np.zeros(plane.shape[2])
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    below, right = min(top + 1, height - 1), min(left + 1, width - 1)
    fy, fx = y - top, x - left
    upper = (1 - fx) * plane[top, left] + fx * plane[top, right]
    lower = (1 - fx) * plane[below, left] + fx * plane[below, right]
    blend: Array = (1 - fy) * upper + fy * lower
    return blend


def cells(pooled: Array, size: int, channels: int) -> Array:
    """Rows of `cpu.roi_pool` -> [R, size, size, C]."""
    return pooled[:, : size * size * channels].reshape(len(pooled), size, size, channels)


def roi_align(plane: Array, box: Array, scale: float, size: int) -> Array:
    """plane [H, W, C] -> [size, size, C]; aligned=False, ceil(side / size) samples a bin and side."""
    x1, y1, x2, y2 = (float(value) * scale for value in box)
    bin_w, bin_h = max(x2 - x1, 1) / size, max(y2 - y1, 1) / size
    across, down = math.ceil(bin_w), math.ceil(bin_h)
    out = np.zeros((size, size, plane.shape[2]))
    for row in range(size):
        for column in range(size):
            for j in range(down):
                for i in range(across):
                    y, x = y1 + (row + (j + 0.5) / down) * bin_h, x1 + (column + (i + 0.5) / across) * bin_w
                    out[row, column] += _bilinear(plane, y, x) / (down * across)
    return out


def _round_half_away(value: float) -> int:
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def roi_max(plane: Array, box: Array, scale: float, size: int) -> Array:
    """plane [H, W, C] -> [size, size, C]; 0 in an empty bin."""
    height, width = plane.shape[:2]
    x1, y1, x2, y2 = (_round_half_away(float(value) * scale) for value in box)
    # Bins in float32: whether 7 bins of 57/7 cells end at 57 is settled by rounding, and torchvision's is the rule.
    bin_w, bin_h = (np.float32(max(side, 1)) / np.float32(size) for side in (x2 - x1 + 1, y2 - y1 + 1))
    out = np.zeros((size, size, plane.shape[2]))
    for row in range(size):
        for column in range(size):
            top, left = y1 + math.floor(np.float32(row) * bin_h), x1 + math.floor(np.float32(column) * bin_w)
            bottom, right = y1 + math.ceil(np.float32(row + 1) * bin_h), x1 + math.ceil(np.float32(column + 1) * bin_w)
            cells = plane[np.clip(top, 0, height) : np.clip(bottom, 0, height)]
            cells = cells[:, np.clip(left, 0, width) : np.clip(right, 0, width)]
            if cells.shape[0] and cells.shape[1]:
                out[row, column] = cells.max(axis=(0, 1))
    return out


def sample_advanced(
    objectness: Array, multiplicity: Array, frame_start: list[int], ratio: float, num_support: int, sampling: str
) -> dict[int, float]:
    """Position in the pool -> how often it counts."""
    if sampling == "per_frame":
        most = int(num_support * ratio)
        frames = pairwise(frame_start)
        return {j: float(multiplicity[j]) for start, stop in frames for j in range(start, min(stop, start + most))}
    repeated = [j for j in best_first(objectness) for _ in range(int(multiplicity[j]))]
    taken = repeated[: max(1, int(ratio * float(np.sum(multiplicity))))]
    return {j: float(taken.count(j)) for j in sorted(set(taken))}


def _cell(plane: Array, top: float, left: float, tall: float, wide: float) -> float:
    """Mean over a rectangle's part inside a plane; NaN where half of either of its sides or less is inside."""
    height, width = plane.shape
    rows = np.clip(np.minimum(np.arange(1, height + 1), top + tall) - np.maximum(np.arange(height), top), 0, 1)
    columns = np.clip(np.minimum(np.arange(1, width + 1), left + wide) - np.maximum(np.arange(width), left), 0, 1)
    if rows.sum() <= 0.5 * tall or columns.sum() <= 0.5 * wide:
        return math.nan
    return float(rows @ plane @ columns / (rows.sum() * columns.sum()))


def _cells(picture: Array, top: float, left: float, tall: float, wide: float, side: int) -> Array:
    """[side, side, 3] means of each colour over cells."""
    return np.array([[[_cell(picture[..., c], top + i * tall, left + j * wide, tall, wide) for c in range(3)]
                      for j in range(side)] for i in range(side)])  # fmt: skip


def follow(
    before: Array, after: Array, box: Array, guess: Array, cells: int = 12, reach: int = 8
) -> tuple[Array, Array]:
    """Correlation of a box's colours with those of every place around a guess, the middle of the box weighing most, and
    that less what a distance takes.
    """
    before, after, box, guess = (np.asarray(a, np.float64) for a in (before, after, box, guess))
    wide, tall = 1.2 * (box[2:] - box[:2]) / cells
    left, top = (box[:2] + box[2:]) / 2 - cells * np.array([wide, tall]) / 2
    places = 2 * reach + 1
    far = 1.2 * (2 * (np.arange(cells) + 0.5) / cells - 1)
    weights = np.exp(-1.5 * (far[:, None] ** 2 + far**2))
    known = _cells(before, top, left, tall, wide, cells)
    like, worth = np.empty((2, places, places))
    top, left = top + guess[1] - reach * tall, left + guess[0] - reach * wide
    seen = _cells(after, top, left, tall, wide, cells + 2 * reach)
    for i in range(places):
        for j in range(places):
            there = seen[i : i + cells, j : j + cells]
            both = ~np.isnan(known[..., 0]) & ~np.isnan(there[..., 0])
            like[i, j] = -1
            if both.sum() >= 0.4 * cells**2:
                w = weights[both] / weights[both].sum()
                t, x = (a[both] - w @ a[both] for a in (known, there))
                covariance, *variances = ((w @ (a * b)).sum() for a, b in ((t, x), (t, t), (x, x)))
                like[i, j] = (covariance + 4) / math.sqrt((variances[0] + 4) * (variances[1] + 4))
            worth[i, j] = like[i, j] - 0.5 * (1.2 / cells) ** 2 * ((i - reach) ** 2 + (j - reach) ** 2)
    return like, worth
