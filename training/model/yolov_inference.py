"""A video through the torch model of YOLOV, straightforwardly: nothing cached, every pair of proposals each frame.

This is the yardstick for the exported graphs and the runtime, not a way to run a stream. Boxes are edges here, as the
detector has them: a side is x2 - x1.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torchvision.ops
from torch import Tensor

from rdn_engine.config import Dials, RDNConfig
from rdn_engine.stream.order import span
from training.model.yolov import YOLOV, Rows

KEPT = 600
"""Frames that the public online head draws its memory from."""
SEED = 42
"""That it shuffles by, anew each frame."""


@dataclass
class Proposals:
    """The proposals of one frame, best first."""

    rows: Tensor
    """[n] anchors"""
    boxes: Tensor
    """[n, 4] network-input pixels"""
    objectness: Tensor
    """[n]"""
    class_scores: Tensor
    """[n, C] of the still detector"""
    features: Tensor
    """[n, D] of the class branch"""
    features_reg: Tensor
    """[n, D] of the box branch"""

    @property
    def confidence(self) -> Tensor:
        """[n] of the best class, not times the objectness."""
        return self.class_scores.max(1).values


@dataclass
class FrameResult:
    """Everything that was computed for one frame."""

    proposals: Proposals
    out: Tensor | None
    """[n, 4 D] related, before the average with the past; None where the detector's own scores stand"""
    logits: Tensor
    """[n, C] zeros where the detector's own scores stand"""
    boxes: Tensor
    """[k, 4] detections in network-input pixels, not clipped, best first"""
    confidence: Tensor
    """[k]"""
    class_id: Tensor
    """[k]"""


@torch.no_grad()
def propose(model: YOLOV, config: RDNConfig, images: Tensor, num_proposals: int) -> list[Proposals]:
    """The proposals of frames.

    Args:
        model: in evaluation mode.
        config: with `attached`, which says how they are chosen.
        images: [B, 3, h, w].
        num_proposals: most of a frame.

    Returns:
        Those of each frame.
    """
    assert config.attached is not None
    anchors = model.anchors(images)
    found = []
    for b in range(len(images)):
        objectness, scores = anchors.objectness[b], anchors.class_scores[b]
        confidence, label = scores.max(1)
        known = torch.nonzero(anchors.boxes[b].isfinite().all(1)).squeeze(1)
        order = objectness[known].argsort(descending=True, stable=True)
        entering = known[order[: config.attached.pre_nms_top_n]]
        kept = suppress(
            anchors.boxes[b, entering],
            objectness[entering] * confidence[entering],
            label[entering],
            config.attached.nms_threshold,
        )
        rows = entering[kept[:num_proposals]]
        parts = anchors.boxes, anchors.objectness, anchors.class_scores, anchors.features, anchors.features_reg
        found.append(Proposals(rows, *(part[b, rows] for part in parts)))
    return found


def suppress(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> Tensor:
    """Greedy NMS within each class.

    Args:
        boxes: [n, 4].
        scores: [n].
        labels: [n].
        threshold: IoU above which the worse of two boxes of a class leaves.

    Returns:
        [k] rows that stay, best first; equal scores by row.
    """
    kept = torch.zeros(len(boxes), dtype=torch.bool)
    for label in labels.unique():
        members = torch.nonzero(labels == label).squeeze(1)
        kept[members[torchvision.ops.nms(boxes[members], scores[members], threshold)]] = True
    rows = torch.nonzero(kept).squeeze(1)
    return rows[scores[rows].argsort(descending=True, stable=True)]


@torch.no_grad()
def detect_video(
    model: YOLOV, config: RDNConfig, frames: Sequence[Proposals], dials: Dials | None = None
) -> list[FrameResult]:
    """The relations of a video's frames, and what is detected in each.

    Args:
        model: in evaluation mode.
        config: of the model.
        frames: of one epoch, in order.
        dials: T, L and the threshold; None for the configuration's.

    Returns:
        A result for each frame.
    """
    dials = dials or config.dials
    history: list[int] = []
    past: list[tuple[Tensor, Proposals]] = []
    results = []
    for t, own in enumerate(frames):
        if dials.frames_ahead:
            others = [n for n in span(t, len(frames) - 1, dials) if n != t]
            related = bool(others)
        elif config.cosine.memory_order == "shuffled":
            related = len(history) >= config.cosine.least_memory
            if related:
                random.Random(SEED).shuffle(history)
            others = history[: dials.window]
            history = [*history, t][-KEPT:]
        else:
            others = list(range(max(t - dials.window, 0), t))
            related = len(others) >= config.cosine.least_memory
        if not related:
            results.append(_unrelated(config, own, dials))
            continue
        out = model.relate(joined_rows([own, *(frames[n] for n in others)])).out[: len(own.rows)]
        refined = out
        if not dials.frames_ahead and config.cosine.local_frames:
            if past:
                refined = _averaged(model, out, own, past)
            past = [*past, (out, own)][-config.cosine.local_frames :]
        logits = model.classify(refined)
        scores = own.objectness[:, None] * logits.sigmoid()
        results.append(FrameResult(own, out, logits, *_detected(config, own, scores, dials)))
    return results


def joined_rows(frames: Sequence[Proposals]) -> Rows:
    """The proposals of several frames as one set.

    Args:
        frames: in any order.
    """
    names = ("features", "features_reg", "confidence", "objectness")
    return Rows(*(torch.cat([getattr(frame, name) for frame in frames]) for name in names))


def _averaged(model: YOLOV, out: Tensor, own: Proposals, past: Sequence[tuple[Tensor, Proposals]]) -> Tensor:
    before = [frame for _, frame in past]
    return model.local_average(
        out,
        own.boxes,
        own.objectness * own.confidence,
        torch.cat([earlier for earlier, _ in past]),
        torch.cat([frame.boxes for frame in before]),
        torch.cat([frame.objectness * frame.confidence for frame in before]),
    )


def _unrelated(config: RDNConfig, own: Proposals, dials: Dials) -> FrameResult:
    """The detector's own scores, of each box's best class."""
    confidence, label = own.class_scores.max(1)
    scores = torch.zeros_like(own.class_scores)
    scores[torch.arange(len(label)), label] = own.objectness * confidence
    return FrameResult(own, None, torch.zeros_like(scores), *_detected(config, own, scores, dials))


def _detected(config: RDNConfig, own: Proposals, scores: Tensor, dials: Dials) -> tuple[Tensor, Tensor, Tensor]:
    proposal, label = torch.nonzero(scores > dials.score_threshold, as_tuple=True)
    confidence = scores[proposal, label]
    kept = suppress(own.boxes[proposal], confidence, label, config.detection.nms_threshold)
    kept = kept[: config.detection.max_detections]
    return own.boxes[proposal[kept]], confidence[kept], label[kept]
