"""Results of steps for tests of the frames between."""

from __future__ import annotations

import numpy as np

from rdn_engine.results import Detections

WIDTH, HEIGHT = 320, 200


def result(
    boxes: list[list[float]],
    confidence: list[float] | None = None,
    classes: list[int] | None = None,
    ids: list[int] | None = None,
    index: int = 0,
) -> Detections:
    n = len(boxes)
    return Detections(
        class_names=("cat", "dog"), frame_index=index, pts=None, source_id="", height=HEIGHT, width=WIDTH, pool_fill=1,
        lookahead=0, epoch=0,
        xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        confidence=np.array([0.9 - 0.1 * i for i in range(n)] if confidence is None else confidence, np.float32),
        class_id=np.array([0] * n if classes is None else classes, np.int64),
        tracker_id=None if ids is None else np.array(ids, np.int64),
    )  # fmt: skip


def square(x: float, y: float = 50, side: float = 20) -> list[float]:
    return [x, y, x + side - 1, y + side - 1]
