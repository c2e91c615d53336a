"""torchvision's Faster R-CNN as one graph: the boxes that its region proposals become, with the features behind them.

Ren et al., *Faster R-CNN*, NeurIPS 2015, on a feature pyramid (Lin et al., CVPR 2017). Its region proposals are chosen
by an NMS in the graph; their number is fixed, so that the box of one that is missing is not finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torchvision.ops
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FasterRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.ops.poolers import initLevelMapper

_NO_PROPOSAL = -1.0
"""Objectness, 0..1 of a proposal, where there is none"""


class TwoStage(nn.Module):
    """boxes [1, N, 4] (edges, pixels), class_scores [1, N, C] and features [1, N, D] of one image.

    A proposal has one box, that of its best class, where torchvision gives each class a box of its own.
    """

    anchors: Tensor
    kept: Tensor

    def __init__(self, model: FasterRCNN, size: tuple[int, int], kept: Sequence[int], proposals: int) -> None:
        """Find the anchors and the scales of the levels, which the size decides.

        Args:
            model: in evaluation mode.
            size: (height, width) of the images.
            kept: columns of its scores that are classes; the background is none.
            proposals: N, the most of an image.
        """
        super().__init__()
        self.model, self.size, self.proposals = model, size, proposals
        image = torch.zeros(1, 3, *size)
        with torch.no_grad():
            maps = model.backbone(image)
            anchors_of: Any = model.rpn.anchor_generator
            (anchors,) = anchors_of(ImageList(image, [size]), list(maps.values()))
        per_cell = anchors_of.num_anchors_per_location()
        self.counts = [a * m.shape[-2] * m.shape[-1] for a, m in zip(per_cell, maps.values(), strict=True)]
        pool: Any = model.roi_heads.box_roi_pool
        self.pooled = [name for name in maps if name in pool.featmap_names]
        self.scales = [2.0 ** round(_log2(maps[name].shape[-2] / size[0])) for name in self.pooled]
        first, last = (-_log2(scale) for scale in (self.scales[0], self.scales[-1]))
        self.level_of = initLevelMapper(
            int(first), int(last), canonical_scale=pool.canonical_scale, canonical_level=pool.canonical_level
        )
        self.register_buffer("anchors", anchors)
        self.register_buffer("kept", torch.tensor(kept))

    @property
    def feature_name(self) -> str:
        """The output that features come from."""
        return "features"

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        heads: Any = self.model.roi_heads
        maps = self.model.backbone(image)
        boxes, objectness = self.propose(list(maps.values()))
        features = heads.box_head(self.pool([maps[name] for name in self.pooled], boxes))
        logits, shifts = heads.box_predictor(features)
        scores = logits.softmax(-1).index_select(1, self.kept)
        best = self.kept[scores.argmax(1)]
        own = shifts.unflatten(1, (-1, 4)).gather(1, best[:, None, None].expand(-1, 1, 4))[:, 0]
        found = self.clip(heads.box_coder.decode_single(own, boxes))
        # A box that is not finite is no candidate.
        found = torch.where((objectness >= 0)[:, None], found, torch.full_like(found, torch.nan))
        return found[None], scores[None], features[None]

    def propose(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The region proposals, as torchvision chooses them.

        Args:
            maps: of each level, [1, D, h, w].

        Returns:
            Boxes [N, 4], edges in pixels, and objectness [N], best first; -1 where there is no proposal.
        """
        rpn: Any = self.model.rpn
        logits, shifts = rpn.head(maps)
        found, scores = [], []
        levels = zip(logits, shifts, self.anchors.split(self.counts), strict=True)
        for logit, shift, anchors in levels:
            rows = logit.permute(0, 2, 3, 1).flatten()
            deltas = shift.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).reshape(-1, 4)
            top = rows.topk(min(rpn.pre_nms_top_n(), len(rows))).indices
            boxes = self.clip(rpn.box_coder.decode_single(deltas[top], anchors[top]))
            score = rows[top].sigmoid()
            # Last in their order, so that the rest is as if they were not there.
            large = ((boxes[:, 2:] - boxes[:, :2]) >= rpn.min_size).all(1)
            score = torch.where(large, score, torch.full_like(score, _NO_PROPOSAL))
            keep = torchvision.ops.nms(boxes, score, rpn.nms_thresh)
            found.append(boxes[keep])
            scores.append(score[keep])
        none = self.anchors.new_zeros(self.proposals, 4)
        every, score = torch.cat([*found, none]), torch.cat([*scores, none[:, 0] + _NO_PROPOSAL])
        best = score.topk(self.proposals)
        return every[best.indices], best.values

    def pool(self, maps: list[Tensor], boxes: Tensor) -> Tensor:
        """Each proposal's cells, from the level of its size.

        Args:
            maps: of the levels that are pooled from.
            boxes: [N, 4] edges, pixels.

        Returns:
            [N, D, side, side].
        """
        pool: Any = self.model.roi_heads.box_roi_pool
        level = self.level_of([boxes])
        # All boxes from all levels, because how many belong to each is not known beforehand.
        found = [
            torchvision.ops.roi_align(m, [boxes], pool.output_size, scale, pool.sampling_ratio)
            * (level == i)[:, None, None, None]
            for i, (m, scale) in enumerate(zip(maps, self.scales, strict=True))
        ]
        return torch.stack(found).sum(0)

    def clip(self, boxes: Tensor) -> Tensor:
        """Boxes [n, 4] cut at the image."""
        height, width = self.size
        x, y = boxes[:, 0::2].clamp(0, width), boxes[:, 1::2].clamp(0, height)
        return torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], 1)


def _log2(x: float) -> float:
    return float(torch.tensor(x, dtype=torch.float64).log2())
