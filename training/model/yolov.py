"""YOLOV (Shi et al., AAAI 2023): a YOLOX whose proposals look at those of other frames by cosine attention."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rdn_engine.config import CosineConfig
from rdn_engine.host.cosine_stage import LOCAL_MARGIN, SHARPNESS
from training.model.yolox import PAFPN, Anchors, Head, YOLOXSize

HEADS = 4
"""M; no tensor of a checkpoint tells it."""


@dataclass(frozen=True)
class Rows:
    """Proposals that look at each other: S of them, of any frames in any order."""

    features: Tensor
    """[S, D] of the class branch"""
    features_reg: Tensor
    """[S, D] of the box branch"""
    confidence: Tensor
    """[S] of the best class, not times the objectness"""
    objectness: Tensor
    """[S]"""


@dataclass(frozen=True)
class Related:
    """What the attention makes of S proposals; the intermediate results are there to be compared."""

    qkv_cls: Tensor
    """[S, 3 D] query, key and value of the class branch"""
    qkv_reg: Tensor
    """[S, 3 D]"""
    attn_cls: Tensor
    """[M, S, S] each row adds up to 1"""
    attn_reg: Tensor
    """[M, S, S]"""
    x_cls: Tensor
    """[S, 2 D] attended values, and the row's own"""
    lin1: Tensor
    """[S, 2 D]"""
    sim: Tensor
    """[n, S] cosines of the values of the n reference rows, or of all, the mean over heads"""
    omega: Tensor
    """[n, S] mean of both attentions over heads"""
    weights2: Tensor
    """[n, S] of the second round"""
    out: Tensor
    """[n, 4 D]"""


