"""What it costs to encode every n-th frame only: AP50 by interval, by motion, with and without look-ahead and links.

    python benchmarks/quality/interval_accuracy.py --bundle models/rdn_tiny/engines --output result.json

The `rdn_engine.Detector` looks at held-out synthetic videos of several seeds once with each interval and look-ahead;
what its stream hands to the linker is kept, and linked and filled up at every setting by the linker and the filler that
the stream has (`rdn_engine.stream`). What each setting takes of the processor is taken of whole streams. Beside them
stands what the boxes of a step come to where they go with their objects, as only the annotations know: what can be
reached without encoding the frames between.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.quality.recorded import linkables
from rdn_engine import Detections, Detector
from rdn_engine.config import WHOLE_VIDEO, Dials, Link
from rdn_engine.evaluation import motion
from rdn_engine.evaluation.average_precision import match_class, mean
from rdn_engine.evaluation.boxes import Detected, Float, Int, Truth, iou
from rdn_engine.evaluation.coco_vid import Frame
from rdn_engine.evaluation.score import VID
from rdn_engine.frame import Frame as VideoFrame
from rdn_engine.frame import Image
from rdn_engine.host.blocks import small_picture
from rdn_engine.host.stream import followed
from rdn_engine.stream.between import Between
from rdn_engine.stream.following import Picture
from rdn_engine.stream.linking import BoxLinker
from rdn_engine.stream.links import Linkable
from rdn_engine.stream.order import FrameInfo, Role
from rdn_engine.stream.trail import Trail
from training.arguments import given_path
from training.data.synthetic import SyntheticVideos
from training.evaluation.videos import AnnotatedVideos, from_synthetic
from training.provenance import environment

INTERVALS = (1, 2, 3, 4)
LINKS: tuple[Link, ...] = ("off", "boxes")
SEEDS = range(12)
"""Losses of interval 4 without look-ahead differ by 1.0 AP50 from seed to seed: three tell their mean to 0.6, twelve to
0.3"""
TIMED = (9, 120)
"""Videos and frames of each whose processor time is taken, one thread"""
BOUNDS = {"true motion": False, "true motion and no vanished boxes": True}
"""Name -> whether boxes leave with their objects"""


def results(
    frames: Sequence[Linkable], infos: Sequence[FrameInfo], pictures: Sequence[Picture], dials: Dials, most: int
) -> list[Detections]:
    """What a stream with these dials gives out for a video.

    Args:
        frames: what was found in those that are encoded: every n-th and, where results wait, the last.
        infos: of all frames.
        pictures: of all frames, on which boxes are followed where results do not wait, or are linked.
        dials: with the interval n and look-ahead of `frames`, and how they are to be linked.
        most: boxes of a frame.
    """
    linker, filler, trail, waiting = BoxLinker(), Between(most), Trail(), iter(frames)
    found: list[Detections] = []
    # Which result is there when a frame comes matters only where nothing waits, and then each is there at once.
    for t, (info, picture) in enumerate(zip(infos, pictures, strict=True)):
        encoded = t % dials.interval == 0 or (dials.waits and t == len(infos) - 1)
        role: Role = "encoded" if encoded else "between"
        filler.append(info, role, picture if followed(dials) and not dials.waits else None)
        if followed(dials) and dials.waits:
            trail.append(info, role, picture)
        ready: list[Detections] = []
        if encoded:
            one = next(waiting)
            ready = linker.push(one, dials, trail.reach(info, one.found) if dials.waits else filler.moved())
            trail.done()
        found += filler.take(ready, dials)
    return found + filler.take(linker.flush(dials), dials, ended=True)


def truly_moved(given: Sequence[Detections], frames: Sequence[Frame], truth: Truth, *, leave: bool) -> list[Detections]:
    """The results of a video with the boxes of each step moved by the annotations in the frames behind it.

    Args:
        given: of its frames. What is extrapolated is replaced.
        frames: of the video.
        truth: all annotated boxes.
        leave: whether a box leaves with its object; else it stays where it is.

    Returns:
        The steps as they are. Behind them their boxes, as large and as sure as they were; one that overlaps an
        annotated box by half or more goes as far as the centre of the one that it overlaps most.
    """
    made: list[Detections] = []
    for frame, one in zip(frames, given, strict=True):
        now = np.flatnonzero((truth.image == frame.id) & ~truth.ignore)
        if one.basis != "extrapolated":
            last, then = one, now
            made.append(one)
            continue
        moved, there = _gone(truth, then, now)
        xyxy, rows = last.xyxy, np.arange(len(last))
        if len(then) and len(last):
            overlap = iou(xyxy.astype(np.float64), truth.xyxy[then])
            met, nearest = overlap.max(1) >= 0.5, overlap.argmax(1)
            xyxy = xyxy + np.where(met[:, None], np.tile(moved, 2)[nearest], 0).astype(np.float32)
            xyxy = xyxy.clip(0, np.array([one.width - 1, one.height - 1] * 2, np.float32))
            rows = np.flatnonzero(~met | there[nearest] | (not leave))
        ids = None if last.tracker_id is None else last.tracker_id[rows]
        confidence, class_id = last.confidence[rows], last.class_id[rows]
        made.append(replace(one, xyxy=xyxy[rows], confidence=confidence, class_id=class_id, tracker_id=ids))
    return made


def _gone(truth: Truth, then: Int, now: Int) -> tuple[Float, NDArray[np.bool_]]:
    """[n, 2] how far the centres of annotated boxes of one frame have gone by another, 0 of those that are not there,
    and [n] which are.
    """
    same = truth.instance[then][:, None] == truth.instance[now]
    there = same.any(1)
    moved = np.zeros((len(then), 2))
    corners = truth.xyxy[now[same[there].argmax(1)]] - truth.xyxy[then[there]] if there.any() else np.zeros((0, 4))
    moved[there] = (corners[:, :2] + corners[:, 2:]) / 2
    return moved, there


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
    own = detector.config.dials
    rows: dict[str, Any] = {}
    bounds: dict[str, Any] = {}
    truth = Truth.of(videos.dataset)
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
                label = setting(ahead, link, interval)
                found: dict[str, dict[int, Detections]] = {label: {}}
                for name, frames in videos.videos():
                    infos = [FrameInfo(t, None, name, frame.height, frame.width) for t, frame in enumerate(frames)]
                    given = results(
                        recorded[name], infos, pictures[name], linked, detector.config.detection.max_detections
                    )
                    kinds = {label: given}
                    if ahead == 0 and interval > 1:
                        for kind, leave in BOUNDS.items():
                            moved = truly_moved(given, frames, truth, leave=leave)
                            kinds[f"{kind}, {link}, {interval}"] = moved
                    for kind, made in kinds.items():
                        found.setdefault(kind, {}).update(
                            {frame.id: result for frame, result in zip(frames, made, strict=True)}
                        )
                for kind, one in found.items():
                    (rows if kind == label else bounds)[kind] = figures(one, videos, detector.config.class_names)
                    print(kind, (rows | bounds)[kind], flush=True)
    return rows | bounds


def push_all(detector: Detector, frames: Iterable[Image | VideoFrame], dials: Dials) -> tuple[list[Detections], float]:
    """Results of a video, and seconds of processor time that its stream took."""
    found, spent = [], 0.0
    with detector.open_stream(dials) as stream:
        for frame in frames:
            began = time.process_time()
            found += stream.push(frame)
            spent += time.process_time() - began
        began = time.process_time()
        found += stream.flush()
        spent += time.process_time() - began
    return found, spent


def throughput(detector: Detector, videos: AnnotatedVideos) -> dict[str, float]:
    """Setting -> how many times as many frames a second as interval 1: median of the videos, settings in turn."""
    own = detector.config.dials
    ratios: dict[str, list[float]] = {}
    for _, frames in videos.videos():
        images = [videos.read(frame) for frame in frames]
        for ahead in (None, 0):
            for link in LINKS:
                delay = own.link_delay if ahead is None else 0
                dials = replace(own, look_ahead=ahead, link=link, link_delay=delay)
                spent = {n: push_all(detector, images, replace(dials, interval=n))[1] for n in INTERVALS}
                for n, seconds in spent.items():
                    ratios.setdefault(setting(ahead, link, n), []).append(spent[1] / seconds)
    return {name: round(float(np.median(of)), 3) for name, of in ratios.items()}


def setting(ahead: int | None, link: Link, interval: int) -> str:
    """The name of a row."""
    return f"{'causal' if ahead == 0 else 'look-ahead'}, {link}, {interval}"


def of_seed(job: tuple[Path, str, int, int, int]) -> dict[str, Any]:
    """One seed, in a process of its own; job: the bundle, and split, videos, frames and seed of what it looks at."""
    bundle, split, count, length, seed = job
    detector = Detector.from_pretrained(bundle, threads=1)
    videos = from_synthetic(SyntheticVideos(split, count, length, seed=seed))
    return {"data": videos.name, "frames": len(videos.dataset.frames), "rows": measure(detector, videos)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", type=given_path, required=True)
    parser.add_argument("--output", type=given_path, required=True)
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
    detector = Detector.from_pretrained(arguments.bundle, threads=1)
    times = throughput(detector, from_synthetic(SyntheticVideos(arguments.split, *TIMED)))
    print(times, flush=True)
    result = {
        "model": str(arguments.bundle),
        "protocol": VID,
        "intervals": INTERVALS,
        "links": LINKS,
        "seeds": seeds,
        "rows": means,
        "times": times,
        "timed": TIMED,
        **environment(),
    }
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
