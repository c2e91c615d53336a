"""What the public implementation computed of the parity data, float64 of the same, and how far from it each may be.

The yardstick is the torch model in float64. How far ours may be from it is derived, not chosen (`Truth`):

- A stage fed the stored result of the stage before rounds a fixed number of times, whatever the processor. The stored
  value is one float32 answer; ours may be FACTOR times as far from float64 as it is anywhere.
- The same holds of what the encoder makes of a frame: boxes, objectness, features.
- Behind it, 100 log(|dx| / w + 1e-3) amplifies (DESIGN, conditioning). Float64 is run again, DRAWS times, on boxes and
  features moved by FACTOR times the stored results' own errors, drawn anew for each coordinate; ours may be as far as
  the furthest of these, and FACTOR times the stage's own rounding.
Against the stored value ours is then no further than both are from float64 together.

Float64 itself is held to the stored results: they may differ from it by what PRIOR says of float32, plus the same
amplification. So a wrong formula in the model, which would move float64 and ours alike, is seen there.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tests.data.parity.make_checkpoint import weights
from training.checkpoints.files import load_checkpoint, read_config
from training.model import boxes as box_ops
from training.model.inference import (
    FrameEncoding,
    FrameResult,
    advanced_rows,
    detect_video,
    relate,
    window_indices,
)
from training.model.rdn import RDN
from training.model.relation import RelationModule

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "tests" / "data" / "parity"
CONFIG = ROOT / "export" / "configs" / "parity.yaml"
NUM_FRAMES = 8

FACTOR = 4.0
"""How many times as far from float64 as the stored results ours may be. Those were computed with AVX-512: sixteen
running sums a register and fused multiply-adds. SSE has four, so that each may be four times as long, and rounds every
product before it adds: eight times the roundings. They are independent, so that errors grow by sqrt(8) = 2.8; the rest
is for comparing the extremes of two samples."""

PRIOR = {"largest": 1e-4, "three in four": 2e-5}
"""How far float32 may be from float64 before anything amplifies, of a stage's largest value. From a pixel to a feature
a value goes through at most 58 layers, whose dot products have 78,739 terms together: sqrt(78739) roundings of 2**-24,
1.7e-5. The largest of a million such errors is five deviations out, and a phase of 690 rounds by 4e-5."""

DRAWS = 8
"""Of the moved inputs; the furthest of 8 draws x 8 frames."""

Measure = Literal["largest", "three in four"]
MEASURES: tuple[Measure, ...] = ("largest", "three in four")
"""Of all differences of a stage in a frame: the largest, and what three quarters stay within. The first is set by the
few pairs of boxes that are nearly concentric, where float32 says little; the second holds what is well conditioned to
float32's own precision, so that a wrong formula has nowhere to hide."""

Detected = tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.int64]]
"""Boxes [n, 4] in network-input pixels, confidence [n], class [n] (0 is the first foreground class)."""

Expected = Mapping[str, NDArray[np.generic]]
Values = Mapping[str, Tensor]
"""What each stage computed of one frame."""
Distances = dict[tuple[str, Measure], float]
"""By stage and measure."""

ENCODER = ("prop_key", "obj_key", "fc0_key")
RELATION = ("rel0", "rel1", "rel2", "rel3", "logits", "deltas")
DETECTION = ("boxes", "scores", "order", "without counterpart")


