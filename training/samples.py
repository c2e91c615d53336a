"""Pictures of what a model sees and finds, for the log of a run."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rdn_engine.media.draw import annotate
from rdn_engine.results import Detections
from training.data.sampling import Batch
from training.model.fcos import SmallFCOS
from training.model.inference import find_objects
from training.model.rdn import RDN

_SHOWN = 0.3  # confidence


def sample_picture(model: RDN | SmallFCOS, batch: Batch) -> NDArray[np.uint8]:
    """The first image of a batch with its annotated boxes, and beside it with what is found in its clip.

    Args:
        model: on any device; nothing in it changes.
        batch: that a step has trained on.

    Returns:
        uint8 [H, 2 W, 3] RGB.
    """
    frames = [
        image[:height, :width].cpu().numpy()
        for image, (height, width) in zip(batch.images[: batch.frames_per_clip], batch.sizes, strict=False)
    ]
    found = find_objects(model, frames)[0]
    names = model.config.class_names
    height, width = frames[0].shape[:2]

    def detections(
        xyxy: NDArray[np.float32], confidence: NDArray[np.float32], class_id: NDArray[np.int64]
    ) -> Detections:
        return Detections(
            xyxy=xyxy,
            confidence=confidence,
            class_id=class_id,
            tracker_id=None,
            class_names=names,
            frame_index=0,
            pts=None,
            source_id="sample",
            height=height,
            width=width,
            pool_fill=len(frames),
            lookahead=0,
            epoch=0,
        )

    boxes, labels = batch.boxes[0].cpu().numpy(), batch.labels[0].cpu().numpy() - 1
    truth = annotate(frames[0], detections(boxes, np.ones(len(boxes), np.float32), labels))
    shown = detections(found.xyxy.cpu().numpy(), found.confidence.cpu().numpy(), found.class_id.cpu().numpy())
    return np.concatenate([truth, annotate(frames[0], shown, _SHOWN)], 1)
