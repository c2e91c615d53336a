"""Average precision through faster-coco-eval, one class at a time: the rows of one class at once bound the memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from rdn_engine.evaluation.boxes import Bool, Detected, Float, Int, Truth

VID_IOU = 0.5

COCO_AREAS = ("all", "small", "medium", "large")
COCO_EDGES = (32**2, 96**2)
"""Pixels between small, medium and large"""


@dataclass(frozen=True)
class ClassMatch:
    """How the detections of one class meet its annotated boxes in the VID protocol."""

    precision: Float
    """[n] the best precision at a recall of 1/n, 2/n ... 1, for n objects; 0 where it is not reached"""
    rows: Int
    """[d] the class's detections, highest confidence first"""
    met: Int
    """[d] the annotated box or ignore region that each of them meets; -1 for none"""
    boxes: Int
    """[b] the class's annotated boxes and ignore regions"""

    @property
    def ap(self) -> float | None:
        """Area under the whole precision-recall curve, 0..1; None without objects."""
        return float(self.precision.mean()) if len(self.precision) else None

    def part(self, counts: Bool, weights: Float) -> Float:
        """`precision` of a part of the objects, with the same detections meeting the same boxes.

        Args:
            counts: [all annotated boxes] the part, without ignore regions.
            weights: [all detections] in 0..1, how much of a false detection each is where it meets nothing. What meets
                an object outside of the part does not count.

        Returns:
            [objects of the class in the part] in 0..1.
        """
        n = int(counts[self.boxes].sum())
        found = (self.met >= 0) & counts[self.met]
        true = np.cumsum(found)
        false = np.cumsum(np.where(self.met < 0, weights[self.rows], 0.0))
        precision = true[found] / (true[found] + false[found])
        best = np.maximum.accumulate(precision[::-1])[::-1]
        return np.pad(best, (0, n - len(best)))


def match_class(truth: Truth, found: Detected, label: int) -> ClassMatch:
    """The VID protocol for one class (docs/evaluation.md).

    Args:
        truth: all annotated boxes.
        found: all detections.
        label: position of the class in the data set.

    Returns:
        Which box each detection of the class meets, and the precision at every recall.
    """
    boxes = np.flatnonzero(truth.label == label)
    rows = np.flatnonzero(found.label == label)
    rows = rows[np.lexsort([found.image[rows], -found.confidence[rows]])]
    n = int((~truth.ignore[boxes]).sum())
    met = np.full(len(rows), -1)
    if len(boxes) == 0 or len(rows) == 0:
        return ClassMatch(np.zeros(n), rows, met, boxes)
    evaluation = _evaluation(truth, found, boxes, rows)
    evaluation.params.iouThrs = np.array([VID_IOU])
    # At each recall that can be reached, instead of at a fixed number: their mean is the area itself.
    evaluation.params.recThrs = np.arange(1, n + 1) / max(n, 1)
    evaluation.params.areaRng = [[-np.inf, np.inf]]
    evaluation.params.areaRngLbl = ["all"]
    evaluation.params.maxDets = [len(rows)]
    evaluation.evaluate()
    evaluation.accumulate()
    for pair in evaluation.eval["matched"]:
        detection, box = pair.split("_")
        met[int(detection) - 1] = boxes[int(box) - 1]
    precision = np.asarray(evaluation.eval["precision"], np.float64).reshape(-1)
    return ClassMatch(precision[:n], rows, met, boxes)


def coco_class(truth: Truth, found: Detected, label: int) -> Float:
    """COCO's protocol for one class.

    Args:
        truth: all annotated boxes.
        found: all detections.
        label: position of the class in the data set.

    Returns:
        Precision [10 IoU thresholds, 101 recalls, 4 areas] in 0..1, -1 in an area without objects.
    """
    boxes, rows = np.flatnonzero(truth.label == label), np.flatnonzero(found.label == label)
    evaluation = _evaluation(truth, found, boxes, rows)
    evaluation.params.areaRng = [[0, 1e10], [0, COCO_EDGES[0]], list(COCO_EDGES), [COCO_EDGES[1], 1e10]]
    evaluation.params.areaRngLbl = list(COCO_AREAS)
    evaluation.evaluate()
    evaluation.accumulate()
    return np.asarray(evaluation.eval["precision"], np.float64)[:, :, 0, :, -1]


def _evaluation(truth: Truth, found: Detected, boxes: Int, rows: Int) -> COCOeval_faster:
    """Of one class; ids count from 1 in the order of `boxes` and `rows`."""
    same = {"category_id": 1}
    truth_columns = truth.image[boxes], truth.xywh()[boxes], truth.area()[boxes], truth.ignore[boxes]
    found_columns = found.image[rows], found.xywh()[rows], found.area()[rows], found.confidence[rows]
    annotations = [
        {**same, "id": i, "image_id": image, "bbox": box, "area": area, "iscrowd": int(ignore)}
        for i, (image, box, area, ignore) in enumerate(zip(*(c.tolist() for c in truth_columns), strict=True), 1)
    ]
    results = [
        {**same, "id": i, "image_id": image, "bbox": box, "area": area, "iscrowd": 0, "score": confidence}
        for i, (image, box, area, confidence) in enumerate(zip(*(c.tolist() for c in found_columns), strict=True), 1)
    ]
    images = [{"id": i} for i in np.union1d(truth.image[boxes], found.image[rows]).tolist()]
    table = {"images": images, "categories": [{"id": 1, "name": "the class"}]}
    return COCOeval_faster(COCO({**table, "annotations": annotations}), COCO({**table, "annotations": results}), "bbox")


def mean(values: Iterable[float | None]) -> float | None:
    """The mean over the classes that have a value.

    Args:
        values: of the classes, 0..1.

    Returns:
        Percent; None where no class has a value.
    """
    there = [v for v in values if v is not None]
    return 100 * float(np.mean(there)) if there else None
