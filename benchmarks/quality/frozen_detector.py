"""What relations add to a detector that stays as it is.

    python benchmarks/quality/frozen_detector.py [--threads 1] [--runs runs/frozen_detector]

The detector is a small FCOS of torchvision's parts, trained on rendered videos (training/configs/fcos_tiny.yaml),
exported and attached as anybody's is. On its features relations are trained (fcos_tiny_relations.yaml), three times
from other seeds. The detector alone and each of the three are evaluated as engine directories on held-out rendered
videos. Stopped at any point, the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.quality.accuracy import write_json
from benchmarks.quality.from_nothing import seconds_of
from export.attach import DIALS, Options, attach
from export.attach_relations import attach_relations
from export.families import FAMILIES
from export.torchvision_detector import export
from rdn_engine import Detector
from training.arguments import given_path
from training.checkpoints.fcos import load_fcos
from training.data.synthetic import SyntheticVideos
from training.evaluation.detect import RunDetector, evaluate
from training.evaluation.videos import AnnotatedVideos, from_synthetic
from training.provenance import environment
from training.settings import Settings
from training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "benchmarks" / "results" / "frozen_detector.json"
CONFIGS = ROOT / "training" / "configs"
START = ROOT / "models" / "rdn_tiny" / "model.safetensors"
SIZE = (128, 192)
SEEDS = 3
PROPOSALS = 32
HELD_OUT = (60, 24)
"""Videos, and frames of each"""


def train(told: Settings, run: Path, start: Path | None) -> float:
    """Train to the end, unless that has been done; minutes of the steps."""
    if not (run / "model.safetensors").exists():
        Trainer(told, run, start).run()
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return sum(seconds_of(log).values()) / 60


def attached(folder: Path) -> tuple[Path, float]:
    """The engine directory of the detector alone, and the minutes of its training."""
    engines = folder / "engines"
    minutes = train(Settings.read(CONFIGS / "fcos_tiny.yaml"), folder / "detector", START)
    if not engines.exists():
        model = load_fcos(folder / "detector" / "model.safetensors")
        given = model.config.input
        export(model, SIZE, range(1, model.config.num_logits), folder / "detector.onnx")
        how = replace(FAMILIES["torchvision"].preprocessing, mean=given.mean, std=given.std)
        dials = replace(DIALS, num_reference=PROPOSALS)
        options = Options("torchvision", model.config.class_names, preprocessing=how, dials=dials)
        attach(folder / "detector.onnx", engines, options, name="fcos_tiny")
    return engines, minutes


def settings(folder: Path, engines: Path, seed: int) -> Settings:
    """Of the relations."""
    changes = [f"detector={engines}", f"features={folder / 'features'}", f"seed={seed}"]
    return Settings.read(CONFIGS / "fcos_tiny_relations.yaml", changes)


@cache
def held_out() -> AnnotatedVideos:
    """Drawn once they are wanted."""
    return from_synthetic(SyntheticVideos("test", *HELD_OUT))


def figures(engines: Path, threads: int) -> dict[str, Any]:
    """AP50 in all and by speed of an engine directory; kept beside it."""
    path = engines.parent / f"{engines.name}.json"
    if not path.exists():
        detector = Detector.from_pretrained(engines, threads=threads)
        found = evaluate(RunDetector(detector, detector.config.dials), held_out())
        speed = {name: found["speed"][name]["AP50"] for name in ("slow", "medium", "fast")}
        write_json(path, {"AP50": found["vid"]["AP50"], **speed})
    row: dict[str, Any] = json.loads(path.read_text())
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--runs", type=given_path, default=ROOT / "runs" / "frozen_detector")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seeds", type=int, nargs="+", default=range(SEEDS), help="to train now; others are left")
    arguments = parser.parse_args()
    folder, threads = arguments.runs.resolve(), arguments.threads
    where = environment()  # before the training: the commit it was made with
    torch.set_num_threads(threads)
    engines, minutes = attached(folder)
    rows: list[dict[str, Any]] = [{"head": "detector", "minutes": round(minutes, 1), **figures(engines, threads)}]
    began, features = time.monotonic(), folder / "features_minutes.json"
    for seed in arguments.seeds:
        run = folder / f"relations-{seed}"
        told = settings(folder, engines, seed)
        if not features.exists():
            Trainer(told, run)
            write_json(features, {"minutes": (time.monotonic() - began) / 60})
        taken = train(told, run, None)
        if not (run / "engines").exists():
            attach_relations(engines, run / "model.safetensors", run / "engines", name="fcos_tiny")
        found = figures(run / "engines", threads)
        rows.append({"head": "relations", "seed": seed, "minutes": round(taken, 1), **found})
        print(rows[-1], flush=True)
    if len(rows) == 1 + SEEDS:
        spent = round(json.loads(features.read_text())["minutes"], 1)
        measured = {"threads": threads, "held_out": HELD_OUT, "features_minutes": spent}
        write_json(RESULT, {**where, **measured, "rows": rows})


if __name__ == "__main__":
    main()
