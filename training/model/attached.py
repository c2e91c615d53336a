"""The relation stage on somebody's detector, which stays as it is: no backbone and no RPN of our own."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rdn_engine.config import RDNConfig
from rdn_engine.host import preprocess
from rdn_engine.host.attached import AttachedEncoder
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
    """Runs the detector; only frames want it, features of a cache do not."""

    def __init__(self, config: RDNConfig) -> None:
        nn.Module.__init__(self)
        assert config.attached is not None
        self.config = config
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
        assert self.encoder is not None
        network = preprocess.network_input(frame, self.config.input, 1)
        (found,) = self.encoder.candidates(network[None])
        rows = self.encoder.select(found, num_reference)
        weight = self.roi.fc.weight
        boxes, scores, features = (
            torch.from_numpy(np.ascontiguousarray(part)).to(weight)
            for part in (found.boxes[rows], found.score[rows], self.encoder.pool(found, rows))
        )
        return boxes, scores, self.describe(features), self.config.input.image_size(*frame.shape[:2])


def rdn_of(config: RDNConfig) -> RDN:
    """The torch model of a configuration, its weights random.

    Args:
        config: with a detector attached or without.
    """
    return RDN(config) if config.attached is None else AttachedRDN(config)
