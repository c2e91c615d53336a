"""From a checkpoint to an engine directory that runs anywhere and proves that it computes what the checkpoint computes.

    python export/build_engines.py                          # the bundled rdn_tiny, into engines/rdn_tiny
    python export/build_engines.py --checkpoint w.pth --config export/configs/public_r101.yaml --output engines/rdn_r101
    python export/build_engines.py --checkpoint w.pth --output engines/int8 --precision int8 --calibration street.mp4
    python export/build_engines.py --checkpoint w.pth --output engines/fp16 --precision fp16 --calibration street.mp4 \\
        --backend tensorrt

The directory appears, complete and verified, or not at all. Exit codes: 0 built; 1 something asked for is wrong or
missing; 2 the command line is wrong; 3 the graphs do not compute what torch computes, or a reduced precision overflows
or detects something else.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

# So that the script runs from a checkout; the package of that name is what is installed, or the checkout's.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rdn_engine.verify
from export.calibration import DEFAULT_FRAMES, CalibrationFrames
from export.float8 import FLOAT8_OPSET
from export.golden import detection_tolerance, golden_frames, golden_results
from export.graphs import OPSET, export_graphs
from export.half import BFLOAT16_OPSET, HALVES
from export.precision import MIN_AGREEMENT, agreement, detector_of, fused_model, golden_of
from export.reduced import Reduced, write_reduced
from export.steps import Report, shown
from export.verify import BUNDLE_TOLERANCES, GRAPH_TOLERANCE, Comparison, compare_graphs
from rdn_engine.backends.tensorrt.backend import build_plans
from rdn_engine.backends.tensorrt.plans import Limits
from rdn_engine.bundle.directory import Bundle, write_bundle, write_manifest
from rdn_engine.bundle.manifest import GOLDEN, PRECISIONS, WEIGHTS, Agreement
from rdn_engine.errors import BackendUnavailable, CheckpointError, PrecisionError, RDNError
from rdn_engine.verify import StageReport
from training.arguments import given_path
from training.checkpoints.files import Checkpoint, load_checkpoint, read_config

FAILED, DIFFERS = 1, 3

BUNDLED = Path(__file__).resolve().parents[1] / "models" / "rdn_tiny" / "model.safetensors"
"""What is built where no checkpoint is named."""
OUTPUT = Path("engines") / BUNDLED.parent.name
"""Where it goes, from the working directory."""

Prover = Literal["onnxruntime", "torch"]


class Differs(RDNError):
    """An exported graph, or the finished bundle, computes something else than torch."""


@dataclass(frozen=True)
class Built:
    """What was compared on the way."""

    graphs: list[Comparison]
    """The worst rows of each float32 graph's outputs against torch"""
    stages: list[StageReport]
    """The finished bundle against its golden results; empty for bf16 without torch: ONNX Runtime's CPU has none"""
    agreement: Agreement | None
    """Of a reduced precision with float32"""
    notes: tuple[str, ...]
    """What was chosen where the checkpoint left a choice"""


def build(
    checkpoint: str | Path,
    output: str | Path,
    *,
    config: str | Path | None = None,
    name: str | None = None,
    golden: str | Path | None = None,
    reduced: Reduced | None = None,
    prover: Prover = "onnxruntime",
    report: Report = lambda step: None,
) -> Built:
    """Builds an engine directory; an older one there is replaced once the new one is verified.

    Args:
        checkpoint: our safetensors, or a .pth in the public layout.
        output: the engine directory.
        config: YAML file with a partial RDNConfig, which wins over what the checkpoint says.
        name: of the model; the directory's by default.
        golden: video or folder of images for the golden results; rendered frames by default.
        reduced: how to build in less than float32; None builds in float32.
        prover: the backend that the finished bundle is verified with.
        report: is called with the name of each step before it.

    Returns:
        What was compared on the way.

    Raises:
        Differs: a difference from torch exceeds its tolerance.
        PrecisionError: a reduced precision overflows, or detects something else than float32.
        RDNError: checkpoint, configuration or video cannot be used; its subclass says which.
    """
    checkpoint, output = Path(checkpoint), Path(output)
    # Before the minutes that the graphs take, because a missing video is found here.
    images = golden_frames(golden)
    frames = None if reduced is None else CalibrationFrames.read(reduced.calibration, reduced.frames)
    report("checkpoint")
    loaded = load_checkpoint(checkpoint, read_config(config) if config else None)
    if loaded.config.attached is not None:
        raise CheckpointError(
            f"{checkpoint.name} has relations on a detector that was attached; wanted export/attach_relations.py for it"
        )
    with write_bundle(output) as staging:
        source = {"checkpoint": checkpoint.name, "sha256": _sha256(checkpoint)}
        named = _Named(name or output.name, source)
        if reduced is None or frames is None:
            rows, stages = _float32(loaded, staging, images, named, prover, report)
            return Built(rows, stages, None, loaded.notes)
        exact = staging.parent / "float32"
        exact.mkdir()
        rows, _ = _float32(loaded, exact, images, named, prover, report)
        agreed = _reduced(Bundle.open(exact), staging, frames, reduced, report)
        # Nothing else on a CPU has bf16.
        provable = reduced.precision != "bf16" or prover == "torch"
        stages = _verified(staging, prover, report, reduced.accept) if provable else []
    return Built(rows, stages, agreed, loaded.notes)


