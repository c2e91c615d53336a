"""Small detectors as people bring them, as ONNX files of random weights: one a family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.attach import Options
from export.families import Given

CLASSES = ("cat", "dog", "fox")
SIZE = (64, 96)
STRIDES = (8, 16, 32)
WIDTH = 16
"""Channels of a feature map."""


class Maker:
    """A graph that grows node by node."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def op(self, kind: str, inputs: Sequence[str], name: str | None = None, **attributes: Any) -> str:
        name = name or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, array: Any, name: str | None = None) -> str:
        name = name or f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def conv(self, x: str, inputs: int, outputs: int, side: int = 1, name: str | None = None, scale: float = 1) -> str:
        shape = (outputs, inputs, side, side)
        weight = (self.rng.normal(0, scale * (inputs * side**2) ** -0.5, shape)).astype(np.float32)
        stem = name or f"conv{len(self.nodes)}"
        return self.op("Conv", [x, self.constant(weight, f"{stem}.weight")], strides=[side, side])

    def save(self, path: Path, outputs: dict[str, Sequence[Any]], *, image: Sequence[Any] = (1, 3, *SIZE),
             opset: int = 13, kind: int = TensorProto.FLOAT) -> Path:  # fmt: skip
        graph = helper.make_graph(
            self.nodes,
            "detector",
            [helper.make_tensor_value_info("images", kind, image)],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in outputs.items()],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        onnx.save(model, path)
        return path


