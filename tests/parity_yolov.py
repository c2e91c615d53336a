"""What the public YOLOV implementation computed of the parity data, and how ours is compared with it.

The data's own text says how far a right float32 implementation was from the stored results: twice that is allowed,
which is TOLERANCES. Rows of a frame are matched by anchor, detections by class and box; one that a rounding may decide
either way is no difference, but is named (`_explanation`).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from export.attach_yolov import vid_classes
from rdn_engine.config import CosineConfig, Dials, RDNConfig
from tests.data.parity_yolov.make_checkpoint import weights
from training.checkpoints.yolov import load_yolov
from training.model.yolov import YOLOV
from training.model.yolov_inference import FrameResult, Proposals

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "tests" / "data" / "parity_yolov"
INPUT_SIZE = (192, 320)
NUM_FRAMES = 8
STREAM = [0, 1, 2, 3, 4, 5, 6, 7, 6, 5, 4, 3, 2, 1]
"""Frames of the online stream, again and again."""
STORED_STEPS = (*range(8), *range(32, 40))
"""Steps of it that results are stored of."""
CLIPS = ("clip8", "clip5", "clip5_2024", "demo/clip0", "demo/clip1", "demo/clip2")
"""Offline results; those of `2024` leave the objectness out of the box branch."""
UNDECIDED = (0.000995, 0.001005)
"""Scores this near to the threshold of 0.001 may be on either side of it."""

# Stage -> (fed stored proposals, from the frames): twice what the data's text names. Relative to the largest value;
# boxes of detections in pixels, scores absolute.
TOLERANCES: Mapping[str, tuple[float, float]] = {
    "fpn": (0.0, 1.4e-4),
    "features": (6e-6, 4e-4),
    "all_boxes": (2e-6, 6e-5),
    "all_obj": (1e-5, 4.2e-4),
    "all_cls": (1.8e-5, 8e-4),
    "qkv": (1.6e-5, 4e-4),
    "attn": (1.6e-5, 4e-4),
    "sim": (1.6e-5, 4e-4),
    "x_cls": (1.4e-6, 2.8e-4),
    "lin1": (1.4e-6, 2.8e-4),
    "out": (1.4e-6, 2.8e-4),
    "logits": (1.4e-6, 2.8e-4),
    "weights2": (1.6e-5, 4e-4),
    "online x_cls": (1.6e-5, 3e-4),
    "online out": (1.6e-5, 3e-4),
    "online logits": (1.6e-5, 3e-4),
    "local_out": (2.2e-5, 1.6e-4),
    "detection boxes": (8e-4, 0.016),
    "detection scores": (8e-6, 2.4e-4),
    "detections without counterpart": (0.0, 0.0),
    "proposals of the other side alone": (0.0, 0.0),
}
Array = NDArray[Any]
Detections = tuple[Array, Array, Array]
"""Boxes [n, 4] edges in network pixels, scores [n], classes [n]"""


@dataclass(frozen=True)
class Row:
    """One stage against the stored result."""

    what: str
    stage: str
    apart: float
    """Largest difference of all frames"""
    tolerance: float
    unit: str
    """relative, px, absolute or count"""
    compared: int
    """Numbers that were, or detections"""
    near_ties: tuple[str, ...] = ()
    """What a rounding decided the other way, which is no fault"""

    @property
    def passed(self) -> bool:
        """Whether they agree."""
        return self.apart <= self.tolerance


@functools.cache
def expected() -> Mapping[str, Array]:
    """What the public implementation computed."""
    with np.load(DATA / "expected.npz", allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def write_checkpoint(path: Path) -> Path:
    """The generated checkpoint in the public layout, 41 MB."""
    torch.save({"model": weights(DATA / "weights_yolov.npz")}, path)
    return path


def pictures() -> list[NDArray[np.uint8]]:
    """The network inputs as RGB frames, uint8 [192, 320, 3], which a letterbox of their size leaves as they are."""
    return [np.ascontiguousarray(image[::-1].transpose(1, 2, 0)) for image in expected()["input_u8"]]


def write_pictures(folder: Path) -> Path:
    """The same as files, for golden results."""
    folder.mkdir()
    for t, picture in enumerate(pictures()):
        Image.fromarray(picture).save(folder / f"{t:06d}.png")
    return folder


def load(checkpoint: Path, **cosine: Any) -> tuple[YOLOV, RDNConfig]:
    """The torch model and its configuration, with the public head's order of memory."""
    settings = CosineConfig(**{"memory_order": "shuffled", **cosine})
    loaded = load_yolov(checkpoint, vid_classes(), input_size=INPUT_SIZE, cosine=settings)
    return loaded.model(), loaded.config


def stored_proposals(t: int) -> Proposals:
    """Those of a frame, as the public implementation had them."""
    names = ("prop_idx", "boxes", "obj", "cls_scores", "feat_cls", "feat_reg")
    rows, *rest = (torch.from_numpy(expected()[f"t{t}/{name}"]) for name in names)
    return Proposals(rows.long(), *rest)


def in_stored_order(found: Proposals, t: int) -> tuple[Tensor, int]:
    """Which of our proposals of a frame stands where the stored ones do, and how many of either side the other has not.

    Where sets differ, ours stay in their order.
    """
    stored = torch.from_numpy(expected()[f"t{t}/prop_idx"]).long()
    same = (found.rows[None] == stored[:, None]) if len(found.rows) == len(stored) else torch.zeros(1, 1)
    missing = len(stored) - int(same.sum())
    return (same.float().argmax(1) if not missing else torch.arange(len(found.rows))), missing


