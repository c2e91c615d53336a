"""How the outputs of a detector become those of the contract (rdn_engine.host.attached)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from export.surgery import Surgery, words
from rdn_engine.errors import AttachError

BoxFormat = Literal["xyxy", "cxcywh", "xywh"]
BoxUnit = Literal["pixels", "unit"]
Activation = Literal["none", "sigmoid", "softmax"]
Background = Literal["none", "first", "last"]


@dataclass(frozen=True)
class Reading:
    """Which tensors of a detector say what. B images, n boxes, C classes."""

    boxes: str
    """[B, n, 4] or [B, 4, n]; of one image also [n, 4]"""
    scores: str
    """[B, n, C], [B, C, n], or [B, n] with `labels` or of one class; of one image also without B"""
    labels: str | None = None
    """[B, n] class of each box, where `scores` has one score a box"""
    features: tuple[str, ...] = ()
    """Rows [B, n, D], or maps [B, D, h, w]: one for each level of the boxes' cells, several of a level side by side"""
    feature_map: str | None = None
    """[B, C', h, w], that features are pooled from instead"""
    box_format: BoxFormat = "xyxy"
    """Corners, centre and size, or first corner and size"""
    box_unit: BoxUnit = "pixels"
    """Pixels of the network input, or parts of its sides"""
    activation: Activation = "none"
    """What makes scores of 0..1 of `scores`"""
    background: Background = "none"
    """Which of the classes is none"""


@dataclass(frozen=True)
class Read:
    """What a detector's graph gives once it is read."""

    outputs: dict[str, tuple[str, int]]
    """Output of the contract -> tensor and rank"""
    features: int = 0
    """Width of a feature; 0 for none"""
    map_stride: int | None = None
    """Pixels from one cell of feature_map to the next"""
    boxes_per_feature: int = 1
    """Boxes that share a feature"""


