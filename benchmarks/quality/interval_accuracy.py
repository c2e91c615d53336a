"""What it costs to encode every n-th frame only: AP50 by interval, by motion, with and without look-ahead and links.

    python benchmarks/quality/interval_accuracy.py --bundle models/rdn_tiny/engines --output result.json

The `rdn_engine.Detector` looks at held-out synthetic videos of several seeds once with each interval and look-ahead;
what its stream hands to the linker is kept, and linked and filled up at every setting by the linker and the filler that
the stream has (`rdn_engine.stream`).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.quality.recorded import linkables
from rdn_engine import Detections, Detector
from rdn_engine.config import WHOLE_VIDEO, Dials, Link
from rdn_engine.evaluation import motion
from rdn_engine.evaluation.average_precision import match_class, mean
from rdn_engine.evaluation.boxes import Detected, Truth
from rdn_engine.evaluation.score import VID
from rdn_engine.host.blocks import small_picture
from rdn_engine.host.stream import followed
from rdn_engine.stream.between import Between
from rdn_engine.stream.following import Picture
from rdn_engine.stream.linking import BoxLinker, Linkable
from rdn_engine.stream.order import FrameInfo
from training.data.synthetic import SyntheticVideos
from training.evaluation.videos import AnnotatedVideos, from_synthetic
from training.provenance import environment

INTERVALS = (1, 2, 3, 4)
LINKS: tuple[Link, ...] = ("off", "boxes")
SEEDS = (0, 1, 2)


def results(
    frames: Sequence[Linkable], infos: Sequence[FrameInfo], pictures: Sequence[Picture], dials: Dials, most: int
) -> list[Detections]:
    """What a stream with these dials gives out for a video.

    Args:
        frames: what was found in those that are encoded: every n-th and, where results wait, the last.
        infos: of all frames.
        pictures: of all frames, on which boxes are followed where results do not wait.
        dials: with the interval n and look-ahead of `frames`, and how they are to be linked.
        most: boxes of a frame.
    """
    linker, filler, waiting = BoxLinker(), Between(most), iter(frames)
    found: list[Detections] = []
    # Which result is there when a frame comes matters only where nothing waits, and then each is there at once.
    for t, (info, picture) in enumerate(zip(infos, pictures, strict=True)):
        encoded = t % dials.interval == 0 or (dials.waits and t == len(infos) - 1)
        filler.append(info, "encoded" if encoded else "between", picture if followed(dials) else None)
        ready = linker.push(next(waiting), dials, filler.moved()) if encoded else []
        found += filler.take(ready, dials)
    return found + filler.take(linker.flush(dials), dials, ended=True)


def figures(found: dict[int, Detections], videos: AnnotatedVideos, names: tuple[str, ...]) -> dict[str, float | None]:
    """AP50 in percent, in all and by the motion of the objects; found: by `Frame.id`."""
    truth, detected = Truth.of(videos.dataset), Detected.of(found, videos.dataset, names)
    matches = [match_class(truth, detected, c) for c in range(len(videos.dataset.class_names))]
    groups = motion.speeds(truth)
    weights = motion.shares(truth, detected, groups)
    named = {"all": mean(m.ap for m in matches)}
    for name, counts in groups.items():
        curves = [m.part(counts, weights[name]) for m in matches]
        named[name] = mean(float(p.mean()) if len(p) else None for p in curves)
    return {name: None if value is None else round(value, 3) for name, value in named.items()}


def measure(detector: Detector, videos: AnnotatedVideos) -> dict[str, Any]:
    """Setting -> AP50, of one seed."""
    own, rows = detector.config.dials, {}
    network = detector.config.input
    pictures = {
        name: [small_picture(videos.read(frame), (frame.height, frame.width, 1.0), network) for frame in frames]
        for name, frames in videos.videos()
    }
    for ahead in (None, 0):
        for interval in INTERVALS:
            dials = replace(own, look_ahead=ahead, interval=interval)
            recorded = linkables(detector, videos, replace(dials, link="relations", link_delay=0))
            for link in LINKS:
                linked = replace(dials, link=link, link_delay=WHOLE_VIDEO if ahead is None else 0)
                found: dict[int, Detections] = {}
                for name, frames in videos.videos():
                    infos = [FrameInfo(t, None, name, frame.height, frame.width) for t, frame in enumerate(frames)]
                    given = results(
                        recorded[name], infos, pictures[name], linked, detector.config.detection.max_detections
                    )
                    found |= {frame.id: result for frame, result in zip(frames, given, strict=True)}
                label = f"{'causal' if ahead == 0 else 'look-ahead'}, {link}, {interval}"
                rows[label] = figures(found, videos, detector.config.class_names)
                print(label, rows[label], flush=True)
    return rows


def of_seed(job: tuple[Path, str, int, int, int]) -> dict[str, Any]:
    """One seed, in a process of its own; job: the bundle, and split, videos, frames and seed of what it looks at."""
    bundle, split, count, length, seed = job
    detector = Detector.from_pretrained(bundle, threads=1)
    videos = from_synthetic(SyntheticVideos(split, count, length, seed=seed))
    return {"data": videos.name, "frames": len(videos.dataset.frames), "rows": measure(detector, videos)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--videos", type=int, default=60, help="of each seed")
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--jobs", type=int, default=1, help="seeds at once, each on one thread")
    arguments = parser.parse_args()
    jobs = [(arguments.bundle, arguments.split, arguments.videos, arguments.frames, seed) for seed in arguments.seeds]
    with ProcessPoolExecutor(arguments.jobs, multiprocessing.get_context("spawn")) as pool:
        seeds = dict(zip(map(str, arguments.seeds), pool.map(of_seed, jobs), strict=True))
    means = {
        label: {key: round(float(np.mean([of["rows"][label][key] for of in seeds.values()])), 3) for key in row}
        for label, row in next(iter(seeds.values()))["rows"].items()
    }
    result = {
        "model": str(arguments.bundle),
        "protocol": VID,
        "intervals": INTERVALS,
        "links": LINKS,
        "seeds": seeds,
        "rows": means,
        **environment(),
    }
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
