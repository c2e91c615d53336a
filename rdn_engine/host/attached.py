"""Somebody's detector as the encoder: its graph gives boxes, class scores and features, and kernels choose among them.

The graph's outputs, B images of A candidates each (docs/own_detector.md, the contract):

    boxes         [B, A, 4] xyxy, network-input pixels, the last pixel included: a side is x2 - x1 + 1
    class_scores  [B, A, C] in 0..1, without a background
    features      [B, A / boxes_per_feature, D], or feature_map [B, H, W, C'] that RoI pooling makes rows of

and for cosine_score

    objectness    [B, A] in 0..1, that a score is the product of with a class's
    features_reg  [B, A / boxes_per_feature, D] of the box branch
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rdn_engine.backends.graph import Graph
from rdn_engine.bundle.contract import require_encoder, require_roi_head
from rdn_engine.config import AttachedConfig, RDNConfig
from rdn_engine.errors import BundleError
from rdn_engine.host.encoder import describe, encoded_frames
from rdn_engine.host.features import EncodedFrame, RelationOutput, SupportPool
from rdn_engine.kernels import cpu
from rdn_engine.kernels.cpu.arrays import Float, Index


@dataclass(frozen=True)
class Candidates:
    """What the graph says of one image."""

    boxes: Float
    """[A, 4] xyxy, network-input pixels"""
    class_scores: Float
    """[A, C] in 0..1"""
    score: Float
    """[A] of the best class, times the objectness where there is one; NaN where the box is none (`is_box`)"""
    label: Index
    """[A] the best class"""
    features: Float | None
    """[A / boxes_per_feature, D], or the map [H, W, C']; None of a detector alone"""
    objectness: Float | None = None
    """[A] in 0..1; None where the detector gives none"""
    features_reg: Float | None = None
    """[A / boxes_per_feature, D] of the box branch; None where the detector gives none"""

    @property
    def importance(self) -> Float:
        """[A] what a proposal's frame calls its objectness: the detector's, else the score."""
        return self.score if self.objectness is None else self.objectness


class AttachedEncoder:
    """Runs the detector's graph, chooses proposals, describes them. Holds no state of any video."""

    def __init__(self, config: RDNConfig, encoder: Graph, roi_head: Graph | None, threads: int) -> None:
        """Check the graphs against the configuration.

        Args:
            config: of the model, with `attached`.
            encoder: the detector's graph.
            roi_head: from its features to those of the relation stage; None of a detector alone, and for cosine_score,
                which takes them as they are.
            threads: bounds the CPU threads of the kernels of one call.

        Raises:
            BundleError: for graphs whose inputs and outputs are not those of the configuration.
        """
        if config.attached is None:
            raise BundleError("the model's configuration has no attached detector; wanted one")
        require_encoder(config, encoder)
        if roi_head is not None:
            require_roi_head(config, roi_head)
        self._config, self._attached = config, config.attached
        self._encoder, self._roi_head = encoder, roi_head
        self._threads = threads

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
            B frames; of a detector alone their features are the class scores.

        Raises:
            BundleError: for a graph that gives something else than the contract says.
            RDNError: for a graph that fails.
        """
        found = self.candidates(images)
        lap("backbone")
        chosen = [self.select(one, num_reference) for one in found]
        lap("proposals")
        pooled = np.concatenate([self.pool(one, rows) for one, rows in zip(found, chosen, strict=True)])
        lap("roi_pool")
        boxes = [one.boxes[rows] for one, rows in zip(found, chosen, strict=True)]
        scores = [one.importance[rows] for one, rows in zip(found, chosen, strict=True)]
        frames = encoded_frames(boxes, scores, pooled, num_support, self.describe)
        if self._attached.objectness:
            frames = [
                replace(frame, class_scores=one.class_scores[rows])
                for frame, one, rows in zip(frames, found, chosen, strict=True)
            ]
        lap("roi_head")
        return frames

    def candidates(self, images: Float) -> list[Candidates]:
        """Run the detector's graph.

        Args:
            images: [B, 3, h, w], as `preprocess.network_input` makes each.

        Returns:
            What it says of each image.

        Raises:
            BundleError: for a graph that gives something else than the contract says.
            RDNError: for a graph that fails.
        """
        parts = [images] if self._attached.batched else [images[b : b + 1] for b in range(len(images))]
        found = []
        for part in parts:
            outputs = self._encoder({"image": np.ascontiguousarray(part)})
            check_outputs(self._config, self._attached, outputs, len(part))
            found += [self._of_image(outputs, b) for b in range(len(part))]
        return found

    def _of_image(self, outputs: Mapping[str, Float], image: int) -> Candidates:
        boxes, class_scores = outputs["boxes"][image], outputs["class_scores"][image]
        label = class_scores.argmax(1)
        score = class_scores[np.arange(len(label)), label]
        # The largest and the least are NaN where any is.
        if not (score.max(initial=0) <= 1 and class_scores.min(initial=0) >= 0):
            low, high = class_scores.min(), class_scores.max()
            raise BundleError(f"graph encoder gave class_scores in {low:g}..{high:g}; wanted scores in 0..1")
        objectness = outputs["objectness"][image] if self._attached.objectness else None
        if objectness is not None:
            if not (objectness.max(initial=0) <= 1 and objectness.min(initial=0) >= 0):
                low, high = objectness.min(), objectness.max()
                raise BundleError(f"graph encoder gave objectness in {low:g}..{high:g}; wanted 0..1")
            score = score * objectness
        score = np.where(is_box(boxes), score, np.float32(np.nan))
        features = None
        if self._attached.relations:
            features = outputs["features" if self._attached.map_stride is None else "feature_map"][image]
        features_reg = outputs["features_reg"][image] if self._attached.features_reg else None
        return Candidates(boxes, class_scores, score, label, features, objectness, features_reg)

    def select(self, found: Candidates, num_reference: int) -> Index:
        """The proposals of an image.

        Args:
            found: of the image.
            num_reference: N, the most there may be.

        Returns:
            [n] rows of the candidates, best first, those that overlap a better one of their class left out.
        """
        if found.objectness is None:
            return self._suppress(found.boxes, found.score, found.label, num_reference)
        # Best first in the graph's order, which is that of equal scores in NMS.
        known = np.flatnonzero(~np.isnan(found.score))
        entering = known[np.argsort(-found.objectness[known], kind="stable")[: self._attached.pre_nms_top_n]]
        return entering[
            self._suppress(found.boxes[entering], found.score[entering], found.label[entering], num_reference)
        ]

    def _suppress(self, boxes: Float, scores: Float, labels: Index, num_reference: int) -> Index:
        return cpu.suppress(
            boxes,
            scores,
            labels,
            num_classes=self._attached.num_classes,
            top_n=self._attached.pre_nms_top_n,
            nms_threshold=self._attached.nms_threshold,
            most=num_reference,
            threads=self._threads,
        )

    def pool(self, found: Candidates, rows: Index) -> Float:
        """What roi_head reads of proposals; of a detector alone their class scores.

        Args:
            found: of the image.
            rows: [n] among its candidates.

        Returns:
            [n, D]; both features side by side, [n, 2 D], where there are two.
        """
        attached = self._attached
        if found.features is None:
            return found.class_scores[rows]
        if attached.map_stride is None:
            row = rows // attached.boxes_per_feature
            if found.features_reg is None:
                return found.features[row]
            return np.concatenate([found.features[row], found.features_reg[row]], 1)
        pooled = cpu.roi_pool(
            found.features[None],
            found.boxes[rows],
            np.zeros(len(rows), np.int64),
            config=self._config.roi,
            scale=1 / attached.map_stride,
            threads=self._threads,
        )
        return pooled[:, : attached.features]

    def describe(self, pooled: Float, support: Index) -> dict[str, Float]:
        """Run roi_head; of a detector alone, and for cosine_score, the rows are the features.

        Args:
            pooled: R rows of `pool`.
            support: [S] rows that get keys, values and the query of the refinement.

        Returns:
            As `rdn_engine.host.encoder.Encoder.describe`.

        Raises:
            RDNError: for a graph that fails.
        """
        if self._roi_head is not None:
            return describe(self._config.relation, self._roi_head, np.ascontiguousarray(pooled), support)
        n, k = len(pooled), len(support)
        empty = {"query": (n, 0), "keys": (0, k, 0), "values": (0, k, 0), "refine_query": (k, 0)}
        return {"features": pooled} | {name: np.zeros(shape, np.float32) for name, shape in empty.items()}


_FARTHEST = 1e9
"""Pixels; sums, sides and areas of boxes within are finite"""


def is_box(boxes: Float) -> NDArray[np.bool_]:
    """Which boxes have an area that is finite: relations take the logarithms of their sides.

    Args:
        boxes: [A, 4] xyxy, the last pixel included: a side is x2 - x1 + 1.

    Returns:
        [A].
    """
    corners = np.ascontiguousarray(boxes.T)  # rows of A are quicker than A rows of 4
    # A side that a subtraction rounds to 0 is as good as none; infinite less infinite is no number.
    with np.errstate(invalid="ignore", over="ignore"):
        sides = corners[2:] - corners[:2]
    return np.asarray((np.abs(corners) <= _FARTHEST).all(0) & (sides > -1).all(0))


def check_outputs(config: RDNConfig, attached: AttachedConfig, outputs: Mapping[str, Float], images: int) -> None:
    """Check rank, type and widths of what the graph of an attached detector gave.

    Args:
        config: of the model.
        attached: its detector.
        outputs: of the graph, by name.
        images: B, how many it was given.

    Raises:
        BundleError: names the output, what it is and what was wanted.
    """
    boxes = outputs["boxes"]
    count = boxes.shape[1] if boxes.ndim > 1 else -1
    wanted: dict[str, tuple[int | None, ...]] = {
        "boxes": (images, None, 4),
        "class_scores": (images, count, attached.num_classes),
    }
    if attached.relations and attached.map_stride is None:
        wanted["features"] = (images, count // attached.boxes_per_feature, attached.features)
    elif attached.relations:
        wanted["feature_map"] = (images, None, None, attached.features // config.roi.size**2)
    if attached.objectness:
        wanted["objectness"] = (images, count)
        wanted["features_reg"] = (images, count // attached.boxes_per_feature, attached.features_reg)
    for name, shape in wanted.items():
        array = outputs[name]
        fits = array.ndim == len(shape) and all(w in (None, g) for w, g in zip(shape, array.shape, strict=True))
        if not fits or array.dtype != np.float32:
            sides = ", ".join("any" if side is None else str(side) for side in shape)
            raise BundleError(f"graph encoder gave {name} {array.dtype} {list(array.shape)}; wanted float32 [{sides}]")


class DetectorScores:
    """The relation stage of a detector alone: its boxes and class scores, as they are."""

    precision: cpu.Precision = "float32"

    def __call__(
        self, boxes: Float, features: Float, query: Float, pool: SupportPool, omega_rows: tuple[int, int] | None = None
    ) -> RelationOutput:
        """As every Relation; the features are the class scores."""
        nothing = np.zeros((len(features), 0), np.float32)
        return RelationOutput(nothing, nothing, None, features)