def read(surgery: Surgery, how: Reading, num_classes: int, labels_start: int = 0, pooled_side: int = 1) -> Read:
    """Add the nodes that make the contract's outputs.

    Args:
        surgery: on the detector.
        how: which tensors say what.
        num_classes: C, without a background.
        labels_start: value of `labels` of the first class.
        pooled_side: cells on a side of what is pooled from `feature_map`.

    Raises:
        AttachError: for a tensor that is missing, or has another shape than its part wants.
    """
    boxes, count = _boxes(surgery, how)
    outputs = {"boxes": (boxes, 3), "class_scores": (_scores(surgery, how, num_classes, count, labels_start), 3)}
    if how.feature_map is not None:
        shape = surgery.shape(how.feature_map, "feature map")
        if len(shape) != 4 or None in shape[1:]:
            raise AttachError(f"{how.feature_map!r} is {words(shape)}; wanted a map [batch, channels, height, width]")
        channels, tall, wide = (int(side) for side in shape[1:] if side is not None)
        strides = {surgery.size[0] / tall, surgery.size[1] / wide}
        if len(strides) != 1 or not next(iter(strides)).is_integer():
            raise AttachError(
                f"{how.feature_map!r} has {tall} x {wide} cells for an image of {surgery.size[0]} x {surgery.size[1]}; "
                "wanted one whole number of pixels for a cell"
            )
        outputs["feature_map"] = (surgery.op("Transpose", [how.feature_map], perm=[0, 2, 3, 1]), 4)
        return Read(outputs, channels * pooled_side**2, int(next(iter(strides))))
    if not how.features:
        return Read(outputs)
    features, width, rows = feature_rows(surgery, how.features)
    if rows == 0 or count % rows:
        raise AttachError(
            f"features {how.features} have {rows} cells for {count} boxes; wanted a whole number of boxes for a cell"
        )
    outputs["features"] = (features, 3)
    return Read(outputs, width, boxes_per_feature=count // rows)


def feature_rows(surgery: Surgery, names: tuple[str, ...]) -> tuple[str, int, int]:
    """Features of all cells, level after level, row of the map by row.

    Args:
        surgery: on the detector.
        names: rows [B, n, D], or maps [B, D, h, w]; those of one size stand side by side, in this order.

    Returns:
        The tensor [B, cells, D], D, and how many cells there are.

    Raises:
        AttachError: for a tensor that is missing, of another rank, or whose levels differ in width.
    """
    levels: dict[tuple[int, ...], list[tuple[str, int]]] = {}
    for name in names:
        shape = surgery.shape(name, "features")
        if len(shape) not in (3, 4) or None in shape[1:]:
            raise AttachError(
                f"{name!r} is {words(shape)} for the features; wanted rows [batch, n, width] or a map "
                "[batch, width, h, w], with known sides"
            )
        sides = tuple(int(side) for side in shape[1:] if side is not None)
        if len(sides) == 2:
            levels.setdefault(sides[:1], []).append((name, sides[1]))
            continue
        cells = surgery.op("Transpose", [surgery.reshape(name, [0, 0, -1])], perm=[0, 2, 1])
        levels.setdefault(sides[1:], []).append((cells, sides[0]))
    widths = {sides: sum(width for _, width in parts) for sides, parts in levels.items()}
    if len(set(widths.values())) > 1:
        told = ", ".join(f"{width} at {' x '.join(map(str, sides))}" for sides, width in widths.items())
        raise AttachError(f"features have widths {told}; wanted the same at every level, or --feature-map, which is "
                          "pooled")  # fmt: skip
    rows = [_joined(surgery, [name for name, _ in parts], 2) for parts in levels.values()]
    return _joined(surgery, rows, 1), next(iter(widths.values())), sum(int(np.prod(sides)) for sides in levels)


def _joined(surgery: Surgery, names: list[str], axis: int) -> str:
    return names[0] if len(names) == 1 else surgery.op("Concat", names, axis=axis)


def _boxes(surgery: Surgery, how: Reading) -> tuple[str, int]:
    """The tensor [B, n, 4] of the contract, and n."""
    name, shape = how.boxes, surgery.shape(how.boxes, "boxes")
    if len(shape) == 2:
        name, shape = surgery.reshape(name, [1, -1, 4]), (1, *shape)
    if len(shape) == 3 and shape[1] == 4 and shape[2] != 4:
        name, shape = surgery.op("Transpose", [name], perm=[0, 2, 1]), (shape[0], shape[2], shape[1])
    count = shape[1] if len(shape) == 3 else None
    if len(shape) != 3 or shape[2] != 4 or count is None:
        raise AttachError(
            f"{how.boxes!r} is {words(surgery.shape(how.boxes, 'boxes'))} for the boxes; wanted [batch, n, 4] of a "
            "known n: a tensor in front of NMS and of any choice of boxes"
        )
    first, second = surgery.part(name, 0, 2), surgery.part(name, 2, 4)
    if how.box_format == "cxcywh":
        half = surgery.op("Mul", [second, surgery.constant(np.array([0.5], np.float32))])
        first, second = surgery.op("Sub", [first, half]), surgery.op("Add", [first, half])
    elif how.box_format == "xywh":
        second = surgery.op("Add", [first, second])
    corners = surgery.op("Concat", [first, second], axis=2)
    if how.box_unit == "unit":
        tall, wide = surgery.size
        corners = surgery.op("Mul", [corners, surgery.constant(np.array([wide, tall] * 2, np.float32))])
    # From edges to the last pixel, as boxes are here.
    return surgery.op("Sub", [corners, surgery.constant(np.array([0, 0, 1, 1], np.float32))]), count


def _scores(surgery: Surgery, how: Reading, num_classes: int, count: int, labels_start: int) -> str:
    """The tensor [B, n, C] of the contract."""
    name, shape = how.scores, surgery.shape(how.scores, "scores")
    classes = num_classes + (how.background != "none")
    if shape in ((count,), (count, classes)):
        name, shape = surgery.reshape(name, [1, *(side or -1 for side in shape)]), (1, *shape)
    if len(shape) == 3 and shape[1] == classes and shape[2] == count and count != classes:
        name, shape = surgery.op("Transpose", [name], perm=[0, 2, 1]), (shape[0], count, classes)
    if len(shape) == 2 and shape[1] == count:
        name = surgery.reshape(name, [0, 0, 1])
        if how.labels is not None:
            return _spread(surgery, name, how.labels, num_classes, count, labels_start)
        shape = (*shape, 1)
    if len(shape) != 3 or shape[1] != count or shape[2] != classes:
        behind = "" if how.background == "none" else " and a background"
        raise AttachError(
            f"{how.scores!r} is {words(surgery.shape(how.scores, 'scores'))} for the scores; wanted [batch, {count}, "
            f"{classes}] for {count} boxes of the {num_classes} classes that were named{behind}"
        )
    if how.activation == "sigmoid":
        name = surgery.op("Sigmoid", [name])
    elif how.activation == "softmax":
        name = surgery.op("Softmax", [name], axis=2)
    start = int(how.background == "first")
    return name if how.background == "none" else surgery.part(name, start, start + num_classes)


def _spread(surgery: Surgery, scores: str, labels: str, num_classes: int, count: int, start: int) -> str:
    """One score a box, at the place of its class."""
    shape = surgery.shape(labels, "labels")
    if shape[-1:] != (count,) or len(shape) > 2:
        raise AttachError(f"{labels!r} is {words(shape)} for the labels; wanted [batch, {count}]")
    number = surgery.op("Cast", [surgery.reshape(labels, [-1, count])], to=7)
    number = surgery.op("Sub", [number, surgery.constant([start])])
    depth, values = surgery.constant([num_classes]), surgery.constant(np.array([0, 1], np.float32))
    # OneHot counts negative ones from the end; one past the end is no class.
    number = surgery.op("Where", [surgery.op("Less", [number, surgery.constant([0])]), depth, number])
    return surgery.op("Mul", [surgery.op("OneHot", [number, depth, values], axis=-1), scores])
