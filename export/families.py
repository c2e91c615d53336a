"""What is known of each family of detectors: which tensors say what, and how images go in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from export.reading import Reading
from export.surgery import Surgery
from rdn_engine.errors import AttachError
from rdn_engine.input_config import Fit

FamilyName = Literal["yolox", "rtdetr", "dfine", "torchvision", "generic"]


@dataclass(frozen=True)
class Given:
    """What the caller says of a detector; None for what the family knows, or what is looked for in the file."""

    boxes: str | None = None
    scores: str | None = None
    labels: str | None = None
    features: tuple[str, ...] = ()
    feature_map: str | None = None
    box_format: str | None = None
    box_unit: str | None = None
    activation: str | None = None
    background: str | None = None
    strides: tuple[int, ...] = ()


@dataclass(frozen=True)
class Preprocessing:
    """How images go into a family's detectors, in the words of InputConfig."""

    fit: Fit
    channel_order: Literal["bgr", "rgb"]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    padding: float = 114.0


@dataclass(frozen=True)
class Family:
    """What is known of all detectors of a family."""

    reading: Reading | None
    """Names and forms where nothing else is said; None where they are found another way"""
    preprocessing: Preprocessing
    nms_threshold: float
    """IoU within a class above which the worse of two results leaves"""
    proposal_nms: float
    """The same for proposals"""


