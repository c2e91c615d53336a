"""Box arithmetic of the public checkpoints: xyxy, a side is x2 - x1 + 1 (DESIGN section 2)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torchvision.ops
from torch import Tensor

MAX_LOG_SCALE = math.log(1000 / 16)


def _centre_form(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x1, y1, x2, y2 = boxes.unbind(-1)
    w, h = x2 - x1 + 1, y2 - y1 + 1
    return x1 + 0.5 * w, y1 + 0.5 * h, w, h


def decode(deltas: Tensor, boxes: Tensor, weights: Sequence[float] = (1, 1, 1, 1)) -> Tensor:
    """Applies deltas to boxes. A delta of a side's logarithm above MAX_LOG_SCALE counts as MAX_LOG_SCALE.

    Args:
        deltas: [..., 4] of centre x, centre y, log width, log height; it broadcasts with `boxes`.
        boxes: [..., 4] in pixels.
        weights: four numbers by which the deltas are divided.

    Returns:
        [..., 4] boxes in pixels, not clipped.
    """
    cx, cy, w, h = _centre_form(boxes)
    dx, dy, dw, dh = (d / weight for d, weight in zip(deltas.unbind(-1), weights, strict=True))
    cx, cy = dx * w + cx, dy * h + cy
    w, h = dw.clamp(max=MAX_LOG_SCALE).exp() * w, dh.clamp(max=MAX_LOG_SCALE).exp() * h
    return torch.stack([cx - 0.5 * w, cy - 0.5 * h, cx + 0.5 * w - 1, cy + 0.5 * h - 1], -1)


def encode(targets: Tensor, boxes: Tensor, weights: Sequence[float] = (1, 1, 1, 1)) -> Tensor:
    """The deltas that `decode` turns back into `targets`.

    Args:
        targets: [..., 4] boxes in pixels.
        boxes: [..., 4] in pixels, from which the deltas start.
        weights: four factors of the deltas.

    Returns:
        [..., 4] deltas.
    """
    cx, cy, w, h = _centre_form(boxes)
    tx, ty, tw, th = _centre_form(targets)
    deltas = ((tx - cx) / w, (ty - cy) / h, (tw / w).log(), (th / h).log())
    return torch.stack([d * weight for d, weight in zip(deltas, weights, strict=True)], -1)


def clip(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Boxes cut at the edges of their image.

    Args:
        boxes: [..., 4] in pixels.
        image_size: (height, width) in pixels.

    Returns:
        [..., 4] inside [0, width - 1] x [0, height - 1].
    """
    height, width = image_size
    x, y = boxes[..., 0::2].clamp(0, width - 1), boxes[..., 1::2].clamp(0, height - 1)
    return torch.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], -1)


def _open_sides(boxes: Tensor) -> Tensor:
    """The same boxes with the +1 of a side inside the coordinates, as torchvision's operators count it."""
    return boxes + boxes.new_tensor([0, 0, 1, 1])


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of all pairs.

    Args:
        a: [n, 4] in pixels.
        b: [m, 4] in pixels.

    Returns:
        [n, m] in 0..1.
    """
    return torchvision.ops.box_iou(_open_sides(a), _open_sides(b))


def nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Greedy non-maximum suppression.

    Args:
        boxes: [n, 4] in pixels.
        scores: [n].
        threshold: IoU, 0..1, above which the box of the lower score goes.

    Returns:
        [k] rows that stay, best score first.
    """
    return torchvision.ops.nms(_open_sides(boxes), scores, threshold)
