"""From a checkpoint to an engine directory that runs anywhere and proves that it computes what the checkpoint computes.

    python export/build_engines.py --checkpoint w.pth --config export/configs/public_r101.yaml --output engines/rdn_r101
    python export/build_engines.py --checkpoint w.pth --output engines/int8 --precision int8 --calibration street.mp4

The directory appears, complete and verified, or not at all. Exit codes: 0 built; 1 something asked for is wrong or
missing; 2 the command line is wrong; 3 the graphs do not compute what torch computes, or INT8 not closely enough.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

# So that the script runs from a checkout; the package of that name is what is installed, or the checkout's.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rdn_engine.verify
from export.calibration import DEFAULT_FRAMES, CalibrationFrames
from export.checkpoints import Checkpoint, load_checkpoint, read_config
from export.golden import detection_tolerance, golden_frames, golden_results
from export.graphs import OPSET, export_graphs
from export.precision import INT8_TOLERANCES, MIN_AGREEMENT, agreement, detector, golden_int8, quantize
from export.verify import BUNDLE_TOLERANCES, GRAPH_TOLERANCE, Comparison, compare_graphs
from rdn_engine.bundle import GOLDEN, GRAPHS, PRECISIONS, WEIGHTS, Agreement, Bundle, write_bundle, write_manifest
from rdn_engine.errors import BackendUnavailable, PrecisionError, RDNError
from rdn_engine.verify import StageReport

FAILED, DIFFERS = 1, 3

Report = Callable[[str], None]


class Differs(RDNError):
    """An exported graph, or the finished bundle, computes something else than torch."""


@dataclass(frozen=True)
class Int8:
    """How to build in INT8."""

    calibration: str | Path
    """Video or folder of images, like those that the detector will see."""
    frames: int = DEFAULT_FRAMES
    """Most frames to calibrate on."""
    min_agreement: float = MIN_AGREEMENT
    """Share of detections, 0..1, that has to be the same as in float32."""
    accept: bool = False
    """Build below `min_agreement` too; the manifest tells."""


@dataclass(frozen=True)
class Built:
    """What was compared on the way."""

    graphs: list[Comparison]
    """The worst rows of each float32 graph's outputs against torch"""
    stages: list[StageReport]
    """The finished bundle against its golden results"""
    agreement: Agreement | None
    """INT8 against float32"""


def build(
    checkpoint: str | Path,
    output: str | Path,
    *,
    config: str | Path | None = None,
    name: str | None = None,
    golden: str | Path | None = None,
    int8: Int8 | None = None,
    report: Report = lambda step: None,
) -> Built:
    """Build the engine directory `output`; an older one there is replaced once the new one is verified.

    config: YAML file with a partial RDNConfig; name: of the model, else of the directory; golden: video or folder of
    images for the golden results; int8: None builds in float32. `report(step)` comes before each step. Raises an
    RDNError; Differs where a difference from torch exceeds its tolerance; PrecisionError where INT8 detects something
    else than float32.
    """
    checkpoint, output = Path(checkpoint), Path(output)
    # Before the minutes that the graphs take, because a missing video is found here.
    images = golden_frames(golden)
    frames = None if int8 is None else CalibrationFrames.read(int8.calibration, int8.frames)
    report("checkpoint")
    loaded = load_checkpoint(checkpoint, read_config(config) if config else None)
    with write_bundle(output) as staging:
        source = {"checkpoint": checkpoint.name, "sha256": _sha256(checkpoint)}
        named = _Named(name or output.name, source)
        if int8 is None or frames is None:
            rows, stages = _float32(loaded, staging, images, named, report)
            return Built(rows, stages, None)
        exact = staging.parent / "float32"
        exact.mkdir()
        rows, _ = _float32(loaded, exact, images, named, report)
        agreed, stages = _int8(Bundle.open(exact), staging, frames, int8, report)
    return Built(rows, stages, agreed)


@dataclass(frozen=True)
class _Named:
    name: str
    source: dict[str, str]


def _float32(
    loaded: Checkpoint, staging: Path, images: NDArray[np.uint8], named: _Named, report: Report
) -> tuple[list[Comparison], list[StageReport]]:
    model = loaded.model()
    report("backbone graph")
    after = {"backbone": "roi_head graph", "roi_head": "relation graph", "relation": "relation weights"}
    parameters = export_graphs(model, staging, lambda role: report(after.get(role, "graphs against torch")))
    rows = worst(compare_graphs(model, staging, images))
    _refuse([f"{r.graph} {r.output} ({r.case}): {r.relative:.2g}" for r in rows if not r.passed], GRAPH_TOLERANCE)
    report("golden results")
    golden = golden_results(model, images)
    np.savez(staging / GOLDEN, **golden)
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
    return rows, _verified(staging, report)


