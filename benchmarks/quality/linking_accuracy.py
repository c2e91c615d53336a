"""What linking is worth: the rows of the paper's Table 2, AP against the delay, and how lasting identities are.

    python benchmarks/quality/linking_accuracy.py --bundle models/rdn_tiny/engines --output result.json

The `rdn_engine.Detector` looks at the held-out synthetic videos once; what its stream hands to the linker is kept and
linked at every setting, by the same linker.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.quality.recorded import Recorded, recorded
from rdn_engine import Detections
from rdn_engine.bundle.directory import Bundle
from rdn_engine.config import WHOLE_VIDEO, Dials, LinkMethod
from rdn_engine.evaluation.annotated import Annotated
from rdn_engine.evaluation.boxes import Detected, Truth, iou
from rdn_engine.evaluation.score import score
from rdn_engine.evaluation.tracking import identities
from rdn_engine.kernels import cpu
from rdn_engine.stream.linking import FLOOR, BoxLinker
from rdn_engine.stream.links import MIN_IOU
from training.arguments import given_path
from training.data.synthetic import SyntheticVideos
from training.provenance import environment

CONFIDENCE = 0.3
"""Of boxes whose identities count; those below are guesses that nobody would follow."""
IDENTITY = (
    "TrackEval: HOTA, DetA, AssA are means over IoU 0.05 to 0.95, IDF1 and switches at IoU 0.5; boxes of a confidence "
    f"above {CONFIDENCE}, every class of every video a sequence, all pooled"
)
DELAYS = (0, 1, 2, 4, 8, 16, 24)


METHODS: tuple[LinkMethod, ...] = ("seq_nms", "boxes", "relations")


def linked(
    frames: Recorded, videos: Annotated, method: LinkMethod | None, delay: int, gap: int = 0
) -> dict[int, Detections]:
    """By `Frame.id`; not linked where the method is None."""
    found: dict[int, Detections] = {}
    dials = Dials(link=method or "off", link_delay=delay, link_gap=gap, score_threshold=FLOOR)
    for name, ids in videos.videos():
        linker = BoxLinker()
        results: list[Detections] = []
        for seen in frames[name]:
            results += linker.push(seen.linkable, dials)
        results += linker.flush(dials)
        found |= {frame.id: result for frame, result in zip(ids, results, strict=True)}
    return found


def annotated(videos: Annotated) -> Truth:
    """All objects that count."""
    truth = Truth.of(videos.dataset)
    return truth[~truth.ignore]


def lasting(found: Mapping[int, Detections], videos: Annotated) -> dict[str, float]:
    """HOTA, DetA, AssA, MOTA and IDF1 in percent, and identity switches."""
    detected = Detected.of(found, videos.dataset, tuple(next(iter(found.values())).class_names))
    figures = identities(Truth.of(videos.dataset), detected, detected.confidence > CONFIDENCE)
    return {name: round(value, 3) for name, value in figures.items()}


def objects_of(found: Detections, truth: Truth, names: Sequence[str]) -> NDArray[np.int64]:
    """The annotated object that each box lies on, of its class and by an IoU of 0.5 or more; -1 where none.

    truth: of the same frame; names: of its labels.
    """
    objects = np.full(len(found), -1)
    for label, name in enumerate(names):
        rows, there = found.class_id == found.class_names.index(name), truth[truth.label == label]
        if rows.any() and len(there):
            overlap = iou(found.xyxy[rows].astype(np.float64), there.xyxy)
            objects[rows] = np.where(overlap.max(1) >= 0.5, there.instance[overlap.argmax(1)], -1)
    return objects


def relation_factors(seen: Recorded, videos: Annotated) -> dict[str, float]:
    """e^omega of all pairs of boxes that may be linked: how far relations can move a link's score, and where to.

    The means are of the pairs on the same object and of those on two, both boxes on one.
    """
    truth, names = annotated(videos), videos.dataset.class_names
    factors, same, other = [], [], []
    for name, ids in videos.videos():
        frames = [at.linkable for at in seen[name]]
        objects = [objects_of(at.found, truth[truth.image == f.id], names) for at, f in zip(frames, ids, strict=True)]
        for t, (before, now) in enumerate(pairwise(frames)):
            a, b = before.found, now.found
            target, source, _ = cpu.overlaps(
                b.xyxy, b.class_id, other_boxes=a.xyxy, other_classes=a.class_id, limit=MIN_IOU
            )
            weights = np.zeros(len(source))
            if before.omega is not None:
                i, j = before.proposal[source], now.proposal[target]
                known = j < before.omega.shape[1]
                weights[known] = before.omega[i[known], j[known]]
            factors.append(np.exp(weights))
            origin, goal = objects[t][source], objects[t + 1][target]
            both = (origin >= 0) & (goal >= 0)
            same.append(factors[-1][both & (origin == goal)])
            other.append(factors[-1][both & (origin != goal)])
    every = np.concatenate(factors)
    quantiles = {f"p{q}": float(np.percentile(every, q)) for q in (50, 90, 99)}
    return {
        "links": len(every),
        "part_with_a_weight": float((every > 1).mean()),
        **quantiles,
        "max": float(every.max()),
        "same_object": sum(map(len, same)),
        "same_object_mean": float(np.concatenate(same).mean()),
        "other_object": sum(map(len, other)),
        "other_object_mean": float(np.concatenate(other).mean()),
    }


def figures(result: Mapping[str, Any]) -> dict[str, float | None]:
    """Of one evaluation, those that the tables show."""
    named = {"AP50": result["vid"]["AP50"], "COCO_AP": result["coco"]["AP"]}
    named |= {name: part["AP50"] for name, part in result["vid"]["conditions"].items()}
    named |= {name: result["speed"][name]["AP50"] for name in ("slow", "medium", "fast") if name in result["speed"]}
    return {name: None if value is None else round(value, 3) for name, value in named.items()}


def measure(bundle: Bundle, videos: Annotated, frames: Recorded) -> dict[str, Any]:
    settings: dict[str, tuple[LinkMethod | None, int]] = {"off": (None, 0)}
    settings |= {method: (method, WHOLE_VIDEO) for method in METHODS}
    settings |= {f"D={delay}": ("relations", delay) for delay in DELAYS}
    rows: dict[str, Any] = {}
    for label, (method, delay) in settings.items():
        found = linked(frames, videos, method, delay)
        result = score(found, videos, bundle.config.class_names, bundle.config.dials.frames_ahead)
        rows[label] = figures(result) | (lasting(found, videos) if method else {})
        print(label, rows[label], flush=True)
    return {
        "data": videos.name,
        "frames": len(videos.dataset.frames),
        "protocol": result["vid"]["protocol"],
        "identity": IDENTITY,
        "rows": rows,
        "relation_factor": relation_factors(frames, videos),
        **environment(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", type=given_path, required=True)
    parser.add_argument("--output", type=given_path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--videos", type=int, default=60)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument(
        "--keep", type=given_path, help="folder of what the detector said, which a later run takes from there"
    )
    arguments = parser.parse_args()
    bundle = Bundle.open(arguments.bundle)
    synthetic = SyntheticVideos(arguments.split, arguments.videos, arguments.frames)
    videos, frames = recorded(bundle, synthetic, scored=False, keep=arguments.keep)
    arguments.output.write_text(json.dumps(measure(bundle, videos, frames), indent=1) + "\n")


if __name__ == "__main__":
    main()
