"""Each CPU kernel against its floors and against what a user would pick instead; one thread, one process.

    python benchmarks/kernel/kernels.py --output benchmarks/results/kernels_cpu.json

Peers are plain torch with torchvision's operators (`torch eager`), the same through torch.compile, and the same as an
ONNX graph in ONNX Runtime; some kernels have one more. A floor is printed for each instruction set that the machine
has; RDN_ISA says which one the kernels run with. Nothing is timed before it gives what ours gives, and ours what
float64 gives where the definition is fast enough. Then ours and its peers take turns.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import rdn_engine.backends.onnxruntime  # noqa: F401  first: it keeps ONNX Runtime from writing into the home folder
from training.arguments import given_path

# isort: split
import numpy as np
import onnxruntime as ort
import torch

from benchmarks.kernel.case import Call, Case
from benchmarks.kernel.cases import CASES
from benchmarks.kernel.machine import Rates, cpu_rates
from benchmarks.measure import environment_of, summary
from training.provenance import environment

SAMPLE_MS = 2.0
"""A sample repeats a call until it takes this long, so that the clock is not what is measured."""


@dataclass(frozen=True)
class Device:
    """What kernels are measured on."""

    rates: Callable[[], Rates]
    cases: Mapping[str, Callable[[], Case]]
    clock: Callable[[Call, int], float]
    """call, how often -> seconds of all calls, their work done"""


def cpu_clock(call: Call, repeats: int) -> float:
    begin = time.perf_counter()
    for _ in range(repeats):
        call()
    return time.perf_counter() - begin


DEVICES = {"cpu": Device(cpu_rates, CASES, cpu_clock)}


def outputs(found: Any) -> list[np.ndarray]:
    """What a peer returned, as arrays."""
    parts = found if isinstance(found, (list, tuple)) else [found]
    return [p.numpy() if isinstance(p, torch.Tensor) else np.asarray(p) for p in parts]


def peers(case: Case) -> tuple[dict[str, Call], dict[str, str]]:
    """name -> call of every peer that can run the case, and name -> why of those that cannot."""
    calls: dict[str, Call] = {"torch eager": lambda: case.module(*case.inputs), **case.others}
    left_out = dict(case.left_out)
    makers = {"torch.compile": _compiled, "ONNX Runtime": _onnx}
    for name, make in makers.items():
        if name in left_out:
            continue
        try:
            calls[name] = make(case)
            calls[name]()
        except Exception as error:  # whatever a compiler or exporter raises, the row says so
            calls.pop(name, None)
            left_out[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]:.100}"
    return calls, left_out


def _compiled(case: Case) -> Call:
    compiled = torch.compile(case.module.eval())
    with warnings.catch_warnings(action="ignore"):
        compiled(*case.inputs)
    return lambda: compiled(*case.inputs)


def _onnx(case: Case) -> Call:
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):  # the exporter talks
        program = torch.onnx.export(case.module.eval(), case.inputs, dynamo=True, opset_version=18, verbose=False)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    assert program is not None
    data = program.model_proto.SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    feeds = {i.name: t.numpy() for i, t in zip(session.get_inputs(), case.inputs, strict=True)}
    return lambda: session.run(None, feeds)


@torch.no_grad()
def measure(case: Case, rates: Rates, rounds: int, clock: Callable[[Call, int], float] = cpu_clock) -> dict[str, Any]:
    """Checks, then times ours and every peer in turns. Exits where ours is wrong; a peer that is, is left out."""
    calls, left_out = peers(case)
    found, errors = case.ours(), {}
    if case.truth is not None:
        truth = case.truth()
        errors = {"ours": case.compare(found, truth)}
        if not errors["ours"] <= case.tolerance:
            raise SystemExit(f"{case.name}: ours differs by {errors['ours']:.2g} {case.unit} from the definition")
    for name in list(calls):
        difference = case.compare(found, outputs(calls[name]()))
        if not difference <= case.tolerance:
            del calls[name]
            left_out[name] = f"differs by {difference:.2g} {case.unit}; wanted at most {case.tolerance:g}"
        else:
            errors[f"ours to {name}"] = difference
    if not calls:
        raise SystemExit(f"{case.name}: no peer gives what ours gives: {left_out}")
    calls = {"ours": case.ours, **calls}
    repeats = {name: _repeats(call, clock) for name, call in calls.items()}
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        for name in sorted(calls, reverse=bool(number % 2)):
            samples[name].append(1e3 * clock(calls[name], repeats[name]) / repeats[name])
    floor = rates.floor_ms(case.moved, case.operations)
    floors = {isa: rates.floor_ms(case.moved, case.operations, isa) for isa in rates.isa_gflops}
    times: dict[str, dict[str, Any]] = {
        name: {"ms": summary(s), "rounds": [round(v, 5) for v in s]} for name, s in samples.items()
    }
    ours = times["ours"]["ms"]["p50"]
    return {
        "kernel": case.name,
        "moved_bytes": case.moved,
        "operations": case.operations,
        "floor_ms": floor,
        "isa_floor_ms": floors,
        "of_floor": floor / ours,
        "differences": errors,
        "unit": case.unit,
        "tolerance": case.tolerance,
        "times": times,
        "left_out": left_out,
    }


def _repeats(call: Call, clock: Callable[[Call, int], float]) -> int:
    call()
    return max(1, round(SAMPLE_MS / max(1e3 * clock(call, 1), 1e-4)))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=given_path, required=True)
    parser.add_argument("--device", choices=list(DEVICES), default="cpu")
    parser.add_argument("--kernels", nargs="+", help=f"default: all; on the CPU {', '.join(CASES)}")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--core", type=int, default=min(os.sched_getaffinity(0)), help="the CPU to run on")
    arguments = parser.parse_args(argv)
    unknown = sorted(set(arguments.kernels or []) - set(DEVICES[arguments.device].cases))
    if unknown:
        parser.error(f"--kernels has {unknown}; wanted some of {sorted(DEVICES[arguments.device].cases)}")
    wanted = environment_of(1)
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        # The allocator and BLAS read these as the process starts.
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | wanted)
    os.sched_setaffinity(0, {arguments.core})
    torch.set_num_threads(1)
    device = DEVICES[arguments.device]
    rates, rows = device.rates(), []
    for name in arguments.kernels or device.cases:
        rows.append(measure(device.cases[name](), rates, arguments.rounds, device.clock))
        times = {n: round(t["ms"]["p50"], 4) for n, t in rows[-1]["times"].items()}
        floors = {isa: round(ms, 4) for isa, ms in rows[-1]["isa_floor_ms"].items()}
        print(f"{rows[-1]['kernel']}: floors {floors or rows[-1]['floor_ms']} ms, {times}, {rows[-1]['left_out']}",
              flush=True)  # fmt: skip
    about = {
        "device": arguments.device,
        "rates": dataclasses.asdict(rates),
        "process": {"core": arguments.core, "environment": wanted},
    }
    arguments.output.write_text(json.dumps({"kernels": rows, **about, **environment()}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
