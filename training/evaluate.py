"""AP50 of a detector on held-out synthetic videos.

`python training/evaluate.py --checkpoint runs/rdn_tiny/model.safetensors --output result.json` runs the torch model,
`--bundle DIRECTORY` the exported one through `rdn_engine.Detector`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.environment import environment
from export.checkpoints import load_checkpoint
from training.data.coco_vid import to_coco_box
from training.data.synthetic import CLASS_NAMES, SyntheticVideos, Video
from training.model.inference import detect_video

PROTOCOL = "COCO AP at IoU 0.50 (101 recall points, mean over classes), 300 detections a frame, all frames pooled"
MAX_DETECTIONS = 300

Found = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]
"""xyxy [k, 4] pixels of the frame, confidence [k], class_id [k]"""
Detect = Callable[[Video], list[Found]]


def checkpoint_detector(path: Path) -> Detect:
    model = load_checkpoint(path).model()

    def detect(video: Video) -> list[Found]:
        results = detect_video(model, list(video.frames))
        return [(r.xyxy.numpy(), r.confidence.numpy(), r.class_id.numpy()) for r in results]

    return detect


def bundle_detector(directory: Path) -> Detect:
    from rdn_engine import Detector

    detector = Detector.from_pretrained(directory)

    def detect(video: Video) -> list[Found]:
        with detector.open_stream() as stream:
            results = [r for frame in video.frames for r in stream.push(frame)] + stream.flush()
        return [(r.xyxy, r.confidence, r.class_id) for r in results]

    return detect


def coco_detections(found: Found, image_id: int) -> list[dict[str, Any]]:
    return [
        {"image_id": image_id, "category_id": int(label) + 1, "bbox": to_coco_box(box.tolist()), "score": float(score)}
        for box, score, label in zip(*found, strict=True)
    ]


def average_precision(
    truth: list[dict[str, Any]], found: list[dict[str, Any]], image_ids: list[int]
) -> tuple[float, dict[str, float]]:
    """AP50 in percent: the mean over classes that occur, and of each class."""
    chosen = set(image_ids)
    annotations = [{**a, "id": i + 1} for i, a in enumerate(a for a in truth if a["image_id"] in chosen)]
    coco = COCO(
        {
            "images": [{"id": i} for i in image_ids],
            "annotations": annotations,
            "categories": [{"id": i + 1, "name": name} for i, name in enumerate(CLASS_NAMES)],
        }
    )
    evaluation = COCOeval_faster(coco, coco.loadRes([d for d in found if d["image_id"] in chosen]), "bbox")
    evaluation.params.iouThrs = np.array([0.5])
    evaluation.params.maxDets = [1, 10, MAX_DETECTIONS]
    evaluation.evaluate()
    evaluation.accumulate()
    # precision: [IoU thresholds, recalls, classes, area ranges (0 is all), detection limits]; -1 where nothing is true
    precision = np.asarray(evaluation.eval["precision"])[0, :, :, 0, -1]
    per_class = {n: 100 * float(p.mean()) for n, p in zip(CLASS_NAMES, precision.T, strict=True) if p.min() >= 0}
    return float(np.mean(list(per_class.values()))), per_class


def evaluate(detect: Detect, videos: SyntheticVideos) -> dict[str, Any]:
    """AP50 over all frames, over those that are clear as a whole, and over those that are blurred or dim."""
    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    clear: list[int] = []
    degraded: list[int] = []
    for v in range(len(videos)):
        video = videos[v]
        for t, detections in enumerate(detect(video)):
            image_id = v * videos.num_frames + t + 1
            (degraded if video.strength[t] > 0 else clear).append(image_id)
            for box, label in zip(video.boxes[t], video.labels[t], strict=True):
                bbox = to_coco_box(box.tolist())
                row = {"image_id": image_id, "category_id": int(label) + 1, "bbox": bbox, "iscrowd": 0}
                truth.append({**row, "area": bbox[2] * bbox[3]})
            found += coco_detections(detections, image_id)
    ap50, per_class = average_precision(truth, found, clear + degraded)
    return {
        "AP50": ap50,
        "AP50_clear": average_precision(truth, found, clear)[0],
        "AP50_degraded": average_precision(truth, found, degraded)[0],
        "frames": len(clear) + len(degraded),
        "frames_degraded": len(degraded),
        "objects": len(truth),
        "per_class": per_class,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--checkpoint", type=Path)
    source.add_argument("--bundle", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--videos", type=int, default=60)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--split", default="test")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    videos = SyntheticVideos(arguments.split, arguments.videos, arguments.frames)
    made = checkpoint_detector(arguments.checkpoint) if arguments.checkpoint else bundle_detector(arguments.bundle)
    result = {
        "protocol": PROTOCOL,
        "split": arguments.split,
        "videos": len(videos),
        **evaluate(made, videos),
        **environment(),
    }
    arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({k: result[k] for k in ("AP50", "AP50_clear", "AP50_degraded", "frames", "objects")}))


if __name__ == "__main__":
    main()
