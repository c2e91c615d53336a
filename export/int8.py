"""INT8: the graphs of a float32 bundle quantised on the user's frames.

Static QDQ graphs, weights int8 symmetric with a scale for each output channel. Activations are uint8 with a zero point
(U8S8, which processors multiply fastest), or int8 symmetric for TensorRT
(findings/tensorrt_rtx_refuses_default_int8.sh). Quantised are the convolutions, the sums and the pooling of the
backbone, and the FC behind RoI pooling. In float32 stay the two last convolutions of the RPN, whose outputs are
scores and box deltas, the projections to keys, values and queries, and the relation stage.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from export.calibration import METHODS, CalibrationFrames, Ranges
from export.half import last_products
from export.observation import Observation
from export.steps import Report
from rdn_engine.bundle.manifest import GRAPHS
from rdn_engine.config import RDNConfig

INT8_TOLERANCES = dict.fromkeys(("boxes", "objectness", "features", "logits", "deltas"), 0.02) | {"detections": 0.1}
"""What the manifest of an INT8 bundle asks of another machine, against what the machine computed that built it; the
agreement with float32 is measured apart. Sums of products are whole numbers and equal everywhere, so what is left are
values that two machines round to neighbouring codes, a step of 1/255 of a tensor's range. Kernels that saturate, as
some do on processors without VNNI, are off by far more."""

_QUANTIZED = ("Conv", "Add", "MaxPool", "Relu")
_OF_SEVERAL = ("Add", "Mul", "Concat")
"""Whose inputs are activations all, where the others' further ones are weights or shapes"""


def quantize(
    exact: Path, target: Path, config: RDNConfig, frames: CalibrationFrames, report: Report, *, symmetric: bool = False
) -> str:
    """Writes the quantised backbone and roi_head of a float32 bundle. Every method of `METHODS` is tried.

    Args:
        exact: directory of the float32 bundle.
        target: directory of the quantised graphs.
        config: of the bundle.
        frames: to calibrate on.
        report: is called with the name of each step before it.
        symmetric: activations without a zero point, for TensorRT.

    Returns:
        The method whose backbone differs least from float32's.

    Raises:
        PrecisionError: a graph has values that are not finite on these frames.
    """
    report("activations in float32")
    backbone, head = (onnx.load(exact / GRAPHS[role]) for role in ("backbone", "roi_head"))
    fc = first_gemm(head)
    observed = Observation.of(exact, activation_names(backbone), config, frames)
    kept = [backbone.graph.node[index].name for index in last_products(backbone.graph)]
    errors: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=target) as folder:
        candidate = {method: Path(folder) / f"{method}.onnx" for method in METHODS}
        for method in METHODS:
            report(f"backbone graph in int8, {method}")
            ranges = through_relu(backbone, observed.backbone.ranges(method))
            write_quantized(backbone, candidate[method], ranges, exclude=kept, symmetric=symmetric)
            errors[method] = observed.error(candidate[method])
        best = min(METHODS, key=lambda method: errors[method])
        candidate[best].rename(target / GRAPHS["backbone"])
    report("roi_head graph in int8")
    ranges = {fc.input[0]: observed.pooled.ranges(best)["pooled"]}
    write_quantized(head, target / GRAPHS["roi_head"], ranges, only=[fc.name], symmetric=symmetric)
    return best


def activation_names(model: onnx.ModelProto, kinds: Sequence[str] = _QUANTIZED) -> list[str]:
    """Tensors that carry a scale of their own. What only a ReLU reads takes the ReLU's.

    Args:
        model: with the types of its tensors.
        kinds: of the nodes that are quantised.
    """
    readers: dict[str, list[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    types = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
    constants = {t.name for t in model.graph.initializer}
    names: dict[str, None] = {}
    for node in model.graph.node:
        if node.op_type in kinds:
            read = node.input if node.op_type in _OF_SEVERAL else node.input[:1]
            names |= dict.fromkeys([*read, *node.output])
    return [
        name
        for name in names
        if name not in constants and types.get(name) == onnx.TensorProto.FLOAT and readers.get(name) != ["Relu"]
    ]


def through_relu(model: onnx.ModelProto, ranges: Ranges) -> Ranges:
    """The ranges, those of what a ReLU reads among them.

    Args:
        model: in which the ReLUs are.
        ranges: of `activation_names`.
    """
    return ranges | {
        node.input[0]: ranges[node.output[0]]
        for node in model.graph.node
        if node.op_type == "Relu" and node.output[0] in ranges and node.input[0] not in ranges
    }


def first_gemm(model: onnx.ModelProto) -> onnx.NodeProto:
    """Of roi_head: the FC behind RoI pooling."""
    gemm: onnx.NodeProto = next(node for node in model.graph.node if node.op_type == "Gemm")
    return gemm


def write_quantized(
    model: onnx.ModelProto,
    path: Path,
    ranges: Ranges,
    *,
    only: Sequence[str] = (),
    exclude: Sequence[str] = (),
    kinds: Sequence[str] = (*_QUANTIZED, "Gemm"),
    symmetric: bool,
) -> None:
    """Write a graph with weights and activations as codes of eight bits.

    Args:
        model: in float32.
        path: of the file.
        ranges: of every tensor that gets a scale.
        only: names of the nodes; none stands for all of `kinds`.
        exclude: names of nodes that stay in float32.
        kinds: of the nodes that are quantised.
        symmetric: activations without a zero point.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    # What is left to do is what minmax stands for: to take the ranges as they are.
    given = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    quantizer = QDQQuantizer(
        onnx.shape_inference.infer_shapes(copy),
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8 if symmetric else QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, given),
        nodes_to_quantize=list(only),
        nodes_to_exclude=list(exclude),
        op_types_to_quantize=list(kinds),
        # The sums of an FC go on in float32, where nothing is lost to a second rounding.
        extra_options={
            "OpTypesToExcludeOutputQuantization": ["Gemm"],
            "ActivationSymmetric": symmetric,
            "QuantizeBias": not symmetric,
        },
    )
    quantizer.quantize_model()
    onnx.save(quantizer.model.model, path)