def expected_results() -> dict[str, NDArray[np.generic]]:
    with np.load(DATA / "expected.npz", allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def frames() -> list[NDArray[np.uint8]]:
    return [np.array(Image.open(path).convert("RGB")) for path in sorted((DATA / "frames").glob("*.png"))]


def write_checkpoint(path: Path) -> Path:
    torch.save({"model": weights(DATA / "weights.npz")}, path)
    return path


def load_model(checkpoint: Path) -> RDN:
    return load_checkpoint(checkpoint, read_config(CONFIG)).model()


def stored_frame(expected: Expected, t: int) -> dict[str, Tensor]:
    """The stored stages of frame t in float64, features after their ReLU."""
    found = {name: torch.from_numpy(expected[f"t{t}/{name}"]).double() for name in (*ENCODER, *RELATION, "fc2_key")}
    return found | {"fc0_key": found["fc0_key"].relu()}


def stored_detections(expected: Expected, t: int) -> Detected:
    """Best first; the public implementation lists class by class, by proposal within a class."""
    boxes, scores, labels = (expected[f"t{t}/{name}"] for name in ("boxes", "scores", "labels"))
    order = scores.argsort(kind="stable")[::-1]
    return boxes[order], scores[order], labels[order] - 1


def result_frame(result: FrameResult) -> dict[str, Tensor]:
    values = {"prop_key": result.boxes, "obj_key": result.objectness, "fc0_key": result.features}
    values |= {name: result.stages[name] for name in RELATION if name in result.stages}
    return values | {"logits": result.logits, "deltas": result.deltas}


def result_detections(result: FrameResult) -> Detected:
    return result.input_xyxy.numpy(), result.confidence.numpy(), result.class_id.numpy()


@torch.no_grad()
def stage_values(model: RDN, expected: Expected, t: int) -> dict[str, Tensor]:
    """Each stage of frame t in the model's precision, fed what the public implementation stored of the one before."""
    relation, dials = model.relation, model.config.dials
    k = dials.num_support
    dtype = next(model.parameters()).dtype

    def stored(name: str, j: int = t) -> Tensor:
        return torch.from_numpy(expected[f"t{j}/{name}"]).to(dtype)

    window = window_indices(t, NUM_FRAMES, dials)
    support = torch.cat([stored("fc0_key", j)[:k] for j in window]).relu()
    support_boxes = torch.cat([stored("prop_key", j)[:k] for j in window])
    chosen = advanced_rows([stored("obj_key", j)[:k] for j in window], dials)
    boxes, features = stored("prop_key"), stored("fc0_key").relu()
    pool = support_boxes, support
    # The stored refinement has the public sampling's rows, whatever the dials say.
    refined = stored("rel2"), stored("fc2_key").relu()
    distil = (support_boxes[chosen], refined[1]) if len(chosen) == len(refined[1]) else pool
    return {
        "rel0": _residual(relation.rel[0], (boxes, features), pool),
        "rel1": _residual(relation.rel[1], (boxes, relation.basic_fc[0](stored("rel0")).relu()), pool),
        "rel2": _residual(relation.rel[2], (support_boxes[chosen], support[chosen]), pool),
        "fc2_key": relation.advanced_fc(refined[0]) if relation.advanced_fc is not None else refined[0],
        "rel3": _residual(relation.rel[3], (boxes, stored("rel1")), distil),
        "logits": relation.classify(stored("rel3")),
        "deltas": relation.regress(stored("rel3")),
    }


def _residual(module: RelationModule, x: tuple[Tensor, Tensor], support: tuple[Tensor, Tensor]) -> Tensor:
    """x + rel(x, support); each a pair of boxes and features."""
    return x[1] + module.attend(module.query(x[1]), x[0], *module.project(support[1]), support[0])[0]


def distances(found: Tensor, wanted: Tensor) -> dict[Measure, float]:
    """Infinite for another shape, NaN for NaN: neither passes."""
    if found.shape != wanted.shape:
        return dict.fromkeys(MEASURES, float("inf"))
    apart = (found.double() - wanted.double()).abs().flatten()
    return {"largest": float(apart.max()), "three in four": float(apart.quantile(0.75))}


def all_distances(found: Values, wanted: Values) -> Distances:
    return {(s, m): d for s, value in wanted.items() for m, d in distances(found[s], value).items()}


def furthest(parts: Sequence[Distances]) -> Distances:
    return {key: max(part[key] for part in parts) for key in parts[0]}


@dataclass(frozen=True)
class Truth:
    """Float64 of every frame, what was stored, and how far from float64 each may be; of the right formulas."""

    results: list[FrameResult]
    """From the frames alone"""
    maps: list[tuple[Tensor, Tensor, Tensor]]
    """What `RDN.encode_map` gave of each frame"""
    stages: list[dict[str, Tensor]]
    """Stage by stage from the stored inputs"""
    stage_tolerances: Distances
    tolerances: Distances
    """From the frames alone, detections included"""
    stored_tolerances: Distances
    expected: Expected = field(repr=False)


def find_truth(model: RDN, expected: Expected) -> Truth:
    """model: in float32; the tolerances are derived here and nowhere else."""
    double = copy.deepcopy(model).double()
    maps = _recorded_maps(double)
    results = detect_video(double, frames())
    times = range(NUM_FRAMES)
    stages = [stage_values(double, expected, t) for t in times]
    stored = [stored_frame(expected, t) for t in times]

    # A stage's own rounding, of its largest value.
    relative = furthest([relative_distances(stored[t], stages[t]) for t in times])
    stage_tolerances = {key: FACTOR * distance for key, distance in relative.items()}

    exact = [result_frame(result) for result in results]
    encoder = furthest([all_distances(stored[t], {s: exact[t][s] for s in ENCODER}) for t in times])
    tolerances = {key: FACTOR * distance for key, distance in encoder.items()}
    largest = {s: max(float(values[s].abs().max()) for values in exact) for s in exact[0]}
    priors = {(s, m): PRIOR[m] * largest[s] for s in largest for m in MEASURES}
    stored_tolerances = {key: priors[key] for key in encoder}

    moved = list(_moved(double, results, stored))
    pairs = [pair for moved_frames in moved for pair in zip(moved_frames, results, strict=True)]
    for key, distance in furthest([_relation_distances(double, m, r) for m, r in pairs]).items():
        tolerances[key] = distance + stage_tolerances.get(key, 0.0) * largest.get(key[0], 0.0)
        stored_tolerances[key] = distance + priors.get(key, 0.0)
    for limits in (tolerances, stored_tolerances):
        # Two scores may exchange their places where they are no further apart than both may be wrong.
        limits["order", "largest"] = 2 * limits["scores", "largest"]
    alone = max(_alone(result_detections(m), result_detections(r), tolerances) for m, r in pairs)
    tolerances["without counterpart", "largest"] = stored_tolerances["without counterpart", "largest"] = float(alone)
    return Truth(results, maps, stages, stage_tolerances, tolerances, stored_tolerances, expected)


def _recorded_maps(model: RDN) -> list[tuple[Tensor, Tensor, Tensor]]:
    """What `encode_map` will return, appended call by call."""
    maps: list[tuple[Tensor, Tensor, Tensor]] = []
    encode_map = model.encode_map

    def recorded(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        maps.append(encode_map(images))
        return maps[-1]

    model.encode_map = recorded  # type: ignore[method-assign]
    return maps


def relative_distances(found: Values, wanted: Values) -> Distances:
    """Of the largest value that is wanted."""
    apart = all_distances({s: found[s] for s in wanted}, wanted)
    return {(s, m): d / float(wanted[s].abs().max()) for (s, m), d in apart.items()}


@torch.no_grad()
def _moved(double: RDN, results: Sequence[FrameResult], stored: Sequence[Values]) -> Iterator[list[FrameResult]]:
    """All frames again, DRAWS times, from boxes and features as far from float64's as ours may be.

    An error is drawn from FACTOR times those of the stored results, of a box relative to its side. Sides on the edge of
    the image and features that the ReLU shut are exact in every precision, and stay.
    """
    config, dials = double.config, double.config.dials
    size = config.input.network_size(*frames()[0].shape[:2])
    edge = torch.tensor([size[1] - 1, size[0] - 1] * 2)
    free = [(r.boxes > 0) & (r.boxes < edge) for r in results]
    sides = [(r.boxes[:, 2:] - r.boxes[:, :2] + 1).repeat(1, 2) for r in results]
    of_boxes = [((s["prop_key"] - r.boxes) / w)[f] for s, r, w, f in zip(stored, results, sides, free, strict=True)]
    of_features = [(s["fc0_key"] - r.features)[r.features > 0] for s, r in zip(stored, results, strict=True)]
    generator = torch.Generator().manual_seed(0)

    def drawn(errors: Sequence[Tensor], shape: torch.Size) -> Tensor:
        pool = torch.cat(list(errors))
        return FACTOR * pool[torch.randint(len(pool), shape, generator=generator)]

    for _ in range(DRAWS):
        encodings = [
            FrameEncoding(
                r.boxes + drawn(of_boxes, r.boxes.shape) * w * f,
                r.objectness,
                (r.features + drawn(of_features, r.features.shape) * (r.features > 0)).relu(),
                size,
            )
            for r, w, f in zip(results, sides, free, strict=True)
        ]
        yield [relate(double, encodings, t, dials, size) for t in range(NUM_FRAMES)]


def _relation_distances(double: RDN, moved: FrameResult, result: FrameResult) -> Distances:
    """How far a moved input moves each stage, and every box and score that passes the threshold before NMS."""
    wanted = result_frame(result)
    found = all_distances(result_frame(moved), {s: wanted[s] for s in RELATION})
    (box, score), (wanted_box, wanted_score) = _candidates(double, moved), _candidates(double, result)
    above = wanted_score > double.config.dials.score_threshold
    for stage, apart in (("boxes", (box - wanted_box).abs().amax(-1)), ("scores", (score - wanted_score).abs())):
        found |= {(stage, m): d for m, d in distances(apart[above], torch.zeros(int(above.sum()))).items()}
    return found


def _candidates(double: RDN, result: FrameResult) -> tuple[Tensor, Tensor]:
    """Boxes [n, C, 4] and scores [n, C] of every proposal and class but the background."""
    config = double.config
    size = config.input.network_size(*frames()[0].shape[:2])
    boxes = box_ops.decode(result.deltas.unflatten(1, (-1, 4)), result.boxes[:, None], config.detection.box_weights)
    return box_ops.clip(boxes, size)[:, 1:], result.logits.softmax(-1)[:, 1:]


def detection_distances(found: Detected, wanted: Detected, limits: Mapping[tuple[str, Any], float]) -> Distances:
    """Both best first; limits: what a pair may differ by in `boxes` and `scores`."""
    pairs = match(found, wanted, limits)
    ours, theirs = np.array(pairs, np.int64).reshape(-1, 2).T
    box, score = np.abs(found[0][ours] - wanted[0][theirs]).max(-1), np.abs(found[1][ours] - wanted[1][theirs])
    apart = {"boxes": box, "scores": score}
    far: Distances = {}
    for stage, values in apart.items():
        # Nothing in common is infinitely far.
        far[stage, "largest"] = float(values.max()) if pairs else float("inf")
        far[stage, "three in four"] = float(np.quantile(values, 0.75)) if pairs else float("inf")
    # Ours descends up to what the scores differ by.
    far["order", "largest"] = float(np.diff(wanted[1][theirs]).max(initial=0))
    far["without counterpart", "largest"] = float(max(len(found[0]), len(wanted[0])) - len(pairs))
    return far


def _alone(found: Detected, wanted: Detected, limits: Mapping[tuple[str, Any], float]) -> int:
    return max(len(found[0]), len(wanted[0])) - len(match(found, wanted, limits))


def match(found: Detected, wanted: Detected, limits: Mapping[tuple[str, Any], float]) -> list[tuple[int, int]]:
    """Pairs (ours, theirs) of one class, closest first, each used once, within the limits."""
    box = np.abs(found[0][:, None] - wanted[0][None]).max(-1) / limits["boxes", "largest"]
    score = np.abs(found[1][:, None] - wanted[1][None]) / limits["scores", "largest"]
    near = (box <= 1) & (score <= 1) & (found[2][:, None] == wanted[2][None])
    candidates = sorted((box[i, j] + score[i, j], int(i), int(j)) for i, j in np.argwhere(near))
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for _, i, j in candidates:
        if i not in pairs and j not in taken:
            pairs[i] = j
            taken.add(j)
    return sorted(pairs.items())
