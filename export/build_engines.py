"""From a checkpoint to an engine directory that runs anywhere and proves that it computes what the checkpoint computes.

    python export/build_engines.py --checkpoint w.pth --config export/configs/public_r101.yaml --output engines/rdn_r101

The directory appears, complete and verified, or not at all. Exit codes: 0 built; 1 something asked for is wrong or
missing; 2 the command line is wrong; 3 the graphs do not compute what torch computes.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

# So that the script runs from a checkout; the package of that name is what is installed, or the checkout's.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rdn_engine.verify
from export.checkpoints import load_checkpoint, read_config
from export.golden import detection_tolerance, golden_frames, golden_results
from export.graphs import OPSET, export_graphs
from export.verify import BUNDLE_TOLERANCES, GRAPH_TOLERANCE, Comparison, compare_graphs
from rdn_engine.bundle import GOLDEN, write_bundle, write_manifest
from rdn_engine.errors import BackendUnavailable, RDNError
from rdn_engine.verify import StageReport

FAILED, DIFFERS = 1, 3

Report = Callable[[str], None]


class Differs(RDNError):
    """An exported graph, or the finished bundle, computes something else than torch."""


def build(
    checkpoint: str | Path,
    output: str | Path,
    *,
    config: str | Path | None = None,
    name: str | None = None,
    frames: str | Path | None = None,
    report: Report = lambda step: None,
) -> tuple[list[Comparison], list[StageReport]]:
    """Build the engine directory `output`; an older one there is replaced once the new one is verified.

    config: YAML file with a partial RDNConfig; name: of the model, else of the directory; frames: video or folder of
    images for the golden results. `report(step)` comes before each step. Returns what was compared: the worst rows of
    each graph's outputs, and the bundle's stages. Raises an RDNError; Differs where a difference exceeds its tolerance.
    """
    checkpoint, output = Path(checkpoint), Path(output)
    report("checkpoint")
    loaded = load_checkpoint(checkpoint, read_config(config) if config else None)
    model = loaded.model()
    images = golden_frames(frames)
    with write_bundle(output) as staging:
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
            name=name or output.name,
            config=loaded.config,
            precision="float32",
            opset=OPSET,
            producers={
                "rdn_engine": rdn_engine.__version__,
                **{p: version(p) for p in ("torch", "onnx", "onnxruntime")},
            },
            source={"checkpoint": checkpoint.name, "sha256": _sha256(checkpoint)},
            parameters=parameters,
            tolerances={**BUNDLE_TOLERANCES, "detections": detection_tolerance(model, golden)},
        )
        report("bundle against golden results")
        stages = rdn_engine.verify.verify(staging)
        _refuse([f"{s.stage} ({s.executor}): {s.difference:.2g}" for s in stages if not s.passed], "the manifest's")
    return rows, stages


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
        raise Differs(f"differs from torch by more than the tolerance ({tolerance}): {'; '.join(differences)}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tables(rows: Sequence[Comparison], stages: Sequence[StageReport]) -> list[Table]:
    graphs = Table("graph", "output", "worst case", "largest difference", "relative", "tolerance")
    for r in rows:
        graphs.add_row(r.graph, r.output, r.case, f"{r.absolute:.1e}", f"{r.relative:.1e}", f"{GRAPH_TOLERANCE:.0e}")
    bundle = Table("stage", "executor", "difference", "tolerance")
    for s in stages:
        bundle.add_row(s.stage, s.executor, f"{s.difference:.1e}", f"{s.tolerance:.0e}")
    return [graphs, bundle]


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--checkpoint", required=True, type=Path, help="our .safetensors, or a .pth in the public layout"
    )
    parser.add_argument("--output", required=True, type=Path, help="engine directory to write")
    parser.add_argument("--config", type=Path, help="YAML with what the checkpoint does not say (export/configs)")
    parser.add_argument("--name", help="of the model in the manifest; default: the name of the directory")
    parser.add_argument(
        "--frames", type=Path, help="video or folder of images for the golden results; default: rendered"
    )
    parser.add_argument("--backend", default="onnxruntime", help="onnxruntime is the only one in this version")
    parser.add_argument("--precision", default="float32", help="float32 is the only one in this version")
    arguments = parser.parse_args(argv)
    if arguments.backend != "onnxruntime":
        raise BackendUnavailable(
            f"--backend is {arguments.backend!r}; this version builds bundles for 'onnxruntime' only, from ONNX graphs "
            "of standard operators"
        )
    if arguments.precision != "float32":
        raise BackendUnavailable(f"--precision is {arguments.precision!r}; this version exports 'float32' only")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    console = Console(stderr=True)
    try:
        arguments = _arguments(argv)
        columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("", total=None)
            rows, stages = build(
                arguments.checkpoint,
                arguments.output,
                config=arguments.config,
                name=arguments.name,
                frames=arguments.frames,
                report=lambda step: progress.update(task, description=step),
            )
    except (RDNError, OSError) as error:
        console.print(f"[red]error:[/red] {type(error).__name__}: {error}", highlight=False, soft_wrap=True)
        return DIFFERS if isinstance(error, Differs) else FAILED
    for table in _tables(rows, stages):
        console.print(table)
    print(arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