@dataclass(frozen=True)
class _Named:
    name: str
    source: dict[str, str]


def _float32(
    loaded: Checkpoint, staging: Path, images: NDArray[np.uint8], named: _Named, prover: Prover, report: Report
) -> tuple[list[Comparison], list[StageReport]]:
    model = loaded.model()
    report("backbone graph")
    after = {"backbone": "roi_head graph", "roi_head": "relation graph", "relation": "relation weights"}
    parameters = export_graphs(model, staging, lambda role: report(after.get(role, "graphs against torch")))
    rows = worst(compare_graphs(model, staging, images))
    _refuse([f"{r.graph} {r.output} ({r.case}): {r.relative:.2g}" for r in rows if not r.passed], GRAPH_TOLERANCE)
    report("golden results")
    golden = golden_results(model, images)
    np.savez(staging / GOLDEN, **golden)  # type: ignore[arg-type]
    write_manifest(
        staging,
        name=named.name,
        config=loaded.config,
        precision="float32",
        opset=OPSET,
        producers={
            "rdn_engine": rdn_engine.__version__,
            **{p: version(p) for p in ("torch", "onnx", "onnxruntime")},
        },
        source=named.source,
        parameters=parameters,
        tolerances={**BUNDLE_TOLERANCES, "detections": detection_tolerance(model, golden)},
    )
    return rows, _verified(staging, prover, report)


def _reduced(exact: Bundle, staging: Path, frames: CalibrationFrames, how: Reduced, report: Report) -> Agreement:
    """From a float32 bundle, whose relation weights stay as they are."""
    told, weights = exact.manifest, exact.arrays("weights")
    model, method, tolerances = write_reduced(exact, staging, frames, how, report)
    report(f"detections of {how.precision} against float32")
    detector = detector_of(fused_model(told.config, exact.directory, weights))
    agreed = agreement(detector, detector_of(model), frames, how.precision, method, how.min_agreement)
    if agreed.share < how.min_agreement and not how.accept:
        raise PrecisionError(
            f"{how.precision} and float32 agree on {agreed.share:.1%} of {agreed.detections} detections "
            f"({agreed.frames} frames, calibration {method} on {agreed.calibration_frames}); wanted "
            f"{how.min_agreement:.1%}. More or other calibration frames may help; --accept builds it all the same"
        )
    shutil.copyfile(exact.directory / WEIGHTS, staging / WEIGHTS)
    report("golden results")
    golden = golden_of(model, exact.arrays("golden")["frames"])
    np.savez(staging / GOLDEN, **golden)  # type: ignore[arg-type]
    write_manifest(
        staging,
        name=told.name,
        config=told.config,
        precision=how.precision,
        opset={"bf16": BFLOAT16_OPSET, "fp8": FLOAT8_OPSET}.get(how.precision, told.opset),
        producers=told.producers,
        source=told.source,
        parameters=told.parameters,
        tolerances={**told.tolerances, **tolerances},
        agreement=agreed,
        quantization_error=rdn_engine.verify.quantization_error(exact, golden) if how.precision == "int8" else None,
    )
    return agreed


def _verified(staging: Path, prover: Prover, report: Report, accept: bool = False) -> list[StageReport]:
    """accept: other detections, not other stages."""
    report("bundle against golden results")
    stages = rdn_engine.verify.verify(staging, backend=prover)
    wrong = [s for s in stages if not s.passed and not (accept and s.stage == "detections")]
    _refuse([f"{s.stage} ({s.executor}): {s.difference:.2g}" for s in wrong], "the manifest's")
    return stages


def worst(rows: Sequence[Comparison]) -> list[Comparison]:
    """The row that differs most, of each output of each graph.

    Args:
        rows: of `compare_graphs`.

    Returns:
        One row an output.
    """
    found: dict[tuple[str, str], Comparison] = {}
    for row in rows:
        key = row.graph, row.output
        if key not in found or row.relative > found[key].relative:
            found[key] = row
    return list(found.values())


