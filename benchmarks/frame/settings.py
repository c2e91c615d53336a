"""What `latency.py` measures: one Setting a point, points that are compared in one Sweep."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rdn_engine.backends.graph import BackendName, Device
from rdn_engine.config import Dials, RDNConfig
from rdn_engine.detector import RelationPrecision
from rdn_engine.host.runtime import Executor
from rdn_engine.kernels import _C
from rdn_engine.kernels.cpu import RingPrecision

Kind = Literal["push", "first", "batch"]


@dataclass(frozen=True)
class Process:
    """What a process is started for. Settings of one process share its Detector."""

    engines: str
    """directory of the bundle"""
    side: Literal["product", "baseline"] = "product"
    backend: BackendName = "onnxruntime"
    device: Device = "cpu"
    executor: Executor = "fused"
    relation_precision: RelationPrecision = "float32"
    ring_precision: RingPrecision = "float32"
    threads: int = 1
    shorter_side: int | None = None
    """pixels of the network input, the longer side in proportion; None is the bundle's own"""


@dataclass(frozen=True)
class Setting:
    """One point. `push`: a steady frame. `first`: from the first frame to the first result. `batch`: the encoder."""

    process: Process
    dials: Dials
    kind: Kind = "push"
    streams: int = 1
    """streams that push at once, each in a Python thread; milliseconds are of one frame, wall clock over streams"""
    batch: int = 1
    """images in one call of the encoder; milliseconds are of one image"""
    frames: int = 1
    """frames that are pushed in a round; milliseconds are of one"""
    repeated: int = 0
    """the last of them, which show the one before them, or of the round before, with other noise"""

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Sweep:
    """Settings measured in turns, round by round. The ratios of a point are to `reference` in the same round."""

    name: str
    label: str
    """of the column of values"""
    points: tuple[tuple[str, Setting], ...]
    """value -> setting"""
    reference: str
    """one of the values"""

    def rounds(self, asked: int) -> int:
        """A point of `first` is some twenty frames, so it takes a fifth of the rounds."""
        return max(1, asked // 5) if self.name == "first" else asked

    @property
    def warm_up(self) -> int:
        """Rounds that are not counted, at the start and after each interruption; the checked frame came before."""
        return 0 if self.name == "first" else 1


T_VALUES = (3, 6, 9, 12, 15, 18, 21, 24)
K_VALUES = (25, 50, 75, 100, 150, 200, 250, 300)
R_VALUES = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
# Not K = 300: the demo model has an advanced stage, whose pairs the check against the other executor writes to memory.
QUICK_VALUES: dict[str, tuple[float, ...]] = {"T": (3, 18, 24), "K": (25, 75, 150), "r": (0.1, 0.2, 1.0)}
ENDS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    dial: ((values[0], values[-1]), (QUICK_VALUES[dial][0], QUICK_VALUES[dial][-1]))
    for dial, values in {"T": T_VALUES, "K": K_VALUES, "r": R_VALUES}.items()
}
"""Of a dial the first and the last value, and those of a quick run"""
PAPER_POINT = Dials(window=18, num_support=75, num_reference=300, advanced_ratio=0.2)
"""T, K, N and r to which the paper's rows and ours are normalised."""

INTERVALS = (1, 2, 3, 4)
STILL = 6.0
"""Grey levels: the standard deviation of the noise of `benchmarks/frames.py`, whose block means are far steadier"""
STILL_FRAMES = 10
"""Pushed in a round of `still` and of `threshold`"""
THRESHOLDS = (2.0, 4.0, 6.0, 8.0)
"""Grey levels, of `threshold`"""

NAMES = ("T", "K", "r", "ends", "N", "executor", "ring", "backend", "resolution", "threads", "streams", "batch",
         "first", "interval", "still", "threshold", "bundles", "baseline")  # fmt: skip


def paper_dials(config: RDNConfig) -> Dials:
    """The paper's T, K, N and r, and the rest as the model has it."""
    p = PAPER_POINT
    return replace(config.dials, window=p.window, look_ahead=None, num_support=p.num_support,
                   num_reference=p.num_reference, advanced_ratio=p.advanced_ratio)  # fmt: skip


