"""YOLOV's relation stage of a steady stream against the straightforward torch implementation, one thread each.

    python benchmarks/kernel/cosine.py --output benchmarks/results/cosine_cpu.json

Ours is what a stream runs for a frame after its encoder: CosineWindow.append, relate, and the class logits. `baseline`
computes what the public online head does for a frame: it keeps the features of the window, and every projection, both
attentions, the values' cosines, the second round and both linear layers are of all rows of it, of which the frame's
own are then classified. `lean` computes all that the frame's own rows need and nothing else: projections, attentions
and the first linear layer of all rows, the rest of its own. Neither keeps anything but features from frame to frame.
Each side is a process of its own, on the same core, and they take turns, frame by frame; `cpu_ms` is the processor's
time, which others on the same core do not lengthen much. None is timed before its
logits match float64, nor reported if the last ones do not, nor if ours are off by more than a third of the baseline's.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from numpy.typing import NDArray

from benchmarks.kernel.turns import ENVIRONMENT, WARM_UP, core, spread, take_turns
from benchmarks.measure import ratios
from rdn_engine.host.cosine import CosineWindow
from rdn_engine.host.cosine_branch import CosineBranch, CosineSettings
from rdn_engine.kernels import cpu
from rdn_engine.kernels.cpu.arrays import Float
from tests.reference_cosine import SHARPNESS, branch
from training.arguments import given_path
from training.provenance import environment

SETTINGS = CosineSettings(dim=128)
FRAMES, CLASSES, OBJECTS = 31, 30, 8
NOISE = 0.7  # of a proposal's features, beside its object's
TOLERANCE = 1e-5
"""Relative error against float64, norm over norm, above which nothing is timed."""
TIE = 1e-6
"""A row with a cosine this near to the threshold is not compared: float32 cannot tell which side it is on."""
SHARE = 1 / 3
"""Of the baseline's error that ours may have."""


@dataclass(frozen=True)
class Case:
    """Sizes, and how many frames each side is timed on."""

    proposals: int
    rounds: int
    frames: int = FRAMES
    seed: int = 0


FULL = (Case(30, rounds=41), Case(75, rounds=21))
QUICK = (Case(8, rounds=5, frames=7),)


@dataclass(frozen=True)
class Proposals:
    """Of one frame: features [P, D], scores [P]."""

    features_cls: Float
    features_reg: Float
    confidence: Float
    objectness: Float

    @property
    def arrays(self) -> tuple[Float, Float, Float, Float]:
        return self.features_cls, self.features_reg, self.confidence, self.objectness


def make_weights(case: Case) -> dict[str, Float]:
    """Every stage is about as large as its input; the logits' layer is `classify`."""
    rng = np.random.default_rng([case.seed, 0])
    shapes = SETTINGS.shapes() | {"classify.weight": (CLASSES, 4 * SETTINGS.dim), "classify.bias": (CLASSES,)}
    return {
        name: np.float32(shape[-1] ** -0.5 if len(shape) == 2 else 0.1) * rng.standard_normal(shape, np.float32)
        for name, shape in shapes.items()
    }


def make_frame(case: Case, t: int) -> Proposals:
    """Frame t: proposals of eight objects that stay, each with noise of its own."""
    objects = np.random.default_rng([case.seed, 1]).standard_normal((2, OBJECTS, SETTINGS.dim))
    rng = np.random.default_rng([case.seed, 2, t])
    which = rng.integers(0, OBJECTS, case.proposals)
    cls, reg = (o[which] + NOISE * rng.standard_normal((case.proposals, SETTINGS.dim)) for o in objects)
    scores = rng.random((2, case.proposals), np.float32)
    return Proposals(cls.astype(np.float32), reg.astype(np.float32), *scores)


