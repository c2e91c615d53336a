"""The first minute on a GPU: every kernel, whole streams and captured graphs against the CPU, in one table.

    python scripts/gpu_smoke.py --output smoke.json
    python scripts/gpu_smoke.py --engines engines/r101/fp16 --expected expected.npz --only window --output window.json
    python scripts/gpu_smoke.py --device cpu --quick --output smoke.json

The checks go from one kernel to a frame of a real network, and each says what it found; one that fails ends none of
the others. The table is written after each. On the CPU the emulator takes the place of the GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.frame.device_side import (
    LEAST_IN_COMMON,
    LEAST_IN_COMMON_REDUCED,
    DeviceSide,
    captured_programs,
    share_in_common,
)
from benchmarks.frame.settings import Process, Setting, paper_dials
from benchmarks.frame.sides import HostSide, Rows, rows_of
from benchmarks.kernel.kernels_cuda import CASES, SMALL
from rdn_engine.bundle.directory import Bundle
from rdn_engine.config import Dials, RelationConfig, Sampling
from rdn_engine.detector import Detector
from rdn_engine.device.relation import DevicePrecision
from rdn_engine.device.runtime import DeviceRuntime
from tests import cuda_machines, device_models, emulated_gpu
from training.provenance import environment, gpu

DEMO = Path(__file__).resolve().parents[1] / "models" / "rdn_tiny" / "engines"
QUICK = Dials(window=1, num_support=8, num_reference=20, advanced_ratio=0.5, score_threshold=1e-5)
AFTER = 3
"""Frames behind a full window: the first runs uncaptured, the second is captured, the third replayed."""

Check = Callable[[], str]


@dataclass(frozen=True)
class Place:
    """Where the kernels run: a GPU, or the emulator."""

    device: str
    machine: cuda_machines.Machine
    gpu: Any

    @classmethod
    def of(cls, device: str) -> Place:
        if device == "cpu":
            return cls(device, cuda_machines.Emulated(descending=False), emulated_gpu.EmulatedGpu())
        from rdn_engine.device.cupy import CupyGpu

        return cls(device, cuda_machines.Gpu(), CupyGpu())

    def about(self) -> str:
        if self.device == "cpu":
            return "the emulator of csrc/emulator"
        import cupy

        free, whole = cupy.cuda.runtime.memGetInfo()
        one = cupy.cuda.Device()
        return f"{gpu()}, compute capability {one.compute_capability}, {free >> 20} of {whole >> 20} MiB free"


def kernel(place: Place, name: str) -> str:
    """One kernel at a small size, by its own check of benchmarks/kernel/kernels_cuda.py."""
    work = CASES[name](place.machine, SMALL, 0)
    work.run(0)
    work.check()
    return "as the CPU's kernel, or the float64 definition"


def small_stream(place: Place, sampling: Sampling, precision: DevicePrecision) -> str:
    """A detector in numpy whose kernels and order alone are the device's: needs neither torch nor a network."""
    model = device_models.small_model(device_models.small_config(RelationConfig(32, 2)))
    dials = replace(device_models.DIALS, sampling=sampling)
    there, here = model.on(place.gpu, precision).open_stream(dials), model.on_cpu().open_stream(dials)
    pairs: list[tuple[Any, Any]] = []
    for frame in device_models.frames(6):
        pairs += zip(there.push(frame), here.push(frame), strict=True)
    captured = captured_programs(there)
    pairs += zip(there.flush(), here.flush(), strict=True)
    for got, wanted in pairs:
        if precision == "float32":
            device_models.assert_same(got, wanted)
        else:
            np.testing.assert_allclose(got.xyxy, wanted.xyxy, atol=0.5)
    return f"{len(pairs)} frames, {sum(len(got) for got, _ in pairs)} boxes, {_graphs(captured)}"


def tiny(place: Place, quick: bool) -> str:
    """The committed model, frame by frame beside the CPU."""
    bundle = Bundle.open(DEMO)
    dials = replace(QUICK if quick else bundle.config.dials, edges=bundle.config.dials.edges, link="off")
    if place.device == "cuda":
        there: Any = Detector.from_pretrained(DEMO, backend="torch", device="cuda", threads=1)
    else:
        runtime = DeviceRuntime.load(
            bundle, device_models.BackendOf(place.gpu), place.gpu, precision="float32", threads=1
        )
        there = Detector(runtime)
    here = Detector.from_pretrained(DEMO, threads=1)
    golden = bundle.arrays("golden")["frames"]
    count = dials.window + dials.frames_ahead + AFTER
    found: list[list[Rows]] = [[], []]
    with there.open_stream(dials) as stream, here.open_stream(dials) as other:
        for t in range(count):
            for rows, side in zip(found, (stream, other), strict=True):
                rows += [rows_of(result) for result in side.push(golden[t % len(golden)])]
        captured = captured_programs(stream)
    got, wanted = found
    return _compared(got, wanted, LEAST_IN_COMMON, captured)


