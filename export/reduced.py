"""From the graphs of a float32 bundle to those of a reduced precision, and what runs them on this machine."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from export import float8
from export.calibration import DEFAULT_FRAMES, CalibrationFrames
from export.half import HALF_TOLERANCES, Half, Watched, check_range, write_half
from export.int8 import INT8_TOLERANCES, quantize
from export.precision import MIN_AGREEMENT, detector_of, fused_model, graph_model
from export.steps import Report
from rdn_engine.bundle.directory import Bundle
from rdn_engine.bundle.manifest import GRAPHS
from rdn_engine.host.encoder import Encoder
from rdn_engine.host.model import HostModel
from rdn_engine.host.relation_graph import GraphRelation


@dataclass(frozen=True)
class Reduced:
    """How to build in less than float32."""

    precision: Literal["fp16", "bf16", "int8", "fp8"]
    calibration: str | Path
    """Video or folder of images, like those that the detector will see."""
    frames: int = DEFAULT_FRAMES
    """Most frames to calibrate on."""
    min_agreement: float = MIN_AGREEMENT
    """Share of detections, 0..1, that has to be the same as in float32."""
    accept: bool = False
    """Build below `min_agreement` too, which the manifest tells, and where this machine's detections are not the golden
    ones."""
    symmetric: bool = False
    """int8: activations without a zero point, as TensorRT wants them."""


Written = tuple[HostModel, str, dict[str, float]]
"""What runs the graphs, how their ranges were chosen, and the tolerances they want"""


def write_reduced(exact: Bundle, staging: Path, frames: CalibrationFrames, how: Reduced, report: Report) -> Written:
    """Writes the three graphs of a bundle in a reduced precision.

    Args:
        exact: the float32 bundle.
        staging: directory of the new one.
        frames: to calibrate on.
        how: precision and options.
        report: is called with the name of each step before it.

    Returns:
        What runs the graphs, how their ranges were chosen, and the tolerances they want.

    Raises:
        PrecisionError: a value is not finite, or would overflow.
    """
    write = {"int8": _int8, "fp8": _float8}.get(how.precision, _half)
    return write(exact, staging, frames, how, report)


def _int8(exact: Bundle, staging: Path, frames: CalibrationFrames, how: Reduced, report: Report) -> Written:
    config = exact.config
    method = quantize(exact.directory, staging, config, frames, report, symmetric=how.symmetric)
    shutil.copyfile(exact.path("relation"), staging / GRAPHS["relation"])
    return fused_model(config, staging, exact.arrays("weights")), method, INT8_TOLERANCES


def _half(exact: Bundle, staging: Path, frames: CalibrationFrames, how: Reduced, report: Report) -> Written:
    half: Half = "fp16" if how.precision == "fp16" else "bf16"
    _check(exact, frames, half, report)
    report(f"graphs in {half}")
    emulated = staging.parent / "emulated"
    emulated.mkdir()
    write_half(exact.directory, staging, emulated, half)
    return graph_model(exact.config, emulated), "maxima", HALF_TOLERANCES[half]


def _float8(exact: Bundle, staging: Path, frames: CalibrationFrames, how: Reduced, report: Report) -> Written:
    _check(exact, frames, "fp16", report)
    emulated = staging.parent / "emulated"
    emulated.mkdir()
    method = float8.quantize(exact.directory, staging, emulated, exact.config, frames, report)
    return graph_model(exact.config, emulated), method, float8.FLOAT8_TOLERANCES


def _check(exact: Bundle, frames: CalibrationFrames, half: Half, report: Report) -> None:
    report(f"activations against the range of {half}")
    watched = {role: Watched(exact.path(role)) for role in GRAPHS}
    encoder = Encoder(exact.config, watched["backbone"], watched["roi_head"], 1)
    relation = GraphRelation(exact.config, watched["relation"])
    detector_of(HostModel(exact.config, encoder, relation, 1)).predict(frames.calibrate)
    check_range(watched.items(), half)