def clip_dials(config: RDNConfig, frames: int) -> Dials:
    """A window that reaches from each frame of a clip over all of it."""
    return replace(config.dials, window=frames, look_ahead=frames)


def of_stream(frames: Sequence[Any], steps: int = 40) -> list[Any]:
    """What the online stream shows at each step."""
    return [frames[STREAM[t % len(STREAM)]] for t in range(steps)]


# Comparisons.


def _apart(got: Tensor | Array, wanted: Array) -> float:
    ours = np.asarray(got, np.float64).reshape(wanted.shape)
    return float(np.abs(ours - wanted).max() / np.abs(wanted).max())


class Rows:
    """Comparisons of one kind, the worst of each stage."""

    def __init__(self, what: str, *, fed: bool) -> None:
        self._what, self._column = what, 0 if fed else 1
        self._found: dict[str, Row] = {}

    def add(
        self, stage: str, apart: float, compared: int, unit: str = "relative", near_ties: tuple[str, ...] = ()
    ) -> None:
        """One comparison of a stage."""
        before = self._found.get(stage)
        if before is not None:
            apart = max(apart, before.apart)
            compared, near_ties = compared + before.compared, before.near_ties + near_ties
        tolerance = TOLERANCES[stage][self._column]
        self._found[stage] = Row(self._what, stage, apart, tolerance, unit, compared, near_ties)

    def values(self, stage: str, got: Tensor | Array, wanted: Array) -> None:
        """Values that are stored, in the same order."""
        self.add(stage, _apart(got, wanted), wanted.size)

    def detections(self, got: Detections, key: str) -> None:
        """Detections of a frame."""
        stored = expected()[key]
        wanted = stored[:, :4], stored[:, 4] * stored[:, 5], stored[:, 6].astype(np.int64)
        found = _matched(got, wanted)
        self.add("detection boxes", found.box, len(stored), "px")
        self.add("detection scores", found.score, len(stored), "absolute")
        ties = tuple(f"{key.rpartition('/')[0]}, {tie}" for tie in found.ties)
        self.add("detections without counterpart", found.alone, len(stored), "count", ties)

    def rows(self) -> list[Row]:
        """The worst of each stage."""
        return list(self._found.values())


def _inside(boxes: Array) -> Array:
    """Clipped as our results are: the last pixel included, 1 more for the edge."""
    height, width = INPUT_SIZE
    last = np.array([0, 0, 1, 1])
    clipped: Array = (boxes - last).clip(0, [width - 1, height - 1] * 2) + last
    return clipped


@dataclass(frozen=True)
class _Matched:
    """Detections of a frame against the stored ones."""

    box: float
    """Largest difference of a coordinate"""
    score: float
    alone: int
    """Detections of either side without a counterpart that nothing explains"""
    ties: list[str]
    """Those that a near-tie explains, in words"""


def _matched(got: Detections, wanted: Detections) -> _Matched:
    ours, theirs = (
        np.column_stack([_inside(np.asarray(boxes, np.float64)), np.asarray(labels, np.float64) * 1e4, scores])
        for boxes, scores, labels in (got, wanted)
    )
    far = np.abs(ours[:, None, :5] - theirs[None, :, :5]).max(2)
    pairs = far < 1.0
    assert max(pairs.sum(0).max(initial=0), pairs.sum(1).max(initial=0)) <= 1, "two of a class lie on one place"
    mine, yours = np.nonzero(pairs)
    score = float(np.abs(ours[mine, 5] - theirs[yours, 5]).max(initial=0))
    left = ours[~pairs.any(1)], theirs[~pairs.any(0)]
    alone, ties = 0, []
    for label in np.unique(np.concatenate(left)[:, 4]):
        of_class = [rows[rows[:, 4] == label] for rows in left]
        explained = _explanation(*of_class)
        if explained is None:
            alone += sum(map(len, of_class))
        else:
            ties.append(f"class {label / 1e4:.0f}: {explained}")
    return _Matched(float(far[pairs].max(initial=0)), score, alone, ties)


def _explanation(ours: Array, theirs: Array) -> str | None:
    """The near-tie that leaves detections of one class in one frame without counterpart; None where there is none.

    Two boxes that suppress each other and whose scores no float32 tells apart leave either one, and with it others
    that only the one or the other overlaps.
    """
    both = np.concatenate([ours, theirs])
    if ((both[:, 5] > UNDECIDED[0]) & (both[:, 5] < UNDECIDED[1])).all():
        return f"score {both[0, 5]:.6f} at the threshold"
    if not (len(ours) and len(theirs)):
        return None
    a, b = ours[ours[:, 5].argmax()], theirs[theirs[:, 5].argmax()]
    sides = np.minimum(a[2:4], b[2:4]) - np.maximum(a[:2], b[:2])
    shared = np.prod(sides.clip(0))
    union = np.prod(a[2:4] - a[:2]) + np.prod(b[2:4] - b[:2]) - shared
    if shared / union > 0.5 and abs(a[5] - b[5]) <= TOLERANCES["detection scores"][1]:
        return f"overlapping boxes of scores {a[5]:.6f} and {b[5]:.6f} exchanged, {len(both)} detections"
    return None


def torch_detections(result: FrameResult) -> Detections:
    """What the torch model detects."""
    return result.boxes.numpy(), result.confidence.numpy(), result.class_id.numpy()
