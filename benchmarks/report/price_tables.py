"""What each dial and option buys and costs, machines side by side: tables of docs/performance.md and docs/tuning.md."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.report import store, tables
from benchmarks.report.store import Results, Unmeasured, load, read, table

MODELS = {"demo": "demo", "r101_float32": "ResNet-101", "r101_int8": "ResNet-101, INT8"}
"""Of a file's name, prices_MODEL_ISA.json -> of a column"""
SWEEPS = ("interval", "threshold", "ring", "backend")
FRAMES_STILL = "nine frames of ten still"

Losses = Callable[[], Mapping[str, str]]


def priced(sweep: str) -> dict[str, Results]:
    """Column -> results of every model and machine on which a sweep was measured; Unmeasured where it is none."""
    found = {}
    for model, title in MODELS.items():
        for path in sorted(store.RESULTS.glob(f"prices_{model}_*.json")):
            results = read(path)
            if sweep in results["sweeps"]:
                found[f"{title}, {results['machine']['kernels']}"] = results
    if not found:
        raise Unmeasured(sweep)
    return found


def prices() -> str:
    """One row a value of a dial or an option: AP50 less that of the first value, and milliseconds on each machine."""
    measured = {sweep: _measured(sweep) for sweep in SWEEPS}
    columns = list(dict.fromkeys(column for found in measured.values() for column in found))
    if not columns:
        raise Unmeasured("prices")
    rows = []
    for sweep, found in measured.items():
        losses = _losses(sweep)
        values = dict.fromkeys(value for r in found.values() for value in r["sweeps"][sweep]["points"])
        for value in values:
            cells = [_cell(found[column], sweep, value) if column in found else "" for column in columns]
            rows.append([_row_name(sweep, value), losses.get(value, ""), *cells])
    header = ["", "AP50 less that of the first", *(f"{column}: ms (times as many frames)" for column in columns)]
    results = {column: found[column] for found in measured.values() for column in found}
    runs = [f"- {column}: {_run(one)}" for column, one in results.items()]
    return "\n".join([table(header, rows), "", *runs])


def tuning() -> str:
    """AP50 of what `tune` finds and of an exhaustive sweep, budget by budget."""
    results = load("tune_accuracy.json")
    rows = []
    for wait, found in results["rows"].items():
        for row in found:
            dials = ", ".join(f"{name} {value:g}" for name, value in row["dials"].items())
            less = row["AP50"] - row["AP50_sweep"]
            cells = [f"{row['AP50']:.1f}", f"{row['AP50_sweep']:.1f}", f"{less:+.2f}", f"{row['held_out']:.1f}",
                     f"{row['held_out_sweep']:.1f}"]  # fmt: skip
            rows.append([wait, f"{row['budget']:.0%}", str(row["within"]), str(row["scored"]), *cells, dials])
    header = ["wait", "budget", "settings within", "scored, some beyond", "AP50", "of the sweep", "less", "held out",
              "sweep, held out", "found"]  # fmt: skip
    text = (
        f"{results['protocol']}. Budgets are parts of what the model's own dials cost; {results['data']}, "
        f"{results['frames']} frames, held out: {results['held_out']}; `{results['model']}`. "
    )
    return "\n".join([table(header, rows, "lrrrrrrrrl"), "", text + store.provenance(results)])


def _measured(sweep: str) -> dict[str, Results]:
    try:
        return priced(sweep)
    except Unmeasured:
        return {}


def _cell(results: Results, sweep: str, value: str) -> str:
    """Median milliseconds, and how many times as many frames a second as at the first value, round by round."""
    points, reference = results["sweeps"][sweep]["points"], results["sweeps"][sweep]["reference"]
    if value not in points:
        return ""
    rounds = zip(points[reference]["rounds"], points[value]["rounds"], strict=True)
    times = statistics.median(first["ms"] / one["ms"] for first, one in rounds)
    return f"{tables.milliseconds(points[value]['ms']['p50'])} ({times:.2f})"


def _row_name(sweep: str, value: str) -> str:
    if sweep == "threshold":
        return f"still off, {FRAMES_STILL}" if value == "0" else f"still {value}, {FRAMES_STILL}"
    return f"{sweep} {value}"


def _run(results: Results) -> str:
    runs = {store.provenance(one["measured"]) for one in results["sweeps"].values()}
    return f"{store.machine(results)}; {' '.join(sorted(runs))}"


def _losses(sweep: str) -> Mapping[str, str]:
    """Value -> AP50 less that of the first; empty where it was not measured."""
    try:
        return {"interval": _interval, "threshold": _threshold, "ring": _ring, "backend": _backend}[sweep]()
    except Unmeasured:
        return {}


def _interval() -> dict[str, str]:
    rows = load("interval_accuracy.json")["rows"]

    def less(ahead: str, n: int) -> float:
        difference: float = rows[f"{ahead}, off, {n}"]["all"] - rows[f"{ahead}, off, 1"]["all"]
        return difference

    return {str(n): f"{less('look-ahead', n):+.1f}, causal {less('causal', n):+.1f}" for n in (2, 3, 4)}


def _threshold() -> dict[str, str]:
    rows = load("still_accuracy.json")["rows"]
    return {
        t: f"{row['all'] - rows['0']['all']:+.1f} ({row['still']:.0%} still)" for t, row in rows.items() if t != "0"
    }


def _ring() -> dict[str, str]:
    return _of_options("rings", "float32")


def _backend() -> dict[str, str]:
    return _of_options("backends", "onnxruntime")


def _of_options(kind: str, first: str) -> dict[str, str]:
    found: Mapping[str, Any] = load("ring_accuracy.json").get(kind, {})
    return {name: f"{one['AP50'] - found[first]['AP50']:+.2f}" for name, one in found.items() if name != first}
