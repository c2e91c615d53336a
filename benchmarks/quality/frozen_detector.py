"""What relations add to a detector that stays as it is.

    python benchmarks/quality/frozen_detector.py [--threads 1] [--runs runs/frozen_detector]

The detector: backbone and region proposals of rdn_tiny as an ONNX file, attached as anybody's is; it knows boxes and
how likely each is an object, and has a map. On its features two heads are trained for as many steps from the same
start: on single frames, and with relations. Each is evaluated as an engine directory on held-out rendered videos.
Stopped at any point, the same command goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.quality.accuracy import write_json
from benchmarks.quality.from_nothing import seconds_of
from export.attach import Options, attach
from export.attach_relations import attach_relations
from export.families import FAMILIES, Given
from export.graphs import OPSET, fold_norms
from rdn_engine import Detector
from training.checkpoints.files import load_checkpoint
from training.data.synthetic import SyntheticVideos
from training.evaluation.detect import RunDetector, evaluate
from training.evaluation.videos import from_synthetic
from training.model import boxes as box_ops
from training.provenance import environment
from training.settings import Settings
from training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "benchmarks" / "results" / "frozen_detector.json"
CHECKPOINT = ROOT / "models" / "rdn_tiny" / "model.safetensors"
SIZE = (128, 192)
SEEDS = 3
STEPS = 500
"""Of each phase"""
TRAINED, HELD_OUT = (200, 12), (30, 24)
"""Videos, and frames of each"""


class Proposals(nn.Module):
    """Every anchor's box and objectness, and the map: what a two-stage detector has in front of its heads."""

    anchors: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.model = load_checkpoint(CHECKPOINT).model()
        fold_norms(self.model.backbone)
        stride = self.model.config.rpn.stride
        self.register_buffer("anchors", self.model.anchors((SIZE[0] // stride, SIZE[1] // stride), torch.device("cpu")))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        objectness, deltas, feature_map = self.model.encode_map(image)
        boxes = box_ops.clip(box_ops.decode(deltas[0], self.anchors), SIZE)
        return boxes[None] + boxes.new_tensor([0, 0, 1, 1]), objectness.sigmoid()[..., None], feature_map


def attached(folder: Path) -> Path:
    """The engine directory of the detector alone."""
    engines = folder / "detector"
    if engines.exists():
        return engines
    folder.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        program = torch.onnx.export(
            Proposals().eval(), (torch.zeros(1, 3, *SIZE),), input_names=["image"],
            output_names=["boxes", "scores", "map"], opset_version=OPSET, dynamo=True, verbose=False,
        )  # fmt: skip
    assert program is not None
    onnx.save(program.model_proto, folder / "detector.onnx")
    given = load_checkpoint(CHECKPOINT).config.input
    how = dataclasses.replace(FAMILIES["generic"].preprocessing, fit="stretch", mean=given.mean, std=given.std)
    options = Options("generic", ("object",), Given(feature_map="map"), preprocessing=how, pooled_side=5)
    attach(folder / "detector.onnx", engines, options)
    return engines


def settings(folder: Path, engines: Path, name: str, relation: str, seed: int) -> Settings:
    """Of one phase. Single frames of twelve videos show as many references as four clips of three."""
    drawn = {"num_videos": TRAINED[0], "num_frames": TRAINED[1], "size": [SIZE[1], SIZE[0]], "seed": 0}
    single = {"clips": 12, "frames_per_clip": 1} if relation == "none" else {}
    phase = {"name": name, "iterations": STEPS, "learning_rate": 1e-3, "relation": relation, **single}
    return Settings.from_plain(
        {
            "detector": str(engines),
            "features": str(folder / "features"),
            "model": {
                "relation": {"dim": 128, "heads": 4},
                "dials": {"window": 8, "num_support": 24, "num_reference": 64, "advanced_ratio": 0.25},
            },
            "data": {"train": [{"synthetic": drawn}], "flip": False},
            "rois_per_frame": 64,
            "phases": [phase],
            "seed": seed,
        }
    )


def train(told: Settings, run: Path, start: Path | None) -> float:
    """Train to the end, unless that has been done; minutes of the steps."""
    if not (run / "model.safetensors").exists():
        Trainer(told, run, start).run()
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return sum(seconds_of(log).values()) / 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "frozen_detector")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    folder, threads = arguments.runs, arguments.threads
    where = environment()  # before the training: the commit it was made with
    torch.set_num_threads(threads)
    engines = attached(folder)
    videos = from_synthetic(SyntheticVideos("test", *HELD_OUT))
    began, features = time.monotonic(), folder / "features_minutes.json"
    rows: list[dict[str, Any]] = []
    for seed in range(SEEDS):
        first = settings(folder, engines, "single", "none", seed)
        if not features.exists():
            Trainer(first, folder / f"single-{seed}")
            write_json(features, {"minutes": (time.monotonic() - began) / 60})
        begun = train(first, folder / f"single-{seed}", None)
        for name, relation in (("alone", "none"), ("relations", "full")):
            run = folder / f"{name}-{seed}"
            told = settings(folder, engines, name, relation, seed)
            minutes = begun + train(told, run, folder / f"single-{seed}" / "model.safetensors")
            if not (run / "engines").exists():
                attach_relations(engines, run / "model.safetensors", run / "engines")
            detector = Detector.from_pretrained(run / "engines", threads=threads)
            found = evaluate(RunDetector(detector, detector.config.dials), videos)
            speed = {speed: found["speed"][speed]["AP50"] for speed in ("slow", "medium", "fast")}
            rows.append(
                {"seed": seed, "head": name, "minutes": round(minutes, 1), "AP50": found["vid"]["AP50"], **speed}
            )
            print(rows[-1], flush=True)
    taken = round(json.loads(features.read_text())["minutes"], 1)
    measured = {"threads": threads, "steps": STEPS, "trained": TRAINED, "held_out": HELD_OUT, "features_minutes": taken}
    write_json(RESULT, {**where, **measured, "rows": rows})


if __name__ == "__main__":
    main()