class _Projections(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.qkv_cls, self.qkv_reg = (nn.Linear(dim, 3 * dim, bias=False) for _ in range(2))


class CosineAttention(nn.Module):
    """Two rounds: values averaged by two cosine attentions, then what came of it over similar values alone."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.msa = _Projections(dim)
        self.linear1, self.linear2 = nn.Linear(2 * dim, 2 * dim), nn.Linear(4 * dim, 4 * dim)

    def forward(self, features: Tensor, features_reg: Tensor, scale_cls: Tensor, scale_reg: Tensor,
                similarity: Tensor, reference: Tensor | None = None) -> Related:  # fmt: skip
        """Relate proposals.

        Args:
            features, features_reg: [S, D].
            scale_cls, scale_reg: [S] that cosines with the key of each are multiplied by, in front of the softmax.
            similarity: [] mean cosine of two values above which the second round averages them.
            reference: [n] rows that the second round is wanted of; None for all.

        Returns:
            The last and all intermediate results.
        """
        qkv_cls, qkv_reg = self.msa.qkv_cls(features), self.msa.qkv_reg(features_reg)
        (query, key, value), (query_reg, key_reg, _) = _heads(qkv_cls), _heads(qkv_reg)
        attn_cls = _softmax(_unit(query) @ _unit(key).transpose(1, 2) * scale_cls)
        attn_reg = _softmax(_unit(query_reg) @ _unit(key_reg).transpose(1, 2) * scale_reg)
        attention = (attn_cls + attn_reg) / 2
        x_cls = torch.cat([_joined(attention @ value), _joined(value)], 1)
        lin1 = self.linear1(x_cls)
        unit_value, omega, own = _joined(_unit(value)), attention.mean(0), lin1
        asking = unit_value
        if reference is not None:
            asking, omega, own = (rows.index_select(0, reference) for rows in (unit_value, omega, lin1))
        sim = asking @ unit_value.transpose(0, 1) / HEADS
        weights = torch.where(sim > similarity, omega.exp(), 0)
        weights = weights / weights.sum(1, keepdim=True)
        out = self.linear2(torch.cat([weights @ lin1, own], 1))
        return Related(qkv_cls, qkv_reg, attn_cls, attn_reg, x_cls, lin1, sim, omega, weights, out)


def _heads(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[S, 3 D] -> query, key and value [M, S, d]."""
    query, key, value = rows.unflatten(1, (3, HEADS, -1)).permute(1, 2, 0, 3)
    return query, key, value


def _joined(heads: Tensor) -> Tensor:
    """[M, S, d] -> [S, D]."""
    return heads.transpose(0, 1).flatten(1)


def _unit(rows: Tensor) -> Tensor:
    length: Tensor = rows.norm(dim=-1, keepdim=True)
    return rows / length


def _softmax(logits: Tensor) -> Tensor:
    return logits.softmax(-1)


class YOLOVHead(Head):
    def __init__(self, size: YOLOXSize) -> None:
        super().__init__(size)
        self.trans = CosineAttention(size.dim)
        self.linear_pred = nn.Linear(4 * size.dim, size.classes + 1)


class YOLOV(nn.Module):
    """The whole network under the names of the public checkpoints, online and offline."""

    def __init__(self, size: YOLOXSize, config: CosineConfig) -> None:
        super().__init__()
        self.size, self.config = size, config
        self.backbone = PAFPN(size.stem, size.depth)
        self.head = YOLOVHead(size)

    def anchors(self, images: Tensor) -> Anchors:
        """The still detector, and the features of the relations.

        Args:
            images: [B, 3, h, w] BGR, 0..255, sides multiples of 32.

        Returns:
            Every anchor.
        """
        return self.head.anchors(self.backbone(images))

    def relate(self, rows: Rows) -> Related:
        """Let proposals look at each other.

        Args:
            rows: of the frames of a clip, or of a frame and its memory.

        Returns:
            What the attention makes of them.
        """
        similarity = rows.objectness.new_tensor(self.config.similarity)
        related: Related = self.head.trans(
            rows.features, rows.features_reg, rows.confidence * SHARPNESS, self.keyed(rows) * SHARPNESS, similarity
        )
        return related

    def keyed(self, rows: Rows) -> Tensor:
        """[S] what the keys of the box branch are multiplied by: objectness, or 1 (config.score_in_regression)."""
        return rows.objectness if self.config.score_in_regression else torch.ones_like(rows.objectness)

    def classify(self, out: Tensor) -> Tensor:
        """Class logits.

        Args:
            out: [n, 4 D] of `relate`, averaged over the past or not.

        Returns:
            [n, C]: the background, which the checkpoints have last, is left out.
        """
        logits: Tensor = self.head.linear_pred(out)
        return logits[:, :-1]

    def local_average(self, out: Tensor, boxes: Tensor, score: Tensor, past: Tensor, past_boxes: Tensor,
                      past_score: Tensor) -> Tensor:  # fmt: skip
        """The online head's average over what overlapping proposals of the last frames came to.

        Args:
            out: [n, 4 D] of the frame.
            boxes: [n, 4] edges, pixels of the network input.
            score: [n] objectness times confidence.
            past, past_boxes, past_score: the same of the m proposals of the last frames.

        Returns:
            [n, 4 D]; a row whose box overlaps none of the past is as it was.
        """
        cosine = _unit(out) @ _unit(past).transpose(0, 1)
        close = past_score > score[:, None] + LOCAL_MARGIN
        # The public implementation has overlaps in half precision.
        overlap = _iou(boxes, past_boxes).half().to(out.dtype)
        weights = _softmax(torch.where(close, SHARPNESS * cosine, 0)) * overlap
        total = weights.sum(1, keepdim=True)
        averaged = (weights / total.where(total > 0, 1) @ past + out) / 2
        return torch.where(total > 0, averaged, out)


def _iou(boxes: Tensor, others: Tensor) -> Tensor:
    corner = torch.minimum(boxes[:, None, 2:], others[:, 2:]) - torch.maximum(boxes[:, None, :2], others[:, :2])
    shared = corner.clamp(min=0).prod(2)
    area, other_area = ((b[:, 2:] - b[:, :2]).prod(1) for b in (boxes, others))
    return shared / (area[:, None] + other_area - shared)
