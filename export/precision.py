"""INT8: the graphs of a float32 bundle quantised on the user's frames; and what a precision changes in detections.

Static QDQ graphs, weights int8 symmetric with a scale for each output channel. Activations are uint8 with a zero point
(U8S8, which processors multiply fastest), or int8 symmetric, the only kind that TensorRT takes. Quantised are the
convolutions, the sums and the pooling of the backbone, and the FC behind RoI pooling. In float32 stay the two last
convolutions of the RPN, whose outputs are scores and box deltas, the projections to keys, values and queries, and the
relation stage.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from export.calibration import METHODS, Activations, CalibrationFrames, Ranges, observer
from rdn_engine import ops, preprocess
from rdn_engine.backends import load_backend
from rdn_engine.bundle import GRAPHS, Agreement
from rdn_engine.config import RDNConfig
from rdn_engine.detector import Detector
from rdn_engine.encoder import Encoder
from rdn_engine.errors import PrecisionError
from rdn_engine.relation import EngineRelation, FusedRelation, Relation
from rdn_engine.results import Detections
from rdn_engine.verify import relate

INT8_TOLERANCES = dict.fromkeys(("boxes", "objectness", "features", "logits", "deltas"), 0.02) | {"detections": 0.1}
"""What the manifest of an INT8 bundle asks of another machine, against what the machine computed that built it; the
agreement with float32 is measured apart. Sums of products are whole numbers and equal everywhere, so what is left are
values that two machines round to neighbouring codes, a step of 1/255 of a tensor's range. Kernels that saturate, as
some do on processors without VNNI, are off by far more."""

MIN_AGREEMENT = 0.95
"""Share of detections (`rdn_engine.bundle.Agreement`) below which a bundle is refused, unless told otherwise."""
SCORE = 0.3
"""Detections below it are not compared."""
_OVERLAP = 0.5

_SELECTION_FRAMES = 4  # of the calibration frames, on which the methods are compared
_QUANTIZED = ("Conv", "Add", "MaxPool", "Relu")
_BACKBONE_OUTPUTS = ("objectness", "deltas", "feature_map")

Float = NDArray[np.float32]
Report = Callable[[str], None]


def quantize(
    exact: Path, target: Path, config: RDNConfig, frames: CalibrationFrames, report: Report, *, symmetric: bool = False
) -> str:
    """Write the quantised backbone and roi_head of the float32 bundle `exact` to `target`; symmetric: for TensorRT.

    Every method of `METHODS` is tried; returns the one whose backbone differs least from float32's. Raises
    PrecisionError for a graph whose values are not finite on these frames.
    """
    report("activations in float32")
    backbone, head = (onnx.load(exact / GRAPHS[role]) for role in ("backbone", "roi_head"))
    fc = _first_gemm(head)
    seen, pooled, wanted = _activations(exact, backbone, config, frames)
    errors: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=target) as folder:
        candidate = {method: Path(folder) / f"{method}.onnx" for method in METHODS}
        for method in METHODS:
            report(f"backbone graph in int8, {method}")
            ranges = _through_relu(backbone, seen.ranges(method))
            kept = [_conv_before(backbone, name).name for name in ("objectness", "deltas")]
            _write(backbone, candidate[method], ranges, exclude=kept, symmetric=symmetric)
            errors[method] = _error(candidate[method], _inputs(config, frames), wanted)
        best = min(METHODS, key=lambda method: errors[method])
        candidate[best].rename(target / GRAPHS["backbone"])
    report("roi_head graph in int8")
    ranges = {fc.input[0]: pooled.ranges(best)["pooled"]}
    _write(head, target / GRAPHS["roi_head"], ranges, only=[fc.name], symmetric=symmetric)
    return best


def _inputs(config: RDNConfig, frames: CalibrationFrames) -> Iterator[Float]:
    for image in frames.calibrate:
        yield preprocess.network_input(image, config.input, 1)[None]


def _activations(
    exact: Path, backbone: onnx.ModelProto, config: RDNConfig, frames: CalibrationFrames
) -> tuple[Activations, Activations, list[dict[str, Float]]]:
    """What the backbone's tensors and the pooled cells are in float32, and the outputs on the selection frames."""
    seen, pooled = Activations(), Activations()
    wanted: list[dict[str, Float]] = []
    names = _activation_names(backbone)
    run = observer(exact / GRAPHS["backbone"], list(dict.fromkeys([*names, *_BACKBONE_OUTPUTS])))
    for image in _inputs(config, frames):
        found = run({"image": image})
        seen.add("image", image)
        for name in names:
            seen.add(name, found[name])
        outputs = {name: found[name] for name in _BACKBONE_OUTPUTS}
        if len(wanted) < _SELECTION_FRAMES:
            wanted.append(outputs)
        pooled.add("pooled", _pool(outputs, config, (image.shape[2], image.shape[3])))
    return seen, pooled, wanted


