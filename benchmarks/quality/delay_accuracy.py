"""Accuracy against delay in milliseconds: one model with every look-ahead, offline and as a viewer sees it live.

    python benchmarks/quality/delay_accuracy.py --bundle models/rdn_tiny/engines --output result.json

The `rdn_engine.Detector` looks at the held-out synthetic videos once with each L = 0..T, and every push is timed; the
traces are replayed as of a camera (docs/evaluation.md). `--lines DIR` writes results and traces of each L, which
`rdn-engine evaluate` scores the same.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rdn_engine import Detections, Detector
from rdn_engine.config import Dials
from rdn_engine.evaluation.join import Joined, Placed
from rdn_engine.evaluation.score import score
from rdn_engine.evaluation.streaming import streaming
from rdn_engine.evaluation.trace import Moments, Push, replay
from training.arguments import given_path
from training.data.synthetic import SyntheticVideos
from training.evaluation.videos import AnnotatedVideos, from_synthetic
from training.provenance import environment

Runs = dict[str, tuple[list[Push], list[Detections]]]
"""By name of the video: its trace and its results"""


def run(detector: Detector, videos: AnnotatedVideos, dials: Dials) -> Runs:
    """Every video through a stream, each push timed."""
    runs: Runs = {}
    for name, frames in videos.videos():
        pushes: list[Push] = []
        results: list[Detections] = []
        with detector.open_stream(dials, source_id=name) as stream:
            for t, frame in enumerate(frames):
                image = videos.read(frame)
                began = time.perf_counter()
                ready = stream.push(image)
                pushes.append(_push(name, t, began, ready))
                results += ready
            began = time.perf_counter()
            ready = stream.flush()
            pushes.append(_push("", None, began, ready))
            results += ready
        runs[name] = pushes, results
    return runs


def _push(source: str, index: int | None, began: float, ready: list[Detections]) -> Push:
    ms = 1e3 * (time.perf_counter() - began)
    return Push(source, index, None, ms, tuple(result.frame_index for result in ready))


def figures(runs: Runs, videos: AnnotatedVideos, look_ahead: int, fps: float) -> dict[str, Any]:
    """Offline and live, of one look-ahead."""
    placed = [
        Placed(frame.video_id, frame, name, result)
        for name, frames in videos.videos()
        for frame, result in zip(frames, runs[name][1], strict=True)
    ]
    found = {one.frame.id: one.result for one in placed if one.frame is not None}
    names = placed[0].result.class_names
    moments: Moments = {}
    for pushes, _ in runs.values():
        moments |= replay(pushes, fps)
    work = [push.ms for pushes, _ in runs.values() for push in pushes if push.frame_index is not None]
    # `streaming` wants the labels of the data set, which are the model's classes in their order here.
    assert tuple(videos.dataset.class_names) == names
    offline = score(found, videos, names, look_ahead)
    live = streaming(Joined(placed, found, 0), videos, moments, work)
    return {
        "AP50": offline["vid"]["AP50"],
        "AP": offline["coco"]["AP"],
        "fast": offline["speed"]["fast"]["AP50"],
        "delay_frames": offline["delay"]["frames"] + look_ahead,
        "streaming_AP50": live["AP50"],
        "streaming_AP": live["AP"],
        "streaming_slow": live["speed"]["slow"]["AP50"],
        "streaming_fast": live["speed"]["fast"]["AP50"],
        "push_ms": live["push_ms"],
        "delay_ms": live["delay_ms"],
        "average_delay_ms": live["average_delay_ms"],
    }


def write_lines(runs: Runs, directory: Path) -> None:
    """What `predict --output` and `--trace` would have written"""
    directory.mkdir(parents=True, exist_ok=True)
    for name, (pushes, results) in runs.items():
        for end, rows in (("jsonl", results), ("trace", pushes)):
            text = "".join(json.dumps(row.to_dict()) + "\n" for row in rows)
            (directory / f"{name}.{end}").write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", type=given_path, required=True)
    parser.add_argument("--output", type=given_path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--videos", type=int, default=60)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--fps", type=float, default=24.0, help="of the camera")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--lines", type=given_path, metavar="DIR", help="results and traces of each L")
    arguments = parser.parse_args()
    detector = Detector.from_pretrained(arguments.bundle, threads=arguments.threads)
    videos = from_synthetic(SyntheticVideos(arguments.split, arguments.videos, arguments.frames))
    own = detector.config.dials
    rows: dict[str, Any] = {}
    for look_ahead in range(own.window + 1):
        runs = run(detector, videos, replace(own, look_ahead=look_ahead))
        rows[str(look_ahead)] = figures(runs, videos, look_ahead, arguments.fps)
        print(look_ahead, rows[str(look_ahead)], flush=True)
        if arguments.lines is not None:
            write_lines(runs, arguments.lines / f"look_ahead_{look_ahead}")
    result = {
        "model": str(arguments.bundle),
        "data": videos.name,
        "frames": len(videos.dataset.frames),
        "fps": arguments.fps,
        "threads": arguments.threads,
        "window": own.window,
        "rows": rows,
        **environment(),
    }
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
