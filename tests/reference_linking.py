"""Box linking by trying every path: the definition (DESIGN section 2, last paragraphs), in float64 and loops."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from rdn_engine.stream.links import MIN_IOU, SEQ_NMS_LINK_IOU, SEQ_NMS_RIVAL_IOU, Linkable
from tests.reference import iou

Box = tuple[int, int]
"""(frame, row)"""
Path = tuple[Box, ...]


def every_path(boxes: set[Box], link: Callable[[Box, Box], float | None]) -> Iterator[Path]:
    """Paths through neighbouring frames, of one box or more, that use only these boxes; a link of None is none."""

    def onward(path: Path) -> Iterator[Path]:
        yield path
        for box in sorted(boxes):
            if box[0] == path[-1][0] + 1 and link(path[-1], box) is not None:
                yield from onward((*path, box))

    for box in sorted(boxes):
        yield from onward((box,))


def best_paths(
    boxes: set[Box],
    link: Callable[[Box, Box], float | None],
    value: Callable[[Box], float],
    rivals: Callable[[Box], set[Box]],
) -> list[Path]:
    """Best path, then the best of what it and its boxes' rivals leave, and so on; equal ones by last box, then on."""

    def gain(path: Path) -> float:
        total = value(path[0])
        for one, other in pairwise(path):
            total = total + link(one, other) + value(other)  # type: ignore[operator]
        return total

    left, found = set(boxes), []
    while left:
        path = min(every_path(left, link), key=lambda p: (-gain(p), p[::-1]))
        found.append(path)
        left -= set(path).union(*(rivals(box) for box in path))
    return found


def link_video(frames: Sequence[Linkable], method: str) -> dict[Box, tuple[int, float]]:
    """(number of its path, confidence) of each box that is left."""
    boxes = {(t, i) for t, frame in enumerate(frames) for i in range(len(frame.found))}
    score = {(t, i): float(frames[t].found.confidence[i]) for t, i in boxes}
    label = {(t, i): int(frames[t].found.class_id[i]) for t, i in boxes}

    def overlap(one: Box, other: Box) -> float:
        if label[one] != label[other]:
            return 0.0
        first, second = (frames[t].found.xyxy[i].astype("float64") for t, i in (one, other))
        return float(iou(first, second))

    def relation(one: Box, other: Box) -> float:
        before, now = frames[one[0]], frames[other[0]]
        if method != "relations" or before.omega is None or now.proposal[other[1]] >= before.omega.shape[1]:
            return 0.0
        return float(before.omega[before.proposal[one[1]], now.proposal[other[1]]])

    def tube_link(one: Box, other: Box) -> float | None:
        shared = overlap(one, other)
        return (score[one] + score[other] + shared) * math.exp(relation(one, other)) if shared > MIN_IOU else None

    def seq_link(one: Box, other: Box) -> float | None:
        return 0.0 if overlap(one, other) > SEQ_NMS_LINK_IOU else None

    def rivals(box: Box) -> set[Box]:
        return {b for b in boxes if b[0] == box[0] and b != box and overlap(b, box) > SEQ_NMS_RIVAL_IOU}

    if method == "seq_nms":
        paths = best_paths(boxes, seq_link, score.__getitem__, rivals)
    else:
        paths = best_paths(boxes, tube_link, lambda box: 0.0, lambda box: set())
    linked = {}
    for number, path in enumerate(paths):
        scores = sorted((score[box] for box in path), reverse=True)
        half = scores[: math.ceil(len(scores) / 2)]
        for box in path:
            mean = sum(scores) / len(scores) if method == "seq_nms" else (score[box] + sum(half) / len(half)) / 2
            linked[box] = number, mean
    return linked
