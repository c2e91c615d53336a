"""Do evaluators agree? AP of random boxes by ours, pycocotools, faster-coco-eval and the definition.

    python tests/ap_equality.py --output benchmarks/results/ap_equality.json

Each set has ties of confidence, ignore regions or degenerate boxes, or all of them. Each evaluator gets the same boxes.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval import COCO as FasterCOCO
from faster_coco_eval import COCOeval_faster
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rdn_engine.evaluation.coco_vid import to_coco_box
from rdn_engine.evaluation.score import score
from tests.evaluation_cases import NAMES, as_found, as_videos, draw_case
from tests.reference_evaluation import Box, Detection, average_precision, iou, objects_of, overlap, vid_ap
from training.provenance import environment

Case = tuple[list[Box], list[Detection]]
LABELS = range(len(NAMES))
KINDS = ("plain", "ties", "ignore regions", "degenerate boxes", "all of them")


def draw(seed: int, kind: str) -> Case:
    """Annotations and detections of one kind.

    Args:
        seed: of the set.
        kind: one of KINDS.
    """
    boxes, detections = draw_case(seed)
    rng = np.random.default_rng([seed, 1])
    everything = kind == "all of them"
    if kind not in ("ignore regions", "all of them"):
        boxes = [b for b in boxes if not b.ignore]
    if kind == "ties" or everything:
        detections = [d._replace(confidence=float(np.float32(round(d.confidence, 1)))) for d in detections]
    else:
        apart = rng.permutation(len(detections)) / (len(detections) + 1)
        detections = [d._replace(confidence=float(c)) for d, c in zip(detections, apart, strict=True)]
    if kind == "degenerate boxes" or everything:
        boxes = [b._replace(xyxy=_degenerate(b.xyxy, rng)) if rng.random() < 0.1 else b for b in boxes]
        detections = [d._replace(xyxy=_degenerate(d.xyxy, rng)) if rng.random() < 0.3 else d for d in detections]
    return boxes, detections


def _degenerate(xyxy: Sequence[float], rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Without area, below one pixel, or with the last column or row before the first"""
    x1, y1, x2, y2 = xyxy
    kind = int(rng.integers(4))
    if kind == 0:
        return x1, y1, x1 - 1, y2
    if kind == 1:
        return x1, y1, x1 - 0.5, y1 - 0.5
    return (x2, y1, x1, y2) if kind == 2 else (x2, y2, x1, y1)


Tables = tuple[dict[str, Any], list[Any]]
"""Annotations and results"""


def coco_tables(boxes: list[Box], detections: list[Detection], labels: Sequence[int]) -> Tables:
    """Annotations and results as COCO's evaluators take them; ids count from 1."""
    annotations = []
    for i, b in enumerate((b for b in boxes if b.label in labels), 1):
        box = to_coco_box(b.xyxy)
        row = {"id": i, "image_id": b.frame, "category_id": b.label, "bbox": box, "area": box[2] * box[3]}
        annotations.append({**row, "iscrowd": int(b.ignore)})
    results = [
        {"image_id": d.frame, "category_id": d.label, "bbox": to_coco_box(d.xyxy), "score": d.confidence}
        for d in detections
        if d.label in labels
    ]
    images = [{"id": i} for i in sorted({r["image_id"] for r in [*annotations, *results]})]
    categories = [{"id": label, "name": NAMES[label]} for label in labels]
    return {"images": images, "categories": categories, "annotations": annotations, "info": {}}, results


def evaluator(name: str, tables: Tables) -> Any:
    """pycocotools' or faster-coco-eval's, with its own parameters."""
    truth, results = tables
    with contextlib.redirect_stdout(io.StringIO()):
        if name == "pycocotools":
            coco = COCO()
            coco.dataset = truth
            coco.createIndex()
            return COCOeval(coco, coco.loadRes(results) if results else COCO(), "bbox")
        coco = FasterCOCO(truth)
        return COCOeval_faster(coco, coco.loadRes(results) if results else FasterCOCO(), "bbox")


def precision_of(evaluation: Any) -> Any:
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
    return np.asarray(evaluation.eval["precision"])


def coco_ap(name: str, case: Case) -> float | None:
    """COCO's AP, percent."""
    boxes, detections = case
    if not detections:
        return None
    precision = precision_of(evaluator(name, coco_tables(boxes, detections, LABELS)))[:, :, :, 0, -1]
    there = precision[precision > -1]
    return 100 * float(there.mean()) if there.size else None


