"""Train a detector: `python training/train.py --config training/configs/rdn_tiny.yaml --output runs/rdn_tiny`.

A run is a list of phases. `none` trains backbone, proposals and heads on single frames; `basic` adds the basic relation
stage, heads on its output (the paper's first phase); `full` trains everything (its second). Stopped at any point, the
same command goes on from the last saved state.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from export.checkpoints import detect_layout, load_checkpoint, load_torchvision_backbone, read_config, save_checkpoint
from export.state import read_tensors
from rdn_engine.config import RDNConfig, from_plain
from rdn_engine.errors import CheckpointError, ConfigError
from training import losses
from training.data.sampling import Batch, draw_batch
from training.data.synthetic import CLASS_NAMES, SyntheticVideos
from training.model.inference import advanced_rows
from training.model.rdn import RDN

Relation = Literal["none", "basic", "full"]


@dataclass(frozen=True)
class Phase:
    name: str
    iterations: int
    learning_rate: float
    """Reached after the warm-up; falls to a twentieth along a cosine."""
    relation: Relation
    clips: int = 4
    """Clips in a step."""
    frames_per_clip: int = 3
    """Each serves as the reference once, with the others as its support."""


@dataclass(frozen=True)
class DataSettings:
    num_videos: int = 300
    num_frames: int = 24
    size: tuple[int, int] = (192, 128)
    """(width, height), pixels; the model's input size"""
    seed: int = 0


@dataclass(frozen=True)
class Settings:
    """The whole YAML file; `model` is an RDNConfig without its class names."""

    model: RDNConfig
    data: DataSettings
    phases: tuple[Phase, ...]
    rois_per_frame: int = 128
    warm_up: int = 100
    """Iterations at the start of every phase."""
    weight_decay: float = 0.05
    clip_gradient: float = 10.0
    """Largest norm of a step's gradient."""
    bf16: bool = True
    """Convolutions in bfloat16; boxes, RoI head and relations stay in float32."""
    seed: int = 0
    half: bool = False
    """The finished model in float16: half the size, and what is exported and evaluated is what was stored."""
    save_every: int = 250
    log_every: int = 25

    @classmethod
    def read(cls, path: Path) -> Settings:
        """Of a YAML file. Raises ConfigError that names the file and the field."""
        raw = read_config(path)
        if isinstance(raw.get("model"), dict):
            raw["model"] = {"class_names": list(CLASS_NAMES), **raw["model"]}
        try:
            settings = from_plain(cls, raw, "settings")
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
        if not settings.phases or min(p.iterations for p in settings.phases) < 1:
            raise ConfigError(f"{path}: phases are {settings.phases}; wanted one or more, of 1 iteration or more")
        model = settings.model
        width, height = settings.data.size
        if model.input.network_size(height, width) != (height, width):
            raise ConfigError(f"{path}: data.size is {(width, height)}; wanted a size that model.input leaves as it is")
        return settings


def step_losses(
    model: RDN, batch: Batch, relation: Relation, settings: Settings, rng: torch.Generator
) -> dict[str, Tensor]:
    """The four losses of a batch, averaged over its images; every image is a reference once."""
    size = tuple(batch.images.shape[-2:])
    with torch.autocast("cpu", torch.bfloat16, enabled=settings.bf16):
        objectness, deltas, feature_map = model.encode_map(batch.images.to(memory_format=torch.channels_last))
    objectness, deltas, feature_map = objectness.float(), deltas.float(), feature_map.float()
    grid = tuple(feature_map.shape[-2:])
    anchors = model.anchors(grid, deltas.device)
    dials = model.config.dials
    proposals = model.propose(objectness, deltas, grid, size, dials.num_reference)
    rpn = [losses.rpn_loss(o, d, anchors, b, rng) for o, d, b in zip(objectness, deltas, batch.boxes, strict=True)]
    samples = [
        losses.sample_rois(p, b, labels, rng, settings.rois_per_frame)
        for (p, _), b, labels in zip(proposals, batch.boxes, batch.labels, strict=True)
    ]
    support = [(p[: dials.num_support], o[: dials.num_support]) for p, o in proposals]
    heads = _heads(model, feature_map, samples, support, relation, batch.frames_per_clip)
    weights = model.config.detection.box_weights
    roi = [losses.roi_loss(c, d, s, weights) for (c, d), s in zip(heads, samples, strict=True)]
    names = ("rpn_class", "rpn_box", "roi_class", "roi_box")
    parts = [*zip(*rpn, strict=True), *zip(*roi, strict=True)]
    return {name: torch.stack(part).mean() for name, part in zip(names, parts, strict=True)}


