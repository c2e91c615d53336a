"""Each CUDA kernel on a GPU against what the machine can do: bytes over copy bandwidth, operations over matrix rate.

    python benchmarks/kernel/kernels_cuda.py --output benchmarks/results/kernels_cuda.json
    python benchmarks/kernel/kernels_cuda.py --device cpu --quick --output /tmp/kernels.json

Sizes are those of a frame of 600 x 1000 with T = 18, K = 75, r = 20%, eight frames at once where kernels take batches.
Nothing is timed before its result matches the CPU's kernels or the float64 definition. A time is the median of replays
of a CUDA graph over three sets of inputs; bytes count every input and output once. On the CPU the emulator runs them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.kernel.device_clock import ceilings, emulated_microseconds, microseconds
from rdn_engine.config import DetectionConfig, RoIConfig, RPNConfig
from rdn_engine.input_config import InputConfig
from rdn_engine.kernels import cpu, cuda
from rdn_engine.kernels.arithmetic import ceil_div
from rdn_engine.kernels.cuda.boxes import Resizer
from rdn_engine.kernels.cuda.relation import AttentionInputs, Partials, Queries, Supports
from tests import cuda_machines, reference_relation
from tests.cuda_machines import Machine, fill
from training.arguments import given_path
from training.provenance import environment, gpu

SETS = 3


@dataclass(frozen=True)
class Sizes:
    batch: int = 8
    image: tuple[int, int] = (1080, 1920)
    resized: tuple[int, int] = (562, 1000)
    grid: tuple[int, int] = (38, 63)
    top: int = 6000
    proposals: int = 300
    channels: int = 2048
    classes: int = 30
    heads: int = 16
    head_dim: int = 64
    supports: int = 2960  # 37 frames of 75, in sixteens
    advanced: int = 592
    split: int = 1024


@dataclass(frozen=True)
class Work:
    """One kernel on one set of inputs."""

    run: Callable[[int], None]  # on a stream
    check: Callable[[], None]
    nbytes: int = 0
    operations: int = 0  # of matrix products, a multiply-add counted as two


def arrays_bytes(*arrays: Any) -> int:
    return sum(int(array.nbytes) for array in arrays)


def resize(machine: Machine, sizes: Sizes, seed: int) -> Work:
    images = np.random.default_rng(seed).integers(0, 256, (sizes.batch, *sizes.image, 3), dtype=np.uint8)
    config = InputConfig(mean=(103.0, 116.0, 123.0))
    resizer = Resizer(machine.kernels, config, image_size=sizes.image, size=sizes.resized)
    workspace = fill(machine, resizer.nbytes(sizes.batch), np.uint8)
    resizer.prepare(sizes.batch, workspace)
    put, out = machine.put(images), fill(machine, (sizes.batch, 3, *sizes.resized))

    def check() -> None:
        wanted = cpu.resize_normalize(images[-1], sizes.resized, config)
        np.testing.assert_array_equal(machine.get(out)[-1], wanted)

    return Work(lambda stream: resizer(put, out, workspace, stream=stream), check, arrays_bytes(put, out))


def random_boxes(rng: np.random.Generator, shape: tuple[int, ...], sizes: Sizes) -> np.ndarray:
    height, width = (16 * side for side in sizes.grid)
    centre = rng.uniform(0, [width, height], (*shape, 2))
    side = np.exp(rng.uniform(2.5, 5.5, (*shape, 2)))
    boxes = np.concatenate([centre - side / 2, centre + side / 2], -1)
    clipped: np.ndarray = np.clip(boxes, 0, [width - 1, height - 1] * 2).astype(np.float32)
    return clipped


def roi_pool(machine: Machine, sizes: Sizes, seed: int) -> Work:
    rng = np.random.default_rng(seed)
    feature_map = rng.standard_normal((sizes.batch, *sizes.grid, sizes.channels), np.float32).astype(np.float16)
    boxes = random_boxes(rng, (sizes.batch * sizes.proposals,), sizes)
    arrays, config = (machine.put(feature_map), machine.put(boxes)), RoIConfig()
    counts = machine.put(np.full(sizes.batch, sizes.proposals, np.int32))
    out = fill(machine, (len(boxes), cpu.pooled_width(config.size, sizes.channels)), np.float16)

    def check() -> None:
        last = feature_map[-1:].astype(np.float32)
        wanted = cpu.roi_pool(last, boxes[-3:], np.zeros(3, np.int64), config=config, scale=1 / 16)
        cells = 49 * sizes.channels
        np.testing.assert_allclose(machine.get(out[-3:])[:, :cells], wanted[:, :cells], rtol=2e-3, atol=2e-3)

    return Work(
        lambda stream: machine.kernels.roi_pool(
            *arrays, counts=counts, config=config, scale=1 / 16, out=out, stream=stream
        ),
        check,
        arrays_bytes(*arrays, out),
    )


def propose(machine: Machine, sizes: Sizes, seed: int) -> Work:
    rng = np.random.default_rng(seed)
    corner = np.exp2(np.arange(12) / 3 + 4).astype(np.float32)
    cells = np.stack([7.5 - corner, 7.5 - corner, 7.5 + corner, 7.5 + corner], 1)
    count = 12 * sizes.grid[0] * sizes.grid[1]
    case: dict[str, Any] = {
        "objectness": (1 / (1 + np.exp(-4 * rng.standard_normal((sizes.batch, count)) + 4))).astype(np.float32),
        "deltas": (rng.standard_normal((sizes.batch, count, 4)) / 5).astype(np.float32),
        "cell_anchors": cells,
        "grid": sizes.grid,
        "network_size": (16 * sizes.grid[0], 16 * sizes.grid[1]),
        "config": RPNConfig(pre_nms_top_n=sizes.top),
    }
    arrays = case | {name: machine.put(value) for name, value in case.items() if isinstance(value, np.ndarray)}
    arrays |= {
        "boxes": fill(machine, (sizes.batch, sizes.proposals, 4)),
        "counts": fill(machine, sizes.batch, np.int32),
    }
    arrays["scores"] = fill(machine, (sizes.batch, sizes.proposals))
    arrays["workspace"] = fill(machine, machine.kernels.propose_bytes(sizes.batch, case["config"]), np.uint8)

    def check() -> None:
        wanted = cpu.propose(**case, max_proposals=sizes.proposals)
        np.testing.assert_array_equal(machine.get(arrays["scores"]), wanted.objectness)

    nbytes = arrays_bytes(*(arrays[name] for name in ("objectness", "boxes", "scores")))
    return Work(
        lambda stream: machine.kernels.propose(**arrays, stream=stream), check, nbytes + 16 * sizes.batch * sizes.top
    )


def detect(machine: Machine, sizes: Sizes, seed: int) -> Work:
    rng = np.random.default_rng(seed)
    shape, config = (sizes.batch, sizes.proposals), DetectionConfig()
    most = config.max_detections
    case: dict[str, Any] = {
        "logits": rng.standard_normal((*shape, sizes.classes + 1), np.float32) * 2,
        "deltas": rng.standard_normal((*shape, 4 * (sizes.classes + 1)), np.float32),
        "boxes": random_boxes(rng, shape, sizes),
        "network_size": (16 * sizes.grid[0], 16 * sizes.grid[1]),
        "config": config,
        "score_threshold": 0.001,
    }
    arrays = case | {name: machine.put(value) for name, value in case.items() if isinstance(value, np.ndarray)}
    arrays |= {"xyxy": fill(machine, (sizes.batch, most, 4)), "confidence": fill(machine, (sizes.batch, most))}
    arrays |= {name: fill(machine, (sizes.batch, most), np.int32) for name in ("class_id", "proposal")}
    arrays["counts"] = fill(machine, sizes.batch, np.int32)
    arrays |= {"row_counts": machine.put(np.full(sizes.batch, sizes.proposals, np.int32)), "scale": (1.0, 1.0)}
    nbytes = machine.kernels.detect_bytes(batch=sizes.batch, rows=sizes.proposals, classes=sizes.classes, config=config)
    arrays["workspace"] = fill(machine, nbytes, np.uint8)

    def check() -> None:
        one = {name: case[name][-1] for name in ("logits", "deltas", "boxes")}
        wanted = cpu.detect(**(case | one))
        got = machine.get(arrays["confidence"])[-1, : len(wanted.xyxy)]
        np.testing.assert_allclose(got, wanted.confidence, rtol=1e-5)

    read = arrays_bytes(*(arrays[name] for name in ("logits", "deltas", "boxes", "xyxy", "confidence")))
    return Work(lambda stream: machine.kernels.detect(**arrays, stream=stream), check, read)


@dataclass(frozen=True)
class Module:
    """One relation module on float16: arrays on the device and what they hold."""

    host: dict[str, np.ndarray]
    queries: Queries
    supports: Supports
    weight: Any
    bias: Any
    gates: Any
    workspace: Any


def module(machine: Machine, sizes: Sizes, rows: int, supports: int, modules: int, seed: int) -> Module:
    rng, dim = np.random.default_rng(seed), sizes.heads * sizes.head_dim
    host = {
        "boxes": random_boxes(rng, (rows,), sizes),
        "support_boxes": random_boxes(rng, (supports,), sizes),
        "query": rng.standard_normal((rows, dim), np.float32).astype(np.float16),
        "keys": rng.standard_normal((supports, dim), np.float32).astype(np.float16),
        "values": rng.standard_normal((supports, dim), np.float32).astype(np.float16),
        "weight": rng.standard_normal((modules, sizes.heads, 64), np.float32) / 8,
        "bias": rng.standard_normal((modules, sizes.heads), np.float32),
    }
    return Module(
        host,
        Queries(machine.put(host["boxes"])),
        Supports(machine.put(host["support_boxes"]), None, machine.put(np.ones(supports, np.float32))),
        machine.put(host["weight"]),
        machine.put(host["bias"]),
        fill(machine, (modules, sizes.heads, rows, supports), np.float16),
        fill(machine, cuda.geometry_bytes(machine.kernels, queries=rows, supports=supports), np.uint8),
    )


def gates_of(machine: Machine, m: Module, stream: int = 0) -> None:
    cuda.find_gates(
        machine.kernels,
        m.queries,
        m.supports,
        geometry_weight=m.weight,
        geometry_bias=m.bias,
        gates=m.gates,
        workspace=m.workspace,
        stream=stream,
    )


def gates(machine: Machine, sizes: Sizes, seed: int) -> Work:
    """The geometry of both basic modules."""
    m = module(machine, sizes, sizes.proposals, sizes.supports, 2, seed)

    def check() -> None:
        e = reference_relation.embedding(m.host["boxes"][:2, None], m.host["support_boxes"][None, :64])
        geometry = np.einsum("ijc,mhc->mhij", e, m.host["weight"]) + m.host["bias"][..., None, None]
        got = machine.get(m.gates)[:, :, :2, :64].astype(np.float64) / 64
        assert np.abs(got - np.maximum(geometry, 0)).max() < 2e-2

    pairs = sizes.proposals * sizes.supports
    return Work(
        lambda stream: gates_of(machine, m, stream), check, int(m.gates.nbytes), 2 * 2 * sizes.heads * 64 * pairs
    )


def attention(machine: Machine, sizes: Sizes, rows: int, supports: int, seed: int) -> Work:
    """One module but for its geometry: splits, then their sum."""
    m = module(machine, sizes, rows, supports, 1, seed)
    gates_of(machine, m)
    dim, splits = sizes.heads * sizes.head_dim, ceil_div(supports, sizes.split)
    partials = Partials(fill(machine, (splits, rows, dim)), fill(machine, (splits, rows, sizes.heads, 2)))
    query, keys, values = stored = [machine.put(m.host[name]) for name in ("query", "keys", "values")]
    inputs = AttentionInputs(query=query, keys=keys, values=values, gates=m.gates[0])
    out, residual = fill(machine, (rows, dim), np.float16), machine.put(np.zeros((rows, dim), np.float16))
    value_bias = machine.put(np.zeros(dim, np.float32))

    def run(stream: int) -> None:
        cuda.attend(
            machine.kernels,
            m.queries,
            m.supports,
            inputs=inputs,
            split_size=sizes.split,
            partials=partials,
            workspace=m.workspace,
            stream=stream,
        )
        cuda.combine(machine.kernels, partials, out, value_bias=value_bias, residual=residual, stream=stream)

    def check() -> None:
        one = (m.host["keys"], m.host["values"], m.host["support_boxes"], np.arange(supports), np.ones(supports))
        exact = reference_relation.relation(
            m.host["query"][-2:], m.host["boxes"][-2:], *one, m.host["weight"][0], m.host["bias"][0]
        )
        error = np.linalg.norm(machine.get(out)[-2:] - exact) / np.linalg.norm(exact)
        assert error < 5e-3, f"relative error {error:.2g}"

    return Work(run, check, arrays_bytes(*stored, m.gates, out), 4 * rows * supports * dim)


SMALL = Sizes(1, (30, 44), (20, 33), (4, 6), 60, 12, 16, 3, 2, 32, 64, 32, 32)

CASES: dict[str, Callable[[Machine, Sizes, int], Work]] = {
    "resize": resize,
    "propose": propose,
    "roi_pool": roi_pool,
    "detect": detect,
    "gates": gates,
    "attention": lambda m, s, seed: attention(m, s, s.proposals, s.supports, seed),
    "distillation": lambda m, s, seed: attention(m, s, s.proposals, s.advanced, seed),
    "attention of eight streams' rows": lambda m, s, seed: attention(m, s, 8 * s.proposals, s.supports, seed),
}


def measure(machine: Machine, sizes: Sizes, name: str, limits: dict[str, float]) -> dict[str, Any]:
    """limits: `ceilings`, of a GPU; empty for the emulator, whose times are compared with nothing."""
    sets = [CASES[name](machine, sizes, seed) for seed in range(SETS)]
    for work in sets:
        work.run(0)
        work.check()
    clock = microseconds if limits else emulated_microseconds
    spent, work = clock([work.run for work in sets]), sets[0]
    found = {"microseconds": spent, "bytes": work.nbytes, "operations": work.operations}
    if limits:
        found["of_bandwidth"] = work.nbytes / spent / 1e3 / limits["copy_gb_per_s"]
        found["of_matrix_rate"] = work.operations / spent / 1e6 / limits["matrix_tflop_per_s"]
    return found


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=given_path, required=True)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    arguments = parser.parse_args(argv)
    machine: Machine
    limits: dict[str, float] = {}
    if arguments.device == "cpu":
        machine = cuda_machines.Emulated(descending=False)
    else:
        machine, limits = cuda_machines.Gpu(), ceilings()
        print(f"copy {limits['copy_gb_per_s']:.0f} GB/s, matrix products {limits['matrix_tflop_per_s']:.0f} TFLOP/s")
    results: dict[str, Any] = {"device": arguments.device, "gpu": gpu(), "ceilings": limits, "kernels": {}}
    results |= environment()
    for name in CASES:
        found = results["kernels"][name] = measure(machine, SMALL if arguments.quick else Sizes(), name, limits)
        shares = [f"{found[key]:5.1%} {key}" for key in ("of_bandwidth", "of_matrix_rate") if key in found]
        print(f"{name:34} {found['microseconds']:10.1f} us  {', '.join(shares)}", flush=True)
        arguments.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
