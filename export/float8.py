"""fp8: fp16 graphs whose convolutions, and the FC behind RoI pooling, multiply E4M3 codes.

In front of such a product stand QuantizeLinear and DequantizeLinear with one scale for the tensor, and its weights are
codes with a scale for each output channel; TensorRT makes one kernel of the four. A code has an exponent of its own,
so a scale only says which part of the range is used: scales are powers of two, exact in fp16, and a product with one
rounds nothing. Everything else, and what is float32, is as in fp16 (export/half.py).
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, version_converter

from export.calibration import CalibrationFrames
from export.half import convert, emulate, last_products
from export.int8 import first_gemm
from export.observation import Observation
from export.steps import Report
from rdn_engine.bundle.manifest import GRAPHS
from rdn_engine.config import RDNConfig

FLOAT8_OPSET = 19
"""The first with codes of eight bits and scales in float16."""

FLOAT8_TOLERANCES = dict.fromkeys(("boxes", "objectness", "features", "logits", "deltas"), 0.05) | {"detections": 0.2}
"""What the manifest asks of another machine, against the emulation that the golden results come from. A sum in another
order that meets a neighbouring code changes a value by up to an eighth; over the many of a layer that is less."""

LARGEST = 448.0
_SMALLEST_SCALE = 2.0**-24  # of float16
# What TensorRT has kernels for; a grouped convolution counts the channels of one group.
_CHANNELS = 16
_TAPS = 31

_METHODS = ("minmax", "percentile")  # what else there is looks for evenly spaced codes
_CODE = np.dtype(ml_dtypes.float8_e4m3fn)


def quantize(
    exact: Path, target: Path, emulated: Path, config: RDNConfig, frames: CalibrationFrames, report: Report
) -> str:
    """Writes every graph of a float32 bundle in fp8, and its emulation.

    Args:
        exact: directory of the float32 bundle.
        target: directory of the fp8 graphs.
        emulated: directory of float32 graphs that compute the same on a CPU.
        config: of the bundle.
        frames: to calibrate on.
        report: is called with the name of each step before it.

    Returns:
        How the ranges of activations were chosen: of `minmax` and `percentile`, what changes the backbone less.

    Raises:
        PrecisionError: a weight lies beyond fp16, or values are not finite on these frames.
    """
    report("activations in float32")
    models = {role: _at_least(onnx.load(exact / name)) for role, name in GRAPHS.items()}
    read = {role: _inputs(model) for role, model in models.items()}
    observed = Observation.of(exact, list(read["backbone"].values()), config, frames)
    low: dict[Literal["converted", "emulated"], dict[str, onnx.ModelProto]] = {
        "converted": {role: convert(model, "fp16") for role, model in models.items()},
        "emulated": {role: emulate(model, "fp16") for role, model in models.items()},
    }
    errors: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for method in _METHODS:
            report(f"backbone graph in fp8, {method}")
            candidate = Path(folder) / f"{method}.onnx"
            ranges = _largest(observed.backbone.ranges(method))
            onnx.save(insert(low["emulated"]["backbone"], models["backbone"], ranges), candidate)
            errors[method] = observed.error(candidate)
    best = min(_METHODS, key=lambda method: errors[method])
    report("graphs in fp8")
    largest = {
        "backbone": _largest(observed.backbone.ranges(best)),
        "roi_head": dict.fromkeys(read["roi_head"].values(), _largest(observed.pooled.ranges(best))["pooled"]),
        "relation": {},
    }
    for role, name in GRAPHS.items():
        onnx.save(insert(low["converted"][role], models[role], largest[role]), target / name)
        onnx.save(insert(low["emulated"][role], models[role], largest[role]), emulated / name)
    return best


def insert(model: onnx.ModelProto, exact: onnx.ModelProto, largest: Mapping[str, float]) -> onnx.ModelProto:
    """Puts codes for the weights and for the input of each product into a graph.

    Args:
        model: `exact` in fp16, or its emulation.
        exact: the float32 graph.
        largest: of |value| of each such input, by its name in `exact`.

    Returns:
        A new graph.
    """
    result, read = onnx.ModelProto(), _inputs(exact)
    result.CopyFrom(model)
    weights = {t.name: t for t in exact.graph.initializer}
    exact_weight = {node.name: weights[node.input[1]] for node in exact.graph.node if node.name in read}
    graph = result.graph
    types = {t.name: t.data_type for t in graph.initializer}
    added: dict[str, TensorProto] = {}
    nodes: list[onnx.NodeProto] = []
    coded: dict[str, str] = {}  # several products read one tensor
    for node in graph.node:
        if node.name in read:
            kind = helper.tensor_dtype_to_np_dtype(types[node.input[1]])
            source = node.input[0]
            if source not in coded:
                scale = power_of_two(np.asarray(largest[read[node.name]])).astype(kind)
                coded[source] = _add_codes(nodes, added, source, scale)
            node.input[0] = coded[source]
            node.input[1] = _add_weight(nodes, added, exact_weight[node.name], kind)
        nodes.append(node)
    used = {name for node in nodes for name in node.input}
    kept = [t for t in (*graph.initializer, *added.values()) if t.name in used]
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    result = onnx.shape_inference.infer_shapes(result, strict_mode=True)
    onnx.checker.check_model(result, full_check=True)
    return result


def power_of_two(largest: NDArray[np.floating]) -> NDArray[np.float64]:
    """The smallest power of two, of those that float16 holds, by which a value is a code.

    Args:
        largest: |values| of any shape, 0 or more.

    Returns:
        Scales of the same shape.
    """
    with np.errstate(divide="ignore"):
        return np.maximum(np.exp2(np.ceil(np.log2(np.asarray(largest, np.float64) / LARGEST))), _SMALLEST_SCALE)


def _at_least(model: onnx.ModelProto) -> onnx.ModelProto:
    return version_converter.convert_version(model, FLOAT8_OPSET)


def _inputs(model: onnx.ModelProto) -> dict[str, str]:
    """Name of each product that takes codes -> the tensor it reads."""
    shapes = {t.name: tuple(t.dims) for t in model.graph.initializer}
    exact = last_products(model.graph)
    products = [n for i, n in enumerate(model.graph.node) if n.op_type == "Conv" and i not in exact]
    if any(value.name == "pooled" for value in model.graph.input):
        products.append(first_gemm(model))
    return {node.name: node.input[0] for node in products if _has_kernel(shapes[node.input[1]])}


def _has_kernel(weight: tuple[int, ...]) -> bool:
    """weight: [output channels, input channels, ..]"""
    most, least = max(weight[:2]), min(weight[:2])
    return least >= _CHANNELS and most % 16 == least % 16 and math.prod(weight[2:]) <= _TAPS


def _largest(ranges: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    return {name: max(-low, high) for name, (low, high) in ranges.items()}


def _add_codes(
    nodes: list[onnx.NodeProto], added: dict[str, TensorProto], source: str, scale: NDArray[np.generic]
) -> str:
    names = [f"{source}_{part}" for part in ("scale", "zero", "code", "fp8")]
    added[names[0]] = numpy_helper.from_array(scale, names[0])
    added[names[1]] = numpy_helper.from_array(np.zeros((), _CODE), names[1])
    nodes.append(helper.make_node("QuantizeLinear", [source, *names[:2]], [names[2]], name=f"{source}_quantize"))
    nodes.append(helper.make_node("DequantizeLinear", [names[2], *names[:2]], [names[3]], name=f"{source}_dequantize"))
    return names[3]


def _add_weight(
    nodes: list[onnx.NodeProto], added: dict[str, TensorProto], weight: TensorProto, kind: np.dtype[np.generic]
) -> str:
    """weight [output channels, ..] in float32"""
    names = [f"{weight.name}_{part}" for part in ("code", "scale", "zero", "fp8")]
    if names[0] not in added:
        values = numpy_helper.to_array(weight)
        scale = power_of_two(np.abs(values).reshape(len(values), -1).max(1))
        codes = (values / scale.reshape(-1, *[1] * (values.ndim - 1))).astype(np.float32).astype(_CODE)
        added[names[0]] = numpy_helper.from_array(codes, names[0])
        added[names[1]] = numpy_helper.from_array(scale.astype(kind), names[1])
        added[names[2]] = numpy_helper.from_array(np.zeros(len(values), _CODE), names[2])
        nodes.append(helper.make_node("DequantizeLinear", names[:3], [names[3]], name=f"{names[3]}_dequantize", axis=0))
    return names[3]
