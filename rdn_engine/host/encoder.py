"""From network inputs to proposals with their features: one pass for the reference and the support role."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdn_engine.backends.graph import Graph
from rdn_engine.bundle.contract import require_graphs
from rdn_engine.config import RDNConfig
from rdn_engine.host.features import EncodedFrame
from rdn_engine.kernels import cpu
from rdn_engine.kernels.cpu.arrays import Float, Index


class Encoder:
    """Runs the backbone and roi_head graphs and the kernels between them. Holds no state of any video."""

    def __init__(self, config: RDNConfig, backbone: Graph, roi_head: Graph, threads: int) -> None:
        self._config = config
        self._threads = threads
        self._anchors = config.rpn.cell_anchors()
        require_graphs(config, backbone, roi_head)
        self._backbone, self._roi_head = backbone, roi_head

    def __call__(
        self, images: Float, num_reference: int, num_support: int, lap: Callable[[str], None]
    ) -> list[EncodedFrame]:
        """images [B, 3, h, w] -> B frames of at most `num_reference` proposals, the first `num_support` with their
        keys and values. `lap(stage)` is called as each of backbone, proposals, roi_pool and roi_head ends.
        """
        maps = self.maps(images)
        lap("backbone")
        proposals = self.propose(maps, (images.shape[2], images.shape[3]), num_reference)
        lap("proposals")
        counts = [int(c) for c in proposals.counts]
        boxes = np.concatenate([proposals.boxes[b, :n] for b, n in enumerate(counts)])
        pooled = self.pool(maps["feature_map"], boxes, np.repeat(np.arange(len(counts)), counts))
        lap("roi_pool")
        starts = np.concatenate([[0], np.cumsum(counts)])
        support = [np.arange(s, s + min(n, num_support)) for s, n in zip(starts, counts, strict=False)]
        rows = self.describe(pooled, np.concatenate(support))
        lap("roi_head")
        frames = []
        first = 0
        for b, (n, taken) in enumerate(zip(counts, support, strict=True)):
            reference, kept = slice(starts[b], starts[b] + n), slice(first, first + len(taken))
            first += len(taken)
            frames.append(
                EncodedFrame(
                    boxes=proposals.boxes[b, :n],
                    objectness=proposals.objectness[b, :n],
                    features=rows["features"][reference],
                    query=rows["query"][reference],
                    keys=rows["keys"][:, kept],
                    values=rows["values"][:, kept],
                    refine_query=rows["refine_query"][kept],
                )
            )
        return frames

    def maps(self, images: Float) -> dict[str, Float]:
        """Outputs of the backbone for images [B, 3, h, w]: objectness [B, A], deltas [B, A, 4] and a channels-last
        feature_map.
        """
        return self._backbone({"image": images})

    def propose(self, maps: Mapping[str, Float], network_size: tuple[int, int], num_reference: int) -> cpu.Proposals:
        """The first `num_reference` (N) proposals of each image.

        Args:
            maps: outputs of the backbone.
            network_size: (height, width) of the images, pixels.
            num_reference: largest number of proposals.
        """
        height, width = maps["feature_map"].shape[1:3]
        return cpu.propose(
            maps["objectness"],
            maps["deltas"],
            grid=(height, width),
            network_size=network_size,
            cell_anchors=self._anchors,
            config=self._config.rpn,
            max_proposals=num_reference,
            threads=self._threads,
        )

    def pool(self, feature_map: Float, boxes: Float, image_index: Index) -> Float:
        """What roi_head reads of boxes [R, 4] (network-input pixels) in the images of `image_index` [R]."""
        return cpu.roi_pool(
            feature_map,
            boxes,
            image_index,
            config=self._config.roi,
            scale=1 / self._config.rpn.stride,
            threads=self._threads,
        )

    def describe(self, pooled: Float, support: Index) -> dict[str, Float]:
        """Outputs of roi_head, with empty arrays for those that this model does not have."""
        relation = self._config.relation
        n, k, dim, cached = len(pooled), len(support), relation.dim, relation.num_cached
        rows: dict[str, Float] = {
            "features": np.zeros((n, dim), np.float32),
            "query": np.zeros((n, dim if relation.num_modules else 0), np.float32),
            "keys": np.zeros((cached, k, dim), np.float32),
            "values": np.zeros((cached, k, dim), np.float32),
            "refine_query": np.zeros((k, dim if relation.advanced else 0), np.float32),
        }
        # A graph need not accept zero rows, and there is nothing to compute for them.
        if n:
            feeds: dict[str, NDArray[Any]] = {"pooled": pooled, "support": support}
            rows.update(self._roi_head({name: feeds[name] for name in self._roi_head.inputs}))
        return rows
