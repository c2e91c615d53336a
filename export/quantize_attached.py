"""An engine directory of an attached detector in INT8, with relations on it or without, refused where it finds less.

    python export/quantize_attached.py --engines engines/own --calibration street.mp4 --output engines/own_int8

The convolutions of the encoder and what stands between them are quantised (static QDQ, U8S8, a scale for each output
channel of the weights), but for the convolutions whose outputs are scores and boxes: what joins and decodes them stays
in float32, so that no scale is shared by boxes and scores. Where that changes too much, what stands between stays in
float32, and then the convolutions too that change most when each is quantised alone. Everything behind the encoder
stays as it is. Exit codes: 0 written; 1 something is wrong or missing; 2 the command line is wrong; 3 INT8 detects
something else than float32.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import version_converter
from rich.console import Console
from rich.table import Table

# So that the script runs from a checkout; the package of that name is what is installed, or the checkout's.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rdn_engine.verify
from export.calibration import DEFAULT_FRAMES, METHODS, Activations, CalibrationFrames, Ranges, observer
from export.int8 import INT8_TOLERANCES, activation_names, through_relu, write_quantized
from export.precision import MIN_AGREEMENT, agreement, detector_of, golden_of
from export.steps import Report, shown
from rdn_engine.backends import load_backend
from rdn_engine.bundle.directory import Bundle, write_bundle, write_manifest
from rdn_engine.bundle.manifest import ENCODER, GOLDEN, GRAPHS, WEIGHTS, Agreement
from rdn_engine.errors import AttachError, PrecisionError, RDNError
from rdn_engine.host import preprocess
from rdn_engine.host.attached import AttachedEncoder, DetectorScores
from rdn_engine.host.model import HostModel
from rdn_engine.host.relation import FusedRelation
from rdn_engine.kernels.cpu.arrays import Float
from training.arguments import given_path

FAILED, DIFFERS = 1, 3
OPSET = 13
"""The first whose QDQ has a scale for each channel (findings/onnxruntime_quantizes_opset_11_per_channel.sh)"""
_LAYERS = ("Conv", "Relu", "MaxPool")
_BETWEEN = ("Sigmoid", "Mul", "Concat", "Resize", "Add")
"""What stands between convolutions; ONNX Runtime multiplies SiLU's codes much faster than its numbers in float32"""
WAYS = (((*_LAYERS, *_BETWEEN), 0.0), (_LAYERS, 0.0), (_LAYERS, 0.125), (_LAYERS, 0.25))
"""Kinds of nodes that are quantised, and the part of the convolutions that is left in float32 beside the last ones;
tried in turn"""
_COMPARED = 4  # of the calibration frames, on which ways to choose ranges are compared
_TRIED_ALONE = 2  # of those, on which every convolution is quantised alone
_TOLD_EVERY = 10  # convolutions of those that are tried alone
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_OUTPUTS = ("boxes", "class_scores")


@dataclass(frozen=True)
class Quantized:
    """What came of it."""

    agreement: Agreement
    """With float32, on frames that were not calibrated on"""
    convolutions: tuple[int, int]
    """How many are quantised, of how many"""


