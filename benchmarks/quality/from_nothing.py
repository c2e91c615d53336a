"""How long rdn_tiny.yaml takes from drawn weights to both stages, and what comes of it.

    python benchmarks/quality/from_nothing.py [--threads 1] [--run runs/from_nothing]

Trains as `training/train.py` does, exports, and evaluates on the held-out videos of `make accuracy` through
`rdn_engine.Detector`. Stopped at any point, the same command goes on. The time is that of the steps, the drawing of the
videos included, which the steps wait for; saving is not in it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.quality.accuracy import held_out, write_json
from export.build_engines import build
from rdn_engine import Detector
from training.arguments import given_path
from training.evaluation.detect import RunDetector, evaluate
from training.provenance import environment

ROOT = Path(__file__).resolve().parents[2]
CONFIG = "training/configs/rdn_tiny.yaml"
RESULT = ROOT / "benchmarks" / "results" / "from_nothing.json"


def seconds_of(log: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Of the steps, by phase: a line of log.jsonl holds the mean since the line before."""
    seconds: dict[str, float] = {}
    before = 0
    for line in log:
        if "step_seconds" in line:
            steps = line["iteration"] - before
            seconds[line["phase"]] = seconds.get(line["phase"], 0) + steps * line["step_seconds"]
            before = line["iteration"]
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--run", type=given_path, default=ROOT / "runs" / "from_nothing")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    run, threads = arguments.run, arguments.threads
    where = environment()  # before the training: the commit it was made with
    if not (run / "model.safetensors").exists():
        command = [sys.executable, "training/train.py", "--config", CONFIG, "--output", str(run)]
        subprocess.run([*command, "--threads", str(threads)], cwd=ROOT, check=True)
    if not (run / "engines").exists():
        build(run / "model.safetensors", run / "engines")
    seconds = seconds_of([json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()])
    detector = Detector.from_pretrained(run / "engines", threads=threads)
    found = evaluate(RunDetector(detector, detector.config.dials), held_out())
    minutes = {name: round(value / 60, 1) for name, value in seconds.items()}
    write_json(RESULT, {**where, "config": CONFIG, "threads": threads, "minutes": minutes, **found})


if __name__ == "__main__":
    main()
