"""fp16 and bf16: the graphs of a float32 bundle with an explicit type for every tensor.

TensorRT networks are strongly typed: what the graph says is what runs. Convolutions, FCs and the two products of an
attention take half precision and put it out; sums, ReLUs and pooling between them go along. In float32 stay whatever
is made of boxes (geometry, up to the softmax), the residual sums of the relation stage, the layers that put out scores
and box deltas, and every input and output of a graph, so that the kernels between the graphs need not know.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, version_converter

from export.calibration import observer
from rdn_engine.bundle.manifest import GRAPHS
from rdn_engine.errors import PrecisionError

Half = Literal["fp16", "bf16"]
HALVES: tuple[Half, ...] = ("fp16", "bf16")

BFLOAT16_OPSET = 22
"""The first in which a convolution may be bfloat16."""
HEADROOM = 4.0
"""What float16 must be able to hold, in multiples of the largest value seen: other frames may have larger ones."""

HALF_TOLERANCES = {
    half: dict.fromkeys(("boxes", "objectness", "features", "logits", "deltas"), tolerance) | {"detections": 0.1}
    for half, tolerance in (("fp16", 0.02), ("bf16", 0.05))
}
"""What the manifest asks of another machine, against the emulation that the golden results come from. Sums in another
order round elsewhere: 1e-3 and 1e-2 of a stage's largest value on a ResNet-18, more through more layers."""

_ELEMENT: dict[Half, int] = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
_DTYPE: dict[Half, Any] = {"fp16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}
_LARGEST: dict[Half, float] = {"fp16": 65504.0, "bf16": 2.0**127 * (2 - 2**-7)}

_PRODUCTS = {"Conv", "Gemm", "MatMul"}
# In half precision where all they read is; every other operator is float32.
_FOLLOW = {"Add", "Mul", "Relu", "MaxPool", "Concat", "Flatten", "Gather", "Reshape", "Slice", "Squeeze", "Transpose",
           "Unsqueeze"}  # fmt: skip
_EXACT_OUTPUTS = {"objectness", "deltas", "logits"}
_BOXES = ("boxes", "log_multiplicity")


def convert(model: onnx.ModelProto, half: Half) -> onnx.ModelProto:
    """The graph in half precision.

    Args:
        model: a float32 graph.
        half: fp16 or bf16.

    Returns:
        A new graph.

    Raises:
        PrecisionError: half precision cannot hold a weight.
    """
    return _Rewrite(model, half, emulated=False).model()


def emulate(model: onnx.ModelProto, half: Half) -> onnx.ModelProto:
    """A float32 graph that rounds every tensor which is `half` in `convert`'s.

    It computes what hardware with float32 accumulation does, overflow included. ONNX Runtime's CPU hides overflow
    (findings/onnxruntime_hides_fp16_overflow.sh), and has no bf16.

    Args:
        model: a float32 graph.
        half: fp16 or bf16.

    Returns:
        A new graph.

    Raises:
        PrecisionError: half precision cannot hold a weight.
    """
    return _Rewrite(model, half, emulated=True).model()


def half_tensors(model: onnx.ModelProto) -> list[str]:
    """Names of the tensors, inputs and outputs of nodes, that take half precision."""
    assigned = _assign(model)
    constants = {t.name for t in model.graph.initializer}
    names = dict.fromkeys(o for i in assigned.low for o in model.graph.node[i].output)
    for i in assigned.low:
        names |= dict.fromkeys(n for n in model.graph.node[i].input if n in assigned.floats and n not in constants)
    return list(names)


@dataclass
class _Assigned:
    low: list[int] = field(default_factory=list)
    """Indices of the nodes in half precision"""
    floats: set[str] = field(default_factory=set)
    """Every floating-point tensor"""


def _assign(model: onnx.ModelProto) -> _Assigned:
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.input, *graph.output, *graph.value_info)
    constants = {t.name: t for t in graph.initializer}
    floats = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    floats |= {name for name, t in constants.items() if t.data_type == TensorProto.FLOAT}
    found = _Assigned(floats=floats)
    exact = last_products(graph)
    of_boxes = {i.name for i in graph.input if i.name.endswith(_BOXES)}
    low: set[str] = set()
    for index, node in enumerate(graph.node):
        read = [n for n in node.input if n in floats and n not in constants]
        if any(n in of_boxes for n in read):
            of_boxes |= set() if node.op_type == "Softmax" else set(node.output)
        elif node.op_type in _PRODUCTS:
            if index not in exact:
                low |= set(node.output)
                found.low.append(index)
        elif node.op_type in _FOLLOW and read and all(n in low for n in read):
            low |= set(node.output)
            found.low.append(index)
    return found


def last_products(graph: onnx.GraphProto) -> set[int]:
    """Indices of the nodes that make the scores and the box deltas."""
    producers = {o: i for i, node in enumerate(graph.node) for o in node.output}
    found = set()
    for name in _EXACT_OUTPUTS & producers.keys():
        index = producers[name]
        while graph.node[index].op_type not in _PRODUCTS:
            index = producers[graph.node[index].input[0]]
        found.add(index)
    return found


