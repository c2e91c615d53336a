"""Losses of the region proposals and of the RoI heads (Faster R-CNN, on which the paper builds).

Targets follow the conventions of the public checkpoints: a side is x2 - x1 + 1, class 0 is the background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from training.model import boxes as box_ops

IGNORED = 0.5
"""A box that lies with this part of it in an ignored region is no example of the background."""


def _draw(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """At most `count` of the row numbers, drawn without replacement, the same on every device."""
    return rows[torch.randperm(len(rows), generator=generator)[:count].to(rows.device)]


def _in_ignored(boxes: Tensor, ignored: Tensor) -> Tensor:
    """boxes [n, 4], ignored regions [m, 4] -> [n] whether one of the regions covers `IGNORED` of the box."""
    if not len(ignored):
        return torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    overlap = torch.minimum(boxes[:, None, 2:], ignored[:, 2:]) - torch.maximum(boxes[:, None, :2], ignored[:, :2]) + 1
    area = (boxes[:, 2:] - boxes[:, :2] + 1).prod(1)
    return (overlap.clamp(min=0).prod(2) >= IGNORED * area[:, None]).any(1)


def anchor_targets(
    anchors: Tensor, truth: Tensor, ignored: Tensor, high: float = 0.7, low: float = 0.3
) -> tuple[Tensor, Tensor]:
    """Which anchors are examples of an object, which of the background, and which of neither.

    An anchor is positive at IoU >= high with an object, or where no other anchor meets an object better; negative
    where it meets none at IoU >= low and lies in no ignored region.

    Args:
        anchors: [L, 4] in network-input pixels.
        truth: [n, 4] annotated objects in network-input pixels; n may be 0.
        ignored: [m, 4] regions whose inside is no background; m may be 0.
        high: IoU, 0..1, from which an anchor is positive.
        low: IoU, 0..1, below which an anchor is negative.

    Returns:
        Objectness [L], 1, 0 or -1 (neither), and the row of `truth` [L] that each anchor meets best.
    """
    if len(truth):
        iou = box_ops.iou(anchors, truth)
        best, matched = iou.max(1)
    else:
        best, matched = anchors.new_zeros(len(anchors)), anchors.new_zeros(len(anchors), dtype=torch.long)
    objectness = torch.full_like(best, -1)
    objectness[best < low] = 0
    objectness[_in_ignored(anchors, ignored)] = -1
    objectness[best >= high] = 1
    if len(truth):
        per_object = iou.amax(0)
        objectness[((iou == per_object) & (per_object > 0)).any(1)] = 1
    return objectness, matched


def rpn_loss(
    logits: Tensor,
    deltas: Tensor,
    anchors: Tensor,
    truth: Tensor,
    ignored: Tensor,
    generator: torch.Generator,
    count: int = 256,
) -> tuple[Tensor, Tensor]:
    """The losses of the region proposals of one image. Both are divided by the number of anchors drawn.

    Args:
        logits: [L] of objectness.
        deltas: [L, 4] from the anchors.
        anchors: [L, 4] in network-input pixels.
        truth: [n, 4] annotated objects in network-input pixels; n may be 0.
        ignored: [m, 4] regions whose inside is no background; m may be 0.
        generator: on the CPU; it draws the anchors.
        count: anchors drawn at most, half of them positive at most.

    Returns:
        Classification and regression, each a scalar. Both are 0 where no anchor can be drawn, the regression also where
        none is positive.
    """
    objectness, matched = anchor_targets(anchors, truth, ignored)
    positive = _draw((objectness == 1).nonzero()[:, 0], count // 2, generator)
    negative = _draw((objectness == 0).nonzero()[:, 0], count - len(positive), generator)
    drawn = torch.cat([positive, negative])
    if not len(drawn):  # everything lies in ignored regions
        return logits.sum() * 0, deltas.sum() * 0
    classification = F.binary_cross_entropy_with_logits(logits[drawn], objectness[drawn])
    if not len(positive):
        return classification, deltas.sum() * 0
    targets = box_ops.encode(truth[matched[positive]], anchors[positive])
    regression = F.smooth_l1_loss(deltas[positive], targets, reduction="sum", beta=1 / 9)
    return classification, regression / len(drawn)


@dataclass(frozen=True)
class RoISample:
    boxes: Tensor
    """[R, 4] network-input pixels"""
    labels: Tensor
    """[R] 0 is the background"""
    truth: Tensor
    """[R, 4] the matched object; the box itself for the background"""
    rows: Tensor
    """[R] which of the proposals, followed by the objects where those join them"""


def sample_rois(
    proposals: Tensor,
    truth: Tensor,
    labels: Tensor,
    ignored: Tensor,
    generator: torch.Generator,
    count: int = 128,
    foreground: float = 0.25,
    join: bool = True,
) -> RoISample:
    """Draws the RoIs of one image that its heads learn from.

    RoIs are foreground at IoU >= 0.5 with an object; the rest is background, none of it in an ignored region.

    Args:
        proposals: [n, 4] in network-input pixels.
        truth: [m, 4] annotated objects in network-input pixels; m may be 0.
        labels: [m] classes of the objects, from 1.
        ignored: [i, 4] regions whose inside is no background; i may be 0.
        generator: on the CPU; it draws the RoIs.
        count: RoIs drawn at most.
        foreground: the part of `count`, 0..1, that may be foreground.
        join: whether the objects join the proposals.

    Returns:
        R <= count RoIs, the foreground first.
    """
    boxes = torch.cat([proposals, truth]) if join else proposals
    if len(truth) and len(boxes):
        overlap, matched = box_ops.iou(boxes, truth).max(1)
    else:
        overlap, matched = boxes.new_zeros(len(boxes)), labels.new_zeros(len(boxes))
    positive = _draw((overlap >= 0.5).nonzero()[:, 0], int(count * foreground), generator)
    background = (overlap < 0.5) & ~_in_ignored(boxes, ignored)
    negative = _draw(background.nonzero()[:, 0], count - len(positive), generator)
    drawn = torch.cat([positive, negative])
    return RoISample(
        boxes[drawn],
        torch.cat([labels[matched[positive]], labels.new_zeros(len(negative))]),
        torch.cat([truth[matched[positive]], boxes[negative]]),
        drawn,
    )


def roi_loss(logits: Tensor, deltas: Tensor, sample: RoISample, weights: Sequence[float]) -> tuple[Tensor, Tensor]:
    """The losses of the RoI heads on the sample of one image.

    Args:
        logits: [R, C + 1] of the classes; 0 is the background.
        deltas: [R, 4 (C + 1)] class-specific, from the boxes of the sample.
        sample: R RoIs; R may be 0.
        weights: four factors of the box deltas.

    Returns:
        Classification and regression, each a scalar. The regression sums over the foreground and is divided by all R.
    """
    if not len(sample.labels):  # nothing was drawn: every proposal lies in an ignored region
        return logits.sum() * 0, deltas.sum() * 0
    classification = F.cross_entropy(logits, sample.labels)
    rows = sample.labels.nonzero()[:, 0]
    chosen = deltas.unflatten(1, (-1, 4))[rows, sample.labels[rows]]
    targets = box_ops.encode(sample.truth[rows], sample.boxes[rows], weights)
    return classification, F.smooth_l1_loss(chosen, targets, reduction="sum") / len(sample.labels)
