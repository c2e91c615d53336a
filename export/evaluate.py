"""Accuracy of a detector, in named protocols (docs/evaluation.md).

    python export/evaluate.py --bundle DIR [--data annotations.json --images ROOT] [--dial window=4] [--output r.json]

`--checkpoint FILE` is exported to an engine directory first, so that both run the real `rdn_engine.Detector`. Without
`--data`, the videos are the synthetic ones. Exit code 1 where something is wrong with the model, the data or a dial.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from export.build_engines import build
from export.dials import turned
from rdn_engine import Detector
from rdn_engine.config import Dials
from rdn_engine.errors import DatasetError, RDNError
from rdn_engine.evaluation.plots import draw
from rdn_engine.evaluation.score import precision_recall
from rdn_engine.evaluation.table import result_table
from training.arguments import given_path
from training.data.synthetic import SyntheticVideos
from training.evaluation.detect import RunDetector, detect_all, figures
from training.evaluation.videos import AnnotatedVideos, from_files, from_synthetic
from training.provenance import environment


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--checkpoint", type=given_path, help="our .safetensors, or a .pth in the public layout")
    source.add_argument("--bundle", type=given_path, help="engine directory")
    parser.add_argument("--config", type=given_path, help="YAML with what the checkpoint does not say (export/configs)")
    parser.add_argument("--data", type=given_path, help="CocoVID JSON; default: synthetic videos")
    parser.add_argument("--images", type=given_path, help="the folder that the file names of --data start from")
    parser.add_argument("--split", default="test", help="of the synthetic videos")
    parser.add_argument("--videos", type=int, default=60, help="synthetic ones")
    parser.add_argument("--frames", type=int, default=24, help="of a synthetic video")
    parser.add_argument("--seed", type=int, default=0, help="of the synthetic videos")
    known = ", ".join(f.name for f in fields(Dials))
    parser.add_argument("--dial", action="append", default=[], metavar="NAME=VALUE", help=f"may be repeated: {known}")
    parser.add_argument("--executor", choices=("fused", "graph"), default="fused", help="of the relation stage")
    parser.add_argument("--threads", type=int, help="of the detector; default: every CPU")
    parser.add_argument("--output", type=given_path, help="the result as JSON")
    parser.add_argument("--plots", type=given_path, metavar="DIR", help="writes plots there")
    return parser


def videos_of_files(arguments: argparse.Namespace) -> AnnotatedVideos | None:
    """None where the synthetic ones are asked for. Raises DatasetError."""
    if (arguments.data is None) != (arguments.images is None):
        raise DatasetError(f"--data is {arguments.data} and --images {arguments.images}; wanted both or neither")
    if min(arguments.videos, arguments.frames) < 1:
        raise DatasetError(f"--videos is {arguments.videos} and --frames {arguments.frames}; wanted 1 or more")
    return from_files(arguments.data, arguments.images) if arguments.data is not None else None


def load_detector(arguments: argparse.Namespace, console: Console) -> Detector:
    with tempfile.TemporaryDirectory() as folder:
        bundle = arguments.bundle
        if bundle is None:
            bundle = Path(folder) / arguments.checkpoint.stem
            with console.status("export") as status:

                def report(step: str) -> None:
                    status.update(f"export: {step}")

                build(arguments.checkpoint, bundle, config=arguments.config, report=report)
        return Detector.from_pretrained(bundle, threads=arguments.threads, executor=arguments.executor)


def run(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    videos = videos_of_files(arguments)
    detector = load_detector(arguments, console)
    detect = RunDetector(detector, turned(detector.config.dials, arguments.dial))
    if videos is None:
        synthetic = SyntheticVideos(arguments.split, arguments.videos, arguments.frames, seed=arguments.seed)
        with console.status("drawing the videos"):
            videos = from_synthetic(synthetic)
    columns = TextColumn("frames"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(videos.dataset.frames))
        found = detect_all(detect, videos, lambda frames: progress.update(task, completed=frames))
    result = figures(found, videos, detect)
    if arguments.plots is not None:
        draw(result, precision_recall(found, videos, detect.class_names), arguments.plots)
    source = {"model": str(arguments.bundle or arguments.checkpoint), "executor": arguments.executor}
    return {**source, **result, **environment()}


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    console = Console(stderr=True)
    try:
        result = run(arguments, console)
        if arguments.output is not None:
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    except (RDNError, OSError) as error:
        console.print(f"[red]error:[/red] {type(error).__name__}: {error}", highlight=False, soft_wrap=True)
        return 1
    Console().print(result_table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
