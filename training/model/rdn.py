"""The whole detector: backbone, region proposals, RoI features, relation stage."""

from __future__ import annotations

import torch
import torchvision.ops
from torch import Tensor, nn

from rdn_engine.config import RDNConfig
from training.model import boxes as box_ops
from training.model.backbone import Backbone
from training.model.relation import RelationStage


class RPN(nn.Module):
    def __init__(self, channels: int, num_anchors: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.objectness = nn.Conv2d(channels, num_anchors, 1)
        self.deltas = nn.Conv2d(channels, 4 * num_anchors, 1)
        for conv in (self.conv, self.objectness, self.deltas):
            nn.init.normal_(conv.weight, std=0.01)
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)

    def forward(self, c4: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and boxes of every anchor.

        Args:
            c4: [B, C, H, W] map of conv4.

        Returns:
            Objectness logits [B, H*W*A] and deltas [B, H*W*A, 4], in (H, W, anchor) order.
        """
        x = self.conv(c4).relu()
        objectness = self.objectness(x).permute(0, 2, 3, 1).flatten(1)
        deltas = self.deltas(x).permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, 4))
        return objectness, deltas


class RoIHead(nn.Module):
    def __init__(self, config: RDNConfig, channels: int) -> None:
        super().__init__()
        reduced = config.roi.reduce_channels
        self.reduce = nn.Conv2d(channels, reduced, 1) if reduced else None
        self.channels = reduced or channels
        self.fc = nn.Linear(self.channels * config.roi.size**2, config.relation.dim)
        for layer in (self.reduce, self.fc):
            if layer is not None:
                nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)


def _at_least_float32(x: Tensor) -> Tensor:
    """Half precision made float32; float64 stays, so that a model in float64 is float64 throughout."""
    return x if x.dtype == torch.float64 else x.float()


class RDN(nn.Module):
    """Relation Distillation Network. Images are normalised network inputs; boxes are in network-input pixels."""

    def __init__(self, config: RDNConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone)
        self.rpn = RPN(self.backbone.c4_channels, config.rpn.num_anchors)
        self.roi = RoIHead(config, self.backbone.c5_channels)
        self.relation = RelationStage(config.relation, config.num_logits)

    def encode_map(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the backbone and the RPN make of images.

        Args:
            images: [B, 3, H, W] normalised network inputs.

        Returns:
            Objectness logits [B, L], deltas [B, L, 4] and the feature map [B, C, h, w]; L = h*w*A.
        """
        c4, c5 = self.backbone(images)
        objectness, deltas = self.rpn(c4)
        feature_map = c5 if self.roi.reduce is None else self.roi.reduce(c5).relu()
        return objectness, deltas, feature_map

    def anchors(self, grid: tuple[int, int], device: torch.device) -> Tensor:
        """All anchors of a map.

        Args:
            grid: (height, width) of the map in cells.
            device: of the result.

        Returns:
            [h*w*A, 4] in network-input pixels, in (h, w, anchor) order.
        """
        cell = torch.from_numpy(self.config.rpn.cell_anchors()).to(device)
        stride = self.config.rpn.stride
        y, x = (torch.arange(n, dtype=torch.float32, device=device) * stride for n in grid)
        shift = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1).flip(-1).repeat(1, 1, 2)
        return (shift[:, :, None] + cell).flatten(0, 2)

    @torch.no_grad()
    def propose(
        self,
        objectness_logits: Tensor,
        deltas: Tensor,
        grid: tuple[int, int],
        image_size: tuple[int, int],
        max_proposals: int,
    ) -> list[tuple[Tensor, Tensor]]:
        """The region proposals of each image; no gradient passes.

        Args:
            objectness_logits: [B, L], L = h*w*A in (h, w, anchor) order.
            deltas: [B, L, 4] from the anchors.
            grid: (height, width) of the map in cells.
            image_size: (height, width) of the network input in pixels.
            max_proposals: of one image.

        Returns:
            For each image boxes [n, 4] in network-input pixels and objectness [n] in 0..1, best first;
            n <= max_proposals.
        """
        config = self.config.rpn
        anchors = self.anchors(grid, deltas.device)
        objectness, deltas = _at_least_float32(objectness_logits).sigmoid(), _at_least_float32(deltas)
        found = []
        for scores, delta in zip(objectness, deltas, strict=True):
            order = scores.sort(descending=True, stable=True).indices[: config.pre_nms_top_n]
            boxes = box_ops.clip(box_ops.decode(delta[order], anchors[order]), image_size)
            keep = box_ops.nms(boxes, scores[order], config.nms_threshold)[:max_proposals]
            found.append((boxes[keep], scores[order][keep]))
        return found

    def roi_features(self, feature_map: Tensor, boxes: list[Tensor]) -> Tensor:
        """The features of boxes, pooled from the map.

        Args:
            feature_map: [B, C, h, w].
            boxes: [n_i, 4] in network-input pixels, for each of the B images.

        Returns:
            [sum n_i, D] after the FC and its ReLU.
        """
        size, scale = self.config.roi.size, 1 / self.config.rpn.stride
        feature_map = _at_least_float32(feature_map)
        if self.config.roi.pooling == "align":
            pooled = torchvision.ops.roi_align(feature_map, boxes, size, scale, sampling_ratio=-1, aligned=False)
        else:
            pooled = torchvision.ops.roi_pool(feature_map, boxes, size, scale)
        features: Tensor = self.roi.fc(pooled.flatten(1)).relu()
        return features
