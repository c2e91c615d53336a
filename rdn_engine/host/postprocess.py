"""From the heads' output to boxes on the frame."""

from __future__ import annotations

from rdn_engine.config import DetectionConfig, InputConfig
from rdn_engine.host.features import RelationOutput
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
    threads: int,
) -> cpu.Boxes:
    """Detections in pixels of the frame; DESIGN section 2 (Output). Each axis is scaled by its own ratio.

    Args:
        output: of the relation stage, for n proposals.
        boxes: [n, 4] in network-input pixels.
        frame_geometry: height and width in pixels, and width over height of a pixel.
        input_config: says the size of the network input.
        config: thresholds and box weights.
        score_threshold: boxes at or below this confidence, in 0..1, are dropped.
        threads: bounds the CPU threads.

    Returns:
        At most max_detections boxes with confidence, class and proposal, best first.
    """
    network_size = input_config.network_size(*frame_geometry)
    found = cpu.detect(
        output.logits,
        output.deltas,
        boxes,
        network_size=network_size,
        config=config,
        score_threshold=score_threshold,
        threads=threads,
    )
    scale = input_config.frame_scale(*frame_geometry)
    return found._replace(xyxy=(found.xyxy * (*scale, *scale)).astype("float32"))
