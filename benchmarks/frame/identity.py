"""What keeping identities over gaps costs: of a frame with 64 boxes, and in memory.

    python benchmarks/frame/identity.py --output benchmarks/results/identity_cost.json

Boxes are drawn: 92 objects of 8 classes that move and are hidden now and then, so that 64 are in sight on the mean,
with features as wide as the paper's model has them. Two linkers, one with a gap and one without, take every frame in
turns; times are CPU times of one thread, and the gap's are their differences, frame by frame. Each object must keep its
identity.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rdn_engine import Detections
from rdn_engine.config import Dials
from rdn_engine.stream.identity import LOOKS
from rdn_engine.stream.linking import BoxLinker
from rdn_engine.stream.links import Linkable
from training.arguments import given_path
from training.provenance import environment

OBJECTS, CLASSES, WIDTH, GAP = 92, 8, 1024, 30
SEEN, HIDDEN = 40, (5, 30)
"""Frames that an object is in sight, and hidden, in turns"""
FRAMES, WARM = 400, 100
DELAYS = (0, 8, 24)


def drawn_video(frames: int, seed: int = 0) -> Iterator[tuple[Linkable, np.ndarray]]:
    """Frames, and the object of each box; places on a grid, so that it is clear who is who."""
    rng = np.random.default_rng(seed)
    home = (np.stack(np.meshgrid(np.arange(12), np.arange(8)), -1).reshape(-1, 2) * (80.0, 70.0) + 50)[:OBJECTS]
    look = rng.normal(0, 1, (OBJECTS, WIDTH))
    until, there = rng.integers(1, SEEN, OBJECTS), np.ones(OBJECTS, bool)
    swing = rng.uniform(0.05, 0.1, (OBJECTS, 2))
    for t in range(frames):
        turned = until == t
        there ^= turned
        until[turned] = t + np.where(there, SEEN, rng.integers(HIDDEN[0], HIDDEN[1] + 1, OBJECTS))[turned]
        seen = rng.permutation(np.flatnonzero(there))
        centre = home[seen] + 8 * np.sin(swing[seen] * t)
        found = Detections(
            xyxy=np.concatenate([centre - 20, centre + 20], 1).astype(np.float32),
            confidence=np.full(len(seen), 0.9, np.float32),
            class_id=seen % CLASSES,
            tracker_id=None,
            class_names=tuple(map(str, range(CLASSES))),
            frame_index=t,
            pts=None,
            source_id="",
            height=600,
            width=1000,
            pool_fill=37,
            lookahead=18,
            epoch=0,
        )
        features = (look[seen] + rng.normal(0, 0.3, (len(seen), WIDTH))).astype(np.float32)
        yield Linkable(found, np.arange(len(seen)), None, features), seen


def measure(delay: int, frames: int = FRAMES) -> dict[str, Any]:
    """Medians over the frames that a linker gives out once it is warm."""
    settings = {gap: Dials(link="boxes", link_delay=delay, link_gap=gap) for gap in (0, GAP)}
    linkers = {gap: BoxLinker() for gap in settings}
    spent: dict[int, list[float]] = {gap: [] for gap in settings}
    held: list[int] = []
    boxes: list[int] = []
    of: dict[int, int] = {}
    given: list[np.ndarray] = []
    for t, (frame, objects) in enumerate(drawn_video(frames)):
        given.append(objects[np.lexsort(frame.found.xyxy.T)])
        for gap in settings if t % 2 else reversed(settings):
            at = frame if gap else frame._replace(features=None)
            begin = time.thread_time()
            ready = linkers[gap].push(at, settings[gap])
            spent[gap].append(1e3 * (time.thread_time() - begin))
            for result in ready if gap else ():
                order = np.lexsort(result.xyxy.T)
                assert result.tracker_id is not None
                for number, name in zip(
                    given[result.frame_index].tolist(), result.tracker_id[order].tolist(), strict=True
                ):
                    if of.setdefault(number, name) != name:
                        raise SystemExit(f"object {number} is {of[number]} and in frame {result.frame_index} {name}")
        held.append(linkers[GAP].nbytes - linkers[0].nbytes)
        boxes.append(len(objects))
    late = slice(WARM, None)
    more = [b - a for a, b in zip(spent[0][late], spent[GAP][late], strict=True)]
    return {
        "delay": delay,
        "boxes": statistics.mean(boxes[late]),
        "ms_without": statistics.median(spent[0][late]),
        "ms_with": statistics.median(spent[GAP][late]),
        "more_ms": statistics.median(more),
        "more_p90_ms": sorted(more)[len(more) * 9 // 10],
        "more_bytes": max(held),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=given_path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    rows = [measure(delay) for delay in DELAYS]
    result = {
        "objects": OBJECTS, "classes": CLASSES, "width": WIDTH, "gap": GAP, "looks": LOOKS, "rows": rows,
        **environment(),
    }  # fmt: skip
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    print(*(json.dumps(row) for row in rows), sep="\n")


if __name__ == "__main__":
    main()