def _refuse(differences: list[str], tolerance: object) -> None:
    if differences:
        raise Differs(f"differs by more than the tolerance ({tolerance}): {'; '.join(differences)}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tables(built: Built) -> list[Table]:
    graphs = Table("graph", "output", "worst case", "largest difference", "relative", "tolerance")
    for r in built.graphs:
        graphs.add_row(r.graph, r.output, r.case, f"{r.absolute:.1e}", f"{r.relative:.1e}", f"{GRAPH_TOLERANCE:.0e}")
    bundle = Table("stage", "executor", "difference", "tolerance")
    for s in built.stages:
        bundle.add_row(s.stage, s.executor, f"{s.difference:.1e}", f"{s.tolerance:.0e}")
    if built.agreement is None:
        return [graphs, bundle]
    precision = Table("against float32", "")
    a = built.agreement
    precision.add_row(f"of {a.detections} detections with a score of {a.score:g} or more, in both", f"{a.share:.1%}")
    precision.add_row("mean difference of their scores", f"{a.score_difference:.3f}")
    precision.add_row("frames compared", str(a.frames))
    precision.add_row("calibration", f"{a.calibration}, {a.calibration_frames} frames")
    return [graphs, bundle, precision]


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--checkpoint",
        type=given_path,
        help="our .safetensors or a .pth in the public layout; default: the bundled rdn_tiny",
    )
    parser.add_argument(
        "--output", type=given_path, help=f"engine directory to write; default for the bundled one: {OUTPUT}"
    )
    parser.add_argument("--config", type=given_path, help="YAML with what the checkpoint does not say (export/configs)")
    parser.add_argument("--name", help="of the model in the manifest; default: the name of the directory")
    parser.add_argument(
        "--golden", type=given_path, help="video or folder of images for the golden results; default: rendered"
    )
    parser.add_argument(
        "--backend",
        choices=("onnxruntime", "torch", "tensorrt", "tensorrt_rtx"),
        default="onnxruntime",
        help="what will run the bundle; torch (float32, fp16, bf16) then verifies it, not ONNX Runtime; TensorRT wants "
        "another int8, and its plans built on the machine that runs them (rdn-engine build)",
    )
    parser.add_argument("--precision", default="float32", help=" or ".join(PRECISIONS))
    parser.add_argument(
        "--calibration",
        type=given_path,
        help="below float32: video or folder of images like those that the detector will see",
    )
    parser.add_argument("--frames", type=int, default=DEFAULT_FRAMES, help="below float32: most frames to calibrate on")
    parser.add_argument(
        "--min-agreement",
        type=float,
        default=MIN_AGREEMENT,
        help="below float32: least share of detections in common with float32, 0..1; default: %(default)s",
    )
    parser.add_argument("--accept", action="store_true", help="build it even where its detections differ by more")
    arguments = parser.parse_args(argv)
    if arguments.output is None:
        if arguments.checkpoint is not None:
            parser.error(f"--output is missing: where shall the engines of {arguments.checkpoint} go?")
        arguments.output = OUTPUT
    if arguments.checkpoint is None:
        arguments.checkpoint, arguments.name = BUNDLED, arguments.name or BUNDLED.parent.name
        print(f"no --checkpoint: the bundled {BUNDLED.parent.name} ({BUNDLED})", file=sys.stderr)
    if arguments.precision not in PRECISIONS:
        raise BackendUnavailable(f"--precision is {arguments.precision!r}; this version exports {PRECISIONS}")
    return arguments


def _reduced_options(arguments: argparse.Namespace) -> Reduced | None:
    precision = arguments.precision
    if precision == "float32":
        if arguments.calibration is not None:
            raise PrecisionError(f"--calibration is for --precision {', '.join(PRECISIONS[1:])}; got float32")
        return None
    if arguments.calibration is None:
        raise PrecisionError(
            f"--precision {precision} wants --calibration: a video or folder of images like those to come"
        )
    if not 0 <= arguments.min_agreement <= 1:
        raise PrecisionError(f"--min-agreement is {arguments.min_agreement}; wanted 0..1")
    if arguments.backend == "torch" and precision in ("int8", "fp8"):
        raise PrecisionError(f"backend 'torch' does not run {precision}; wanted float32, {' or '.join(HALVES)}")
    symmetric = arguments.backend in ("tensorrt", "tensorrt_rtx")
    return Reduced(
        precision, arguments.calibration, arguments.frames, arguments.min_agreement, arguments.accept, symmetric
    )


def _plans(directory: Path, backend: str, report: Report) -> list[str]:
    """For this machine, where it has the library; plans of another machine would not run here."""
    if backend not in ("tensorrt", "tensorrt_rtx"):
        return []
    bundle = Bundle.open(directory)
    try:
        found = build_plans(backend, bundle, Limits.of(bundle.config), report)
    except BackendUnavailable as error:
        return [f"no plans for this machine: {error}", f"where it shall run: rdn-engine build DIR --backend {backend}"]
    return [f"plan of {role}: {path}" for role, path, _ in found]


def main(argv: Sequence[str] | None = None) -> int:
    console = Console(stderr=True)
    try:
        arguments = _arguments(argv)
        with shown(console) as report:
            built = build(
                arguments.checkpoint,
                arguments.output,
                config=arguments.config,
                name=arguments.name,
                golden=arguments.golden,
                reduced=_reduced_options(arguments),
                prover="torch" if arguments.backend == "torch" else "onnxruntime",
                report=report,
            )
            plans = _plans(arguments.output, arguments.backend, report)
    except (RDNError, OSError) as error:
        console.print(f"[red]error:[/red] {type(error).__name__}: {error}", highlight=False, soft_wrap=True)
        return DIFFERS if isinstance(error, (Differs, PrecisionError)) else FAILED
    for note in built.notes:
        console.print(f"{arguments.checkpoint.name} {note}", highlight=False, soft_wrap=True)
    for table in _tables(built):
        console.print(table)
    console.print(*plans, sep="\n", highlight=False, soft_wrap=True, end="\n" if plans else "")
    print(arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
