"""How relations may weigh links: five ways to take omega of equation 8, on three sets of held-out videos.

    python benchmarks/quality/linking_relations.py --bundle models/rdn_tiny/engines --output result.json

omega_ij is what the last basic module gives proposal j of the next frame when it looks from proposal i: its softmax
over all of the window, averaged over heads, as in the paper. Here beside it: that mean divided by its sum
over the next frame; the softmax of each head over the next frame alone, averaged; and the mean over heads of what the
softmax is taken of, less its largest for proposal i, so that the factor is 1 for the proposal that i looks at most.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.quality.linking_accuracy import IDENTITY, lasting, linked
from benchmarks.quality.recorded import Recorded, Seen, recorded
from rdn_engine.bundle.directory import Bundle
from rdn_engine.config import WHOLE_VIDEO
from rdn_engine.evaluation.average_precision import match_class, mean
from rdn_engine.evaluation.boxes import Detected, Truth
from rdn_engine.evaluation.score import VID
from rdn_engine.kernels.cpu.arrays import Float
from training.arguments import given_path
from training.data.synthetic import SyntheticVideos
from training.provenance import environment

SEEDS = (0, 1, 2)


def of_the_frame(seen: Seen) -> Float:
    """The mean weights as parts of what the next frame gets."""
    omega = _weights(seen)
    total = omega.sum(1, keepdims=True)
    parts: Float = np.divide(omega, total, out=np.zeros_like(omega), where=total > 0)
    return parts


def by_head(seen: Seen) -> Float:
    """The softmax of each head over the next frame alone."""
    scores = _scores(seen)
    terms = np.exp(scores - scores.max(2, keepdims=True, initial=-np.inf))
    weights: Float = (terms / terms.sum(2, keepdims=True)).mean(0).astype(np.float32)
    return weights


def before_softmax(seen: Seen) -> Float:
    """What the softmax is taken of, less the largest of each proposal: 0 and below."""
    scores = _scores(seen).mean(0)
    less: Float = (scores - scores.max(1, keepdims=True, initial=-np.inf)).astype(np.float32)
    return less


def _weights(seen: Seen) -> Float:
    assert seen.linkable.omega is not None
    return seen.linkable.omega


def _scores(seen: Seen) -> Any:
    assert seen.scores is not None
    return seen.scores


WAYS: dict[str, Callable[[Seen], Float | None]] = {
    "boxes": lambda seen: None,
    "window": _weights,
    "of_the_frame": of_the_frame,
    "by_head": by_head,
    "before_softmax": before_softmax,
}


def weighed(frames: Recorded, way: Callable[[Seen], Float | None]) -> Recorded:
    """The same with other weights where there are any."""
    return {
        name: [
            seen if seen.linkable.omega is None else Seen(seen.linkable._replace(omega=way(seen)), None)
            for seen in video
        ]
        for name, video in frames.items()
    }


def measure(bundle: Bundle, videos: SyntheticVideos, keep: Path | None) -> dict[str, dict[str, float | None]]:
    """AP50 and identities of one set of videos, by the way of taking omega; linked over whole videos."""
    annotated, frames = recorded(bundle, videos, scored=True, keep=keep)
    truth, names = Truth.of(annotated.dataset), bundle.config.class_names
    rows: dict[str, dict[str, float | None]] = {}
    for label, way in WAYS.items():
        found = linked(weighed(frames, way), annotated, "relations", WHOLE_VIDEO)
        detected = Detected.of(found, annotated.dataset, names)
        ap50 = mean(match_class(truth, detected, c).ap for c in range(len(names)))
        rows[label] = {"AP50": ap50, **lasting(found, annotated)}
        print(videos.seed, label, rows[label], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", type=given_path, required=True)
    parser.add_argument("--output", type=given_path, required=True)
    parser.add_argument("--videos", type=int, default=60)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument(
        "--keep", type=given_path, help="folder of what the detector said, which a later run takes from there"
    )
    arguments = parser.parse_args()
    bundle = Bundle.open(arguments.bundle)
    seeds = {
        str(seed): measure(
            bundle, SyntheticVideos("test", arguments.videos, arguments.frames, seed=seed), arguments.keep
        )
        for seed in SEEDS
    }
    result = {
        "data": f"synthetic videos, split test, {arguments.videos} videos of {arguments.frames} frames a seed",
        "protocol": VID,
        "identity": IDENTITY,
        "seeds": seeds,
        **environment(),
    }
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