class Ours:
    def __init__(self, case: Case, weights: Mapping[str, Float]) -> None:
        self._memory = CosineWindow(CosineBranch(SETTINGS, weights), frames=case.frames, proposals=case.proposals)
        self._frames = case.frames
        self._classify = cpu.pack_weight(weights["classify.weight"]), np.asarray(weights["classify.bias"], np.float64)
        self.parts: dict[str, float] = {}
        """Seconds of the last frame."""

    def push(self, frame: Proposals) -> Float | None:
        """The frame's logits, once the window is full."""
        times = [time.perf_counter()]
        t = self._memory.append(*frame.arrays)
        times.append(time.perf_counter())
        out = self._memory.relate(t, range(max(0, t - self._frames + 1), t + 1)).out
        times.append(time.perf_counter())
        logits = cpu.linear_exact(out, *self._classify).astype(np.float32)
        times.append(time.perf_counter())
        self.parts = dict(zip(("append", "relate", "logits"), np.diff(times).tolist(), strict=True))
        return logits


class Baseline:
    """Features and scores of the window are kept, nothing else. Starts once the window is full."""

    def __init__(self, case: Case, weights: Mapping[str, Float], lean: bool = False) -> None:
        # Here, so that our side's process has no torch in its memory.
        import torch

        torch.set_num_threads(1)
        self._torch, self._lean = torch, lean
        self._weights = {name: torch.from_numpy(array) for name, array in weights.items()}
        self._kept: deque[Proposals] = deque(maxlen=case.frames)
        self.parts: dict[str, float] = {}

    def push(self, frame: Proposals) -> Float | None:
        self._kept.appendleft(frame)  # the reference first
        if len(self._kept) < (self._kept.maxlen or 0):
            return None
        with self._torch.inference_mode():
            logits: Float = self._relate(len(frame.confidence)).numpy()
        return logits

    def _relate(self, n: int) -> Any:
        torch, w, heads = self._torch, self._weights, SETTINGS.heads
        cls, reg, confidence, objectness = (
            torch.from_numpy(np.concatenate(part)) for part in zip(*(frame.arrays for frame in self._kept), strict=True)
        )
        rows, dim = cls.shape

        def attend(features: Any, weight: Any, score: Any) -> tuple[Any, Any]:
            q, k, v = (features @ weight.T).reshape(rows, 3, heads, -1).permute(1, 2, 0, 3)
            q, k = (x / x.norm(dim=-1, keepdim=True) for x in (q, k))
            return torch.softmax(q @ k.transpose(1, 2) * (SHARPNESS * score), -1), v

        attention, v = attend(cls, w["qkv_cls.weight"], confidence)
        attention_reg, _ = attend(reg, w["qkv_reg.weight"], objectness)
        attention = (attention + attention_reg) / 2
        values = v.transpose(0, 1).reshape(rows, dim)
        x = torch.cat([(attention @ v).transpose(0, 1).reshape(rows, dim), values], 1)
        first = torch.nn.functional.linear(x, w["linear1.weight"], w["linear1.bias"])
        unit = v / v.norm(dim=-1, keepdim=True)
        wanted = n if self._lean else rows
        taken = (unit[:, :wanted] @ unit.transpose(1, 2)).mean(0) > SETTINGS.similarity
        weights = torch.softmax(attention[:, :wanted].mean(0), -1) * taken
        weights = weights / weights.sum(1, keepdim=True)
        second = torch.cat([weights @ first, first[:wanted]], 1)
        out = torch.nn.functional.linear(second, w["linear2.weight"], w["linear2.bias"])[:n]
        return torch.nn.functional.linear(out, w["classify.weight"], w["classify.bias"])


SIDES: dict[str, Callable[[Case, Mapping[str, Float]], Ours | Baseline]] = {
    "ours": Ours,
    "baseline": Baseline,
    "lean": partial(Baseline, lean=True),
}


def make_side(name: str, case: Case) -> Ours | Baseline:
    """One side, in its process."""
    return SIDES[name](case, make_weights(case))


@dataclass(frozen=True)
class Truth:
    """What the definition says of a frame, from the same inputs."""

    logits: NDArray[np.float64]
    decided: NDArray[np.bool_]
    """[P] rows that float32 can compare"""
    taken: float
    """share of the pairs that the second round takes"""