def make_sweep(
    name: str,
    base: Process,
    config: RDNConfig,
    others: Sequence[Process] = (),
    backends: Sequence[BackendName] = (),
    quick: bool = False,
    cores: int = 2,
) -> Sweep | None:
    """The sweep called `name` around the paper's point; None where the model or the options have nothing to vary.

    others: processes of the other bundles, for `bundles` and `baseline`; cores: how many there are to run on.
    """
    dials = paper_dials(config)
    relation = config.relation

    def sweep(label: str, points: dict[str, Setting], reference: str) -> Sweep | None:
        return Sweep(name, label, tuple(points.items()), reference) if len(points) > 1 else None

    def vary(label: str, field: str, values: Sequence[float], reference: float) -> Sweep | None:
        changes: list[dict[str, Any]] = [{field: v} for v in values]
        points = {_text(field, change[field]): Setting(base, replace(dials, **change)) for change in changes}
        return sweep(label, points, _text(field, reference))

    if name == "T" and relation.num_modules:
        return vary("T", "window", QUICK_VALUES["T"] if quick else T_VALUES, dials.window)
    if name == "K" and relation.num_modules:
        return vary("K", "num_support", QUICK_VALUES["K"] if quick else K_VALUES, dials.num_support)
    if name == "r" and relation.advanced:
        return vary("r", "advanced_ratio", QUICK_VALUES["r"] if quick else R_VALUES, dials.advanced_ratio)
    if name == "ends" and relation.num_modules:
        fields = {"T": "window", "K": "num_support"} | ({"r": "advanced_ratio"} if relation.advanced else {})
        turned: dict[str, dict[str, Any]] = {
            f"{dial} = {_text(field, value)}": {field: value}
            for dial, field in fields.items()
            for value in ENDS[dial][quick]
        }
        ends = {value: Setting(base, replace(dials, **change)) for value, change in turned.items()}
        return sweep("dial", {"paper": Setting(base, dials)} | ends, "paper")
    if name == "N":
        return vary("N", "num_reference", (75, 150, 300), dials.num_reference)
    if name == "executor":
        executors = {"fused": base, "graph": replace(base, executor="graph")}
        if _C.isa == "avx512_bf16" and base.device == "cpu":
            executors["fused, bfloat16"] = replace(base, relation_precision="bfloat16")
        return sweep("executor", {name: Setting(process, dials) for name, process in executors.items()}, "fused")
    if name == "ring" and base.device == "cpu" and relation.num_modules:
        rings: tuple[RingPrecision, ...] = ("float32", "float16")
        return sweep("ring", {r: Setting(replace(base, ring_precision=r), dials) for r in rings}, "float32")
    if name == "backend":
        return sweep("backend", {b: Setting(replace(base, backend=b), dials) for b in backends}, base.backend)
    if name == "resolution":
        own = config.input.shorter_side
        sides = sorted({round(own * part / 16) * 16 for part in (2 / 3, 4 / 3)} | {own})
        points = {f"{s} px": Setting(replace(base, shorter_side=None if s == own else s), dials) for s in sides}
        return sweep("shorter side", points, f"{own} px")
    if name == "threads":
        points = {str(n): Setting(replace(base, threads=n), dials) for n in (1, 2) if n <= cores}
        return sweep("threads", points, "1")
    if name == "streams":
        counts = (1, 8, 32) if base.device == "cuda" else tuple(n for n in (1, 2, 4) if n <= 2 * cores)
        return sweep("streams", {str(n): Setting(base, dials, streams=n) for n in counts}, "1")
    if name == "batch":
        return sweep("images a call", {str(n): Setting(base, dials, "batch", batch=n) for n in (1, 2, 4)}, "1")
    if name == "first":
        ahead = {f"L = {n}": Setting(base, replace(dials, look_ahead=n), "first") for n in (0, 2, dials.window)}
        return sweep("look-ahead", ahead, f"L = {dials.window}")
    if name == "interval" and base.device == "cpu":
        points = {str(n): Setting(base, replace(dials, interval=n), frames=n) for n in INTERVALS}
        return sweep("interval", points, "1")
    if name == "still" and base.device == "cpu":
        gate = replace(dials, still=STILL, still_run=2**20)
        off = Setting(base, dials, frames=STILL_FRAMES, repeated=round(0.9 * STILL_FRAMES))
        parts = {f"{p:.0%} still": replace(off, dials=gate, repeated=round(p * STILL_FRAMES)) for p in (0, 0.5, 0.9, 1)}
        return sweep("still", {"off": off} | parts, "off")
    if name == "threshold" and base.device == "cpu":
        gates = {f"{t:g}": replace(dials, still=t, still_run=2**20) for t in (0.0, *THRESHOLDS)}
        repeated = round(0.9 * STILL_FRAMES)
        points = {t: Setting(base, gate, frames=STILL_FRAMES, repeated=repeated) for t, gate in gates.items()}
        return sweep("threshold", points, "0")
    if name == "bundles":
        return sweep("bundle", {bundle_label(p.engines): Setting(p, dials) for p in (base, *others)},
                     bundle_label(base.engines))  # fmt: skip
    if name == "baseline":
        threads = (1,) if base.device == "cuda" else (1, 2)
        ours = {f"{bundle_label(p.engines)}, {n} thread{'s' * (n > 1)}": Setting(replace(p, threads=n), dials)
                for p in (base, *others) for n in threads if n <= cores}  # fmt: skip
        plain = {"baseline": Setting(replace(base, side="baseline", threads=1), dials)}
        return sweep("side", plain | ours, "baseline")
    return None


def bundle_label(engines: str) -> str:
    """The last two parts of the directory's path."""
    return "/".join(Path(engines).resolve().parts[-2:])


def _text(field: str, value: float) -> str:
    return f"{value:.0%}" if field == "advanced_ratio" else str(value)