def cells(size: tuple[int, int] = SIZE) -> int:
    return sum((size[0] // s) * (size[1] // s) for s in STRIDES)


def yolox(path: Path, *, image: Sequence[Any] = (1, 3, *SIZE), opset: int = 11, named: bool = True,
          decoded: bool = False, classes: int = len(CLASSES)) -> Path:  # fmt: skip
    """Three levels of cells: dx, dy, log w, log h, objectness, classes, raw or with boxes in pixels."""
    m = Maker()
    x = m.op("Mul", ["images", m.constant(np.float32(0.02))])
    levels, grids = [], []
    for k, stride in enumerate(STRIDES):
        stem = m.op("Relu", [m.conv(x, 3, WIDTH, stride)])
        cls, reg = (m.op("Relu", [m.conv(stem, WIDTH, WIDTH)], f"{kind}{k}") for kind in ("cls", "reg"))
        word = "head" if named else "x"
        preds = {
            kind: m.conv(source, WIDTH, n, 1, f"{word}.{kind}_preds.{k}" if named else None, 0.7)
            for kind, source, n in (("cls", cls, classes), ("reg", reg, 4), ("obj", reg, 1))
        }
        joined = m.op(
            "Concat", [preds["reg"], m.op("Sigmoid", [preds["obj"]]), m.op("Sigmoid", [preds["cls"]])], axis=1
        )
        levels.append(m.op("Reshape", [joined, m.constant(np.array([0, 5 + classes, -1]))]))
        tall, wide = SIZE[0] // stride, SIZE[1] // stride
        grids += [(c, r, stride) for r in range(tall) for c in range(wide)]
    found = m.op("Transpose", [m.op("Concat", levels, axis=2)], None if decoded else "output", perm=[0, 2, 1])
    if decoded:
        grid = np.array(grids, np.float32)[None]
        parts = [
            m.op("Slice", [found, *(m.constant(np.array([v])) for v in (a, b, 2))])
            for a, b in ((0, 2), (2, 4), (4, 5 + classes))
        ]
        side = m.constant(grid[..., 2:])
        centre = m.op("Mul", [m.op("Add", [parts[0], m.constant(grid[..., :2])]), side])
        m.op("Concat", [centre, m.op("Mul", [m.op("Exp", [parts[1]]), side]), parts[2]], "output", axis=2)
    batch = image[0] if isinstance(image[0], int) else "batch"
    return m.save(path, {"output": [batch, cells(), 5 + classes]}, image=image, opset=opset)


def columns(path: Path, *, kind: int = TensorProto.FLOAT) -> Path:
    """Without objectness, as anchor-free detectors are exported: boxes [B, 4, n] in pixels, scores [B, C, n]."""
    m = Maker(1)
    x = m.op("Mul", ["images", m.constant(np.float32(0.02))])
    boxes, scores = [], []
    for k, stride in enumerate(STRIDES):
        stem = m.op("Relu", [m.conv(x, 3, WIDTH, stride)], f"map{k}")
        tall, wide = SIZE[0] // stride, SIZE[1] // stride
        y, z = np.meshgrid(np.arange(tall), np.arange(wide), indexing="ij")
        grid = ((np.stack([z, y], 0) + 0.5) * stride).reshape(1, 2, -1).astype(np.float32)
        raw = m.op("Reshape", [m.conv(stem, WIDTH, 4), m.constant(np.array([0, 4, -1]))])
        size = m.op("Mul", [m.op("Exp", [raw]), m.constant(np.float32(stride))])
        half = m.op("Slice", [size, *(m.constant(np.array([v])) for v in (0, 2, 1))])
        boxes.append(m.op("Concat", [m.constant(grid), half], axis=1))
        logits = m.conv(stem, WIDTH, len(CLASSES), scale=2)
        scores.append(m.op("Reshape", [logits, m.constant(np.array([0, len(CLASSES), -1]))]))
    m.op("Concat", boxes, "dets", axis=2)
    m.op("Concat", scores, "logits", axis=2)
    return m.save(path, {"dets": [1, 4, cells()], "logits": [1, len(CLASSES), cells()]}, kind=kind)


def labelled(path: Path) -> Path:
    """One score and one label a box, boxes as parts of the image's sides, and a map of stride 16 inside."""
    m = Maker(2)
    x = m.op("Mul", ["images", m.constant(np.float32(0.02))])
    stem = m.op("Relu", [m.conv(x, 3, WIDTH, 16)], "map")
    count = (SIZE[0] // 16) * (SIZE[1] // 16)
    size = m.op("Sigmoid", [m.op("Reshape", [m.conv(stem, WIDTH, 2), m.constant(np.array([1, 2, count]))])])
    y, z = np.meshgrid(np.arange(4) / 4, np.arange(6) / 6, indexing="ij")
    first = m.constant(np.stack([z, y], 0).reshape(1, 2, -1).astype(np.float32))
    m.op("Transpose", [m.op("Concat", [first, m.op("Mul", [size, m.constant(np.float32(0.4))])], axis=1)], "boxes",
         perm=[0, 2, 1])  # fmt: skip
    scores = m.op("Reshape", [m.conv(stem, WIDTH, 3, scale=2), m.constant(np.array([3, count]))])
    scores = m.op("Sigmoid", [scores])
    best = m.op("ArgMax", [scores], axis=0, keepdims=1)
    m.op("Cast", [m.op("Add", [best, m.constant(np.array(1))])], "labels", to=TensorProto.INT64)
    m.op("ReduceMax", [scores], "scores", axes=[0], keepdims=1)
    m.nodes.append(helper.make_node("Cast", ["labels"], ["labels_out"], to=TensorProto.FLOAT))
    return m.save(path, {"boxes": [1, count, 4], "scores": [1, count], "labels_out": [1, count]})


def queries(path: Path) -> Path:
    """A detector of queries: logits and boxes [B, n, .], made of the last decoder's rows; batch free."""
    m, count = Maker(3), 24
    x = m.op("Mul", ["images", m.constant(np.float32(0.02))])
    stem = m.conv(x, 3, WIDTH, 16)
    rows = m.op("Transpose", [m.op("Reshape", [stem, m.constant(np.array([0, 0, -1]))])], perm=[0, 2, 1])
    m.op("Tanh", [rows], "decoded")

    def dense(outputs: int, name: str | None = None) -> str:
        weight = m.constant(m.rng.normal(0, 0.5, (WIDTH, outputs)).astype(np.float32))
        bias = m.constant(m.rng.normal(0, 0.5, outputs).astype(np.float32))
        return m.op("Add", [m.op("MatMul", ["decoded", weight]), bias], name)

    # All layers of the decoder, of which the last one counts.
    axis = m.constant(np.array([1]))
    layers = [m.op("Unsqueeze", [m.op("Neg", [dense(len(CLASSES))]), axis]),
              m.op("Unsqueeze", [dense(len(CLASSES)), axis])]  # fmt: skip
    m.op("Gather", [m.op("Concat", layers, axis=1), m.constant(np.array(-1))], "pred_logits", axis=1)
    m.op("Sigmoid", [dense(4)], "pred_boxes")
    outputs = {"pred_logits": ["batch", count, len(CLASSES)], "pred_boxes": ["batch", count, 4]}
    return m.save(path, outputs, image=("batch", 3, "h", "w"), opset=17)


FAMILIES: dict[str, tuple[Callable[[Path], Path], Options]] = {
    "yolox": (yolox, Options("yolox", CLASSES)),
    "columns": (
        columns,
        Options(
            "generic",
            CLASSES,
            Given(
                boxes="dets",
                scores="logits",
                features=("map0", "map1", "map2"),
                box_format="cxcywh",
                activation="sigmoid",
            ),
        ),
    ),
    "labelled": (
        labelled,
        Options(
            "generic",
            CLASSES,
            Given(labels="labels", feature_map="map", box_format="xywh", box_unit="unit"),
            pooled_side=2,
            labels_start=1,
        ),
    ),
    "queries": (queries, Options("rtdetr", CLASSES, size=SIZE)),
}
"""A maker of each family, and what is said of its detector."""
