"""Backbone and region proposals of a checkpoint of ours as a detector that stays as it is, and heads trained on it.

What scripts share that compare heads: the features of the videos are computed once, so that a CPU is enough.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from benchmarks.quality.from_nothing import seconds_of
from export.attach import Options, attach
from export.families import FAMILIES, Given
from export.graphs import OPSET, fold_norms
from training.checkpoints.files import load_checkpoint
from training.model import boxes as box_ops
from training.settings import Relation, Settings
from training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]
RDN_TINY = ROOT / "models" / "rdn_tiny" / "model.safetensors"
SIZE = (128, 192)
"""(height, width) of the rendered videos"""


class Proposals(nn.Module):
    """Every anchor's box and objectness, and the map: what a two-stage detector has in front of its heads."""

    anchors: Tensor

    def __init__(self, checkpoint: Path, size: tuple[int, int]) -> None:
        super().__init__()
        self.model, self.size = load_checkpoint(checkpoint).model(), size
        fold_norms(self.model.backbone)
        stride = self.model.config.rpn.stride
        self.register_buffer("anchors", self.model.anchors((size[0] // stride, size[1] // stride), torch.device("cpu")))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        objectness, deltas, feature_map = self.model.encode_map(image)
        boxes = box_ops.clip(box_ops.decode(deltas[0], self.anchors), self.size)
        return boxes[None] + boxes.new_tensor([0, 0, 1, 1]), objectness.sigmoid()[..., None], feature_map


def attached(folder: Path, checkpoint: Path = RDN_TINY, size: tuple[int, int] = SIZE) -> Path:
    """The engine directory of the detector alone, made unless it is there.

    Args:
        folder: in which it lies, as `detector`.
        checkpoint: of ours, whose backbone and proposals it is made of.
        size: (height, width) of the network input, pixels.
    """
    engines = folder / "detector"
    if engines.exists():
        return engines
    folder.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        program = torch.onnx.export(
            Proposals(checkpoint, size).eval(), (torch.zeros(1, 3, *size),), input_names=["image"],
            output_names=["boxes", "scores", "map"], opset_version=OPSET, dynamo=True, verbose=False,
        )  # fmt: skip
    assert program is not None
    onnx.save(program.model_proto, folder / "detector.onnx")
    given = load_checkpoint(checkpoint).config.input
    how = dataclasses.replace(FAMILIES["generic"].preprocessing, fit="stretch", mean=given.mean, std=given.std)
    options = Options("generic", ("object",), Given(feature_map="map"), preprocessing=how, pooled_side=5)
    attach(folder / "detector.onnx", engines, options)
    return engines


def settings(
    engines: Path,
    features: Path,
    sources: Sequence[dict[str, Any]],
    name: str,
    relation: Relation,
    seed: int,
    steps: int,
    clips: int,
) -> Settings:
    """Of one phase on a frozen detector. Single frames of twelve clips show as many references as four clips of three.

    Args:
        engines: of the detector.
        features: folder for what it makes of the videos.
        sources: of data, as in YAML.
        name: of the phase.
        relation: which modules it trains.
        seed: of what is drawn.
        steps: iterations.
        clips: of three frames in a step; three times as many of single frames.
    """
    shown = {"clips": 3 * clips, "frames_per_clip": 1} if relation == "none" else {"clips": clips}
    phase = {"name": name, "iterations": steps, "learning_rate": 1e-3, "relation": relation, **shown}
    return Settings.from_plain(
        {
            "detector": str(engines),
            "features": str(features),
            "model": {
                "relation": {"dim": 128, "heads": 4},
                "dials": {"window": 8, "num_support": 24, "num_reference": 64, "advanced_ratio": 0.25},
            },
            "data": {"train": list(sources), "flip": False},
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
