"""Markdown tables of latency results, beside what the paper says (Deng et al., ICCV 2019, Tables 4, 6 and 7)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from functools import partial
from typing import Any

from benchmarks.frame.settings import bundle_label
from benchmarks.kernel.arithmetic import relation_operations
from benchmarks.report.store import table
from rdn_engine.config import Dials, RelationConfig
from rdn_engine.stream.timings import STAGES

Results = Mapping[str, Any]

PAPER_MS = 94.2
"""of a frame at T = 18, K = 75, r = 20%, ResNet-101; the machine is not named"""
PAPER_GROWTH = {"T": ("3", "24", 1.14), "K": ("25", "300", 1.91), "r": ("10%", "100%", 1.35)}
"""Sweep -> first and last value, and how much longer a frame takes at the last; K without the advanced stage.
The rows between are not known here, so none is given."""
PAPER_REFERENCE = {"T": "18", "K": "75", "r": "20%"}

ENCODER_STAGES = STAGES[: STAGES.index("window")]


def milliseconds(value: float) -> str:
    """Three significant digits, two below 1, and everything in front of the point."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.2g}"


def sweep_table(results: Results, name: str) -> str:
    """One row a point: milliseconds, spread, the relation stage, and the ratio to the sweep's own reference point."""
    sweep = results["sweeps"][name]
    header = [sweep["label"], "ms a frame", "p90", "p99", "spread", "of it relation", "to the reference point"]
    paper = name in PAPER_REFERENCE
    rows = []
    for value, point in sweep["points"].items():
        ms, stages = point["ms"], point["stages_ms"]
        row = [value, *(milliseconds(ms[k]) for k in ("p50", "p90", "p99")), f"±{ms['spread']:.1%}",
               milliseconds(stages["relation"]) if stages else "", f"{point['ratio']['p50']:.3f}"]  # fmt: skip
        rows.append(row + ([_paper(name, value)] if paper else []))
    return table(header + (["paper, ms (to its own reference point)"] if paper else []), rows)


def throughput_table(results: Results, name: str) -> str:
    """One row a point: milliseconds of a frame, and how many times as many frames a second as at the reference point,
    round by round.
    """
    sweep = results["sweeps"][name]
    points = sweep["points"]
    rows = []
    for value, point in points.items():
        pairs = zip(points[sweep["reference"]]["rounds"], point["rounds"], strict=True)
        times = [reference["ms"] / one["ms"] for reference, one in pairs]
        spread = f"{statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f})"
        rows.append([value, *(milliseconds(point["ms"][k]) for k in ("p50", "p90")), spread])
    return table([sweep["label"], "ms a frame", "p90", "times as many frames (least to most)"], rows)


def _paper(name: str, value: str) -> str:
    return f"{PAPER_MS} (1.000)" if value == PAPER_REFERENCE[name] else ""


def growth(results: Results, name: str) -> float | None:
    """Last over first value of the paper's range, median of the rounds; None where it was not measured."""
    first, last, _ = PAPER_GROWTH[name]
    points = results["sweeps"].get(name, {}).get("points", {})
    return over(points, first, last) if {first, last} <= set(points) else None


def over(points: Results, first: str, last: str) -> float:
    """How many times as long a frame takes at `last` as at `first`: median of the rounds."""
    pairs = zip(points[first]["rounds"], points[last]["rounds"], strict=True)
    ratios: list[float] = [b["ms"] / a["ms"] for a, b in pairs]
    return statistics.median(ratios)


def least_growth(results: Results, name: str, gflops: float) -> float | None:
    """The same if the relation stage were its counted operations alone, at `gflops` (10^9 a second); the rest of the
    frame is the median at the reference point.
    """
    first, last, _ = PAPER_GROWTH[name]
    sweep = results["sweeps"].get(name, {})
    points = sweep.get("points", {})
    if not {first, last} <= set(points):
        return None
    reference = points[sweep["reference"]]
    bundle = results["bundles"][bundle_label(reference["setting"]["process"]["engines"])]
    relation = RelationConfig(**bundle["relation"])
    rest: float = reference["ms"]["p50"] - reference["stages_ms"]["relation"]
    least = [rest + relation_operations(relation, Dials(**points[v]["setting"]["dials"]), bundle["classes"] + 1)
             / (1e6 * gflops) for v in (first, last)]  # fmt: skip
    return least[1] / least[0]


