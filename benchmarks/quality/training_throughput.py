"""How much of a training step is waiting for data: the paper's recipe at ResNet-101 and 600 pixels, one clip a step.

    python benchmarks/quality/training_throughput.py --device cuda --workers 4 8 --output training_throughput.json
    python benchmarks/quality/training_throughput.py --quick

Frames are JPEG files of 1280 x 720, as ImageNet VID's, written once: read, decoded, resized and flipped by the workers
as in training. Weights are drawn, which changes no time. The first steps, in which workers start and algorithms are
chosen, are not counted. Which of the two phases is measured makes no difference for the data.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from torch import nn

from training.arguments import given_path
from training.data.export_synthetic import export_synthetic
from training.data.synthetic import SyntheticVideos
from training.distributed import joined
from training.provenance import environment, gpu
from training.settings import Settings
from training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]
RECIPE, SMALL = ROOT / "training" / "configs" / "rdn_r101_vid.yaml", ROOT / "training" / "configs" / "rdn_tiny.yaml"
VIDEO_SIZE, QUICK_SIZE = (1280, 720), (192, 128)
RESIDUAL_GAIN = 0.3


def write_videos(folder: Path, quick: bool) -> Path:
    """Annotated JPEG files, and their folder."""
    count, length, size = (2, 6, QUICK_SIZE) if quick else (4, 24, VIDEO_SIZE)
    videos = SyntheticVideos("throughput", num_videos=count, num_frames=length, size=size)
    export_synthetic(videos, folder, "jpg")
    return folder


def settings_of(data: Path, iterations: int, arguments: argparse.Namespace) -> Settings:
    """One phase of the recipe with one clip a step."""
    source = f"[{{annotations: {data / 'annotations.json'}, images: {data / 'images'}}}]"
    phase = "{name: measured, iterations: %d, learning_rate: 1.0e-8, relation: full, clips: 1, frames_per_clip: 3, "
    phase = phase % iterations + f"references: {'all' if arguments.quick else 'first'}}}"
    given = [f"data.train={source}", f"phases=[{phase}]", f"bf16={str(arguments.bf16).lower()}", "images_every=0"]
    if not arguments.quick:
        given.append("data.validation=[]")
    return Settings.read(SMALL if arguments.quick else RECIPE, given)


def calm(backbone: nn.Module) -> None:
    """Drawn weights double the variance at every block, which 33 of them do not survive."""
    for name, module in backbone.named_modules():
        if name.endswith("bn3"):
            nn.init.constant_(module.weight, RESIDUAL_GAIN)


def measure(data: Path, workers: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Medians of the counted steps, in ms, and the part of all their time that was spent waiting for data."""
    warm_up, counted = (1, 2) if arguments.quick else (10, arguments.steps)
    settings = settings_of(data, warm_up + counted, arguments)
    with tempfile.TemporaryDirectory() as folder, joined(arguments.device) as world:
        trainer = Trainer(settings, Path(folder), None, world, workers)
        calm(trainer.model.backbone)
        steps = [trainer.step() for _ in range(warm_up + counted)][warm_up:]
    whole, waited = ([step[name] for step in steps] for name in ("step_seconds", "data_seconds"))
    return {
        "workers": workers,
        "steps": counted,
        "step_ms": 1e3 * statistics.median(whole),
        "data_ms": 1e3 * statistics.median(waited),
        "data_part": sum(waited) / sum(whole),
        "frames_per_second": 3 * counted / sum(whole),
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--workers", nargs="+", type=int, default=[4], help="processes that read images; one run each")
    parser.add_argument("--steps", type=int, default=40, help="that are counted")
    parser.add_argument("--bf16", action="store_true", help="convolutions in bfloat16, which shortens the step")
    parser.add_argument("--quick", action="store_true", help="two steps of the tiny model on small frames")
    parser.add_argument("--output", type=given_path)
    arguments = parser.parse_args(argv)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        data = write_videos(Path(folder), arguments.quick)
        for workers in arguments.workers:
            rows.append(measure(data, workers, arguments))
            row = rows[-1]
            print(f"{workers} workers: step {row['step_ms']:.1f} ms, waiting for data {row['data_ms']:.1f} ms, "
                  f"{row['data_part']:.1%} of the time", flush=True)  # fmt: skip
    result = {
        "model": "rdn_tiny" if arguments.quick else "ResNet-101, 600 px, one clip of 3 frames a step",
        "bf16": arguments.bf16,
        "device": arguments.device,
        "gpu": gpu() if arguments.device == "cuda" else None,
        "rows": rows,
        **environment(),
    }
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
