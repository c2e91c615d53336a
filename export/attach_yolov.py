"""From a checkpoint in the public YOLOV layout to an engine directory that sees through time.

    python export/attach_yolov.py --checkpoint yolov_s.pth --classes imagenet_vid --output engines/yolov_s
    python export/attach_yolov.py --checkpoint yolov_l.pth --classes names.txt --size 576 1024 --output engines/yolov_l

Online by default: a frame looks at the 31 frames before it. `--look-ahead 15 --window 15` makes of it the offline head
over the frames around. docs/yolov.md has what is computed and what a checkpoint does not tell. The directory appears,
complete and verified, or not at all. Exit codes: 0 written; 1 something is wrong or missing; 2 the command line is
wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import get_args

import numpy as np
from rich.console import Console
from rich.table import Table

# So that the script runs from a checkout; the package of that name is what is installed, or the checkout's.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rdn_engine.verify
from export.attach import class_names
from export.golden import golden_frames
from export.graphs import OPSET, export_graph
from export.steps import Report, shown
from export.yolov_graphs import Difference, Yardstick, describe, relation_weights
from rdn_engine.bundle.contract import fused_shapes
from rdn_engine.bundle.directory import write_bundle, write_manifest
from rdn_engine.bundle.manifest import ENCODER, GOLDEN, GRAPHS, WEIGHTS
from rdn_engine.config import CosineConfig, MemoryOrder
from rdn_engine.errors import AttachError, RDNError
from rdn_engine.verify import StageReport
from training.arguments import given_path
from training.checkpoints.files import read_config
from training.checkpoints.yolov import INPUT_SIZE, load_yolov

FAILED = 1
VID_CONFIG = Path(__file__).parent / "configs" / "public_r101.yaml"
"""Has the 30 classes of ImageNet VID in their usual order."""


@dataclass(frozen=True)
class Written:
    """What was compared on the way."""

    graphs: list[Difference]
    """Of each graph against torch"""
    stages: list[StageReport]
    """The finished bundle against its golden results"""
    notes: tuple[str, ...]
    """What was chosen where the checkpoint left a choice"""


def attach_yolov(
    checkpoint: str | Path,
    output: str | Path,
    classes: tuple[str, ...],
    *,
    input_size: tuple[int, int] = INPUT_SIZE,
    cosine: CosineConfig | None = None,
    window: int | None = None,
    look_ahead: int = 0,
    name: str | None = None,
    golden: Path | None = None,
    report: Report = lambda step: None,
) -> Written:
    """Write an engine directory; an older one there is replaced once the new one is verified.

    Args:
        checkpoint: .pth in the public YOLOV layout.
        output: the engine directory.
        classes: their names, in the checkpoint's order.
        input_size: (height, width) of the network input, multiples of 32 pixels.
        cosine: what the checkpoint does not tell of the attention; None for the public online head's.
        window: T of a stream, frames; None for 31.
        look_ahead: L of a stream, frames.
        name: of the model; the directory's by default.
        golden: video or folder of images for the golden results; rendered frames by default.
        report: is called with the name of each step before it.

    Returns:
        What was compared on the way.

    Raises:
        CheckpointError: for a checkpoint that is not YOLOV's, or other classes than it has.
        AttachError: where the graphs do not compute what torch computes.
        RDNError: classes, settings or frames cannot be used; its subclass says which.
    """
    checkpoint, output = Path(checkpoint), Path(output)
    images = golden_frames(golden)
    report("checkpoint")
    loaded = load_yolov(checkpoint, classes, input_size=input_size, cosine=cosine)
    turned = {"look_ahead": look_ahead} | ({} if window is None else {"window": window})
    loaded = replace(loaded, config=replace(loaded.config, dials=loaded.config.dials.turned(turned)))
    config, model = loaded.config, loaded.model()
    report("golden results")
    yardstick = Yardstick(model, config, images)
    with write_bundle(output) as staging:
        parameters = {}
        for role, graph in describe(model, input_size).items():
            report(f"{role} graph")
            parameters[role] = export_graph(graph, role, staging / {"encoder": ENCODER, **GRAPHS}[role])
        weights = relation_weights(model)
        np.savez(staging / WEIGHTS, **{name: weights[name] for name in fused_shapes(config)})  # type: ignore[arg-type]
        report("graphs against torch")
        rows = yardstick.differences(staging)
        wrong = [f"{r.graph} {r.output}: {r.relative:.2g}, allowed {r.allowed:.2g}" for r in rows if not r.passed]
        if wrong:
            raise AttachError(f"the graphs are not what torch computes: {'; '.join(wrong)}")
        np.savez(staging / GOLDEN, **yardstick.golden())  # type: ignore[arg-type]
        write_manifest(
            staging,
            name=name or output.name,
            config=config,
            precision="float32",
            opset=OPSET,
            producers={"rdn_engine": rdn_engine.__version__}
            | {package: version(package) for package in ("torch", "onnx", "onnxruntime")},
            source={"checkpoint": checkpoint.name, "sha256": _sha256(checkpoint), "layout": "yolov"},
            parameters=parameters,
            tolerances=yardstick.tolerances(),
        )
        report("bundle against golden results")
        stages = rdn_engine.verify.verify(staging)
        failed = [f"{s.stage} ({s.executor}): {s.difference:.2g}" for s in stages if not s.passed]
        if failed:
            raise AttachError(f"the bundle is not what torch computes: {'; '.join(failed)}")
    return Written(rows, stages, loaded.notes)


def vid_classes() -> tuple[str, ...]:
    """The 30 classes of ImageNet VID, in their usual order."""
    return tuple(read_config(VID_CONFIG)["class_names"])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--checkpoint", type=given_path, required=True, help=".pth in the public YOLOV layout")
    parser.add_argument(
        "--classes", required=True, help="imagenet_vid, coco, or a file with a name a line, in the checkpoint's order"
    )
    parser.add_argument("--output", type=given_path, required=True, help="engine directory to write")
    parser.add_argument("--size", type=int, nargs=2, default=INPUT_SIZE, metavar=("HEIGHT", "WIDTH"),
                        help="of the network input, multiples of 32 pixels; default: 576 576")  # fmt: skip
    parser.add_argument("--window", type=int, help="T, frames that are remembered; default: 31")
    parser.add_argument(
        "--look-ahead", type=int, default=0, help="L, frames that results wait for; default: 0, the online head"
    )
    parser.add_argument(
        "--score-in-regression",
        choices=("yes", "no"),
        default="yes",
        help="whether objectness scales the box branch's attention too; no: the offline head since 2024",
    )
    parser.add_argument(
        "--memory-order",
        choices=get_args(MemoryOrder),
        default="time",
        help="shuffled: as the public online head draws its memory; default: time",
    )
    parser.add_argument("--name", help="of the model; default: the name of the directory")
    parser.add_argument("--golden", type=given_path, help="video or folder of images for the golden results")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    console = Console(stderr=True)
    arguments = _arguments(argv)
    try:
        classes = vid_classes() if arguments.classes == "imagenet_vid" else class_names(arguments.classes)
        with shown(console) as report:
            written = attach_yolov(
                arguments.checkpoint,
                arguments.output,
                classes,
                input_size=tuple(arguments.size),
                cosine=CosineConfig(
                    score_in_regression=arguments.score_in_regression == "yes", memory_order=arguments.memory_order
                ),
                window=arguments.window,
                look_ahead=arguments.look_ahead,
                name=arguments.name,
                golden=arguments.golden,
                report=report,
            )
    except (RDNError, OSError) as error:
        console.print(f"[red]error:[/red] {type(error).__name__}: {error}", highlight=False, soft_wrap=True)
        return FAILED
    for note in written.notes:
        console.print(f"{arguments.checkpoint.name} {note}", highlight=False, soft_wrap=True)
    table = Table("stage", "executor", "difference", "tolerance")
    for s in written.stages:
        table.add_row(s.stage, s.executor, f"{s.difference:.1e}", f"{s.tolerance:.0e}")
    console.print(table)
    print(arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
