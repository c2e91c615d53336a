"""Golden results: what torch computes on a few small frames, kept in the bundle for every machine to compare with."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from export.graphs import fold_norms
from rdn_engine.errors import VideoError
from rdn_engine.media.source import open_source
from rdn_engine.verify import detection_rows, set_difference
from training.data.synthetic import SyntheticVideos
from training.model.inference import detect_video
from training.model.rdn import RDN

NUM_FRAMES = 4
LONGEST_SIDE = 480
"""Pixels; larger frames are made smaller, for the bundle's sake."""

TOLERANCE_FACTOR, SMALLEST_TOLERANCE, LARGEST_TOLERANCE = 4.0, 1e-3, 2e-2
"""Of the detections. 1e-3 is 0.24 pixels of 240, what a float32 rewrite of the public implementation shows; beyond 2e-2
a bundle would prove nothing."""


def golden_frames(source: str | Path | None = None) -> NDArray[np.uint8]:
    """The frames on which a bundle proves itself.

    Args:
        source: a video or a folder of images; rendered frames by default.

    Returns:
        uint8 [F, H, W, 3] RGB, the first F <= NUM_FRAMES of the source, no side above LONGEST_SIDE pixels.

    Raises:
        VideoError: the source cannot be opened, or its frames differ in size.
    """
    if source is None:
        return SyntheticVideos("golden", num_videos=1, num_frames=NUM_FRAMES)[0].frames
    with open_source(source) as video:
        frames = [_reduced(frame.image) for frame in islice(video, NUM_FRAMES)]
    sizes = sorted({frame.shape[:2] for frame in frames})
    if len(sizes) != 1:
        raise VideoError(f"{source} has frames of sizes (height, width) {sizes}; wanted one or more frames of one size")
    return np.stack(frames)


def golden_results(model: RDN, frames: NDArray[np.uint8]) -> dict[str, NDArray[np.generic]]:
    """What the torch model makes of the golden frames.

    Args:
        model: on the CPU, in evaluation mode.
        frames: uint8 [F, H, W, 3] RGB.

    Returns:
        The arrays of `golden.npz`: `frames`, and `t{t}/` boxes, objectness, features, logits, deltas [n, ..] of the
        reference proposals, xyxy (pixels of the frame), confidence and class_id of the detections.
    """
    arrays: dict[str, NDArray[np.generic]] = {"frames": frames}
    for t, result in enumerate(detect_video(model, list(frames))):
        for stage in ("boxes", "objectness", "features", "logits", "deltas", "xyxy", "confidence", "class_id"):
            arrays[f"t{t}/{stage}"] = getattr(result, stage).numpy()
    return arrays


def detection_tolerance(model: RDN, golden: Mapping[str, NDArray[Any]]) -> float:
    """How far the detections of a right implementation may lie from the golden ones.

    A model whose geometry weights are large on high frequencies turns float32's rounding into visible differences
    (DESIGN, conditioning). So the model is run once more in torch with other roundings, norms folded and channels last,
    and TOLERANCE_FACTOR times what that changes is allowed.

    Args:
        model: on the CPU, in evaluation mode.
        golden: of `golden_results`.

    Returns:
        The tolerance in `rdn_engine.verify`'s unit, SMALLEST_TOLERANCE..LARGEST_TOLERANCE.
    """
    other = copy.deepcopy(model)
    fold_norms(other.backbone)
    results = detect_video(other.to(memory_format=torch.channels_last), list(golden["frames"]))
    side = max(golden["frames"].shape[1:3])
    rows, others = [], []
    for t, r in enumerate(results):
        stored = golden[f"t{t}/xyxy"] / side, golden[f"t{t}/confidence"], golden[f"t{t}/class_id"]
        rows.append(detection_rows(*stored))
        others.append(detection_rows(r.xyxy.numpy() / side, r.confidence.numpy(), r.class_id.numpy()))
    return min(max(TOLERANCE_FACTOR * set_difference(others, rows), SMALLEST_TOLERANCE), LARGEST_TOLERANCE)


def _reduced(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    scale = min(1.0, LONGEST_SIDE / max(height, width))
    if scale == 1.0:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
