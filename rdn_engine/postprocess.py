"""From the heads' output to boxes on the frame."""

from __future__ import annotations

from rdn_engine import ops
from rdn_engine.config import DetectionConfig
from rdn_engine.features import Float, RelationOutput


def detections(
    output: RelationOutput,
    boxes: Float,
    network_size: tuple[int, int],
    frame_size: tuple[int, int],
    config: DetectionConfig,
    score_threshold: float,
    threads: int,
) -> ops.Boxes:
    """Detections in pixels of the frame, best first; DESIGN section 2 (Output).

    boxes [n, 4] in network-input pixels; sizes (height, width). Each axis is scaled by its own ratio.
    """
    found = ops.detect(
        output.logits,
        output.deltas,
        boxes,
        network_size,
        config.box_weights,
        score_threshold,
        config.nms_threshold,
        config.max_detections,
        threads,
    )
    x, y = frame_size[1] / network_size[1], frame_size[0] / network_size[0]
    return found._replace(xyxy=(found.xyxy * (x, y, x, y)).astype("float32"))
