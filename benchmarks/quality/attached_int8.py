"""What INT8 of an attached detector keeps of its detections, on several videos.

    python benchmarks/quality/attached_int8.py --detector yolox_nano.onnx --clips first.mp4 second.mp4

The detector is attached as docs/own_detector.md has it, then quantised once for each video, whose first three quarters
are what it is calibrated on and whose last quarter what it is compared with float32 on. What is finished in the folder
already is kept, so that a run that was stopped goes on. A refusal is a result too, with its reason.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import onnx
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import rdn_engine.backends.onnxruntime  # noqa: F401  first: it keeps ONNX Runtime from writing into the home folder
from export.attach import Options, attach, class_names
from export.quantize_attached import quantize_attached
from export.steps import Report, shown
from rdn_engine.bundle.directory import Bundle
from rdn_engine.errors import PrecisionError
from training.arguments import given_path
from training.provenance import environment

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "benchmarks" / "results" / "attached_int8.json"


def measure(engines: Path, clip: Path, output: Path, report: Report) -> dict[str, Any]:
    """The row of one video."""
    if not output.exists():
        try:
            quantize_attached(engines, clip, output, report=report)
        except PrecisionError as error:
            return {"clip": clip.stem, "refused": str(error)}
    bundle = Bundle.open(output)
    agreed = bundle.manifest.agreement
    assert agreed is not None
    return {
        "clip": clip.stem,
        "share": agreed.share,
        "minimum": agreed.minimum,
        "score_difference": agreed.score_difference,
        "score": agreed.score,
        "detections": agreed.detections,
        "frames": agreed.frames,
        "calibration": agreed.calibration,
        "calibration_frames": agreed.calibration_frames,
        "convolutions": convolutions(bundle.path("encoder")),
        "megabytes": [round(b.path("encoder").stat().st_size / 1e6, 2) for b in (Bundle.open(engines), bundle)],
    }


def convolutions(path: Path) -> list[int]:
    """How many have codes for input and weights, and how many there are."""
    graph = onnx.load(path).graph
    codes = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    all_of_them = [node for node in graph.node if node.op_type == "Conv"]
    return [sum(codes.issuperset(node.input[:2]) for node in all_of_them), len(all_of_them)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--detector", type=given_path, required=True, help="ONNX file")
    parser.add_argument("--family", default="yolox")
    parser.add_argument("--classes", default="coco", help="coco, or a file with a name a line")
    parser.add_argument("--clips", type=given_path, nargs="+", required=True, help="videos that show what it detects")
    parser.add_argument("--folder", type=given_path, default=ROOT / "runs" / "attached_int8")
    parser.add_argument("--output", type=given_path, default=RESULT)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    engines = arguments.folder / "float32"
    with shown(Console(stderr=True)) as report:
        if not engines.exists():
            report("attach")
            attach(arguments.detector, engines, Options(arguments.family, class_names(arguments.classes)))
        rows = []
        for clip in arguments.clips:

            def tell(step: str, of: str = clip.stem) -> None:
                report(f"{of}: {step}")

            rows.append(measure(engines, clip, arguments.folder / f"int8_{clip.stem}", tell))
    measured = {"detector": arguments.detector.name, "family": arguments.family, "rows": rows}
    arguments.output.write_text(json.dumps(environment() | measured, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
