"""What keeping identities over gaps is worth: HOTA, IDF1, switches where objects are hidden for 5 to 30 frames.

    python benchmarks/quality/identity_accuracy.py --bundle models/rdn_tiny/engines --output result.json

The `rdn_engine.Detector` looks at held-out synthetic videos of three seeds once; what its stream hands to the linker is
linked at every setting. Boxes and confidences must be the same with a gap and without, hence AP is. For comparison,
the boxes that have an identity with a gap have that of their tubes, and sightings that of the annotated objects that
they lie on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.quality.linking_accuracy import IDENTITY, lasting, linked
from benchmarks.quality.recorded import Recorded, Seen, recorded
from rdn_engine import Detections
from rdn_engine.bundle.directory import Bundle
from rdn_engine.config import LinkMethod
from rdn_engine.evaluation.annotated import Annotated
from rdn_engine.evaluation.average_precision import match_class, mean
from rdn_engine.evaluation.boxes import Detected, Truth, iou
from rdn_engine.evaluation.score import VID
from rdn_engine.kernels import cpu
from rdn_engine.results import NOBODY
from rdn_engine.stream.identity import SURE
from training.arguments import given_path
from training.data.synthetic import SyntheticVideos
from training.provenance import environment

SEEDS = (0, 1, 2)
GAP = 30
OTHERS = 10**6
"""Identities of what is named after no object begin here"""
HIDDEN = (5, 30)
Setting = tuple[LinkMethod, int, int, bool]
"""link, link_delay, link_gap, whether features come along"""
SETTINGS: dict[str, Setting] = {
    "off": ("relations", 24, 0, True),
    "G=30": ("relations", 24, GAP, True),
    "G=30, place alone": ("relations", 24, GAP, False),
    "D=0, off": ("relations", 0, 0, True),
    "D=0, G=30": ("relations", 0, GAP, True),
}
ORDINARY = ("off", "G=30")
COMPARED = {"G=30": ("off, the same boxes", "annotated"), "D=0, G=30": ("D=0, off, the same boxes", "D=0, annotated")}
"""Of the boxes that have an identity in a row with a gap: the row of their tubes' identities, of the annotations'"""


def gaps(videos: Annotated) -> list[int]:
    """Frames that each annotated object is not annotated between two in which it is."""
    times: dict[tuple[int, int], list[int]] = {}
    frames = {f.id: f for f in videos.dataset.frames}
    for row in videos.dataset.annotations:
        frame = frames[row.image_id]
        assert row.instance_id is not None
        times.setdefault((frame.video_id, row.instance_id), []).append(frame.frame_id)
    steps = np.concatenate([np.diff(sorted(seen)) for seen in times.values()])
    return sorted((steps[steps > 1] - 1).tolist())


def without_features(frames: Recorded) -> Recorded:
    return {n: [Seen(at.linkable._replace(features=None), None) for at in video] for n, video in frames.items()}


def the_same_boxes(plain: Mapping[int, Detections], found: Mapping[int, Detections]) -> dict[int, Detections]:
    """Boxes that have an identity in `found` have that of their tubes, in `plain`; all others have none."""
    named = {}
    for frame, boxes in plain.items():
        ours, theirs = found[frame].tracker_id, boxes.tracker_id
        assert ours is not None
        assert theirs is not None
        named[frame] = replace(boxes, tracker_id=np.where(ours == NOBODY, NOBODY, theirs))
    return named


def named_by_truth(found: Mapping[int, Detections], videos: Annotated) -> dict[int, Detections]:
    """Sightings have the identities of the objects that they lie on, one to one by IoU; all other boxes keep theirs."""
    truth = Truth.of(videos.dataset)
    named = {}
    for frame, boxes in found.items():
        assert boxes.tracker_id is not None
        rows = np.flatnonzero((boxes.confidence > SURE) & (boxes.tracker_id != NOBODY))
        objects = truth[truth.image == frame]
        labels = np.array([videos.dataset.class_names.index(boxes.class_names[c]) for c in boxes.class_id[rows]], int)
        overlap = iou(boxes.xyxy[rows].astype(np.float64), objects.xyxy) * (labels[:, None] == objects.label)
        column = cpu.assign(np.where(overlap >= 0.5, overlap, 0))
        ids = np.where(boxes.tracker_id == NOBODY, NOBODY, boxes.tracker_id + OTHERS)
        ids[rows[column >= 0]] = objects.instance[column[column >= 0]]
        named[frame] = replace(boxes, tracker_id=ids)
    return named


def check_same(one: Mapping[int, Detections], other: Mapping[int, Detections]) -> None:
    """Stops where anything but identities differs."""
    for frame, found in one.items():
        for name in ("xyxy", "confidence", "class_id"):
            if not np.array_equal(getattr(found, name), getattr(other[frame], name)):
                raise SystemExit(f"{name} of frame {frame} is not the same with a gap and without")


def measure(bundle: Bundle, videos: SyntheticVideos, settings: Mapping[str, Setting], keep: Path | None) -> Any:
    annotated, frames = recorded(bundle, videos, scored=videos.hidden is None, keep=keep)
    truth, names = Truth.of(annotated.dataset), bundle.config.class_names
    rows: dict[str, Any] = {}
    plain: dict[tuple[LinkMethod, int], dict[int, Detections]] = {}
    for label, (method, delay, gap, featured) in settings.items():
        found = linked(frames if featured else without_features(frames), annotated, method, delay, gap)
        check_same(found, plain.setdefault((method, delay), found))
        rows[label] = lasting(found, annotated)
        if label in COMPARED:
            same, annotations = COMPARED[label]
            tubes = the_same_boxes(plain[method, delay], found)
            rows[same] = lasting(tubes, annotated)
            rows[annotations] = lasting(named_by_truth(tubes, annotated), annotated)
        print(annotated.name, label, rows[label], flush=True)
        if label == "off":
            detected = Detected.of(found, annotated.dataset, names)
            rows[label]["AP50"] = mean(match_class(truth, detected, c).ap for c in range(len(names)))
    hidden = gaps(annotated)
    return {
        "frames": len(annotated.dataset.frames),
        "objects": len({(v, a.instance_id) for v, a in _of_videos(annotated)}),
        "gaps": len(hidden),
        "gaps_of_5_to_30": sum(HIDDEN[0] <= g <= HIDDEN[1] for g in hidden),
        "rows": rows,
    }


def _of_videos(videos: Annotated) -> list[tuple[int, Any]]:
    frames = {f.id: f for f in videos.dataset.frames}
    return [(frames[a.image_id].video_id, a) for a in videos.dataset.annotations]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", type=given_path, required=True)
    parser.add_argument("--output", type=given_path, required=True)
    parser.add_argument("--videos", type=int, default=16, help="with hidden objects, of 72 frames")
    parser.add_argument("--ordinary", type=int, default=60, help="videos as the model was trained on, of 24 frames")
    parser.add_argument(
        "--keep", type=given_path, help="folder of what the detector said, which a later run takes from there"
    )
    arguments = parser.parse_args()
    bundle = Bundle.open(arguments.bundle)
    hidden = SyntheticVideos("test", arguments.videos, 72, hidden=HIDDEN)
    ordinary = SyntheticVideos("test", arguments.ordinary, 24)
    result = {
        "hidden": {str(s): measure(bundle, _seeded(hidden, s), SETTINGS, arguments.keep) for s in SEEDS},
        "ordinary": {
            str(s): measure(bundle, _seeded(ordinary, s), {n: SETTINGS[n] for n in ORDINARY}, arguments.keep)
            for s in SEEDS
        },
        "protocol": VID,
        "identity": IDENTITY,
        **environment(),
    }
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")


def _seeded(videos: SyntheticVideos, seed: int) -> SyntheticVideos:
    return replace(videos, seed=seed, _kept={})


if __name__ == "__main__":
    main()
