"""What scripts/gpu_check.sh found on a GPU, from its phases in benchmarks/results/gpu; nothing without them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.report import store, tables
from benchmarks.report.store import Results, Unmeasured

FOLDER = "gpu"
PHASES = range(1, 7)
GOALS = {
    "relation stage, ms": (0.12, "under"),
    "everything but convolutions and the large FC, ms": (0.4, "under"),
    "steady frame over its convolutions and FC": (1.5, "at most"),
    "throughput of eight streams in a batch over one": (1.8, "at least"),
    "calls in a frame that wait for the device": (0, "at most"),
}
"""What is wanted of ResNet-101 at 600 x 1000 in fp16 on an H200"""


def phase(number: int) -> Results:
    """What a phase left; Unmeasured where it has not run, or not on a GPU."""
    found = store.load(f"{FOLDER}/phase{number}.json")
    if found["sources"].startswith("cpu-"):
        raise Unmeasured(f"phase {number} on a GPU")
    return found


def step(number: int, name: str) -> Results:
    """What a step of a phase measured; Unmeasured where it left nothing."""
    found = phase(number)["results"].get(name)
    if found is None:
        raise Unmeasured(name)
    return dict(found)


def sweep(number: int, name: str, which: str) -> Results:
    """A sweep of latency.py that was measured to the end."""
    found = step(number, name)["sweeps"].get(which, {})
    if not found.get("complete"):
        raise Unmeasured(which)
    return dict(found)


def checks() -> str:
    """Every step of every phase, and the checks of the first."""
    found = []
    for number in PHASES:
        try:
            found.append(phase(number))
        except Unmeasured:
            continue
    if not found:
        raise Unmeasured(FOLDER)
    sources = sorted({one["sources"] for one in found})
    if len(sources) > 1:
        raise ValueError(f"the phases in {FOLDER}/ are of the sources {', '.join(sources)}; wanted those of one run")
    rows = []
    for one in found:
        for row in one["rows"]:
            inside = one["results"].get(row["what"], {}).get("rows", []) if one["phase"] == 1 else []
            told = [f"{r['what']}: {r['told'].splitlines()[0]}" for r in inside if not r["passed"]]
            count = f"{sum(r['passed'] for r in inside)} of {len(inside)} checks; " if inside else ""
            rows.append([f"{one['phase']}, {one['title']}", row["what"], row["result"],
                         str(row.get("seconds", "")), count + "; ".join(told)])  # fmt: skip
    return store.table(["phase", "step", "result", "seconds", ""], rows, "lllrl")


def goals() -> str:
    """The numbers that were wanted, and those that came out."""
    measured: dict[str, float] = {}
    runs: dict[str, None] = {}
    try:
        steady = step(2, "steady")
        measured |= dict(
            zip(list(GOALS)[:3], (steady[k] for k in ("relation_ms", "rest_ms", "over_graphs")), strict=True)
        )
        measured[list(GOALS)[4]] = sum(steady["waits"].values())
        runs[_run(2, "steady")] = None
    except Unmeasured:
        pass
    try:
        points = sweep(3, "streams", "streams")["points"]
        measured[list(GOALS)[3]] = points["1"]["ms"]["p50"] / points["8"]["ms"]["p50"]
        runs[_run(3, "streams")] = None
    except Unmeasured:
        pass
    if not measured:
        raise Unmeasured(FOLDER)
    rows = []
    for name, (limit, how) in GOALS.items():
        got = measured.get(name)
        if got is not None:
            reached = got >= limit if how == "at least" else got < limit if how == "under" else got <= limit
            rows.append([name, f"{how} {limit:g}", f"{got:.3g}", "yes" if reached else "no"])
    return "\n".join([store.table(["", "wanted", "measured", "reached"], rows, "lrrl"), "", *runs])


def dials() -> str:
    """A frame at the ends of T, K and r."""
    points = sweep(2, "against", "ends")["points"]
    rows = [[value, _ms(point), f"{point['ratio']['p50']:.3f}"] for value, point in points.items()]
    return store.table(["dial", "ms a frame", "to the paper's point"], rows)


def kernels() -> str:
    """Each kernel against what the device can do."""
    found = step(3, "kernels")
    rows = [
        [name, f"{k['microseconds']:.1f}", *(f"{k[part]:.0%}" for part in ("of_bandwidth", "of_matrix_rate"))]
        for name, k in found["kernels"].items()
        if "of_bandwidth" in k
    ]
    if not rows:
        raise Unmeasured("kernels")
    limits = found["ceilings"]
    told = (
        f"Copy {limits['copy_gb_per_s']:.0f} GB/s, matrix products {limits['matrix_tflop_per_s']:.0f} TFLOP/s, "
        "measured in the same run."
    )
    table = store.table(["kernel", "microseconds", "of copy bandwidth", "of matrix rate"], rows)
    return "\n".join([table, "", f"{told} {_run(3, 'kernels')}"])


def training() -> str:
    """How much of a training step waits for data."""
    found = step(6, "training")
    rows = [
        [str(r["workers"]), f"{r['step_ms']:.0f}", f"{r['data_part']:.1%}", f"{r['frames_per_second']:.1f}"]
        for r in found["rows"]
    ]
    table = store.table(["workers", "ms a step", "waiting for data", "frames a second"], rows)
    return "\n".join([table, "", f"{found['model']}. {_run(6, 'training')}"])


def summary() -> str:
    """README's: a frame on the GPU beside the straightforward implementation on it, and streams in a batch."""
    points = sweep(2, "against", "baseline")["points"]
    [ours] = [value for value in points if value != "baseline"]
    pairs = zip(points["baseline"]["rounds"], points[ours]["rounds"], strict=True)
    faster = statistics.median(b["ms"] / o["ms"] for b, o in pairs)
    rows = [["straightforward torch implementation", _ms(points["baseline"]), "1.0"],
            ["rdn_engine, fp16, one stream", _ms(points[ours]), f"{faster:.1f}"]]  # fmt: skip
    try:
        batch = sweep(3, "streams", "streams")["points"]
        for value, point in batch.items():
            if value != "1":
                many = points["baseline"]["ms"]["p50"] / point["ms"]["p50"]
                rows.append([f"rdn_engine, fp16, {value} streams in a batch", _ms(point), f"{many:.1f}"])
    except Unmeasured:
        pass
    header = ["RDN, ResNet-101, 600 x 1000, one GPU", "ms a frame", "times faster"]
    return "\n".join([store.table(header, rows), "", _run(2, "against")])


def _ms(point: Mapping[str, Any]) -> str:
    return tables.milliseconds(point["ms"]["p50"])


def _run(number: int, name: str) -> str:
    """Where the figures of a step come from."""
    measured = step(number, name)
    gpu = measured.get("gpu") or "a GPU that nvidia-smi did not name"
    versions = ", ".join(f"{package} {measured['versions'][package]}" for package in ("torch", "numpy"))
    # A tree that was copied there may have no history; what it was is known by its digest.
    state = f"commit {store.commit(measured)}" if measured["commit"] else f"sources {phase(number)['sources']}"
    return f"{gpu}; {versions}; {measured['date']}, {state}."


def _or_nothing(block: Callable[[], str]) -> Callable[[], str]:
    def make() -> str:
        try:
            return block()
        except Unmeasured:
            return ""

    return make


BLOCKS = {
    "gpu-checks": _or_nothing(checks),
    "gpu-goals": _or_nothing(goals),
    "gpu-dials": _or_nothing(dials),
    "gpu-kernels": _or_nothing(kernels),
    "gpu-training": _or_nothing(training),
}
README = {"gpu-summary": _or_nothing(summary)}