class _Rewrite:
    def __init__(self, model: onnx.ModelProto, half: Half, *, emulated: bool) -> None:
        self._half, self._emulated = half, emulated
        if half == "bf16" and not emulated:
            model = version_converter.convert_version(model, BFLOAT16_OPSET)
        self._model = onnx.ModelProto()
        self._model.CopyFrom(model)
        self._assigned = _assign(model)
        self._constants = {t.name: t for t in model.graph.initializer}
        self._low: set[str] = set()  # tensors that are half precision under their own name
        self._cast: dict[tuple[str, int], str] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, TensorProto] = {}

    def model(self) -> onnx.ModelProto:
        graph, low = self._model.graph, set(self._assigned.low)
        outputs = {o.name for o in graph.output}
        for index, original in enumerate(graph.node):
            node = onnx.NodeProto()
            node.CopyFrom(original)
            node.input[:] = [self._read(name, index in low) for name in original.input]
            self._nodes.append(node)
            if index in low:
                for position, name in enumerate(original.output):
                    self._put(node, position, name, name in outputs)
        used = {n for node in self._nodes for n in node.input}
        kept = [t for t in (*graph.initializer, *self._weights.values()) if t.name in used]
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(self._nodes)
        graph.initializer.extend(kept)
        model = onnx.shape_inference.infer_shapes(self._model, strict_mode=True)
        onnx.checker.check_model(model, full_check=True)
        return model

    def _read(self, name: str, wanted_low: bool) -> str:
        if name not in self._assigned.floats:
            return name
        if name in self._constants:
            return self._weight(name) if wanted_low else name
        if wanted_low == (name in self._low):
            return name
        return self._convert(name, _ELEMENT[self._half] if wanted_low else TensorProto.FLOAT)

    def _put(self, node: onnx.NodeProto, position: int, name: str, is_output: bool) -> None:
        """Name what a half-precision node puts out, and make an output of the graph float32."""
        if not is_output and not self._emulated:
            self._low.add(name)
            return
        inner = f"{name}_{self._half}"
        node.output[position] = inner
        if self._emulated:
            rounded = self._cast_node(inner, f"{inner}_rounded", _ELEMENT[self._half])
            self._cast_node(rounded, name, TensorProto.FLOAT)
            self._low.add(name)
        else:
            self._low.add(inner)
            self._cast[name, _ELEMENT[self._half]] = inner
            self._cast_node(inner, name, TensorProto.FLOAT)

    def _convert(self, name: str, element: int) -> str:
        if self._emulated and element == TensorProto.FLOAT:
            return name
        if (name, element) not in self._cast:
            suffix = "float32" if element == TensorProto.FLOAT else self._half
            cast = self._cast_node(name, f"{name}_to_{suffix}", element)
            self._cast[name, element] = (
                self._cast_node(cast, f"{cast}_rounded", TensorProto.FLOAT) if self._emulated else cast
            )
        return self._cast[name, element]

    def _cast_node(self, source: str, target: str, element: int) -> str:
        self._nodes.append(helper.make_node("Cast", [source], [target], to=element))
        return target

    def _weight(self, name: str) -> str:
        inner = f"{name}_{self._half}"
        if inner not in self._weights:
            exact = numpy_helper.to_array(self._constants[name])
            largest = float(np.abs(exact).max(initial=0))
            if not largest <= _LARGEST[self._half]:
                raise PrecisionError(f"weight {name!r} has a value of {largest:g}; {self._half} ends at "
                                     f"{_LARGEST[self._half]:g}")  # fmt: skip
            rounded = exact.astype(_DTYPE[self._half])
            self._weights[inner] = numpy_helper.from_array(
                rounded.astype(np.float32) if self._emulated else rounded, inner
            )
        return inner


class Watched:
    """A float32 graph (`rdn_engine.backends.Graph`) that notes the largest |value| of what will be half precision."""

    def __init__(self, path: Path) -> None:
        model = onnx.load(path)
        self.inputs = tuple(i.name for i in model.graph.input)
        self.outputs = tuple(o.name for o in model.graph.output)
        self.largest: dict[str, float] = {}
        self._watched = half_tensors(model)
        computed = [name for name in self._watched if name not in self.inputs]
        self._run = observer(path, list(dict.fromkeys([*self.outputs, *computed])))

    def __call__(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        found = self._run(dict(feeds))
        for name in self._watched:
            values = found[name] if name in found else feeds[name]
            largest = float(np.abs(values).max(initial=0))  # NaN stays NaN
            self.largest[name] = max(largest, self.largest.get(name, 0.0)) if largest == largest else np.nan
        return {name: found[name] for name in self.outputs}


def check_range(graphs: Iterable[tuple[str, Watched]], half: Half) -> None:
    """Refuses a precision whose range the values come near.

    Args:
        graphs: role and graph, each after it has run on the calibration frames.
        half: fp16 or bf16.

    Raises:
        PrecisionError: values came closer than HEADROOM times to the end of the range; it names their tensors.
    """
    limit = _LARGEST[half] / HEADROOM
    wide = sorted(_too_large(graphs, limit), reverse=True)
    if wide:
        named = "; ".join(f"{role} {name!r}: {value:.4g}" for value, role, name in wide[:5])
        advice = ". bf16 has the range of float32" if half == "fp16" else ""
        raise PrecisionError(
            f"{len(wide)} tensors come closer than {HEADROOM:g} times to the largest {half}, {_LARGEST[half]:g}, on "
            f"the calibration frames: {named}; wanted at most {limit:.4g}{advice}"
        )


def _too_large(graphs: Iterable[tuple[str, Watched]], limit: float) -> Iterator[tuple[float, str, str]]:
    for role, graph in graphs:
        for name, value in graph.largest.items():
            if not value <= limit:
                yield value, role, name


def write_half(exact: Path, target: Path, emulated: Path, half: Half) -> None:
    """Writes every graph of a float32 bundle in half precision, and its emulation.

    Args:
        exact: directory of the float32 bundle.
        target: directory of the graphs in `half`.
        emulated: directory of float32 graphs that compute the same on a CPU.
        half: fp16 or bf16.

    Raises:
        PrecisionError: half precision cannot hold a weight.
    """
    for name in GRAPHS.values():
        model = onnx.load(exact / name)
        onnx.save(convert(model, half), target / name)
        onnx.save(emulate(model, half), emulated / name)
