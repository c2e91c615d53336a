"""What linking costs: of a frame's time, with the video's length, and in memory.

    python benchmarks/frame/linking.py --engines models/rdn_tiny/engines --output benchmarks/results/linking_cost.json

Boxes are drawn: 300 of 30 classes that stay and move, so that every tube lasts as long as the video, which costs most.
Times are CPU times of one thread. A frame's time is measured on the engines given, at one thread, with their own boxes,
for the part that linking has of a real stream too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rdn_engine import Detections, Detector
from rdn_engine.config import WHOLE_VIDEO, Dials, LinkMethod
from rdn_engine.stream.linking import BoxLinker
from rdn_engine.stream.links import Linkable
from training.arguments import given_path
from training.data.synthetic import SyntheticVideos
from training.provenance import environment

BOXES, CLASSES, PROPOSALS, SUPPORTS = 300, 30, 300, 75
LENGTHS = (100, 300, 1000, 3000, 10_000)
DELAYS = (0, 4, 8, 16, 24)
CLASS_NAMES = tuple(map(str, range(CLASSES)))
LIVE_FRAMES = 200
STREAM_FRAMES, STREAM_SECONDS = 48, 40  # whichever ends first, but 4 frames at least


def drawn_video(frames: int, seed: int = 0) -> Iterator[Linkable]:
    """Boxes on random walks over a frame of 1000 x 600, with weights as large as a trained model's."""
    rng = np.random.default_rng(seed)
    centre, size = rng.uniform((50, 50), (950, 550), (BOXES, 2)), rng.uniform(30, 120, (BOXES, 2))
    confidence, labels = rng.uniform(0, 1, BOXES) ** 3, np.arange(BOXES) % CLASSES
    for t in range(frames):
        centre = np.clip(centre + rng.normal(0, 2, (BOXES, 2)), 0, (1000, 600))
        now = np.clip(confidence + rng.normal(0, 0.05, BOXES), 0.0011, 1).astype(np.float32)
        order = np.argsort(-now)
        found = Detections(
            xyxy=np.concatenate([centre - size / 2, centre + size / 2], 1).astype(np.float32)[order],
            confidence=now[order],
            class_id=labels[order],
            tracker_id=None,
            class_names=CLASS_NAMES,
            frame_index=t,
            pts=None,
            source_id="",
            height=600,
            width=1000,
            pool_fill=37,
            lookahead=18,
            epoch=0,
        )
        omega = rng.uniform(0, 0.05, (PROPOSALS, SUPPORTS)).astype(np.float32)
        yield Linkable(found, rng.permutation(PROPOSALS)[:BOXES], omega)


def whole_video(frames: int, method: LinkMethod) -> dict[str, float]:
    """CPU ms a frame of linking a whole video, the frames themselves not counted."""
    linker, seconds, count = BoxLinker(), 0.0, 0
    dials = Dials(link=method, link_delay=WHOLE_VIDEO)
    for frame in drawn_video(frames):
        begin = time.thread_time()
        linker.push(frame, dials)
        seconds += time.thread_time() - begin
    begin = time.thread_time()
    count = len(linker.flush(dials))
    seconds += time.thread_time() - begin
    if count != frames:
        raise SystemExit(f"{frames} frames went in and {count} came out")
    return {"frames": frames, "ms_per_frame": 1e3 * seconds / frames}


def live(delay: int, method: LinkMethod, frames: int = LIVE_FRAMES) -> dict[str, float]:
    """CPU ms of a push once all that may wait does, and the bytes held at two lengths of the video."""
    linker, each, held = BoxLinker(), [], []
    dials = Dials(link=method, link_delay=delay)
    for frame in drawn_video(frames):
        begin = time.thread_time()
        linker.push(frame, dials)
        each.append(1e3 * (time.thread_time() - begin))
        held.append(linker.nbytes)
    steady = each[frames // 2 :]
    return {"delay": delay, "ms_per_frame": statistics.median(steady), "p90_ms": sorted(steady)[len(steady) * 9 // 10],
            "bytes_half_way": max(held[: frames // 2]), "bytes_at_the_end": max(held)}  # fmt: skip


def frame_time(engines: Path) -> dict[str, Any]:
    """CPU ms of a late push without linking, and wall-clock ms of the linking stage in the same stream with it.

    Look-ahead 0, so that every push makes a result. linking_ms is None where too few frames were done for one to leave
    the linker.
    """
    detector = Detector.from_pretrained(engines, threads=1)
    images = SyntheticVideos("demo", 1, STREAM_FRAMES)[0].frames
    dials = replace(detector.config.dials, look_ahead=0)
    result: dict[str, Any] = {"backbone": detector.config.backbone.name, "link_delay": dials.link_delay}
    for link in ("off", "relations"):
        boxes: list[int] = []
        cpu: list[float] = []
        linking = [0.0]
        begin = time.perf_counter()
        with detector.open_stream(replace(dials, link=link)) as stream:
            for image in images:
                if len(cpu) >= 4 and time.perf_counter() - begin > STREAM_SECONDS:
                    break
                start = time.process_time()
                boxes += [len(r) for r in stream.push(image)]
                cpu.append(1e3 * (time.process_time() - start))
                linking.append(1e3 * stream.timings.seconds["linking"])
            boxes += [len(r) for r in stream.flush()]
        half = len(cpu) // 2
        if link == "off":
            result |= {"frame_ms": statistics.median(cpu[half:]), "boxes": statistics.mean(boxes), "frames": len(cpu)}
        else:
            late = [b - a for a, b in pairwise(linking)][dials.link_delay + 1 :]
            result["linking_ms"] = statistics.median(late) if late else None
    return result


def measure(engines: list[Path], lengths: tuple[int, ...]) -> dict[str, Any]:
    whole = [whole_video(n, "relations") for n in lengths]
    lives = [live(delay, "relations") for delay in DELAYS]
    memory = [live(8, "relations", n) for n in (LIVE_FRAMES, 10 * LIVE_FRAMES)]
    streams = [frame_time(path) for path in engines]
    return {
        "boxes": BOXES,
        "classes": CLASSES,
        "whole_video": whole,
        "live": lives,
        "live_memory": [
            {"frames": n, "bytes": m["bytes_at_the_end"]}
            for n, m in zip((LIVE_FRAMES, 10 * LIVE_FRAMES), memory, strict=True)
        ],
        "streams": streams,
        **environment(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--engines", type=given_path, nargs="*", default=[], help="engine directories to compare with")
    parser.add_argument("--output", type=given_path, required=True, help="JSON file to write")
    parser.add_argument("--quick", action="store_true", help="short videos, to see that it works")
    arguments = parser.parse_args()
    result = measure(arguments.engines, LENGTHS[:2] if arguments.quick else LENGTHS)
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    for part in ("whole_video", "live", "live_memory", "streams"):
        print(part, *(json.dumps(row) for row in result[part]), sep="\n  ")


if __name__ == "__main__":
    main()
