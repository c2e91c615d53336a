"""From the heads' output to boxes on the frame."""

from __future__ import annotations

import numpy as np

from rdn_engine.bundle.confidence import ConfidenceMap
from rdn_engine.config import DetectionConfig
from rdn_engine.host.features import RelationOutput
from rdn_engine.input_config import InputConfig
from rdn_engine.kernels import cpu
from rdn_engine.kernels.cpu import Float


def detections(
    output: RelationOutput,
    boxes: Float,
    frame_geometry: tuple[int, int, float],
    *,
    input_config: InputConfig,
    config: DetectionConfig,
    score_threshold: float,
    own_threshold: float,
    confidence: ConfidenceMap | None,
    threads: int,
) -> cpu.Boxes:
    """Detections in pixels of the frame; DESIGN section 2 (Output).

    Args:
        output: of the relation stage, for n proposals.
        boxes: [n, 4] in network-input pixels.
        frame_geometry: height and width in pixels, and width over height of a pixel.
        input_config: says the size of the network input.
        config: thresholds and box weights.
        score_threshold: boxes at or below this confidence, in 0..1, are dropped.
        own_threshold: the model's. Where confidences are mapped, a threshold up to this one chooses by the model's
            confidences, so that the same boxes are found as without a map; a higher one by those that are given out.
        confidence: maps confidences after the choice; None gives them out as they are.
        threads: bounds the CPU threads.

    Returns:
        At most max_detections boxes with confidence, class and proposal, best first.
    """
    image_size = input_config.image_size(*frame_geometry)
    threshold = _of_model(score_threshold, own_threshold, confidence)
    if output.scores is not None:
        found = _scored(output.scores, boxes, image_size, config, threshold, threads)
    else:
        found = cpu.detect(
            output.logits,
            output.deltas,
            boxes,
            network_size=image_size,
            config=config,
            score_threshold=threshold,
            threads=threads,
        )
    if confidence is not None:
        found = _mapped(found, confidence, score_threshold if score_threshold > own_threshold else 0.0)
    return found._replace(xyxy=input_config.on_frame(found.xyxy, *frame_geometry))


def _scored(
    scores: Float, boxes: Float, image_size: tuple[int, int], config: DetectionConfig, threshold: float, threads: int
) -> cpu.Boxes:
    """Boxes that stay, of every class whose score is above the threshold."""
    proposal, label = np.nonzero(scores > threshold)
    confidence = scores[proposal, label]
    kept = cpu.suppress(
        boxes[proposal],
        confidence,
        label,
        num_classes=scores.shape[1],
        top_n=max(len(proposal), 1),
        nms_threshold=config.nms_threshold,
        most=config.max_detections,
        threads=threads,
    )
    height, width = image_size
    xyxy = boxes[proposal[kept]].clip(0, np.array([width - 1, height - 1] * 2, np.float32))
    return cpu.Boxes(xyxy, confidence[kept], label[kept], proposal[kept])


def _of_model(threshold: float, own: float, confidence: ConfidenceMap | None) -> float:
    """The threshold of the model's confidences that lets everything through that may be above this one"""
    return threshold if confidence is None or threshold <= own else max(own, confidence.least(threshold))


def _mapped(found: cpu.Boxes, confidence: ConfidenceMap, threshold: float) -> cpu.Boxes:
    """Best first again; equal ones stay in the order of the model's confidences."""
    mapped = confidence.apply(found.confidence, found.class_id)
    order = np.argsort(-mapped, kind="stable")
    order = order[mapped[order] > threshold]
    return cpu.Boxes(found.xyxy[order], mapped[order], found.class_id[order], found.proposal[order])
