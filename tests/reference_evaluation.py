"""The figures of docs/evaluation.md by their definitions: loops over plain tuples, short and slow."""

from __future__ import annotations

from typing import NamedTuple


class Box(NamedTuple):
    frame: int
    label: int
    xyxy: tuple[float, float, float, float]
    ignore: bool = False
    instance: int | None = None


class Detection(NamedTuple):
    frame: int
    label: int
    xyxy: tuple[float, float, float, float]
    confidence: float


def overlap(a, b):
    """Intersection, area of a, area of b"""
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
    return max(width, 0) * max(height, 0), *areas


def iou(a, b):
    both, first, second = overlap(a, b)
    union = first + second - both
    return both / union if union else 0.0


def meet(boxes, detections, label):
    """(detection, the index of the box it meets or None) of one class, highest confidence first, then by frame."""
    taken, result = set(), []
    for d in sorted((d for d in detections if d.label == label), key=lambda d: (-d.confidence, d.frame)):
        same = [i for i, b in enumerate(boxes) if (b.frame, b.label) == (d.frame, label)]
        free = [i for i in same if i not in taken and not boxes[i].ignore and iou(d.xyxy, boxes[i].xyxy) >= 0.5]
        best = max(free, key=lambda i: iou(d.xyxy, boxes[i].xyxy), default=None)
        if best is None:
            inside = {i: overlap(d.xyxy, boxes[i].xyxy) for i in same if boxes[i].ignore}
            region = [i for i, (both, own, _) in inside.items() if both and both / own >= 0.5]
            best = region[0] if region else None
        else:
            taken.add(best)
        result.append((d, best))
    return result


def average_precision(boxes, met, counts=None, weight=lambda d: 1.0):
    """Area under the precision-recall curve of the boxes in `counts` (all objects); None where there are none."""
    objects = sum(1 for _ in counts)
    if objects == 0:
        return None
    true = false = 0.0
    points = []
    for d, i in met:
        if i is None:
            false += weight(d)
        elif i in counts:
            true += 1
            points.append((true / objects, true / (true + false)))
    area = previous = 0.0
    for k, (recall, _) in enumerate(points):
        area += (recall - previous) * max(p for _, p in points[k:])
        previous = recall
    return area


def objects_of(boxes, label):
    return {i for i, b in enumerate(boxes) if b.label == label and not b.ignore}


def vid_ap(boxes, detections, label):
    return average_precision(boxes, meet(boxes, detections, label), objects_of(boxes, label))


def motion(boxes, length, i):
    """Mean IoU of box i with itself; frames of one video are numbered video * length + time."""
    b = boxes[i]
    if b.ignore or b.instance is None:
        return None
    around = [
        iou(b.xyxy, o.xyxy)
        for j, o in enumerate(boxes)
        if j != i
        and not o.ignore
        and o.instance == b.instance
        and o.frame // length == b.frame // length
        and abs(o.frame - b.frame) <= 10
    ]
    return sum(around) / len(around) if around else None


def speed_of(value):
    if value is None:
        return None
    return "slow" if value > 0.9 else "fast" if value < 0.7 else "medium"


def false_share(boxes, speeds, speed, d):
    """How far a detection that meets nothing is a false detection of this speed."""
    objects = [i for i, b in enumerate(boxes) if not b.ignore]
    there = [i for i in objects if boxes[i].frame == d.frame] or None
    if there is not None:
        most = max(iou(d.xyxy, boxes[i].xyxy) for i in there)
        there = [i for i in there if iou(d.xyxy, boxes[i].xyxy) == most]
    among = there or objects
    return sum(speeds[i] == speed for i in among) / len(among)


def average_delay(boxes, met, length, num_objects):
    """met: of all classes. Mean over instances at each rate, then 1 / mean(1 / (1 + delay)) - 1."""
    instances = {}
    for b in boxes:
        if b.instance is not None and not b.ignore:
            instances.setdefault((b.frame // length, b.instance), []).append(b.frame)
    means = []
    for rate in (0.1, 0.2, 0.4, 0.8, 1.6, 3.2):
        confidences = sorted({d.confidence for d, _ in met} | {0.0})
        threshold = next(
            (
                c
                for c in confidences
                if sum(i is None and d.confidence >= c for d, i in met) <= int(rate * num_objects + 1e-9)
            ),
            float("inf"),
        )
        waits = []
        for key, frames in instances.items():
            seen = [
                d.frame
                for d, i in met
                if i is not None and d.confidence >= threshold and (d.frame // length, boxes[i].instance) == key
            ]
            waits.append(min(min(seen, default=max(frames) + 1) - min(frames), 30))
        means.append(sum(waits) / len(waits))
    return 1 / (sum(1 / (1 + m) for m in means) / len(means)) - 1