def vid_ap_by(name: str, case: Case) -> float | None:
    """AP at IoU 0.5 with a recall threshold at each recall that can be reached and no other limits, percent."""
    boxes, detections = case
    aps = []
    for label in LABELS:
        objects = len(objects_of(boxes, label))
        own = [d for d in detections if d.label == label]
        if not objects:
            continue
        if not own:
            aps.append(0.0)
            continue
        evaluation = evaluator(name, coco_tables(boxes, own, [label]))
        evaluation.params.iouThrs = np.array([0.5])
        evaluation.params.recThrs = np.arange(1, objects + 1) / objects
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[-np.inf, np.inf]], ["all"]
        evaluation.params.maxDets = [len(own)]
        aps.append(float(precision_of(evaluation).mean()))
    return 100 * float(np.mean(aps)) if aps else None


def by_loops(ap: Callable[[list[Box], list[Detection], int], float | None]) -> Callable[[Case], float | None]:
    def mean(case: Case) -> float | None:
        there = [value for label in LABELS if (value := ap(*case, label)) is not None]
        return 100 * float(np.mean(there)) if there else None

    return mean


def challenge_ap(boxes: list[Box], detections: list[Detection], label: int) -> float | None:
    """The definition with the overlap that the ImageNet challenge asks of small boxes: as much as 10 pixels cost."""
    taken: set[int] = set()
    met: list[tuple[Detection, int | None]] = []
    for d in sorted((d for d in detections if d.label == label), key=lambda d: (-d.confidence, d.frame)):
        same = [i for i, b in enumerate(boxes) if (b.frame, b.label) == (d.frame, label)]
        free = [
            i
            for i in same
            if i not in taken and not boxes[i].ignore and iou(d.xyxy, boxes[i].xyxy) >= _needed(boxes[i].xyxy)
        ]
        best = max(free, key=lambda i: iou(d.xyxy, boxes[i].xyxy), default=None)
        if best is not None:
            taken.add(best)
        else:
            region = [(i, overlap(d.xyxy, boxes[i].xyxy)) for i in same if boxes[i].ignore]
            best = next((i for i, (both, own, _) in region if both and both / own >= 0.5), None)
        met.append((d, best))
    return average_precision(boxes, met, objects_of(boxes, label))


def longer_ap(boxes: list[Box], detections: list[Detection], label: int) -> float | None:
    """The definition with every side a pixel longer, as evaluators have it that add 1 to overlaps of COCO's boxes."""

    def longer(xyxy: Sequence[float]) -> tuple[float, float, float, float]:
        return xyxy[0], xyxy[1], xyxy[2] + 1, xyxy[3] + 1

    return vid_ap(
        [b._replace(xyxy=longer(b.xyxy)) for b in boxes],
        [d._replace(xyxy=longer(d.xyxy)) for d in detections],
        label,
    )


def _needed(xyxy: Sequence[float]) -> float:
    width, height = xyxy[2] - xyxy[0] + 1, xyxy[3] - xyxy[1] + 1
    return min(0.5, width * height / ((width + 10) * (height + 10)))


def compare(kind: str, sets: int, seed: int = 0) -> dict[str, Any]:
    """How far other evaluators are from ours, over random sets of one kind.

    Args:
        kind: one of KINDS.
        sets: how many.
        seed: of the first.

    Returns:
        The largest difference of AP in percent by evaluator, and how many sets had an object.
    """
    others: dict[str, tuple[str, Callable[[Case], float | None]]] = {
        "COCO, pycocotools": ("coco", lambda case: coco_ap("pycocotools", case)),
        "COCO, faster-coco-eval": ("coco", lambda case: coco_ap("faster-coco-eval", case)),
        "VID, definition": ("vid", by_loops(vid_ap)),
        "VID, pycocotools": ("vid", lambda case: vid_ap_by("pycocotools", case)),
        "VID, faster-coco-eval": ("vid", lambda case: vid_ap_by("faster-coco-eval", case)),
        "challenge's rule": ("vid", by_loops(challenge_ap)),
        "sides of x2 - x1 + 2": ("vid", by_loops(longer_ap)),
    }
    differences = dict.fromkeys(others, 0.0)
    counted = 0
    for i in range(seed, seed + sets):
        case = draw(i, kind)
        if all(b.ignore for b in case[0]):
            continue
        counted += 1
        ours = score(as_found(case[1]), as_videos(case[0]), NAMES, 0)
        own = {"coco": ours["coco"]["AP"], "vid": ours["vid"]["AP50"]}
        for name, (protocol, ap) in others.items():
            got, wanted = ap(case), own[protocol]
            differences[name] = max(differences[name], abs((got or 0.0) - (wanted or 0.0)))
    return {"sets": counted, "largest_difference": differences}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--sets", type=int, default=100, help="of each kind")
    arguments = parser.parse_args()
    rows = {}
    for kind in KINDS:
        rows[kind] = compare(kind, arguments.sets)
        print(kind, rows[kind], flush=True)
    arguments.output.write_text(json.dumps({"rows": rows, **environment()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
