"""The pictures of docs/performance.md, and those of a run of latency.py."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.report.performance import FLOAT32, INT8, KERNELS, growth_measured
from benchmarks.report.store import there
from benchmarks.report.tables import PAPER_GROWTH, over
from rdn_engine.stream.timings import STAGES

Results = Mapping[str, Any]

CURVES, PAPER = ("#4477aa", "#cc3355", "#228833", "#885533"), "#222222"
STAGE_COLOURS = ("#bbbbbb", "#4477aa", "#66ccee", "#228833", "#99bb55", "#dddddd", "#cc3355", "#aa3377", "#885533")
PEERS = {"ours": "#4477aa", "torch eager": "#bbbbbb", "torch.compile": "#999999", "ONNX Runtime": "#ccaa33"}


def draw(folder: Path) -> None:
    """performance_dials.svg, performance_stages.svg and performance_kernels.svg in `folder`, those with results."""
    full = there(float32=FLOAT32, INT8=INT8)
    points = {t: r["sweeps"]["T"]["points"]["18"] for t, r in full.items() if "T" in r["sweeps"]}
    if points:
        draw_dials(growth_measured(), folder / "performance_dials.svg")
        draw_stages(points, folder / "performance_stages.svg")
    for results in there(kernels=KERNELS).values():
        draw_kernels(results["kernels"], folder / "performance_kernels.svg")


def draw_dials(measured: Mapping[str, Mapping[str, Results]], path: Path) -> None:
    """A whole frame along those of T, K and r that were measured, each curve over its own first value, and the paper's
    growth to the last where a curve begins as the paper's; title -> dial -> results.
    """
    labels = {
        "T": "T, frames on each side",
        "K": "K, support proposals (paper: basic stage only)",
        "r": "r, part refined",
    }
    curves = {name: {t: r[name]["sweeps"][name]["points"] for t, r in measured.items()
                     if name in r and name in r[name]["sweeps"]} for name in labels}  # fmt: skip
    dials = [name for name in labels if curves[name]]
    figure, axes = _figure(len(dials), (3 * len(dials), 2.9))
    for axis, name in zip(axes, dials, strict=True):
        first, last, growth = PAPER_GROWTH[name]
        for (title, points), colour in zip(curves[name].items(), itertools.cycle(CURVES), strict=False):
            x, y = zip(*((_number(value), over(points, next(iter(points)), value)) for value in points), strict=True)
            axis.plot(x, y, "o-", color=colour, markersize=3, linewidth=1.3, label=title)
        if any(next(iter(points)) == first for points in curves[name].values()):
            axis.plot([_number(first), _number(last)], [1, growth], "o:", color=PAPER, markersize=4, linewidth=1,
                      label="paper, its ends")  # fmt: skip
        axis.set_xlabel(labels[name])
        axis.set_ylim(bottom=0.9)
    axes[0].set_ylabel("whole frame, over the first")
    axes[0].legend(frameon=False, fontsize=8, loc="upper left")
    _save(figure, path)


def _number(value: str) -> float:
    return float(value.rstrip("%"))


def draw_stages(points: Mapping[str, Any], path: Path) -> None:
    """One bar a precision, one colour a stage; title -> point."""
    figure, [axis] = _figure(1, (8, 0.9 + 0.5 * len(points)))
    longest = max(point["ms"]["p50"] for point in points.values())
    for row, point in enumerate(points.values()):
        left = 0.0
        for stage, colour in zip(STAGES, STAGE_COLOURS, strict=False):
            ms = point["stages_ms"].get(stage, 0.0)
            axis.barh(row, ms, left=left, color=colour, height=0.6, label=stage if row == 0 else None)
            if ms > 0.04 * longest:  # room for its figure
                axis.text(left + ms / 2, row, f"{ms:.0f}", ha="center", va="center", fontsize=8, color="white")
            left += ms
    axis.set_yticks(range(len(points)), list(points))
    axis.invert_yaxis()
    axis.set_xlabel("ms of one frame")
    axis.legend(frameon=False, fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    _save(figure, path)


def draw_kernels(kernels: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Ours and the peers, over the floor, on a logarithmic axis."""
    shown = [k for k in kernels if k["operations"] > 0]
    figure, [axis] = _figure(1, (8, 0.6 + 0.62 * len(shown)))
    height = 0.8 / len(PEERS)
    for row, kernel in enumerate(shown):
        for place, (name, colour) in enumerate(PEERS.items()):
            if name in kernel["times"]:
                ms = kernel["times"][name]["ms"]["p50"]
                axis.barh(row + (place - 1.5) * height, ms, height=height, color=colour, label=name)
        axis.plot([kernel["floor_ms"]] * 2, [row - 0.4, row + 0.4], color="#222222", linewidth=1.5, label="floor")
    axis.set_xscale("log")
    axis.set_yticks(range(len(shown)), [k["kernel"] for k in shown])
    axis.invert_yaxis()
    axis.set_xlabel("ms a call, one core")
    named = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    axis.legend(named.values(), named.keys(), frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    _save(figure, path)


def _figure(count: int, size: tuple[float, float]) -> tuple[Figure, Sequence[Axes]]:
    plt.rcParams |= {"svg.hashsalt": "rdn", "font.size": 9}
    figure, axes = plt.subplots(1, count, figsize=size, layout="constrained", squeeze=False)
    for axis in axes[0]:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, list(axes[0])


def _save(figure: Figure, path: Path) -> None:
    # Without a date the same results give the same file.
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