def quantize_attached(
    engines: str | Path, calibration: str | Path, output: str | Path, *, count: int = DEFAULT_FRAMES,
    minimum: float = MIN_AGREEMENT, report: Report = lambda step: None,
) -> Quantized:  # fmt: skip
    """Write an engine directory; an older one there is replaced once the new one is verified.

    Args:
        engines: directory in float32, of export/attach.py or export/attach_relations.py.
        calibration: video or folder of images like those that the detector will see.
        output: the new directory.
        count: most frames to calibrate on.
        minimum: share of the detections, 0..1, that has to be the same as in float32.
        report: is called with the name of each step before it.

    Returns:
        What came of it.

    Raises:
        PrecisionError: INT8 detects something else, or values are not finite.
        AttachError: the directory is of no attached detector, or not in float32.
        RDNError: the directory or the frames cannot be used; its subclass says which.
    """
    report("calibration frames")
    frames, exact, output = CalibrationFrames.read(calibration, count), Bundle.open(engines), Path(output)
    told, config = exact.manifest, exact.config
    if config.attached is None or told.precision != "float32":
        raise AttachError(f"{engines} is {told.name}, in {told.precision}; wanted an attached detector in float32")
    model = _of_opset(exact.path("encoder"))
    report(f"ranges of values on {len(frames.calibrate)} frames")
    activations, outputs = _observe(model, exact, frames)
    with write_bundle(output) as staging:
        for name in ("roi_head", "relation"):
            if name in told.graphs:
                shutil.copyfile(exact.path(name), staging / GRAPHS[name])
        if told.weights is not None:
            shutil.copyfile(exact.directory / WEIGHTS, staging / WEIGHTS)
        quantized, agreed = _least_left_out(model, exact, frames, activations, outputs, staging, minimum, report)
        report("golden results")
        host = _host_model(exact, staging / ENCODER)
        images = exact.arrays("golden")["frames"]
        arrays = golden_of(host, images)
        assert isinstance(host.encoder, AttachedEncoder)
        for t, image in enumerate(images):
            (found,) = host.encoder.candidates(preprocess.network_input(image, config.input, 1)[None])
            arrays[f"t{t}/rows"] = host.encoder.select(found, config.dials.num_reference)
            for empty in ("logits", "deltas") if config.alone else ():
                del arrays[f"t{t}/{empty}"]
        np.savez(staging / GOLDEN, **arrays)  # type: ignore[arg-type]
        write_manifest(
            staging,
            name=told.name,
            config=config,
            precision="int8",
            opset=max(told.opset, OPSET),
            producers=told.producers,
            source=told.source,
            parameters=told.parameters,
            tolerances={stage: INT8_TOLERANCES[stage] for stage in told.tolerances},
            agreement=agreed,
            quantization_error=rdn_engine.verify.quantization_error(exact, arrays),
        )
        report("bundle against golden results")
        wrong = [f"{s.stage}: {s.difference:.2g}" for s in rdn_engine.verify.verify(staging) if not s.passed]
        if wrong:
            raise PrecisionError(f"the INT8 graphs do not give the same twice: {'; '.join(wrong)}")
    return Quantized(agreed, quantized)


def _of_opset(path: Path) -> onnx.ModelProto:
    model = onnx.load(path)
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    if opset < OPSET:
        try:
            model = version_converter.convert_version(model, OPSET)
        except Exception as error:  # whatever the converter meets
            raise AttachError(
                f"the detector has opset {opset}, which cannot be made {OPSET} ({error}); wanted {OPSET} or more: "
                "export it anew"
            ) from error
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"node.{index}"
    return onnx.shape_inference.infer_shapes(model)


def _observe(
    model: onnx.ModelProto, exact: Bundle, frames: CalibrationFrames
) -> tuple[Activations, list[dict[str, Float]]]:
    """Values of the tensors that get scales, and what the encoder gives on the first frames."""
    names = [name for name in activation_names(model, WAYS[0][0]) if name != "image"]
    run, found = observer(exact.path("encoder"), [*names, *_OUTPUTS]), Activations()
    outputs: list[dict[str, Float]] = []
    for frame in frames.calibrate:
        image = preprocess.network_input(frame, exact.config.input, 1)[None]
        tensors = run({"image": image})
        found.add("image", image)
        for name in names:
            found.add(name, tensors[name])
        if len(outputs) < _COMPARED:
            outputs.append({"image": image} | {name: tensors[name] for name in _OUTPUTS})
    return found, outputs


def _least_left_out(
    model: onnx.ModelProto,
    exact: Bundle,
    frames: CalibrationFrames,
    activations: Activations,
    outputs: list[dict[str, Float]],
    staging: Path,
    minimum: float,
    report: Report,
) -> tuple[tuple[int, int], Agreement]:
    """Writes the encoder with as little in float32 as agrees with float32; how many convolutions, and the agreement."""
    layers = [node for node in model.graph.node if node.op_type == "Conv"]
    kept = ends(model)
    free = [node for node in layers if node.name not in kept]
    ranges = {one: through_relu(model, activations.ranges(one)) for one in METHODS}
    float32 = detector_of(_host_model(exact, exact.path("encoder")))
    told: list[str] = []
    order: list[str] = []
    method = METHODS[0]
    for kinds, part in WAYS:
        if part and not order:
            order = _most_changing(model, free, ranges[method], outputs[:_TRIED_ALONE], staging, report)
        worst = order[: int(part * len(free))]
        best = np.inf
        for one in METHODS:
            candidate = staging / f"{one}.onnx"
            beside = "" if kinds == _LAYERS else " and what is between them"
            report(f"{1 - part:.0%} of the convolutions{beside} in int8, ranges by {one}")
            write_quantized(model, candidate, ranges[one], exclude=[*kept, *worst], kinds=kinds, symmetric=False)
            error = _error(candidate, outputs)
            if error < best:
                best, method = error, one
                candidate.rename(staging / ENCODER)
            else:
                candidate.unlink()
        left = len(free) - int(part * len(free))
        report("detections of int8 against float32")
        reduced = detector_of(_host_model(exact, staging / ENCODER))
        agreed = agreement(float32, reduced, frames, "int8", method, minimum)
        if agreed.share >= minimum:
            return (left, len(layers)), agreed
        told.append(f"{agreed.share:.1%} with {left} of {len(layers)} convolutions{beside}")
    raise PrecisionError(
        f"int8 and float32 agree on {', '.join(told)}, of {agreed.detections} detections ({agreed.frames} frames); "
        f"wanted {minimum:.1%}. More or other calibration frames may help"
    )