def growth_table(measured: Mapping[str, Mapping[str, Results]], gflops: float | None = None) -> str:
    """How much longer a frame takes at the end of each of the paper's ranges; title -> sweep -> results that hold it.
    With `gflops` the least that it could be stands beside it.
    """
    rows = []
    for name, (first, last, paper) in PAPER_GROWTH.items():
        cells: list[str] = []
        for results in (found.get(name, {"sweeps": {}}) for found in measured.values()):
            found_growth = [growth(results, name)]
            if gflops is not None:
                found_growth.append(least_growth(results, name, gflops))
            cells += ["" if g is None else f"{g:.3f}" for g in found_growth]
        if not any(cells):
            continue
        what = f"{name} = {last} over {name} = {first}"
        rows.append([what, *cells, f"{paper:.2f}" + (", basic stage only" if name == "K" else "")])
    titles = [cell for title in measured for cell in (title, f"{title}, least")[: 1 if gflops is None else 2]]
    return table(["a whole frame", *titles, "paper"], rows)


def stage_table(measured: Mapping[str, tuple[Results, str, str]]) -> str:
    """Where a frame's time goes: title -> (results, sweep, value); milliseconds and the part of the frame."""
    points = {title: r["sweeps"][sweep]["points"][value] for title, (r, sweep, value) in measured.items()}
    rows = []
    for stage in STAGES:
        if not any(p["stages_ms"].get(stage) for p in points.values()):
            continue
        cells = [f"{milliseconds(p['stages_ms'].get(stage, 0))} ({p['stages_ms'].get(stage, 0) / p['ms']['p50']:.1%})"
                 for p in points.values()]  # fmt: skip
        rows.append([stage, *cells])
    rows.append(["whole frame", *(milliseconds(p["ms"]["p50"]) for p in points.values())])
    return table(["ms", *points], rows)


def side_table(results: Results) -> str:
    """The straightforward implementation and ours in turns: milliseconds, speed-up round by round, peak memory."""
    sweep = results["sweeps"]["baseline"]
    rows = []
    for value, point in sweep["points"].items():
        speed_up = speed_ups(results, value)
        peak = "" if point["peak_mb"] is None else f"{point['peak_mb']:.0f}"
        faster = f"{statistics.median(speed_up):.2f} ({min(speed_up):.2f} to {max(speed_up):.2f})"
        rows.append([value, *(milliseconds(point["ms"][k]) for k in ("p50", "p90")), faster, peak])
    return table(["", "ms a frame", "p90", "times faster (least to most)", "peak MB"], rows)


def speed_ups(results: Results, value: str) -> list[float]:
    """How many times faster than the straightforward implementation, round by round."""
    sweep = results["sweeps"]["baseline"]
    points = sweep["points"]
    pairs = zip(points[sweep["reference"]]["rounds"], points[value]["rounds"], strict=True)
    return [b["ms"] / p["ms"] for b, p in pairs]


def first_table(results: Results) -> str:
    """From the first frame to the first result, and how much of it is not the encoder of its L + 1 frames."""
    rows = []
    for value, point in results["sweeps"]["first"]["points"].items():
        stages = point["stages_ms"]
        rest = point["ms"]["p50"] - sum(stages[s] for s in ENCODER_STAGES)
        rows.append([value, milliseconds(point["ms"]["p50"]), milliseconds(rest), milliseconds(stages["relation"])])
    return table(["look-ahead", "ms to the first result", "without the encoder", "of it the relation step"], rows)


def sweep_tables(results: Results) -> str:
    """Every sweep under a heading of its own, and how a frame grows along the dials."""
    own = {
        "baseline": ("against the straightforward implementation", side_table),
        "first": ("first result", first_table),
    }
    parts = []
    for name in results["sweeps"]:
        title, make = own.get(name, (name, partial(sweep_table, name=name)))
        parts.append(f"## {title}\n\n{make(results)}")
    if any(growth(results, name) is not None for name in PAPER_GROWTH):
        parts.append("## growth\n\n" + growth_table({"ours": dict.fromkeys(PAPER_GROWTH, results)}))
    return "\n\n".join([*parts, f"Energy: {results['energy']}."])
