"""What every stage, dial and shortcut is worth: `make accuracy`.

    python benchmarks/quality/accuracy.py [--only full-0]

Trains the rows of the paper's Tables 3 and 5 on the synthetic videos, exports each, and evaluates it through
`rdn_engine.Detector` at the settings of the paper's Tables 4, 6 and 7 and at some that nobody has published. Stopped
at any point, the same command goes on: a training from its last state, an evaluation from the last setting written.

All rows of a seed start from the same weights, which stand for the paper's ImageNet weights: backbone, proposals and
RoI features of models/rdn_tiny, trained on with single frames and without its relation modules. They get the same
number of steps and images after that. Where no other frame is looked at, the images of a step come from as many videos,
which is the better choice there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from export.build_engines import build
from export.reduced import Reduced
from rdn_engine import Detector
from rdn_engine.config import Dials
from training.arguments import given_path
from training.data.synthetic import SyntheticVideos
from training.evaluation.detect import RunDetector, evaluate
from training.evaluation.videos import AnnotatedVideos, from_synthetic
from training.provenance import environment

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "accuracy"
BASE = ROOT / "training" / "configs" / "rows_tiny.yaml"
FIRST = ROOT / "models" / "rdn_tiny" / "model.safetensors"

RELATIONS = ("none", "basic", "full")


@dataclass(frozen=True)
class Row:
    name: str
    title: str
    relation: str
    """The most that its phases train: one of RELATIONS"""
    num_basic: int = 2
    other_frames: bool = True
    """False: a frame looks at its own proposals alone."""
    seeds: int = 1

    def settings(self, base: dict[str, Any], seed: int) -> dict[str, Any]:
        """The YAML of this row's training after the common start."""
        model = {**base["model"]}
        model["relation"] = {**model["relation"], "num_basic": self.num_basic, "advanced": self.relation == "full"}
        if not self.other_frames:
            model["dials"] = {**model["dials"], "window": 0}
        phases = []
        for phase in base["phases"][1:]:
            relation = min(phase["relation"], self.relation, key=RELATIONS.index)
            phases.append({**phase, "relation": relation} | ({} if self.other_frames else _single_frames(base)))
        return {**base, "model": model, "phases": phases, "seed": seed}


def _single_frames(base: dict[str, Any]) -> dict[str, int]:
    """As many images a step, each of another video: those of the common start."""
    return {"clips": base["phases"][0]["clips"], "frames_per_clip": 1}


ROWS = (
    Row("single", "single-frame detector", "none", num_basic=0, other_frames=False, seeds=3),
    Row("full", "basic and advanced stage (RDN)", "full", seeds=3),
    Row("within", "relation within the frame", "basic", other_frames=False, seeds=3),
    Row("basic", "basic stage", "basic", seeds=3),
    Row("basic1", "basic stage, 1 module", "basic", num_basic=1),
    Row("basic3", "basic stage, 3 modules", "basic", num_basic=3),
    Row("basic4", "basic stage, 4 modules", "basic", num_basic=4),
)
PRECISIONS: tuple[Literal["fp16", "int8"], ...] = ("fp16", "int8")
"""Beside float32, of the full model: those that ONNX Runtime runs on a CPU."""
MOST_SEEDS = max(row.seeds for row in ROWS)


def sweeps(row: Row, own: Dials) -> Iterator[tuple[str, Dials]]:
    """Label and dials of what is evaluated; "own" is the model as trained."""
    yield "own", own
    if row.name not in ("basic", "full"):
        return
    for window in (0, 2, 4, 12):
        yield f"T={window}", replace(own, window=window)
    for support in (8, 16, 48):
        yield f"K={support}", replace(own, num_support=support)
    if row.name == "basic":
        return
    for percent in (10, 50, 100):
        yield f"r={percent}%", replace(own, advanced_ratio=percent / 100)
    yield "sampling=global", replace(own, sampling="global")
    yield "edges=clip", replace(own, edges="clip")
    for ahead in (0, 1, 2, 4):
        yield f"L={ahead}", replace(own, look_ahead=ahead)
    for reference in (32, 48, 128):
        yield f"N={reference}", replace(own, num_reference=reference)


def start_settings(base: dict[str, Any], seed: int) -> dict[str, Any]:
    """The YAML of a seed's common start: without relation modules, so that none of FIRST is taken over."""
    model = {**base["model"], "relation": {**base["model"]["relation"], "num_basic": 0, "advanced": False}}
    return {**base, "model": model, "phases": base["phases"][:1], "seed": seed}


