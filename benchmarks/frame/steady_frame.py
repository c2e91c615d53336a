"""What a steady frame costs beside its graphs alone, and whether anything in it waits for the device.

    python benchmarks/frame/steady_frame.py --engines engines/r101/fp16 --backend torch --device cuda --output my.json
    python benchmarks/frame/steady_frame.py --quick

`latency`: from a frame on the host to its detections there, one at a time. `pipelined`: frames one behind the other,
waiting once at the end. `graphs`: backbone and roi_head alone at the same sizes, on the device as a replayed CUDA graph
where the backend allows it. `relation`: the relation stage of a frame alone, likewise. The profiler then counts what
waits for the device while frames are pushed and nothing is read: a call that it must see is counted first, so that a
profiler that sees nothing does not pass.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

from benchmarks.frame.device_side import open_detector, relation_graph
from benchmarks.frame.settings import paper_dials
from benchmarks.frame.sides import DISTINCT
from benchmarks.frames import make_frame
from benchmarks.measure import summary
from rdn_engine.backends import load_backend
from rdn_engine.bundle.directory import Bundle
from rdn_engine.config import Dials, RDNConfig
from rdn_engine.kernels.cpu.boxes import pooled_width
from training.arguments import given_path
from training.provenance import environment, gpu

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "models" / "rdn_tiny" / "engines"
QUICK = Dials(window=2, num_support=8, num_reference=16, advanced_ratio=0.5)
WARM_UP = 5
_MARK = "rdn_engine: what is profiled"

WAITS = ("Synchronize", "cudaMemcpy", "cudaMemset", "cuMemcpy", "cudaFree", "cuMemFree", "cudaMalloc", "cuMemAlloc")
"""Beginnings or parts of names of calls that may wait for the device"""
QUEUES = ("Async", "cudaMallocFromPoolAsync", "WaitEvent")
"""Parts of names of those that only enqueue"""


def waiting_calls(names: Iterable[str]) -> dict[str, int]:
    """Of the names of CUDA calls, those that wait for the device, or may, and how often."""
    found = [n for n in names if any(w in n for w in WAITS) and not any(q in n for q in QUEUES)]
    return dict(Counter(found))


def calls_of(work: Callable[[], object]) -> list[str]:
    """Every call of the CUDA runtime and driver in this process while `work` runs."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile, torch.profiler.record_function(_MARK):
        work()
    events = [e for e in profile.events() if e.device_type == torch.autograd.DeviceType.CPU]  # type: ignore[attr-defined]
    [mark] = [e.time_range for e in events if e.name == _MARK]
    # The profiler itself waits for the device when it ends.
    inside = [e for e in events if mark.start <= e.time_range.start < mark.end]
    return [e.name for e in inside if e.name.startswith("cu")]


class Clock:
    """Seconds that work takes to be done, on the device or here."""

    def __init__(self, device: str) -> None:
        self._wait: Callable[[], object] = torch.cuda.synchronize if device == "cuda" else lambda: None

    def __call__(self, work: Callable[[], object]) -> float:
        self._wait()
        begin = time.perf_counter()
        work()
        self._wait()
        return time.perf_counter() - begin


def frames(size: tuple[int, int], count: int) -> list[Any]:
    """A few in turn: to draw one takes longer than anything that is measured here."""
    made = [make_frame(t, size) for t in range(min(DISTINCT, count))]
    return [made[t % DISTINCT] for t in range(count)]


def on_device(arrays: Sequence[Any]) -> list[Any]:
    import cupy

    placed = [cupy.asarray(array) for array in arrays]
    cupy.cuda.Device().synchronize()
    return placed


def fill(stream: Any, dials: Dials, size: tuple[int, int]) -> None:
    for frame in frames(size, dials.window + dials.frames_ahead + WARM_UP):
        stream.push(frame)


def graph_seconds(arguments: argparse.Namespace, config: RDNConfig, dials: Dials, count: int) -> dict[str, float]:
    """role -> seconds of one call on zeros, for one frame of the bundle's size."""
    backend = load_backend(arguments.backend, arguments.device, arguments.threads)
    bundle = Bundle.open(arguments.engines)
    height, width = config.input.shorter_side, config.input.longer_side
    image = np.zeros((1, 3, *config.input.network_size(height, width)), np.float32)
    pooled = (dials.num_reference, pooled_width(config.roi.size, _channels(arguments, backend, bundle, image)))
    feeds: dict[str, dict[str, Any]] = {"backbone": {"image": image}, "roi_head": {"pooled": np.zeros(pooled, "f4")}}
    if config.relation.num_modules:
        feeds["roi_head"]["support"] = np.arange(dials.num_support)
    clock, found = Clock(arguments.device), {}
    for role, arrays in feeds.items():
        if arguments.device == "cuda":
            run = _on_device(backend.load_device(bundle.path(role)), arrays)
        else:
            graph = backend.load(bundle.path(role))
            run = _call(graph, arrays)
        run()
        found[role] = clock(lambda run=run: [run() for _ in range(count)]) / count  # type: ignore[misc]
    return found