def window(process: Process, dials: Dials, expected: Path | None) -> str:
    """A full window of frames of the bundle's own size, and the frames after it."""
    side, setting = DeviceSide(process), Setting(process, dials)
    side.open("window", setting)
    got = side.check("window")
    for _ in range(AFTER):
        side.time("window")
    stream: Any = side._open["window"][0]
    captured = captured_programs(stream) if process.device == "cuda" else None
    wanted = read_expected(expected, dials) if expected else find_expected(process, dials)
    exact = Bundle.open(process.engines).manifest.precision == "float32"
    told = _compared(got, wanted, LEAST_IN_COMMON if exact else LEAST_IN_COMMON_REDUCED, captured)
    ms = [side.time("window").ms for _ in range(AFTER)]
    return f"{told}, {min(ms):.2f} ms a frame with its copies"


def find_expected(process: Process, dials: Dials) -> list[Rows]:
    """What the CPU detects in the frame that `window` compares."""
    cpu = replace(process, backend="onnxruntime", device="cpu", executor="graph", relation_precision="float32")
    here = HostSide(cpu)
    here.open("window", Setting(cpu, dials))
    return here.check("window")


def read_expected(path: Path, dials: Dials) -> list[Rows]:
    with np.load(path, allow_pickle=False) as archive:
        told = str(archive["dials"])
        if told != repr(dials):
            raise ValueError(f"{path} was found with {told}; wanted {dials}")
        return [archive["rows"]]


def _compared(got: Sequence[Rows], wanted: Sequence[Rows], least: float, captured: int | None) -> str:
    common = share_in_common(got, wanted)
    boxes = sum(len(rows) for rows in wanted)
    told = f"{len(wanted)} frames, {boxes} boxes, {common:.1%} in common with the CPU, wanted {least:.0%}"
    if not boxes or not common >= least:
        raise AssertionError(told)
    return told if captured is None else f"{told}, {_graphs(captured)}"


def _graphs(captured: int) -> str:
    if not captured:
        raise AssertionError("no CUDA graph was captured")
    return f"{captured} CUDA graph{'s' * (captured > 1)} captured"


def checks(arguments: argparse.Namespace) -> Iterator[tuple[str, Check]]:
    """Name and check, in their order; what they share is made by the first that needs it."""
    place: list[Place] = []

    def there() -> Place:
        if not place:
            place.append(Place.of(arguments.device))
        return place[0]

    if arguments.only in (None, "kernels"):
        yield "device", lambda: there().about()
        for name in CASES:
            yield f"kernel {name}", lambda name=name: kernel(there(), name)  # type: ignore[misc]
        ways: list[tuple[Sampling, DevicePrecision]] = [
            ("per_frame", "float32"),
            ("global", "float32"),
            ("per_frame", "float16"),
        ]
        for sampling, precision in ways:
            yield f"stream, {sampling}, {precision}", lambda s=sampling, p=precision: small_stream(there(), s, p)  # type: ignore[misc]
    if arguments.only in (None, "tiny"):
        yield "rdn_tiny", lambda: tiny(there(), arguments.quick)
    if arguments.only in (None, "window"):
        process = Process(str(arguments.engines), backend=arguments.backend, device=arguments.device)
        dials = dials_of(arguments)
        yield (
            f"window of {'/'.join(arguments.engines.resolve().parts[-2:])}",
            lambda: window(process, dials, arguments.expected),
        )


def dials_of(arguments: argparse.Namespace) -> Dials:
    config = Bundle.open(arguments.engines).config
    return replace(QUICK, edges=config.dials.edges) if arguments.quick else paper_dials(config)


def run(named: Iterator[tuple[str, Check]], write: Callable[[list[dict[str, Any]]], None]) -> list[dict[str, Any]]:
    """Rows of the table; `write` gets all that there are after each."""
    rows: list[dict[str, Any]] = []
    for name, check in named:
        begin = time.perf_counter()
        passed, why = True, ""
        try:
            told = check()
        except Exception as error:
            passed, told = False, f"{type(error).__name__}: {error}".strip()
            why = traceback.format_exc()
        seconds = round(time.perf_counter() - begin, 2)
        rows.append({"what": name, "passed": passed, "seconds": seconds, "told": told} | ({"why": why} if why else {}))
        print(f"{'passed' if passed else 'FAILED'}  {seconds:6.2f} s  {name:42} {told.splitlines()[0]}", flush=True)
        write(rows)
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="the table, as JSON")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--quick", action="store_true", help="small windows, for the emulator")
    parser.add_argument("--only", choices=["kernels", "tiny", "window"], help="a part of the checks")
    parser.add_argument("--engines", type=Path, default=DEMO, help="the bundle of the window")
    parser.add_argument("--backend", default="onnxruntime", help="of the window")
    parser.add_argument("--expected", type=Path, help="what the CPU detects; computed here by default")
    parser.add_argument("--write-expected", type=Path, help="write that file, on a CPU, and check nothing")
    arguments = parser.parse_args(argv)
    if not arguments.write_expected and not arguments.output:
        parser.error("--output is missing: where shall the table go?")
    if arguments.write_expected:
        dials = dials_of(arguments)
        [detected] = find_expected(Process(str(arguments.engines)), dials)
        np.savez(arguments.write_expected, rows=detected, dials=np.array(repr(dials)))
        return 0

    def write(rows: list[dict[str, Any]]) -> None:
        told = {"device": arguments.device, "gpu": gpu(), "rows": rows, **environment()}
        arguments.output.write_text(json.dumps(told, indent=1) + "\n")

    with contextlib.suppress(OSError):
        arguments.output.unlink()
    rows = run(checks(arguments), write)
    return int(not all(row["passed"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
