"""From network inputs to proposals with their features: one pass for the reference and the support role."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdn_engine.backends.graph import Graph
from rdn_engine.bundle.contract import require_graphs
from rdn_engine.config import RDNConfig, RelationConfig
from rdn_engine.host.features import EncodedFrame
from rdn_engine.kernels import cpu
from rdn_engine.kernels.cpu.arrays import Float, Index


class Encoder:
    """Runs the backbone and roi_head graphs and the kernels between them. Holds no state of any video."""

    def __init__(self, config: RDNConfig, backbone: Graph, roi_head: Graph, threads: int) -> None:
        """Check the graphs against the configuration.

        Args:
            config: of the model.
            backbone, roi_head: its graphs.
            threads: bounds the CPU threads of the kernels of one call.

        Raises:
            BundleError: for graphs whose inputs and outputs are not those of the configuration.
        """
        self._config = config
        self._threads = threads
        self._anchors = config.rpn.cell_anchors()
        require_graphs(config, backbone, roi_head)
        self._backbone, self._roi_head = backbone, roi_head

    def __call__(
        self, images: Float, num_reference: int, num_support: int, lap: Callable[[str], None]
    ) -> list[EncodedFrame]:
        """Encode network inputs.

        Args:
            images: [B, 3, h, w], as `preprocess.network_input` makes each.
            num_reference: N, largest number of proposals of a frame.
            num_support: K, the first proposals, which get keys and values.
            lap: is called with the name of each of backbone, proposals, roi_pool and roi_head as it ends.

        Returns:
            B frames.

        Raises:
            RDNError: for a graph that fails.
        """
        maps = self.maps(images)
        lap("backbone")
        proposals = self.propose(maps, (images.shape[2], images.shape[3]), num_reference)
        lap("proposals")
        counts = [int(c) for c in proposals.counts]
        boxes = [proposals.boxes[b, :n] for b, n in enumerate(counts)]
        objectness = [proposals.objectness[b, :n] for b, n in enumerate(counts)]
        pooled = self.pool(maps["feature_map"], np.concatenate(boxes), np.repeat(np.arange(len(counts)), counts))
        lap("roi_pool")
        frames = encoded_frames(boxes, objectness, pooled, num_support, self.describe)
        lap("roi_head")
        return frames

    def maps(self, images: Float) -> dict[str, Float]:
        """Run the backbone.

        Args:
            images: [B, 3, h, w], as `preprocess.network_input` makes each.

        Returns:
            objectness [B, A], deltas [B, A, 4] for the A anchors of all cells, and a channels-last feature_map.

        Raises:
            RDNError: for a graph that fails.
        """
        return self._backbone({"image": images})

    def propose(self, maps: Mapping[str, Float], network_size: tuple[int, int], num_reference: int) -> cpu.Proposals:
        """The first `num_reference` proposals of each image; DESIGN section 2 (RPN).

        Args:
            maps: outputs of the backbone.
            network_size: (height, width) of the images, pixels.
            num_reference: N, largest number of proposals of an image.

        Returns:
            Boxes in network-input pixels with their objectness, and how many each image has.
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
        """What roi_head reads of boxes; DESIGN section 2 (RoI feature).

        Args:
            feature_map: channels last, of the backbone.
            boxes: [R, 4] in network-input pixels.
            image_index: [R] image of each box.

        Returns:
            [R, cpu.pooled_width].
        """
        return cpu.roi_pool(
            feature_map,
            boxes,
            image_index,
            config=self._config.roi,
            scale=1 / self._config.rpn.stride,
            threads=self._threads,
        )

    def describe(self, pooled: Float, support: Index) -> dict[str, Float]:
        """Run roi_head; of no rows there is nothing to run.

        Args:
            pooled: R rows of `pool`.
            support: [S] rows that get keys, values and the query of the refinement.

        Returns:
            features [R, D], query [R, D], keys and values [P, S, D], refine_query [S, D]; with a width of 0 those that
            this model does not have.

        Raises:
            RDNError: for a graph that fails.
        """
        return describe(self._config.relation, self._roi_head, pooled, support)


Describe = Callable[[Float, Index], dict[str, Float]]


def describe(relation: RelationConfig, roi_head: Graph, pooled: Float, support: Index) -> dict[str, Float]:
    """Run roi_head; of no rows there is nothing to run.

    Args:
        relation: of the model.
        roi_head: its graph.
        pooled: R rows of what it reads.
        support: [S] rows that get keys, values and the query of the refinement.

    Returns:
        As `Encoder.describe`.

    Raises:
        RDNError: for a graph that fails.
    """
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
        rows.update(roi_head({name: feeds[name] for name in roi_head.inputs}))
    return rows


def encoded_frames(
    boxes: Sequence[Float], objectness: Sequence[Float], pooled: Float, num_support: int, describe: Describe
) -> list[EncodedFrame]:
    """The proposals of several frames, described in one call.

    Args:
        boxes: [n, 4] of each frame, best first.
        objectness: [n] of each frame.
        pooled: what their features are made of, frame after frame.
        num_support: K, the first proposals of a frame, which get keys and values.
        describe: rows of `pooled` and those among them that are support -> as `Encoder.describe`.

    Returns:
        As many frames.
    """
    counts = [len(each) for each in boxes]
    starts = np.concatenate([[0], np.cumsum(counts)])
    support = [np.arange(s, s + min(n, num_support)) for s, n in zip(starts, counts, strict=False)]
    rows = describe(pooled, np.concatenate(support))
    frames = []
    first = 0
    for b, (n, taken) in enumerate(zip(counts, support, strict=True)):
        reference, kept = slice(starts[b], starts[b] + n), slice(first, first + len(taken))
        first += len(taken)
        frames.append(
            EncodedFrame(
                boxes=boxes[b],
                objectness=objectness[b],
                features=rows["features"][reference],
                query=rows["query"][reference],
                keys=rows["keys"][:, kept],
                values=rows["values"][:, kept],
                refine_query=rows["refine_query"][kept],
            )
        )
    return frames
