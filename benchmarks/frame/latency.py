"""What a frame costs on this machine along every dial, beside the paper's rows.

    python benchmarks/frame/latency.py --engines engines/r101/float32 --output my_latency.json
    python benchmarks/frame/latency.py --quick

Nothing is timed before it matches: a bundle must pass `rdn-engine verify`, and the detections of each setting's first
steady frame must be those of the other executor of the same bundle, within the bundle's tolerance. Then every setting
of a sweep is measured once a round, in another order each round, each in a Stream of its own. Rounds are written as
they end; a run that was stopped goes on where it was, unless code, bundle or machine changed since. The tables as
Markdown, and pictures of the dials and of the stages, come from the JSON:

    python benchmarks/report/report.py my_latency.json
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import random
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.frame.device_side import LEAST_IN_COMMON, LEAST_IN_COMMON_REDUCED, share_in_common
from benchmarks.frame.settings import NAMES, Process, Setting, Sweep, bundle_label, make_sweep
from benchmarks.frame.sides import Sample
from benchmarks.frame.workers import Worker
from benchmarks.measure import energy_counter, environment_of, summary
from rdn_engine.bundle.directory import Bundle
from rdn_engine.errors import ConfigError
from rdn_engine.host.runtime import Executor
from rdn_engine.verify import set_difference, verify
from training.arguments import given_path
from training.provenance import environment, gpu

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "models" / "rdn_tiny" / "engines"
USUAL = tuple(name for name in NAMES if name != "ends")
QUICK_USUAL = ("T", "K", "r", "first", "baseline")
QUICK_NAMES = (*QUICK_USUAL, "ends", "streams")
QUICK_ROUNDS = 5
Results = dict[str, Any]
StartWorker = Callable[[Process, Sequence[int]], Any]


class Mismatch(SystemExit):
    """What was to be timed does not compute what its reference computes."""


def fingerprint(engines: Sequence[str], roots: Sequence[Path] | None = None) -> str:
    """Of everything that a time depends on: machine, versions, bundles, the package and the measuring code."""
    about = environment()
    digest = hashlib.sha256(json.dumps([about["versions"], about["machine"]], sort_keys=True).encode())
    package = ROOT / "rdn_engine"
    code = [
        *package.rglob("*.py"),
        *package.rglob("*.so"),
        *(Path(__file__).with_name(n) for n in ("sides.py", "baseline.py")),
    ]
    for path in sorted(code if roots is None else roots) + [Path(e) / "manifest.json" for e in engines]:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def reference_of(process: Process, cores: int = 1) -> Process:
    """The process whose detections a side must give: the other executor of the same bundle.

    It has one thread, as what is timed on a CPU; what a device is compared with nobody times, so it has all cores.
    """
    other: Executor = "graph" if process.executor == "fused" and process.side == "product" else "fused"
    threads = cores if process.device == "cuda" else 1
    return replace(process, side="product", backend="onnxruntime", device="cpu", threads=threads, executor=other,
                   relation_precision="float32", ring_precision="float32")  # fmt: skip


def check(sweep: Sweep, workers: Mapping[Process, Any], start: StartWorker, cores: Sequence[int]) -> dict[str, Any]:
    """Opens every setting in its worker and compares; value -> {reference, difference, tolerance}. Raises Mismatch."""
    for value, setting in sweep.points:
        workers[setting.process].ask("open", value, setting)
    checked = {}
    for process in {reference_of(s.process, len(cores)): None for _, s in sweep.points}:
        reference = start(process, cores[: process.threads])
        try:
            for value, setting in sweep.points:
                if reference_of(setting.process, len(cores)) == process:
                    worker = workers[setting.process]
                    checked[value] = _check_one(sweep.name, value, setting, worker, reference, process)
        finally:
            reference.close()
    return checked


def _check_one(
    sweep: str, value: str, setting: Setting, worker: Any, reference: Any, process: Process
) -> dict[str, Any]:
    """reference runs `process`."""
    reference.ask("open", value, replace(setting, process=process, streams=1))
    wanted = reference.ask("check", value) * setting.streams
    rounded = {setting.process.relation_precision, setting.process.ring_precision} != {"float32"}
    # Another library rounds in another order: BaselineSide.check says what comes of that.
    other_library = setting.process.device == "cpu" and setting.process.backend != process.backend
    alone = setting.kind == "push" and setting.streams == 1 and not rounded
    if setting.process.side == "baseline" or (other_library and alone):
        wanted = [*wanted, reference.ask("proposals", value)]
        got = worker.ask("check", value, reference.ask("encodings", value))
    else:
        got = worker.ask("check", value)
    reference.ask("drop", value)
    reduced = Bundle.open(setting.process.engines).manifest.precision != "float32"
    # Another library rounds INT8 its own way, which the weights of a benchmark amplify (device_side.py).
    if rounded or setting.process.device == "cuda" or (other_library and alone and reduced):
        least = LEAST_IN_COMMON_REDUCED if rounded or reduced else LEAST_IN_COMMON
        name = process.backend if other_library else process.executor if rounded else "the CPU"
        return _check_shared(f"{sweep} = {value} ({setting.process.side})", name, got, wanted, least)
    difference = set_difference(got, wanted)
    tolerance = Bundle.open(setting.process.engines).manifest.tolerances["detections"]
    if not difference <= tolerance:
        raise Mismatch(
            f"{sweep} = {value} ({setting.process.side}, {setting.process.executor}): detections differ by "
            f"{difference:.2g} from {process.executor}'s; wanted {tolerance:g}. Not timed."
        )
    detections = len(wanted[0])
    return {"reference": process.executor, "difference": difference, "tolerance": tolerance, "detections": detections}


def _check_shared(what: str, reference: str, got: Sequence[Any], wanted: Sequence[Any], least: float) -> dict[str, Any]:
    common = share_in_common(got, wanted)
    if not common >= least:
        raise Mismatch(f"{what}: {common:.1%} of the boxes are {reference}'s too; wanted {least:.0%}. Not timed.")
    return {"reference": reference, "in_common": common, "least": least, "detections": len(wanted[0])}


def cores_wanted(sweep: Sweep) -> dict[Process, int]:
    """Of each process: a core for every thread of a call, or for every stream that pushes at once."""
    wanted: dict[Process, int] = {}
    for _, setting in sweep.points:
        count = max(setting.process.threads, setting.streams)
        wanted[setting.process] = max(wanted.get(setting.process, 0), count)
    return wanted


def measure(
    sweep: Sweep, state: Results, rounds: int, save: Callable[[], None], start: StartWorker, cores: Sequence[int]
) -> None:
    """Adds rounds to `state["points"]` until there are `rounds`, calling `save` after each."""
    workers: dict[Process, Any] = {}
    try:
        for process, count in cores_wanted(sweep).items():
            workers[process] = start(process, cores[:count])
        checked = check(sweep, workers, start, cores)
        points = state.setdefault(
            "points", {value: {"setting": s.to_dict(), "rounds": []} for value, s in sweep.points}
        )
        done = min(len(p["rounds"]) for p in points.values())
        for number in range(done - sweep.warm_up, rounds):
            order = list(sweep.points)
            random.Random(number).shuffle(order)
            taken: dict[str, Sample] = {v: workers[s.process].ask("time", v) for v, s in order}
            if number < done:
                continue
            for value, sample in taken.items():
                points[value]["rounds"].append(_rounded(sample))
            save()
        for value, setting in sweep.points:
            alone = sum(s.process == setting.process for _, s in sweep.points) == 1
            # Of a process that held other settings too, it would be the memory of all of them.
            peak = workers[setting.process].ask("peak_megabytes") if alone else None
            found = summarise(points, value, sweep.reference)
            points[value] |= {"check": checked[value], "peak_mb": peak, **found}
            print(f"  {value:24} {found['ms']['p50']:10.3f} ms, {found['ratio']['p50']:.3f} of {sweep.reference}")
    finally:
        for worker in workers.values():
            worker.close()
    state["complete"] = True
    save()


def _rounded(sample: Sample) -> dict[str, Any]:
    data = dataclasses.asdict(sample)
    return data | {"ms": round(sample.ms, 3), "stages": {name: round(ms, 3) for name, ms in sample.stages.items()}}


def summarise(points: Mapping[str, Any], value: str, reference: str) -> dict[str, Any]:
    """Numbers of one point: of its milliseconds, of each stage, and of the ratio to the reference round by round."""
    rounds, base = points[value]["rounds"], points[reference]["rounds"]
    stages = {name: summary([r["stages"][name] for r in rounds])["p50"] for name in rounds[0]["stages"]}
    joules = [r["joules"] for r in rounds if r["joules"] is not None]
    return {
        "ms": summary([r["ms"] for r in rounds]),
        "stages_ms": stages,
        "ratio": summary([r["ms"] / b["ms"] for r, b in zip(rounds, base, strict=True)]),
        "joules": summary(joules)["p50"] if joules else None,
        "proposals": min(r["proposals"] for r in rounds),
    }


def run(
    sweeps: Sequence[Sweep], output: Path, rounds: int, cores: Sequence[int], start: StartWorker = Worker
) -> Results:
    """Measures what `output` does not hold yet."""
    results: Results = json.loads(output.read_text()) if output.exists() else {"sweeps": {}}
    bundles = sorted({s.process.engines for sweep in sweeps for _, s in sweep.points})
    print_, verified = fingerprint(bundles), False
    on_gpu = any(s.process.device == "cuda" for w in sweeps for _, s in w.points)
    energy = energy_counter("cuda" if on_gpu else "cpu")
    device = gpu() if on_gpu else None
    for sweep in sweeps:
        mark = f"{print_}, {rounds_mark(sweep)}"
        state = results["sweeps"].get(sweep.name)
        if state is not None and state["fingerprint"] == mark and len(_first(state)["rounds"]) >= sweep.rounds(rounds):
            print(f"{sweep.name}: measured before")
            continue
        if state is None or state["fingerprint"] != mark:
            state = {"label": sweep.label, "reference": sweep.reference, "fingerprint": mark}
        if not verified:
            verify_bundles(bundles, len(cores))
            verified = True
        print(f"{sweep.name}: {', '.join(value for value, _ in sweep.points)}", flush=True)
        results["sweeps"][sweep.name] = state

        def save(state: Results = state) -> None:
            about = describe(bundles, cores, energy.source) | {"gpu": device}
            results.update(about)
            state["measured"] = {name: about[name] for name in ("command", "date", "commit")}
            write(output, results)

        measure(sweep, state, sweep.rounds(rounds), save, start, cores)
    return results


def rounds_mark(sweep: Sweep) -> str:
    """What must be equal for rounds to be added to others: the sweep's settings."""
    text = json.dumps([(v, s.to_dict()) for v, s in sweep.points], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _first(state: Results) -> Results:
    point: Results = next(iter(state["points"].values())) if state.get("complete") else {"rounds": []}
    return point


def verify_bundles(bundles: Sequence[str], threads: int) -> None:
    for engines in bundles:
        # What was rounded in another order has other detections; those of each setting are compared all the same.
        emulated = Bundle.open(engines).manifest.precision in ("fp16", "bf16", "fp8")
        failed = [
            r for r in verify(engines, threads=threads) if not r.passed and not (emulated and r.stage == "detections")
        ]
        if failed:
            raise Mismatch(f"{engines} does not pass `rdn-engine verify`: {failed}. Not timed.")


def describe(bundles: Sequence[str], cores: Sequence[int], energy: str) -> Results:
    """Everything a reader needs beside the figures."""
    about = {}
    for engines in bundles:
        m = Bundle.open(engines).manifest
        about[bundle_label(engines)] = {
            "name": m.name, "precision": m.precision, "backbone": m.config.backbone.name,
            "input": [m.config.input.shorter_side, m.config.input.longer_side], "parameters": m.parameters,
            "relation": dataclasses.asdict(m.config.relation), "reduce_channels": m.config.roi.reduce_channels,
            "classes": len(m.config.class_names), "dials": dataclasses.asdict(m.config.dials),
        }  # fmt: skip
    process = {"cores": list(cores), "environment": environment_of(1)}
    return {"bundles": about, "process": process, "energy": energy, **environment()}


def write(path: Path, results: Results) -> None:
    """All of it or nothing, so that a stopped run leaves the rounds before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}", delete=False) as file:
        file.write(json.dumps(results, indent=1) + "\n")
    os.replace(file.name, path)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _arguments(argv)
    first, *others = [os.path.relpath(p) for p in arguments.engines]
    options = {"backend": arguments.backend, "device": arguments.device, "executor": arguments.executor}
    base = Process(first, threads=arguments.threads, **options)
    rest = [replace(base, engines=other) for other in others]
    config = Bundle.open(first).config
    sweeps = []
    for name in arguments.sweeps:
        if name == "baseline" and arguments.against != "baseline":
            continue
        made = make_sweep(name, base, config, rest, arguments.backends, arguments.quick, len(arguments.cores))
        if made is not None:
            sweeps.append(made)
    if not sweeps:
        raise ConfigError(f"nothing to vary among {arguments.sweeps} for {first}; wanted a sweep the model has")
    run(sweeps, arguments.output, arguments.rounds, arguments.cores)
    written = os.path.relpath(arguments.output)
    print(f"written: {written}; its tables and pictures: python benchmarks/report/report.py {written}")
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", nargs="+", default=[DEMO], type=given_path, help="bundles; the first is swept")
    parser.add_argument("--output", type=given_path, default=ROOT / "runs" / "latency.json")
    parser.add_argument("--sweeps", nargs="+", choices=NAMES, help="default: all but `ends`, which are in T, K and r")
    parser.add_argument("--against", choices=["baseline"], help="measure the straightforward implementation beside")
    parser.add_argument("--rounds", type=int, help=f"default 9, with --quick {QUICK_ROUNDS}")
    parser.add_argument("--threads", type=int, default=1, help="of each call, where they are not what is swept")
    parser.add_argument("--cores", nargs="+", type=int, default=sorted(os.sched_getaffinity(0)),
                        help="CPUs the measured processes run on; one thread takes the first")  # fmt: skip
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--backends", nargs="+", default=[], help="those to compare in the sweep `backend`")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--executor", choices=["fused", "graph"], default="fused")
    parser.add_argument("--quick", action="store_true", help="few settings and all peers of the demo model, 3 minutes")
    arguments = parser.parse_args(argv)
    if arguments.rounds is None:
        arguments.rounds = QUICK_ROUNDS if arguments.quick else 9
    if arguments.rounds < 1:
        parser.error(f"--rounds is {arguments.rounds}; wanted 1 or more")
    if arguments.sweeps is None:
        arguments.sweeps = list(QUICK_USUAL if arguments.quick else USUAL)
    if arguments.quick:
        wanted, arguments.sweeps = arguments.sweeps, [n for n in arguments.sweeps if n in QUICK_NAMES]
        if not arguments.sweeps:
            parser.error(f"--sweeps has {wanted}; --quick measures {list(QUICK_NAMES)}")
        arguments.against = "baseline"
    return arguments


if __name__ == "__main__":
    sys.exit(main())