def _int8(
    exact: Bundle, staging: Path, frames: CalibrationFrames, how: Int8, report: Report
) -> tuple[Agreement, list[StageReport]]:
    """From a float32 bundle, whose relation stage stays as it is."""
    told, weights = exact.manifest, exact.arrays("weights")
    method = quantize(exact.directory, staging, told.config, frames, report)
    report("detections of int8 against float32")
    both = (detector(told.config, directory, weights) for directory in (exact.directory, staging))
    agreed = agreement(*both, frames, method, how.min_agreement)
    if agreed.share < how.min_agreement and not how.accept:
        raise PrecisionError(
            f"int8 and float32 agree on {agreed.share:.1%} of {agreed.detections} detections ({agreed.frames} frames, "
            f"calibration {method} on {agreed.calibration_frames}); wanted {how.min_agreement:.1%}. More or other "
            "calibration frames may help; --accept builds it all the same"
        )
    for file in (GRAPHS["relation"], WEIGHTS):
        shutil.copyfile(exact.directory / file, staging / file)
    report("golden results")
    golden = exact.arrays("golden")["frames"]
    np.savez(staging / GOLDEN, **golden_int8(told.config, staging, weights, golden))
    write_manifest(
        staging,
        name=told.name,
        config=told.config,
        precision="int8",
        opset=told.opset,
        producers=told.producers,
        source=told.source,
        parameters=told.parameters,
        tolerances={**told.tolerances, **INT8_TOLERANCES},
        agreement=agreed,
    )
    return agreed, _verified(staging, report)


def _verified(staging: Path, report: Report) -> list[StageReport]:
    report("bundle against golden results")
    stages = rdn_engine.verify.verify(staging)
    _refuse([f"{s.stage} ({s.executor}): {s.difference:.2g}" for s in stages if not s.passed], "the manifest's")
    return stages


def worst(rows: Sequence[Comparison]) -> list[Comparison]:
    """Of each output of each graph the row that differs most."""
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
    precision = Table("int8 against float32", "")
    a = built.agreement
    precision.add_row(f"of {a.detections} detections with a score of {a.score:g} or more, in both", f"{a.share:.1%}")
    precision.add_row("mean difference of their scores", f"{a.score_difference:.3f}")
    precision.add_row("frames compared", str(a.frames))
    precision.add_row("calibration", f"{a.calibration}, {a.calibration_frames} frames")
    return [graphs, bundle, precision]


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--checkpoint", required=True, type=Path, help="our .safetensors, or a .pth in the public layout"
    )
    parser.add_argument("--output", required=True, type=Path, help="engine directory to write")
    parser.add_argument("--config", type=Path, help="YAML with what the checkpoint does not say (export/configs)")
    parser.add_argument("--name", help="of the model in the manifest; default: the name of the directory")
    parser.add_argument(
        "--golden", type=Path, help="video or folder of images for the golden results; default: rendered"
    )
    parser.add_argument("--backend", default="onnxruntime", help="onnxruntime is the only one in this version")
    parser.add_argument("--precision", default="float32", help=" or ".join(PRECISIONS))
    parser.add_argument(
        "--calibration", type=Path, help="int8: video or folder of images like those that the detector will see"
    )
    parser.add_argument("--frames", type=int, default=DEFAULT_FRAMES, help="int8: most frames to calibrate on")
    parser.add_argument(
        "--min-agreement",
        type=float,
        default=MIN_AGREEMENT,
        help="int8: least share of detections that float32 and int8 have in common, 0..1; default: %(default)s",
    )
    parser.add_argument("--accept", action="store_true", help="int8: build it even where they agree on less")
    arguments = parser.parse_args(argv)
    if arguments.backend != "onnxruntime":
        raise BackendUnavailable(
            f"--backend is {arguments.backend!r}; this version builds bundles for 'onnxruntime' only, from ONNX graphs "
            "of standard operators"
        )
    if arguments.precision not in PRECISIONS:
        raise BackendUnavailable(f"--precision is {arguments.precision!r}; this version exports {PRECISIONS}")
    return arguments


def _int8_options(arguments: argparse.Namespace) -> Int8 | None:
    if arguments.precision == "float32":
        if arguments.calibration is not None:
            raise PrecisionError("--calibration is for --precision int8; got float32")
        return None
    if arguments.calibration is None:
        raise PrecisionError("--precision int8 wants --calibration: a video or folder of images like those to come")
    if not 0 <= arguments.min_agreement <= 1:
        raise PrecisionError(f"--min-agreement is {arguments.min_agreement}; wanted 0..1")
    return Int8(arguments.calibration, arguments.frames, arguments.min_agreement, arguments.accept)


def main(argv: Sequence[str] | None = None) -> int:
    console = Console(stderr=True)
    try:
        arguments = _arguments(argv)
        columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("", total=None)
            built = build(
                arguments.checkpoint,
                arguments.output,
                config=arguments.config,
                name=arguments.name,
                golden=arguments.golden,
                int8=_int8_options(arguments),
                report=lambda step: progress.update(task, description=step),
            )
    except (RDNError, OSError) as error:
        console.print(f"[red]error:[/red] {type(error).__name__}: {error}", highlight=False, soft_wrap=True)
        return DIFFERS if isinstance(error, (Differs, PrecisionError)) else FAILED
    for table in _tables(built):
        console.print(table)
    print(arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
