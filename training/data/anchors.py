"""How well the anchors of a model meet the boxes of a data set, and which sizes would meet them better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from rdn_engine.config import RPNConfig
from rdn_engine.errors import ConfigError, DatasetError
from rdn_engine.evaluation.coco_vid import Dataset
from rdn_engine.input_config import InputConfig
from rdn_engine.plain import from_plain
from rdn_engine.text import read_text

MET = 0.5
"""IoU with the best anchor, centre on centre, from which a box counts as met: regression reaches it from there."""
ENOUGH = 0.9
"""Part of the boxes that should be met"""
_BOXES = 4000  # of which sizes are proposed, evenly over the set
_STEP = 2 ** (1 / 8)  # between sizes that are tried


@dataclass(frozen=True, slots=True)
class AnchorFit:
    """A model's anchors against the boxes of a data set, at the size of the network's input"""

    sizes: tuple[int, ...]
    """`anchor_sizes` of the model"""
    met: float
    """Part of the boxes that they meet, 0..1"""
    proposal: tuple[int, ...]
    """As many sizes, which meet the boxes best"""
    proposal_met: float
    sides: NDArray[np.float64]
    """[boxes] square root of each box's area at the network's input, pixels"""


def read_anchors(path: Path) -> tuple[InputConfig, RPNConfig]:
    """The input and the anchors of a training configuration, or of a model's own.

    Args:
        path: of the YAML file; what it leaves out has the defaults.

    Returns:
        How frames are scaled, and the anchors.

    Raises:
        ConfigError: the file cannot be read, or is neither.
    """
    try:
        raw = yaml.safe_load(read_text(path))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {error}") from error
    model = raw.get("model", raw) if isinstance(raw, dict) else raw
    if not isinstance(model, dict):
        raise ConfigError(f"{path}: model is {str(model)[:80]!r}; wanted a mapping of configuration sections")
    frames = from_plain(InputConfig, model.get("input", {}), "input")
    return frames, from_plain(RPNConfig, model.get("rpn", {}), "rpn")


def fit_anchors(dataset: Dataset, frames: InputConfig, rpn: RPNConfig) -> AnchorFit:
    """Compares the boxes of a data set with a model's anchors.

    Args:
        dataset: whose boxes count, without ignore regions.
        frames: how the model scales frames.
        rpn: whose anchors they are.

    Returns:
        How many boxes are met, and sizes that meet more, if there are.

    Raises:
        DatasetError: the data set has no box.
    """
    boxes = network_sides(dataset, frames)
    if not len(boxes):
        raise DatasetError("the data set has no box to compare with anchors; wanted one or more")
    met = float((best_iou(boxes, rpn.anchor_sizes, rpn.anchor_ratios) >= MET).mean())
    proposal = propose_sizes(boxes, len(rpn.anchor_sizes), rpn.anchor_ratios)
    proposal_met = float((best_iou(boxes, proposal, rpn.anchor_ratios) >= MET).mean())
    return AnchorFit(rpn.anchor_sizes, met, proposal, proposal_met, np.sqrt(boxes.prod(axis=1)))


def network_sides(dataset: Dataset, frames: InputConfig) -> NDArray[np.float64]:
    """[boxes, 2] width and height of each box at the network's input; without ignore regions and empty boxes."""
    scale = {frame.id: frames.frame_scale(frame.height, frame.width) for frame in dataset.frames}
    rows = []
    for a in dataset.annotations:
        if not a.ignore:
            x1, y1, x2, y2 = a.xyxy
            rows.append(((x2 - x1 + 1) / scale[a.image_id][0], (y2 - y1 + 1) / scale[a.image_id][1]))
    boxes = np.array(rows, np.float64).reshape(-1, 2)
    return boxes[(boxes > 0).all(axis=1)]


def best_iou(boxes: NDArray[np.float64], sizes: Sequence[float], ratios: Sequence[float]) -> NDArray[np.float64]:
    """[boxes] IoU of each with the anchor that fits it best, centre on centre.

    Args:
        boxes: [boxes, 2] width and height, pixels of the network's input.
        sizes: of the anchors, pixels.
        ratios: height over width of each.
    """
    best: NDArray[np.float64] = _ious(boxes, sizes, ratios).max(axis=1)
    return best


def propose_sizes(boxes: NDArray[np.float64], count: int, ratios: Sequence[float]) -> tuple[int, ...]:
    """Sizes whose anchors have the highest mean IoU with the boxes: added one by one, then each moved to its best.

    Args:
        boxes: [boxes, 2] width and height, pixels of the network's input; one or more.
        count: of sizes.
        ratios: height over width of the anchors.

    Returns:
        `count` sizes, growing; fewer where the boxes are all alike.
    """
    part = boxes[np.linspace(0, len(boxes) - 1, min(_BOXES, len(boxes))).astype(int)]
    sides = np.sqrt(part.prod(axis=1))
    steps = int(np.ceil(np.log(max(sides.max() / sides.min(), 1)) / np.log(_STEP))) + 1
    tried = np.unique(np.maximum(np.round(sides.min() * _STEP ** np.arange(min(steps, 200))), 1)).astype(int)
    table = _ious(part, [float(v) for v in tried], ratios)
    chosen: list[int] = []
    for _ in range(min(count, len(tried))):
        chosen.append(_best(table, chosen))
    for _ in range(8):  # settles after two or three
        before = list(chosen)
        for i in range(len(chosen)):
            chosen[i] = _best(table, chosen[:i] + chosen[i + 1 :])
        if chosen == before:
            break
    return tuple(sorted({int(tried[i]) for i in chosen}))


def _best(table: NDArray[np.float64], others: list[int]) -> int:
    have = table[:, others].max(axis=1, initial=0.0)
    return int(np.maximum(table, have[:, None]).mean(axis=0).argmax())


def _ious(boxes: NDArray[np.float64], sizes: Sequence[float], ratios: Sequence[float]) -> NDArray[np.float64]:
    """[boxes, sizes] IoU with the best ratio of each size"""
    best = np.zeros((len(boxes), len(sizes)))
    areas = boxes.prod(axis=1)[:, None]
    for ratio in ratios:
        # The very anchors of the network, whose sides are rounded at the stride.
        unit = RPNConfig(anchor_sizes=(16,), anchor_ratios=(ratio,)).cell_anchors()[0]
        unit_sides = (unit[2:] - unit[:2] + 1) / 16
        anchors = np.asarray(sizes)[:, None] * unit_sides
        both = np.minimum(boxes[:, None], anchors[None]).prod(axis=2)
        best = np.maximum(best, both / (areas + anchors.prod(axis=1)[None] - both))
    return best