def train(config: Path, output: Path, threads: int, start: Path) -> None:
    command = [sys.executable, "training/train.py", "--config", str(config), "--output", str(output)]
    command += ["--threads", str(threads), "--start-from", str(start)]
    subprocess.run(command, cwd=ROOT, check=True)


def write_yaml(path: Path, settings: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return path


@dataclass(frozen=True)
class Plan:
    """Where things lie, and how much is done at once."""

    runs: Path
    threads: int
    videos: AnnotatedVideos
    base: dict[str, Any]

    def start(self, seed: int) -> Path:
        """The weights that all rows of a seed begin with."""
        output = self.runs / f"start-{seed}"
        weights = output / "start.safetensors"
        if not weights.exists():
            train(write_yaml(output / "settings.yaml", start_settings(self.base, seed)), output, self.threads, FIRST)
        return weights

    def train(self, row: Row, seed: int) -> Path:
        """The engine directory, after training and exporting as far as that is not done."""
        output = self.runs / f"{row.name}-{seed}"
        weights, engines = output / "model.safetensors", output / "engines"
        if not weights.exists():
            config = write_yaml(output / "settings.yaml", row.settings(self.base, seed))
            train(config, output, self.threads, self.start(seed))
        if not engines.exists():
            build(weights, engines)
        return engines

    def reduced(self, row: Row, seed: int, precision: Literal["fp16", "int8"]) -> Path:
        """The same weights as an engine directory of lower precision, calibrated on videos of a split of their own."""
        output = self.runs / f"{row.name}-{seed}"
        engines = output / f"engines-{precision}"
        if not engines.exists():
            frames = output / "calibration"
            frames.mkdir(exist_ok=True)
            videos = SyntheticVideos("calibration", num_videos=8, num_frames=16)
            for number, frame in enumerate(np.concatenate([videos[i].frames for i in range(len(videos))])):
                Image.fromarray(frame).save(frames / f"{number:06d}.png")
            build(output / "model.safetensors", engines, reduced=Reduced(precision, frames))
        return engines

    def evaluate(self, row: Row, seed: int, sweep: bool) -> None:
        """Write every setting's result as soon as it is there; without `sweep`, of the model as trained alone."""
        path = RESULTS / f"{row.name}-{seed}.json"
        detector = Detector.from_pretrained(self.train(row, seed), threads=self.threads)
        document = json.loads(path.read_text()) if path.exists() else self.document(row, seed)
        own = detector.config.dials
        runs = [(label, detector, dials) for label, dials in (sweeps(row, own) if sweep else [("own", own)])]
        if sweep and row.name == "full":
            for precision in PRECISIONS:
                other = Detector.from_pretrained(self.reduced(row, seed, precision), threads=self.threads)
                runs.append((f"precision={precision}", other, own))
        for label, run, dials in runs:
            if label not in document["settings"]:
                print(f"{row.name}-{seed}: {label}", flush=True)
                document["settings"][label] = evaluate(RunDetector(run, dials), self.videos)
                write_json(path, document)

    def document(self, row: Row, seed: int) -> dict[str, Any]:
        settings = row.settings(self.base, seed)
        steps = sum(p["iterations"] for p in self.base["phases"])
        return {
            "row": row.name, "title": row.title, "seed": seed, "steps": steps, "training": settings, "settings": {},
            **environment(),
        }  # fmt: skip


def write_json(path: Path, document: dict[str, Any]) -> None:
    """The old file stays whole until the new one is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(document, indent=1) + "\n")
    os.replace(part, path)


def held_out() -> AnnotatedVideos:
    """The videos that everything is evaluated on."""
    return from_synthetic(SyntheticVideos("test", 60, 24))


def main() -> None:
    every = {f"{row.name}-{seed}": (row, seed) for seed in range(MOST_SEEDS) for row in ROWS if seed < row.seeds}
    names = list(every)
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--runs", type=given_path, default=ROOT / "runs" / "accuracy", help="trainings and engines")
    parser.add_argument("--only", nargs="*", choices=names, default=names, metavar="ROW-SEED", help=", ".join(names))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    plan = Plan(arguments.runs, arguments.threads, held_out(), yaml.safe_load(BASE.read_text()))
    chosen = [every[name] for name in names if name in arguments.only]
    for row, seed in chosen:
        plan.evaluate(row, seed, sweep=False)
    for row, seed in chosen:
        plan.evaluate(row, seed, sweep=seed == 0)


if __name__ == "__main__":
    main()