def _heads(
    model: RDN,
    feature_map: Tensor,
    samples: list[losses.RoISample],
    support: list[tuple[Tensor, Tensor]],
    relation: Relation,
    frames_per_clip: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """(logits, deltas) of each image's sample; the support of an image is that of all images of its clip."""
    if relation == "none":
        features = model.roi_features(feature_map, [s.boxes for s in samples])
        for x in features.split([len(s.labels) for s in samples]):
            yield model.relation.classify(x), model.relation.regress(x)
        return
    rois = [torch.cat([s.boxes, p]) for s, (p, _) in zip(samples, support, strict=True)]
    rows = model.roi_features(feature_map, rois).split([len(r) for r in rois])
    dials = model.config.dials
    for i, sample in enumerate(samples):
        clip = range(i - i % frames_per_clip, i - i % frames_per_clip + frames_per_clip)
        features = torch.cat([rows[j][len(samples[j].labels) :] for j in clip])
        boxes = torch.cat([support[j][0] for j in clip])
        advanced = advanced_rows([support[j][1] for j in clip], dials) if relation == "full" else None
        result = model.relation(rows[i][: len(sample.labels)], sample.boxes, features, boxes, advanced)
        yield result.logits, result.deltas


class Trainer:
    """A run: model, optimiser, random generators, iteration. `output` holds state.pt, log.jsonl and the models."""

    def __init__(self, settings: Settings, output: Path, start_from: Path | None = None) -> None:
        self.settings, self.output = settings, output
        torch.manual_seed(settings.seed)
        self.model = RDN(settings.model).to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(self._groups(), betas=(0.9, 0.98))
        self.rng = np.random.default_rng(settings.seed)
        self.torch_rng = torch.Generator().manual_seed(settings.seed)
        self.iteration = 0
        data = settings.data
        self.videos = SyntheticVideos("train", data.num_videos, data.num_frames, data.size, data.seed)
        output.mkdir(parents=True, exist_ok=True)
        if (output / "state.pt").exists():
            self.restore()
        elif start_from is not None:
            load_start(self.model, start_from)

    def _groups(self) -> list[dict[str, Any]]:
        """Weights decay; biases and norms do not."""
        weights = [p for p in self.model.parameters() if p.ndim > 1]
        others = [p for p in self.model.parameters() if p.ndim <= 1]
        decay = self.settings.weight_decay
        return [{"params": weights, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]

    @property
    def total(self) -> int:
        return sum(p.iterations for p in self.settings.phases)

    def phase(self) -> tuple[Phase, int]:
        """The phase of the next iteration and the iterations of it that are done."""
        done = self.iteration
        for phase in self.settings.phases:
            if done < phase.iterations:
                return phase, done
            done -= phase.iterations
        raise IndexError(f"iteration {self.iteration}; the run has {self.total}")

    def step(self) -> dict[str, float]:
        s = self.settings
        phase, done = self.phase()
        rate = learning_rate(phase, done, s.warm_up)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        batch = draw_batch(
            self.rng, self.videos, s.model.input, s.model.dials.window, phase.clips, phase.frames_per_clip
        )
        parts = step_losses(self.model, batch, phase.relation, s, self.torch_rng)
        loss = torch.stack(list(parts.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), s.clip_gradient, error_if_nonfinite=True)
        self.optimizer.step()
        self.iteration += 1
        return {"loss": loss.item(), **{k: v.item() for k, v in parts.items()}, "learning_rate": rate}

    def run(self) -> None:
        recent: list[dict[str, float]] = []
        since = time.monotonic()
        while self.iteration < self.total:
            phase, done = self.phase()
            recent.append(self.step())
            if self.iteration % self.settings.log_every == 0:
                self.log(phase.name, recent, time.monotonic() - since)
                recent, since = [], time.monotonic()
            if done + 1 == phase.iterations:
                save_checkpoint(self.output / f"{phase.name}.safetensors", self.model.state_dict(), self.settings.model)
            if self.iteration % self.settings.save_every == 0 or self.iteration == self.total:
                self.save()
        final = self.output / "model.safetensors"
        save_checkpoint(final, self.model.state_dict(), self.settings.model, half=self.settings.half)

    def log(self, phase: str, recent: list[dict[str, float]], seconds: float) -> None:
        """One JSON line: means since the last, and the time that the rest will take at this speed."""
        line = {"iteration": self.iteration, "phase": phase}
        line |= {k: float(f"{np.mean([r[k] for r in recent]):.4g}") for k in recent[0]}
        line["eta_minutes"] = round(seconds / len(recent) * (self.total - self.iteration) / 60, 1)
        text = json.dumps(line)
        print(text, flush=True)
        with (self.output / "log.jsonl").open("a") as file:
            file.write(text + "\n")

    def save(self) -> None:
        """Everything that `restore` needs to go on as if the run had not stopped."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "iteration": self.iteration,
            "numpy_rng": json.dumps(self.rng.bit_generator.state),
            "torch_rng": self.torch_rng.get_state(),
        }
        partial = self.output / "state.pt.partial"
        torch.save(state, partial)
        os.replace(partial, self.output / "state.pt")

    def restore(self) -> None:
        state = torch.load(self.output / "state.pt", weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.iteration = state["iteration"]
        self.rng.bit_generator.state = json.loads(state["numpy_rng"])
        self.torch_rng.set_state(state["torch_rng"])


def learning_rate(phase: Phase, done: int, warm_up: int) -> float:
    """Linear up over `warm_up` iterations, then half a cosine down to a twentieth."""
    fall = 0.5 * (1 + math.cos(math.pi * done / phase.iterations))
    return phase.learning_rate * min(1.0, (done + 1) / max(warm_up, 1)) * (0.05 + 0.95 * fall)


def load_start(model: RDN, path: Path) -> None:
    """Take the weights of an earlier run, or the backbone of a torchvision classifier.

    Of an earlier run only relation modules may be missing; what the file does not hold stays as initialised.
    """
    tensors, _ = read_tensors(path)
    if detect_layout(tensors) == "torchvision":
        model.backbone.load_state_dict(load_torchvision_backbone(tensors, model.config.backbone))
        return
    found = load_checkpoint(path).state
    state = model.state_dict()
    may_miss = ("relation.rel.", "relation.basic_fc.", "relation.advanced_fc.")
    missing = [n for n in state if n not in found and not n.startswith(may_miss)]
    if missing:
        raise CheckpointError(f"{path} lacks {missing[:5]}, {len(missing)} in all; wanted a model with this backbone")
    model.load_state_dict(state | {n: t for n, t in found.items() if n in state})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--start-from", type=Path, help="weights to begin with: of an earlier run, or torchvision's")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    Trainer(Settings.read(arguments.config), arguments.output, arguments.start_from).run()


if __name__ == "__main__":
    main()
