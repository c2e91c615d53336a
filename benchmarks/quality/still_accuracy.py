"""What the dial `still` saves on a static camera, and what it costs in AP50.

    python benchmarks/quality/still_accuracy.py --bundle models/rdn_tiny/engines --output result.json [--clip VIDEO]

Held-out synthetic videos of several seeds, their camera at rest: the scene moves for BURST frames, then stands for
TIMES - 1 times as long, and every frame has sensor noise of its own. The `rdn_engine.Detector` looks at each video
without the dial and at each threshold, in turns, and the processor time of its pushes is taken. A clip of a real
camera has no annotations: of it the parts that are still and the times are given.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.quality.interval_accuracy import figures, push_all
from rdn_engine import Detections, Detector
from rdn_engine.evaluation.score import VID
from rdn_engine.media.source import open_source
from training.arguments import given_path
from training.data.synthetic import SyntheticVideos, Video, render_video
from training.evaluation.videos import from_synthetic
from training.provenance import environment

BURST, TIMES = 4, 10
SEEDS = (0, 1, 2)
NOISE = 4.0
"""Grey levels: standard deviation of the noise of each colour of each pixel"""
THRESHOLDS = (0.0, 2.0, 4.0, 6.0, 8.0)
"""Grey levels; 0 is without the dial"""


@dataclass
class StaticVideos(SyntheticVideos):
    """`videos[i]` moves and stands in turns; `num_frames` is a multiple of BURST TIMES."""

    noise: float = NOISE

    def __getitem__(self, index: int) -> Video:
        if index not in self._kept:
            rng = np.random.default_rng([self.seed, zlib.crc32(self.split.encode()), index])
            scene = render_video(rng, self.num_frames // TIMES, *self.size, static_camera=True)
            shown = moments(len(scene.frames))
            noise = rng.normal(0, self.noise, (len(shown), *scene.frames.shape[1:]))
            self._kept[index] = Video(
                (scene.frames[shown] + noise).round().clip(0, 255).astype(np.uint8),
                [scene.boxes[t] for t in shown],
                [scene.labels[t] for t in shown],
                [scene.track_ids[t] for t in shown],
                scene.strength[shown],
            )
        return self._kept[index]


def moments(count: int) -> list[int]:
    """Which moment of a scene of `count` each frame shows."""
    shown = []
    for start in range(0, count, BURST):
        burst = list(range(start, min(start + BURST, count)))
        shown += burst + burst[-1:] * (len(burst) * (TIMES - 1))
    return shown


def measure(detector: Detector, drawn: StaticVideos) -> dict[str, Any]:
    """Threshold -> part that is still, AP50, and how many times as many frames a second."""
    videos, own = from_synthetic(drawn), detector.config.dials
    found: dict[float, dict[int, Detections]] = {threshold: {} for threshold in THRESHOLDS}
    spent = dict.fromkeys(THRESHOLDS, 0.0)
    for _, frames in videos.videos():
        for threshold in THRESHOLDS:
            images = [videos.read(frame) for frame in frames]
            results, seconds = push_all(detector, images, replace(own, still=threshold))
            spent[threshold] += seconds
            found[threshold] |= {frame.id: result for frame, result in zip(frames, results, strict=True)}
    rows = {}
    for threshold, results_of in found.items():
        rows[f"{threshold:g}"] = {
            "still": round(float(np.mean([not r.encoded for r in results_of.values()])), 4),
            "times": round(spent[0.0] / spent[threshold], 3),
            **figures(results_of, videos, detector.config.class_names),
        }
        print(threshold, rows[f"{threshold:g}"], flush=True)
    return rows


def clip_rows(detector: Detector, clip: Path, count: int) -> dict[str, Any]:
    """Threshold -> part that is still and times, of a clip of `count` frames at most."""
    rows, own = {}, detector.config.dials
    first = 0.0
    for threshold in THRESHOLDS:
        with open_source(clip) as video:
            results, seconds = push_all(detector, islice(video, count), replace(own, still=threshold))
        first = first or seconds
        still = float(np.mean([not r.encoded for r in results]))
        rows[f"{threshold:g}"] = {"still": round(still, 4), "times": round(first / seconds, 3), "frames": len(results)}
        print(clip.name, threshold, rows[f"{threshold:g}"], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", type=given_path, required=True)
    parser.add_argument("--output", type=given_path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--videos", type=int, default=8, help="of each seed")
    parser.add_argument("--frames", type=int, default=240)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clip", type=given_path, help="of a real static camera")
    parser.add_argument("--clip-frames", type=int, default=120)
    arguments = parser.parse_args()
    detector = Detector.from_pretrained(arguments.bundle, threads=arguments.threads)
    seeds: dict[str, Any] = {}
    for seed in arguments.seeds:
        drawn = StaticVideos(arguments.split, arguments.videos, arguments.frames, seed=seed)
        seeds[str(seed)] = measure(detector, drawn)
    means = {
        label: {key: round(float(np.mean([rows[label][key] for rows in seeds.values()])), 4) for key in row}
        for label, row in next(iter(seeds.values())).items()
    }
    result = {
        "model": str(arguments.bundle),
        "protocol": VID,
        "noise": NOISE,
        "repeated": 1 - 1 / TIMES,
        "frames": arguments.videos * arguments.frames,
        "still_run": detector.config.dials.still_run,
        "seeds": seeds,
        "rows": means,
        "clip": None if arguments.clip is None else clip_rows(detector, arguments.clip, arguments.clip_frames),
        "clip_name": None if arguments.clip is None else arguments.clip.name,
        **environment(),
    }
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