def _channels(arguments: argparse.Namespace, backend: Any, bundle: Bundle, image: Any) -> int:
    """Of the feature map; on a device it is known without a run on the CPU, which takes seconds."""
    path = bundle.path("backbone")
    if arguments.device == "cuda":
        return int(backend.load_device(path).bind({"image": image.shape}).outputs["feature_map"].shape[3])
    return int(backend.load(path)({"image": image})["feature_map"].shape[3])


def _call(graph: Any, arrays: dict[str, Any]) -> Callable[[], object]:
    return lambda: graph(arrays)


def _on_device(graph: Any, arrays: dict[str, Any]) -> Callable[[], object]:
    """One run after the other on a stream; captured where the backend allows it."""
    import cupy

    from rdn_engine.kernels.cuda.view import view_of

    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        bound = graph.bind({name: array.shape for name, array in arrays.items()})
        given = {name: cupy.asarray(array) for name, array in arrays.items()}
        made = {name: cupy.empty(spec.shape, spec.dtype) for name, spec in bound.outputs.items()}
        views = [{name: view_of(array) for name, array in side.items()} for side in (given, made)]
        bound.run(*views, stream.ptr)
        stream.synchronize()
        if not bound.capturable:
            return lambda: bound.run(*views, stream.ptr)
        stream.begin_capture()
        bound.run(*views, stream.ptr)
        captured = stream.end_capture()
    kept = given, made  # the graph reads and writes them
    return lambda: kept and captured.launch(stream)


def relation_seconds(stream: Any, clock: Clock, given: Sequence[Any]) -> float:
    """The relation stage of one frame: on a device alone, on the CPU what `Stream.timings` say of frames that come."""
    if not hasattr(stream, "push_device"):
        before = stream.timings.seconds["relation"]
        for frame in given:
            stream.push(frame)
        return float(stream.timings.seconds["relation"] - before) / len(given)
    launch = relation_graph(stream)
    launch()
    return clock(lambda: [launch() for _ in given]) / len(given)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    count = 3 if arguments.quick else 40
    detector = open_detector(str(arguments.engines), arguments.backend, arguments.device, arguments.threads)
    config = detector.config
    dials = replace(QUICK, edges=config.dials.edges) if arguments.quick else paper_dials(config)
    size, clock = (config.input.shorter_side, config.input.longer_side), Clock(arguments.device)
    given = frames(size, count)
    with detector.open_stream(dials) as stream:
        fill(stream, dials, size)
        alone = [clock(lambda frame=frame: stream.push(frame)) for frame in given]  # type: ignore[misc]
        push: Callable[[Any], Any] = getattr(stream, "push_device", stream.push)
        pipelined = clock(lambda: [push(frame) for frame in given]) / count
        # A frame of the host is copied through two buffers in turn, and waits where both are still on their way.
        placed = on_device(given) if arguments.device == "cuda" else given
        waits = waiting_calls(calls_of(lambda: [push(frame) for frame in placed]))
        relation = relation_seconds(stream, clock, given)
    seen = waiting_calls(calls_of(Clock(arguments.device)._wait))
    if arguments.device == "cuda" and not seen:
        raise SystemExit(
            "the profiler does not see torch.cuda.synchronize(): it would not see a wait in a frame either"
        )
    graphs = graph_seconds(arguments, config, dials, count)
    return {
        "engines": "/".join(Path(arguments.engines).resolve().parts[-2:]),
        "precision": Bundle.open(arguments.engines).manifest.precision,
        "backend": arguments.backend,
        "device": arguments.device,
        "gpu": gpu(),
        "size": size,
        "dials": {"T": dials.window, "K": dials.num_support, "N": dials.num_reference, "r": dials.advanced_ratio},
        "frames": count,
        "latency_ms": summary([1e3 * s for s in alone]),
        "pipelined_ms": 1e3 * pipelined,
        "graphs_ms": {role: 1e3 * s for role, s in graphs.items()},
        "relation_ms": 1e3 * relation,
        "over_graphs": pipelined / sum(graphs.values()),
        "rest_ms": 1e3 * (pipelined - sum(graphs.values())),
        "waits": waits,
        "waits_seen_when_there_is_one": seen,
        **environment(),
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", type=given_path, default=DEMO)
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="three frames in a small window")
    parser.add_argument("--output", type=given_path)
    arguments = parser.parse_args(argv)
    result = measure(arguments)
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    for name in ("latency_ms", "pipelined_ms", "graphs_ms", "relation_ms", "over_graphs", "rest_ms", "waits"):
        print(f"{name}: {result[name]}")
    if result["waits"] and arguments.device == "cuda":
        print("something in a frame waits for the device")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