def _most_changing(
    model: onnx.ModelProto,
    layers: list[onnx.NodeProto],
    ranges: Ranges,
    outputs: list[dict[str, Float]],
    staging: Path,
    report: Report,
) -> list[str]:
    """Names of the layers, first those that change the outputs most when they alone are quantised."""
    changes, candidate = {}, staging / "alone.onnx"
    for number, layer in enumerate(layers, 1):
        if number % _TOLD_EVERY == 1:
            report(f"convolutions in int8, each alone: {number} of {len(layers)}")
        write_quantized(model, candidate, ranges, only=[layer.name], kinds=_LAYERS, symmetric=False)
        changes[layer.name] = _error(candidate, outputs)
    candidate.unlink(missing_ok=True)
    return sorted(changes, key=changes.__getitem__, reverse=True)


def ends(model: onnx.ModelProto) -> set[str]:
    """The last layers with weights on the way to boxes and scores, and all that is behind them.

    Args:
        model: of an encoder, whose nodes have names.

    Returns:
        Names of nodes.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    waiting, found = list(_OUTPUTS), set()
    while waiting:
        node = makers.get(waiting.pop())
        if node is None or node.name in found:
            continue
        found.add(node.name)
        if node.op_type not in _PRODUCTS:
            waiting += node.input
    return found


def _error(graph: Path, outputs: list[dict[str, Float]]) -> float:
    """The deviation of the difference over float32's own, mean of outputs and frames."""
    encoder = load_backend("onnxruntime", "cpu", 1).load(graph)
    rows = []
    for wanted in outputs:
        got = encoder({"image": wanted["image"]})
        rows += [float(np.nanstd(got[n] - wanted[n]) / max(float(np.nanstd(wanted[n])), 1e-12)) for n in _OUTPUTS]
    return float(np.mean(rows))


def _host_model(exact: Bundle, encoder: Path) -> HostModel:
    """An encoder in front of what the directory has behind its own."""
    backend, config = load_backend("onnxruntime", "cpu", 1), exact.config
    if config.alone:
        return HostModel(config, AttachedEncoder(config, backend.load(encoder), None, 1), DetectorScores(), 1)
    described = AttachedEncoder(config, backend.load(encoder), backend.load(exact.path("roi_head")), 1)
    return HostModel(config, described, FusedRelation(config, exact.arrays("weights"), 1), 1)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--engines", type=given_path, required=True, help="directory in float32")
    parser.add_argument(
        "--calibration", type=given_path, required=True, help="video or folder of images like those to come"
    )
    parser.add_argument("--output", type=given_path, required=True, help="engine directory to write")
    parser.add_argument("--frames", type=int, default=DEFAULT_FRAMES, help="most frames to calibrate on")
    parser.add_argument(
        "--min-agreement",
        type=float,
        default=MIN_AGREEMENT,
        help="least share of detections in common with float32, 0..1; default: %(default)s",
    )
    arguments = parser.parse_args(argv)
    console = Console(stderr=True)
    try:
        with shown(console) as report:
            done = quantize_attached(
                arguments.engines, arguments.calibration, arguments.output, count=arguments.frames,
                minimum=arguments.min_agreement, report=report,
            )  # fmt: skip
    except (RDNError, OSError) as error:
        console.print(f"[red]error:[/red] {type(error).__name__}: {error}", highlight=False, soft_wrap=True)
        return DIFFERS if isinstance(error, PrecisionError) else FAILED
    table, a = Table("against float32", ""), done.agreement
    table.add_row(f"of {a.detections} detections with a score of {a.score:g} or more, in both", f"{a.share:.1%}")
    table.add_row("mean difference of their scores", f"{a.score_difference:.3f}")
    table.add_row("convolutions in int8", "{} of {}".format(*done.convolutions))
    table.add_row("calibration", f"{a.calibration}, {a.calibration_frames} frames")
    console.print(table)
    print(arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