def _pool(outputs: dict[str, Float], config: RDNConfig, size: tuple[int, int]) -> Float:
    rpn, roi, feature_map = config.rpn, config.roi, outputs["feature_map"]
    grid = feature_map.shape[1], feature_map.shape[2]
    found = ops.propose(outputs["objectness"], outputs["deltas"], grid, rpn.cell_anchors(), rpn.stride, size,
                        rpn.pre_nms_top_n, rpn.nms_threshold, config.dials.num_reference)  # fmt: skip
    boxes = found.boxes[0, : int(found.counts[0])]
    where = np.zeros(len(boxes), np.int64)
    return ops.roi_pool(feature_map, boxes, where, 1 / rpn.stride, roi.size, roi.pooling)


def _activation_names(model: onnx.ModelProto) -> list[str]:
    """Tensors that carry a scale of their own. What only a ReLU reads takes the ReLU's."""
    readers: dict[str, list[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    types = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
    constants = {t.name for t in model.graph.initializer}
    names: dict[str, None] = {}
    for node in model.graph.node:
        if node.op_type in _QUANTIZED:
            names |= dict.fromkeys([*node.input[:1], *(node.input[1:] if node.op_type == "Add" else ()), *node.output])
    return [
        name
        for name in names
        if name not in constants and types.get(name) == onnx.TensorProto.FLOAT and readers.get(name) != ["Relu"]
    ]


def _through_relu(model: onnx.ModelProto, ranges: Ranges) -> Ranges:
    return ranges | {
        node.input[0]: ranges[node.output[0]]
        for node in model.graph.node
        if node.op_type == "Relu" and node.output[0] in ranges and node.input[0] not in ranges
    }


def _conv_before(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    producers = {output: node for node in model.graph.node for output in node.output}
    node = producers[name]
    while node.op_type != "Conv":
        node = producers[node.input[0]]
    return node


def _first_gemm(model: onnx.ModelProto) -> onnx.NodeProto:
    """The FC behind RoI pooling."""
    return next(node for node in model.graph.node if node.op_type == "Gemm")


def _write(
    model: onnx.ModelProto,
    path: Path,
    ranges: Ranges,
    *,
    only: Sequence[str] = (),
    exclude: Sequence[str] = (),
    symmetric: bool,
) -> None:
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
        op_types_to_quantize=[*_QUANTIZED, "Gemm"],
        # The sums of an FC go on in float32, where nothing is lost to a second rounding.
        extra_options={
            "OpTypesToExcludeOutputQuantization": ["Gemm"],
            "ActivationSymmetric": symmetric,
            "QuantizeBias": not symmetric,
        },
    )
    quantizer.quantize_model()
    onnx.save(quantizer.model.model, path)


def _error(graph: Path, inputs: Iterator[Float], wanted: list[dict[str, Float]]) -> float:
    """Root mean square difference from float32 over its deviation, mean over outputs and frames."""
    backbone = load_backend("onnxruntime", "cpu", 1).load(graph)
    rows = []
    for image, outputs in zip(inputs, wanted, strict=False):
        got = backbone({"image": image})
        rows += [float((got[n] - w).std() / max(float(w.std()), 1e-12)) for n, w in outputs.items()]
    return float(np.mean(rows))


def agreement(
    exact: Detector, reduced: Detector, frames: CalibrationFrames, precision: str, method: str, minimum: float
) -> Agreement:
    """Both detectors on the frames held out. Raises PrecisionError where there is nothing to compare."""
    compared, found, differences = 0, 0, []
    both = (d.predict(frames.held_out, stream=True) for d in (exact, reduced))
    for pair in zip(*both, strict=True):
        for ours, theirs in (pair, pair[::-1]):
            chosen = np.flatnonzero(ours.confidence >= SCORE)
            matched = _counterparts(ours, theirs, chosen)
            compared += len(chosen)
            found += len(matched)
            differences += matched
    if not compared:
        raise PrecisionError(
            f"neither float32 nor {precision} detects anything with a score of {SCORE} or more on the "
            f"{len(frames.held_out)} frames held out for comparing; wanted frames that show what the model detects"
        )
    return Agreement(
        share=found / compared,
        score_difference=float(np.mean(differences)) if differences else 1.0,
        score=SCORE,
        detections=compared,
        frames=len(frames.held_out),
        minimum=minimum,
        calibration=method,
        calibration_frames=len(frames.calibrate),
    )


def _counterparts(ours: Detections, theirs: Detections, chosen: NDArray[np.int64]) -> list[float]:
    """|difference of score| of each of our `chosen` detections that theirs has too; best scores choose first."""
    free = np.ones(len(theirs), bool)
    differences = []
    for i in chosen:
        fits = free & (theirs.class_id == ours.class_id[i]) & (theirs.confidence >= ours.confidence[i] / 2)
        overlaps = np.where(fits, _iou(ours.xyxy[i], theirs.xyxy), 0)
        if overlaps.max(initial=0) >= _OVERLAP:
            j = int(overlaps.argmax())
            free[j] = False
            differences.append(abs(float(ours.confidence[i] - theirs.confidence[j])))
    return differences


def _iou(box: Float, others: Float) -> Float:
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    overlap = (high - low + 1).clip(0).prod(1)
    areas = [(b[..., 2:] - b[..., :2] + 1).prod(-1) for b in (box, others)]
    return np.asarray(overlap / (areas[0] + areas[1] - overlap), np.float32)


@dataclass(frozen=True)
class Stages:
    """What runs the graphs in a directory that has no manifest yet, on one thread."""

    config: RDNConfig
    encoder: Encoder
    relation: Relation

    @classmethod
    def fused(cls, config: RDNConfig, directory: Path, weights: dict[str, Float]) -> Stages:
        """The relation stage in float32."""
        return cls(config, _encoder(config, directory), FusedRelation(config, weights, 1))

    @classmethod
    def engine(cls, config: RDNConfig, directory: Path) -> Stages:
        """The relation stage from its graph."""
        graph = load_backend("onnxruntime", "cpu", 1).load(directory / GRAPHS["relation"])
        return cls(config, _encoder(config, directory), EngineRelation(config, graph))

    def detector(self) -> Detector:
        return Detector(self.config, self.encoder, self.relation, 1)

    def golden(self, frames: NDArray[np.uint8]) -> dict[str, NDArray[np.generic]]:
        """The arrays of `golden.npz` (export/golden.py), as this machine computes them."""
        arrays: dict[str, NDArray[np.generic]] = {"frames": frames}
        config, dials = self.config, self.config.dials
        encoded = []
        for frame in frames:
            network = preprocess.network_input(frame, config.input, 1)
            encoded += self.encoder(network[None], dials.num_reference, dials.num_support, lambda _: None)
        found = self.detector().predict(list(frames))
        outputs = relate(self.relation, config, encoded)
        for t, (e, out, d) in enumerate(zip(encoded, outputs, found, strict=True)):
            stages = {
                "boxes": e.boxes,
                "objectness": e.objectness,
                "features": e.features,
                "logits": out.logits,
                "deltas": out.deltas,
                "xyxy": d.xyxy,
                "confidence": d.confidence,
                "class_id": d.class_id,
            }
            arrays |= {f"t{t}/{name}": array for name, array in stages.items()}
        return arrays


def _encoder(config: RDNConfig, directory: Path) -> Encoder:
    backend = load_backend("onnxruntime", "cpu", 1)
    return Encoder(config, *(backend.load(directory / GRAPHS[role]) for role in ("backbone", "roi_head")), 1)
