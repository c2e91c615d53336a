"""The relation stage of a steady stream against the straightforward torch implementation, one thread each.

    python benchmarks/kernel/relation.py --output benchmarks/results/relation_cpu.json

Ours is what a Stream runs for a frame after its encoder: projections of the new frame's proposals (ONNX Runtime; in a
bundle they are part of the roi_head graph), Window.append, reference and pool, and FusedRelation; once in float32, once
with the ring in float16, once with the operands of the stage's products in bfloat16 where the processor has them.
The other side is benchmarks/frame/baseline.py on the same features and boxes, and benchmarks/frame/planar.py, which
lays the same operations out with more care than public code does. Each side is a process of its own, on the same core,
and they take turns, frame by frame. None is timed before its outputs match float64, nor reported if the last ones do
not.
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
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import rdn_engine.backends.onnxruntime  # noqa: F401  first: it keeps ONNX Runtime from writing into the home folder
from training.arguments import given_path

# isort: split
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from benchmarks.kernel.turns import ENVIRONMENT, WARM_UP, core, spread, take_turns
from benchmarks.measure import ratios
from rdn_engine.config import Dials, RDNConfig, RelationConfig
from rdn_engine.host.features import EncodedFrame
from rdn_engine.host.relation import FusedRelation
from rdn_engine.host.window import Window
from rdn_engine.kernels import _C
from rdn_engine.kernels.cpu.arrays import Float, Precision
from tests.reference_relation import relation_stage
from training.provenance import environment

if TYPE_CHECKING:
    from rdn_engine.kernels.cpu.arrays import RingPrecision

Outputs = dict[str, Float]
"""logits [n, C + 1], deltas [n, 4 (C + 1)]"""

TOLERANCE = {"ours": 1e-4, "ours_float16_ring": 1e-3, "ours_bfloat16": 1e-2, "baseline": 1e-4, "planar": 1e-4}
"""Relative error against float64, norm over norm, above which nothing is timed."""
HEIGHT, WIDTH, CLASSES = 600, 1000, 30


@dataclass(frozen=True)
class Case:
    """Sizes, and how many frames each side is timed on."""

    dials: Dials
    relation: RelationConfig
    rounds: int
    seed: int = 0

    @property
    def config(self) -> RDNConfig:
        return RDNConfig(tuple(f"class{i}" for i in range(CLASSES)), relation=self.relation, dials=self.dials)

    @property
    def frames(self) -> int:
        """Frames until the window is full: the last of them is the first steady one."""
        return self.dials.window + self.dials.frames_ahead + 1


FULL = Case(Dials(18, num_support=75, num_reference=300, advanced_ratio=0.2), RelationConfig(1024, 16, 2), rounds=15)
QUICK = Case(Dials(4, num_support=25, num_reference=100, advanced_ratio=0.2), RelationConfig(256, 4, 2), rounds=9)


@dataclass(frozen=True)
class Proposals:
    """What is known of a frame before the relation stage: boxes [N, 4] network-input pixels, [N], features [N, D]."""

    boxes: Float
    objectness: Float
    features: Float


def make_weights(case: Case) -> dict[str, Float]:
    """By the names of relation.npz: logits q.k / 8 deviate by about 1, geometry is as large as in the parity data."""
    rng = np.random.default_rng([case.seed, 0])
    dim, logits, r = case.relation.dim, case.config.num_logits, case.relation
    weights: dict[str, Float] = {}

    def linear(name: str, rows: int, columns: int, scale: float, bias: float = 0.0, spread: float = 0.1) -> None:
        weights[f"{name}.weight"] = np.float32(scale) * rng.standard_normal((rows, columns), dtype=np.float32)
        weights[f"{name}.bias"] = rng.normal(bias, spread, rows).astype(np.float32)

    for i in range(r.num_modules):
        for part in ("query", "key", "value"):
            linear(f"rel.{i}.{part}", dim, dim, (2 / dim) ** 0.5)
        linear(f"rel.{i}.geometry", r.heads, 64, 0.18, 1.5, 0.3)
    for name in [*(f"basic_fc.{i}" for i in range(r.num_basic - 1)), "advanced_fc"]:
        linear(name, dim, dim, (2 / dim) ** 0.5)
    for name, rows in (("classify", logits), ("regress", 4 * logits)):
        linear(name, rows, dim, (2 / dim) ** 0.5)
    return weights


def make_frame(case: Case, t: int) -> Proposals:
    """Frame t: two thirds of its proposals around eight moving objects, the others anywhere, clipped to the image."""
    n = case.dials.num_reference
    objects = np.random.default_rng([case.seed, 1])
    start, speed = objects.uniform([100, 100], [WIDTH - 100, HEIGHT - 100], (8, 2)), objects.normal(0, 4, (8, 2))
    sides = np.exp(objects.uniform(np.log(60), np.log(400), (8, 2)))
    rng = np.random.default_rng([case.seed, 2, t])
    which = rng.integers(0, 8, n)
    near = rng.random(n)[:, None] < 2 / 3
    centre = start[which] + t * speed[which] + rng.normal(0, 0.15, (n, 2)) * sides[which]
    centre = np.where(near, centre.clip(0, [WIDTH, HEIGHT]), rng.uniform(0, [WIDTH, HEIGHT], (n, 2)))
    side = np.where(near, sides[which] * np.exp(rng.normal(0, 0.3, (n, 2))), np.exp(rng.uniform(3, 6, (n, 2))))
    boxes = np.concatenate([centre - side / 2, centre + side / 2], 1).clip(0, [WIDTH - 1, HEIGHT - 1] * 2)
    features = np.maximum(rng.standard_normal((n, case.relation.dim), dtype=np.float32), 0)
    return Proposals(boxes.astype(np.float32), np.sort(rng.random(n, dtype=np.float32))[::-1].copy(), features)


class Ours:
    """What a Stream does between encoder and postprocess."""

    def __init__(
        self, case: Case, weights: Mapping[str, Float], precision: Precision = "float32", **kept: RingPrecision
    ) -> None:
        """kept: `ring`, where it is not to be float32; commits before it do not know it."""
        self._case = case
        self.window = Window(case.relation, case.dials, precision, **kept)
        self._relation = FusedRelation(case.config, weights, 1, precision)
        self._project = projections(case, weights)
        self.parts: dict[str, float] = {}
        """Seconds of the last frame."""

    def push(self, frame: Proposals) -> Outputs | None:
        """The outputs of the frame L before this one, once there is one."""
        dials, window = self._case.dials, self.window
        times = [time.perf_counter()]
        found = dict(zip(PROJECTED, self._project.run(PROJECTED, {"features": frame.features}), strict=True))
        times.append(time.perf_counter())
        t = window.append(EncodedFrame(frame.boxes, frame.objectness, frame.features, **found)) - dials.frames_ahead
        if t < 0:
            return None
        reference = window.reference(t, dials.num_reference)
        pool = window.pool(t, dials)
        times.append(time.perf_counter())
        output = self._relation(reference.boxes, reference.features, reference.query, pool)
        times.append(time.perf_counter())
        self.parts = dict(zip(("projections", "window", "relation"), np.diff(times).tolist(), strict=True))
        return {"logits": output.logits, "deltas": output.deltas}


PROJECTED = ["query", "keys", "values", "refine_query"]


def projections(case: Case, weights: Mapping[str, Float]) -> onnxruntime.InferenceSession:
    """features [n, D] -> what roi_head puts out beyond them, of the first K for keys, values and refine_query."""
    r, k = case.relation, case.dials.num_support
    node = onnx.helper.make_node
    nodes = [node("Slice", ["features", "zero", "k", "zero"], ["support"])]
    constants = {"zero": np.array([0]), "k": np.array([k]), "nothing": np.zeros(r.dim, np.float32)}

    def linear(name: str, x: str, out: str, bias: bool = True) -> None:
        added = f"{name}.bias" if bias else "nothing"
        constants[f"{name}.weight"] = weights[f"{name}.weight"]
        if bias:
            constants[added] = weights[added]
        nodes.append(node("Gemm", [x, f"{name}.weight", added], [out], transB=1))

    linear("rel.0.query", "features", "query")
    linear(f"rel.{r.num_basic}.query", "support", "refine_query")
    for part in ("key", "value"):
        for i in range(r.num_cached):
            linear(f"rel.{i}.{part}", "support", f"{part}{i}", bias=part == "key")
            nodes.append(node("Unsqueeze", [f"{part}{i}", "zero"], [f"{part}{i}/module"]))
        nodes.append(node("Concat", [f"{part}{i}/module" for i in range(r.num_cached)], [f"{part}s"], axis=0))
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "projections",
        [value("features", onnx.TensorProto.FLOAT, ["n", r.dim])],
        [value(name, onnx.TensorProto.FLOAT, None) for name in PROJECTED],
        [onnx.numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in constants.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def ours_bfloat16(case: Case, weights: Mapping[str, Float]) -> Ours:
    return Ours(case, weights, "bfloat16")


class Baseline:
    """Public code: proposals and features of the window are kept, nothing else. Starts once the window is full."""

    def __init__(self, case: Case, weights: Mapping[str, Float], planar: bool = False) -> None:
        # Here, so that our side's process has no torch in its memory.
        import torch

        from benchmarks.frame.baseline import BaselineRelation
        from benchmarks.frame.planar import PlanarRelation
        from training.model.inference import advanced_rows
        from training.model.relation import RelationStage

        torch.set_num_threads(1)
        stage = RelationStage(case.relation, case.config.num_logits)
        stage.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
        self._relation = (PlanarRelation if planar else BaselineRelation)(stage.eval())
        self._torch, self._advanced_rows, self._case = torch, advanced_rows, case
        self._kept: deque[Proposals] = deque(maxlen=case.frames)
        self.parts: dict[str, float] = {}

    def push(self, frame: Proposals) -> Outputs | None:
        dials, torch, kept = self._case.dials, self._torch, self._kept
        kept.append(frame)
        if len(kept) < self._case.frames:
            return None
        k, reference, tensor = dials.num_support, kept[dials.window], torch.from_numpy
        logits, deltas = self._relation(
            tensor(reference.features),
            tensor(reference.boxes),
            torch.cat([tensor(p.features[:k]) for p in kept]),
            torch.cat([tensor(p.boxes[:k]) for p in kept]),
            self._advanced_rows([tensor(p.objectness[:k]) for p in kept], dials),
        )
        return {"logits": logits.numpy(), "deltas": deltas.numpy()}


SIDES: dict[str, Callable[[Case, Mapping[str, Float]], Ours | Baseline]] = {
    "ours": Ours,
    "ours_float16_ring": partial(Ours, ring="float16"),
}
if _C.isa == "avx512_bf16":
    SIDES["ours_bfloat16"] = ours_bfloat16
SIDES |= {"baseline": Baseline, "planar": partial(Baseline, planar=True)}


def make_side(name: str, case: Case) -> Ours | Baseline:
    """One side, in its process."""
    return SIDES[name](case, make_weights(case))


def float64_outputs(case: Case, newest: int) -> dict[str, NDArray[np.float64]]:
    """What the definition says of the frame L before `newest`, from the same inputs."""
    dials, k = case.dials, case.dials.num_support
    window = [make_frame(case, t) for t in range(newest - case.frames + 1, newest + 1)]
    reference, support = window[dials.window], np.concatenate([p.features[:k] for p in window])
    support_boxes = np.concatenate([p.boxes[:k] for p in window])
    advanced = np.concatenate([np.arange(dials.num_advanced) + i * k for i in range(len(window))])
    weights, features = make_weights(case), reference.features
    return relation_stage(weights, case.relation, features, reference.boxes, support, support_boxes, advanced=advanced)


def relative_errors(name: str, when: str, got: Outputs, wanted: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    """Norm of the difference over the norm of what was wanted, for each output; exits where one does not match."""
    norm = np.linalg.norm
    errors = {part: float(norm(array - wanted[part]) / norm(wanted[part])) for part, array in got.items()}
    if not all(error <= TOLERANCE[name] for error in errors.values()):
        wanted_error = TOLERANCE[name]
        raise SystemExit(
            f"{name}, {when} steady frame: relative errors {errors} against float64; wanted {wanted_error}"
        )
    return errors


def measure(case: Case) -> dict[str, Any]:
    newest = {"first": case.frames - 1, "last": case.frames - 1 + WARM_UP + case.rounds}

    @cache
    def wanted(when: str) -> dict[str, NDArray[np.float64]]:
        return float64_outputs(case, newest[when])

    def check(name: str, when: str, outputs: Outputs) -> dict[str, float]:
        return relative_errors(name, when, outputs, wanted(when))

    sides = take_turns(
        {name: partial(make_side, name, case) for name in SIDES}, partial(make_frame, case),
        first=newest["first"], rounds=case.rounds, check=check,
    )  # fmt: skip
    times = {name: ratios(sides["baseline"]["ms"], sides[name]["ms"]) for name in SIDES if name.startswith("ours")}
    return {
        "dials": asdict(case.dials),
        "relation": asdict(case.relation),
        "classes": CLASSES,
        "supports": case.frames * case.dials.num_support,
        "advanced": case.frames * case.dials.num_advanced,
        "process": {"threads": 1, "core": core(), "environment": ENVIRONMENT},
        "rounds": case.rounds,
        **sides,
        **{
            name.replace("ours", "ratio"): {"pairs": [round(r, 3) for r in pairs], **spread(pairs, "ratio")}
            for name, pairs in times.items()
        },
    }


def table(result: Mapping[str, Any]) -> str:
    rows = [f"{'ms a frame':13} {'median':>9} {'min':>9} {'max':>9} {'peak MB':>9} {'before':>7} {'error':>9}"]
    for name in SIDES:
        s = result[name]
        error = max(e for errors in s["relative_error"].values() for e in errors.values())
        times = " ".join(f"{s[f'{kind}_ms']:9.1f}" for kind in ("median", "min", "max"))
        rows.append(f"{name:13} {times} {s['peak_mb']:9.0f} {s['loaded_mb']:7.0f} {error:9.1e}")
    for name in SIDES:
        if name.startswith("ours"):
            r, parts = result[name.replace("ours", "ratio")], result[name]["parts_ms"]
            rows.append(
                f"baseline / {name}, pair by pair: median {r['median_ratio']:.2f}, {r['min_ratio']:.2f} to "
                f"{r['max_ratio']:.2f}; ms of " + ", ".join(f"{part} {ms:.1f}" for part, ms in parts.items())
            )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=given_path, required=True, help="JSON file to write")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    arguments = parser.parse_args()
    result = measure(QUICK if arguments.quick else FULL)
    arguments.output.write_text(json.dumps({**result, **environment()}, indent=2) + "\n")
    print(table(result))


if __name__ == "__main__":
    main()
