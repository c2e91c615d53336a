"""The relation stage on somebody's detector: no backbone and no RPN of our own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor, nn

from rdn_engine.config import RDNConfig
from rdn_engine.host import preprocess
from rdn_engine.host.attached import AttachedEncoder, is_box
from rdn_engine.kernels import cpu
from training.model.fcos import SmallFCOS
from training.model.rdn import RDN, RoIHead
from training.model.relation import RelationStage


class DetectorHead(RoIHead):
    """From a detector's features to those of the relation stage; the FC and its ReLU alone."""

    def __init__(self, features: int, dim: int) -> None:
        nn.Module.__init__(self)
        self.reduce, self.channels = None, features
        self.fc = nn.Linear(features, dim)
        nn.init.kaiming_uniform_(self.fc.weight, nonlinearity="relu")
        nn.init.zeros_(self.fc.bias)


class AttachedRDN(RDN):
    """As RDN, with proposals and their features from the detector of `config.attached`."""

    encoder: AttachedEncoder | None = None
    """Runs the detector where it stays as it is; only frames want it, features of a cache do not."""
    detector: SmallFCOS | None
    """The detector where it is trained with the relations; it is no part of their checkpoint"""

    def __init__(self, config: RDNConfig) -> None:
        nn.Module.__init__(self)
        assert config.attached is not None
        self.config, self.detector = config, None
        self.roi = DetectorHead(config.attached.features, config.relation.dim)
        self.relation = RelationStage(config.relation, config.num_logits)

    def describe(self, rows: Tensor) -> Tensor:
        """The features of proposals.

        Args:
            rows: [n, attached.features] of the detector.

        Returns:
            [n, D] after the FC and its ReLU.
        """
        features: Tensor = self.roi.fc(rows).relu()
        return features

    @torch.no_grad()
    def proposals(self, frame: NDArray[np.uint8], num_reference: int) -> tuple[Tensor, Tensor, Tensor, tuple[int, int]]:
        """What the detector makes of a frame.

        Args:
            frame: uint8 [H, W, 3] RGB.
            num_reference: proposals at most (N).

        Returns:
            boxes [n, 4] in network-input pixels, objectness [n], features [n, D], and (height, width) of the image in
            the network input.
        """
        network = preprocess.network_input(frame, self.config.input, 1)
        size = self.config.input.image_size(*frame.shape[:2])
        if self.detector is not None:
            images = torch.from_numpy(network[None]).to(self.roi.fc.weight)
            cells, feature_map = self.detector.predict(images)
            assert feature_map is not None
            # Where frames are fitted into a size, the runtime looks at the rest of it too.
            [(boxes, scores, pooled)] = self.pooled(images, [network.shape[1:]], cells, feature_map, num_reference)
            return boxes, scores, self.describe(pooled), size
        assert self.encoder is not None
        (found,) = self.encoder.candidates(network[None])
        rows = self.encoder.select(found, num_reference)
        weight = self.roi.fc.weight
        boxes, scores, features = (
            torch.from_numpy(np.ascontiguousarray(part)).to(weight)
            for part in (found.boxes[rows], found.score[rows], self.encoder.pool(found, rows))
        )
        return boxes, scores, self.describe(features), size

    def pooled(
        self,
        images: Tensor,
        sizes: Sequence[tuple[int, ...]],
        found: Mapping[str, Tensor],
        feature_map: Tensor,
        num_reference: int,
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """The proposals of a detector that is trained, chosen as the runtime chooses them.

        Args:
            images: [B, 3, H, W] normalised network inputs.
            sizes: (height, width) of each without its padding, pixels; cells whose middle lies behind propose nothing.
            found: what the detector says of their cells.
            feature_map: [B, C, h, w] its map; gradients pass through it.
            num_reference: proposals of an image at most (N).

        Returns:
            Of each image boxes [n, 4] in network-input pixels, scores [n], best first, and features
            [n, attached.features].
        """
        attached, roi = self.config.attached, self.config.roi
        assert self.detector is not None
        assert attached is not None
        assert attached.map_stride is not None
        with torch.no_grad():
            boxes, class_scores = self.detector.candidates(images, {k: v.float() for k, v in found.items()})
        scores, labels = class_scores.max(2)
        cells, chosen = self.detector.cells(images)[0], []
        for squares, (height, width), *of_image in zip(cells, sizes, boxes, scores, labels, strict=True):
            x, y = ((squares[:, :2] + squares[:, 2:]) / 2).cpu().numpy().T
            corners, score, label = (part.cpu().numpy() for part in of_image)
            rows = cpu.suppress(
                corners,
                np.where(is_box(corners) & (x < width) & (y < height), score, np.float32(np.nan)),
                label,
                num_classes=attached.num_classes,
                top_n=attached.pre_nms_top_n,
                nms_threshold=attached.nms_threshold,
                most=num_reference,
                threads=torch.get_num_threads(),
            )
            chosen.append(torch.from_numpy(rows).to(boxes.device))
        kept = [b[rows] for b, rows in zip(boxes, chosen, strict=True)]
        # What lies far outside is 0 at the runtime too, which does not visit it.
        side = max(images.shape[-2:])
        near = [b.clamp(-side, 2 * side) for b in kept]
        pooled = torchvision.ops.roi_align(
            feature_map.float(), near, roi.size, 1 / attached.map_stride, sampling_ratio=-1, aligned=False
        )
        # Channels stand inside of cells, as the runtime pools them.
        features = pooled.permute(0, 2, 3, 1).flatten(1).split([len(b) for b in kept])
        return list(zip(kept, [s[rows] for s, rows in zip(scores, chosen, strict=True)], features, strict=True))


def rdn_of(config: RDNConfig) -> RDN:
    """The torch model of a configuration, its weights random.

    Args:
        config: with a detector attached or without.
    """
    return RDN(config) if config.attached is None else AttachedRDN(config)
