"""What a ring in float16 and another backend change: detections in common with the usual ones, and AP50 of each.

    python benchmarks/quality/ring_accuracy.py --bundle models/rdn_tiny/engines --output result.json

The `rdn_engine.Detector` looks at the held-out synthetic videos once with each ring, and with each backend.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.frame.device_side import share_in_common
from rdn_engine import Detections, Detector
from rdn_engine.evaluation.score import score
from rdn_engine.host.fastest import CANDIDATES
from rdn_engine.kernels.cpu import RingPrecision
from training.arguments import given_path
from training.data.synthetic import SyntheticVideos
from training.evaluation.videos import AnnotatedVideos, from_synthetic
from training.provenance import environment

CONFIDENCE = 0.3
"""Of the detections that are compared"""


def detect(detector: Detector, videos: AnnotatedVideos) -> tuple[dict[int, Detections], int]:
    """By `Frame.id`; and what a stream holds, bytes."""
    found: dict[int, Detections] = {}
    for _, frames in videos.videos():
        with detector.open_stream() as stream:
            results = [result for frame in frames for result in stream.push(videos.read(frame))]
            results += stream.flush()
            held = stream.nbytes
        found |= {frame.id: result for frame, result in zip(frames, results, strict=True)}
    return found, held


def rows(found: Sequence[Detections]) -> list[Any]:
    """[n, 6] of each frame: box, confidence, class; those that are compared."""
    return [
        np.column_stack([d.xyxy, d.confidence, d.class_id])[d.confidence >= CONFIDENCE].astype(np.float64)
        for d in found
    ]


def measure(bundle: Path, videos: AnnotatedVideos, threads: int) -> dict[str, Any]:
    wanted: list[Any] = []

    def one(name: str, **options: Any) -> dict[str, Any]:
        detector = Detector.from_pretrained(bundle, threads=threads, **options)
        found, held = detect(detector, videos)
        result = score(found, videos, detector.config.class_names, detector.config.dials.frames_ahead)
        got = rows([found[key] for key in sorted(found)])
        wanted[:] = wanted or got
        about = {
            "AP50": round(result["vid"]["AP50"], 3),
            "in_common": share_in_common(got, wanted),
            "detections": sum(map(len, got)),
            "nbytes": held,
        }
        print(name, about, flush=True)
        return about

    return {
        "data": videos.name,
        "frames": len(videos.dataset.frames),
        "confidence": CONFIDENCE,
        "rings": {ring: one(ring, ring_precision=ring) for ring in get_args(RingPrecision)},
        "backends": {backend: one(backend, backend=backend) for backend, _ in CANDIDATES},
        **environment(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", type=given_path, required=True)
    parser.add_argument("--output", type=given_path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--videos", type=int, default=60)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    videos = from_synthetic(SyntheticVideos(arguments.split, arguments.videos, arguments.frames))
    arguments.output.write_text(json.dumps(measure(arguments.bundle, videos, arguments.threads), indent=1) + "\n")


if __name__ == "__main__":
    main()