_ZERO, _ONE = (0.0,) * 3, (1.0,) * 3
_UNIT = Preprocessing("letterbox", "rgb", _ZERO, (255.0,) * 3)
# A query finds an object once; 1 suppresses nothing.
_QUERIES = Family(
    Reading("pred_boxes", "pred_logits", box_format="cxcywh", box_unit="unit", activation="sigmoid"),
    replace(_UNIT, fit="stretch"),
    nms_threshold=1.0,
    proposal_nms=1.0,
)
FAMILIES: dict[FamilyName, Family] = {
    "yolox": Family(None, Preprocessing("letterbox", "bgr", _ZERO, _ONE), nms_threshold=0.5, proposal_nms=0.75),
    "rtdetr": _QUERIES,
    "dfine": _QUERIES,
    "torchvision": Family(
        Reading("boxes", "class_scores", features=("features",)),
        Preprocessing("letterbox", "rgb", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
        nms_threshold=0.5,
        proposal_nms=0.75,
    ),
    "generic": Family(Reading("boxes", "scores"), _UNIT, nms_threshold=0.5, proposal_nms=0.75),
}
YOLOX_STRIDES = (8, 16, 32)
_PASSING = ("Add", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Gather", "Slice", "Concat")
"""What may stand between the product that makes logits and the output."""


def reading_of(surgery: Surgery, family: FamilyName, given: Given, num_classes: int) -> Reading:
    """Which tensors of a detector say what: the caller's word, else the family's, else what the file shows.

    Args:
        surgery: on the detector; yolox's boxes and scores are decoded in it.
        family: of the detector.
        given: what the caller says.
        num_classes: C, that the caller names.

    Raises:
        AttachError: for a detector that is not of the family, or whose features cannot be found.
    """
    said = {name: value for name, value in vars(given).items() if value and name != "strides"}
    if family == "yolox":
        if "boxes" in said or "scores" in said:
            raise AttachError("--boxes and --scores are read from the output of a yolox detector; got them too: use "
                              "--family generic for others")  # fmt: skip
        boxes, scores = yolox_outputs(surgery, num_classes, given.strides or YOLOX_STRIDES)
        how = Reading(boxes, scores, box_format="cxcywh")
    else:
        reading = FAMILIES[family].reading
        assert reading is not None
        how = reading
        if family in ("rtdetr", "dfine"):
            how = replace(how, scores=_first_of(surgery, ("pred_logits", "logits"), how.scores))
        if how.features and not set(how.features) <= set(surgery.outputs):
            how = replace(how, features=())
    how = replace(how, **said)
    if not how.features and how.feature_map is None:
        how = replace(how, features=_look_for_features(surgery, family, how))
    return how


def _first_of(surgery: Surgery, names: Sequence[str], otherwise: str) -> str:
    return next((name for name in names if name in surgery.outputs), otherwise)


def _look_for_features(surgery: Surgery, family: FamilyName, how: Reading) -> tuple[str, ...]:
    """Where the predictions are made from; nothing where the file does not show it."""
    if family == "yolox":
        parts = [[node.input[0] for node in surgery.readers(f"{kind}_preds")] for kind in ("cls", "reg")]
        if len(parts[0]) == len(parts[1]):
            return tuple(name for level in zip(*parts, strict=True) for name in level)
    if family in ("rtdetr", "dfine"):
        node = surgery.maker(how.scores)
        while node is not None and node.op_type in _PASSING:
            made = [maker for maker in map(surgery.maker, node.input) if maker is not None]
            # Of a stack of all decoder layers, the last one counts.
            node = made[-1 if node.op_type == "Concat" else 0] if made else None
        if node is not None and node.op_type in ("MatMul", "Gemm"):
            return (node.input[0],)
    return ()


def yolox_outputs(surgery: Surgery, num_classes: int, strides: Sequence[int]) -> tuple[str, str]:
    """Decode what a YOLOX detector gives: dx, dy, log w, log h, objectness and classes of every cell.

    Args:
        surgery: on the detector, whose one output is [B, cells, 5 + C].
        num_classes: C.
        strides: pixels of a cell of each level, in the order of the output.

    Returns:
        Tensors of the boxes [B, cells, 4] (centre and size, pixels), and of objectness times class [B, cells, C].

    Raises:
        AttachError: for another output.
    """
    tall, wide = surgery.size
    grids = [(tall // stride, wide // stride, stride) for stride in strides]
    cells = sum(height * width for height, width, _ in grids)
    name, shape = surgery.outputs[0], surgery.shape(surgery.outputs[0], "output")
    if len(surgery.outputs) != 1 or len(shape) != 3 or shape[1:] != (cells, 5 + num_classes):
        raise AttachError(
            f"{surgery.name} has outputs {surgery.outputs}, the first of {list(shape)}; wanted one of [batch, {cells}, "
            f"{5 + num_classes}]: cells of strides {list(strides)} of an image of {tall} x {wide}; box, objectness and "
            f"the {num_classes} classes that were named"
        )
    scores = surgery.op("Mul", [surgery.part(name, 5, 5 + num_classes), surgery.part(name, 4, 5)])
    boxes = surgery.part(name, 0, 4)
    # With decode_in_inference the exporter has put centres and sizes in pixels there.
    makers = [surgery.maker(one) for one in surgery.ancestors([name])]
    if not any(node is not None and node.op_type == "Exp" for node in makers):
        boxes = _decoded(surgery, boxes, grids)
    surgery.know(boxes, (shape[0], cells, 4))
    surgery.know(scores, (shape[0], cells, num_classes))
    return boxes, scores


def _decoded(surgery: Surgery, raw: str, grids: list[tuple[int, int, int]]) -> str:
    """Centre and size in pixels of dx, dy, log w, log h; rows, columns and stride of each level."""
    corners, sides = [], []
    for height, width, stride in grids:
        y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
        corners.append(np.stack([x, y], 2).reshape(-1, 2))
        sides.append(np.full((height * width, 1), stride))
    corner, side = (surgery.constant(np.concatenate(one)[None].astype(np.float32)) for one in (corners, sides))
    centre = surgery.op("Mul", [surgery.op("Add", [surgery.part(raw, 0, 2), corner]), side])
    size = surgery.op("Mul", [surgery.op("Exp", [surgery.part(raw, 2, 4)]), side])
    return surgery.op("Concat", [centre, size], axis=2)
