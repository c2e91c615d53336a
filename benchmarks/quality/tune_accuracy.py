"""What `rdn-engine tune` misses by scoring a few dozen settings: AP50 of its best against that of an exhaustive sweep.

    python benchmarks/quality/tune_accuracy.py --bundle models/rdn_tiny/engines --output result.json

Every setting of the space is scored on rendered videos, and what each costs is told as `tune` tells it. Then the search
that `tune` makes runs for budgets that are parts of what the model's own dials cost, with any wait and with none. What
it finds and what the sweep finds are scored on held-out videos too, on which neither was chosen.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rdn_engine.config import Dials
from rdn_engine.evaluation.score import VID
from rdn_engine.tuning.accuracy import Accuracy
from rdn_engine.tuning.costs import Costs, measure_costs
from rdn_engine.tuning.machine import LiveMachine
from rdn_engine.tuning.search import Kind, Scores, Setting, measure_losses, search
from rdn_engine.tuning.space import Options, Space
from training.arguments import given_path
from training.data.synthetic import SyntheticVideos
from training.evaluation.videos import AnnotatedVideos, from_synthetic
from training.provenance import environment

BUDGETS = (1.0, 0.8, 0.6, 0.5, 0.4, 0.3)
"""Parts of what the model's own dials cost"""
WAITS = {"any": math.inf, "none": 0.0}
OPTIONS = Options(0, "onnxruntime", 1)
AT_ONCE = 100
"""Settings whose detections are held at once"""
PICTURES = 8


class Table:
    """AP50 of settings on some videos, each scored once."""

    def __init__(self, machine: LiveMachine, videos: AnnotatedVideos, folder: Path) -> None:
        self._machine, self._accuracy = machine, Accuracy(videos, videos.read, folder)
        self.known: dict[Dials, float] = {}

    def __call__(self, settings: Sequence[Dials]) -> list[float]:
        new = [dials for dials in dict.fromkeys(settings) if dials not in self.known]
        for start in range(0, len(new), AT_ONCE):
            part = new[start : start + AT_ONCE]
            scored = self._accuracy(0, self._machine.model(OPTIONS), part, lambda step: None)
            self.known |= dict(zip(part, scored, strict=True))
            if len(new) > AT_ONCE:
                print(f"{start + len(part)} of {len(new)} settings", flush=True)
        return [self.known[dials] for dials in settings]


def compared(space: Space, costs: Costs, swept: Table, held_out: Table, budget: float) -> dict[str, Any] | None:
    """One budget, in parts of what the model's own dials cost; None where nothing meets it."""
    limit = budget * costs.ms(OPTIONS, costs.space.own)
    every = space.every()
    within = [dials for dials in every if costs.ms(OPTIONS, dials) <= limit]
    if not within:
        return None
    scores = Scores(lambda kind, dials: swept(dials))
    losses = measure_losses([Kind.of(OPTIONS)], space, scores)
    candidates = [Setting(Kind.of(OPTIONS), dials) for dials in every]
    search(candidates, lambda one: costs.ms(OPTIONS, one.dials), limit, losses, scores)
    found = max((s.dials for s in scores.known if s.dials in set(within)), key=swept.known.__getitem__)
    best = max(within, key=swept.known.__getitem__)
    return {
        "budget": budget,
        "within": len(within),
        "scored": len(scores.known),
        "AP50": swept.known[found],
        "AP50_sweep": swept.known[best],
        "held_out": held_out([found])[0],
        "held_out_sweep": held_out([best])[0],
        "dials": named(found),
        "dials_sweep": named(best),
    }


def named(dials: Dials) -> dict[str, float]:
    """By their symbols."""
    return {"T": dials.window, "L": dials.frames_ahead, "K": dials.num_support, "N": dials.num_reference,
            "r": dials.advanced_ratio, "interval": dials.interval}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", type=given_path, required=True)
    parser.add_argument("--output", type=given_path, required=True)
    parser.add_argument("--videos", type=int, default=20, help="of each split")
    parser.add_argument("--frames", type=int, default=24)
    arguments = parser.parse_args()
    splits = [from_synthetic(SyntheticVideos(s, arguments.videos, arguments.frames)) for s in ("tuning", "test")]
    pictures = [splits[0].read(frame) for frame in splits[0].dataset.frames[:PICTURES]]
    machine = LiveMachine([arguments.bundle], pictures, 1, "float32")
    config = machine.model(OPTIONS).config
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        swept, held_out = Table(machine, splits[0], Path(first)), Table(machine, splits[1], Path(second))
        costs = measure_costs(machine, [OPTIONS], Space.of(config, math.inf))
        rows = {}
        for name, longest in WAITS.items():
            space = Space.of(config, longest)
            swept(space.every())
            found = [compared(space, costs, swept, held_out, budget) for budget in BUDGETS]
            rows[name] = [row for row in found if row is not None]
            for row in rows[name]:
                print(name, row, flush=True)
    result = {
        "model": str(arguments.bundle),
        "protocol": VID,
        "data": splits[0].name,
        "held_out": splits[1].name,
        "frames": len(splits[0].dataset.frames),
        "rows": rows,
        **environment(),
    }
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