def float64_logits(case: Case, newest: int) -> Truth:
    window = [make_frame(case, t) for t in range(newest, newest - case.frames, -1)]
    weights = make_weights(case)
    found = branch(weights, *(np.concatenate(part) for part in zip(*(f.arrays for f in window), strict=True)))
    rows = slice(case.proposals)
    logits = found["out"][rows] @ np.asarray(weights["classify.weight"], np.float64).T + weights["classify.bias"]
    similar = found["sim"][rows]
    decided: NDArray[np.bool_] = np.all(np.abs(similar - SETTINGS.similarity) > TIE, axis=1)
    return Truth(logits, decided, float((similar > SETTINGS.similarity).mean()))


def relative_error(name: str, when: str, logits: Float, truth: Truth) -> float:
    """Norm of the difference over the norm of what was wanted; exits where it is too large."""
    wanted = truth.logits[truth.decided]
    error = float(np.linalg.norm(logits[truth.decided] - wanted) / np.linalg.norm(wanted))
    if not error <= TOLERANCE:
        raise SystemExit(f"{name}, {when} steady frame: relative error {error} against float64; wanted {TOLERANCE}")
    return error


def measure(case: Case) -> dict[str, Any]:
    newest = {"first": case.frames - 1, "last": case.frames - 1 + WARM_UP + case.rounds}

    @cache
    def truth(when: str) -> Truth:
        return float64_logits(case, newest[when])

    def check(name: str, when: str, logits: Float) -> float:
        return relative_error(name, when, logits, truth(when))

    sides = take_turns(
        {name: partial(make_side, name, case) for name in SIDES}, partial(make_frame, case),
        first=newest["first"], rounds=case.rounds, check=check,
    )  # fmt: skip
    ours = sides["ours"]
    others = {name: side for name, side in sides.items() if name != "ours"}
    for when, error in ours["relative_error"].items():
        least = min(side["relative_error"][when] for side in others.values())
        if error > SHARE * least:
            raise SystemExit(f"ours, {when} steady frame: error {error} against float64; wanted a third of {least}")
    return {
        **asdict(case),
        "rows": case.frames * case.proposals,
        "taken": [round(truth(when).taken, 4) for when in newest],
        "left_out": [int((~truth(when).decided).sum()) for when in newest],
        "window_bytes": CosineWindow.nbytes_for(SETTINGS, frames=case.frames, proposals=case.proposals),
        **sides,
        "ratios": {
            name: spread(ratios(side["ms"], ours["ms"]), "ratio")
            | spread(ratios(side["cpu_ms"], ours["cpu_ms"]), "cpu_ratio")
            for name, side in others.items()
        },
        "process": {"threads": 1, "core": core(), "environment": ENVIRONMENT},
    }


def table(results: list[dict[str, Any]]) -> str:
    lines = []
    for result in results:
        lines.append(f"{result['proposals']} proposals, {result['frames']} frames, taken {result['taken']}")
        for name in SIDES:
            s = result[name]
            error = max(s["relative_error"].values())
            times = " ".join(f"{s[f'{kind}_ms']:9.2f}" for kind in ("median", "min", "max"))
            found = result["ratios"].get(name, {"median_ratio": 1.0, "median_cpu_ratio": 1.0})
            ratio = f"{found['median_ratio']:6.1f} x ({found['median_cpu_ratio']:.1f} by the processor's time)"
            lines.append(f"  {name:9} {times} ms, {ratio}, {s['peak_mb']:5.0f} MB, error {error:.1e}")
        lines.append("  ours: " + ", ".join(f"{part} {ms:.2f} ms" for part, ms in result["ours"]["parts_ms"].items()))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=given_path, required=True, help="JSON file to write")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    arguments = parser.parse_args()
    results = [measure(case) for case in (QUICK if arguments.quick else FULL)]
    settings = asdict(SETTINGS) | {"classes": CLASSES}
    document = {"settings": settings, "cases": results, **environment()}
    arguments.output.write_text(json.dumps(document, indent=2) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
