"""Plots of a result: precision and recall by speed, and AP by speed, size and class."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rdn_engine.evaluation.boxes import Float
from rdn_engine.evaluation.score import RECALLS

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

COLOURS = {"all": "#444444", "slow": "#0072b2", "medium": "#e69f00", "fast": "#d55e00"}
"""Of the palette of Okabe and Ito, which colour-blind readers can tell apart"""
NEUTRAL = "#7a8ba0"
STYLE: dict[RcKeyType, object] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "font.size": 10,
    "figure.dpi": 100,
    "savefig.dpi": 150,
}


def draw(result: dict[str, Any], curves: dict[str, Float], directory: Path) -> list[Path]:
    """Writes precision_recall.png and average_precision.png.

    Args:
        result: of `score`.
        curves: of `precision_recall`.
        directory: which is made if need be.

    Returns:
        The paths of both.
    """
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / "precision_recall.png", directory / "average_precision.png"]
    with matplotlib.rc_context(STYLE):
        _precision_recall(result, curves).savefig(paths[0])
        _bars(result).savefig(paths[1])
    return paths


def _precision_recall(result: dict[str, Any], curves: dict[str, Float]) -> Figure:
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, precision in curves.items():
        ap = result["vid"]["AP50"] if name == "all" else result["speed"][name]["AP50"]
        label = f"{name} objects, AP50 {ap:.1f}"
        axes.plot(RECALLS, precision, color=COLOURS[name], label=label, linewidth=2.5 if name == "all" else 1.8)
    axes.set(xlabel="recall", ylabel="precision, mean over classes", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(loc="lower left", frameon=False)
    axes.set_title("Precision and recall by speed (VID protocol)", loc="left", fontsize=11)
    return figure


def _bars(result: dict[str, Any]) -> Figure:
    per_class = {n: ap for n, ap in result["vid"]["per_class"].items() if ap is not None}
    height = 2.6 + 0.3 * len(per_class)
    figure = Figure(figsize=(8, height), layout="constrained")
    parts = figure.subplot_mosaic(
        [["speed", "size"], ["class", "class"]], height_ratios=[2, 0.3 * len(per_class) + 0.6]
    )
    figure.suptitle(
        f"AP50 (VID protocol) on {result['data']['name']}: {result['vid']['AP50']:.1f}", x=0.01, ha="left", fontsize=11
    )
    _group(parts["speed"], result["speed"], ("slow", "medium", "fast"), "speed")
    _group(parts["size"], result["size"], ("small", "medium", "large"), "size (thirds)")
    axes = parts["class"]
    order = sorted(per_class, key=lambda name: per_class[name])
    bars = axes.barh(order, [per_class[name] for name in order], color=NEUTRAL, height=0.7)
    axes.bar_label(bars, [f"{per_class[n]:.1f}  ({result['data']['classes'][n]} boxes)" for n in order], padding=3)
    axes.set(xlim=(0, 125), xticks=np.arange(0, 101, 20))
    axes.set_title("by class", loc="left", fontsize=10)
    axes.grid(visible=False)
    return figure


def _group(axes: Axes, block: dict[str, Any], names: tuple[str, ...], title: str) -> None:
    axes.set_title(f"by {title}", loc="left", fontsize=10)
    if "absent" in block:
        axes.text(0.5, 0.5, textwrap.fill(block["absent"], 36), transform=axes.transAxes, ha="center", va="center")
        axes.set_axis_off()
        return
    values = [block[name]["AP50"] or 0.0 for name in names]
    labels = [f"{name}\n{block[name]['objects']} boxes" for name in names]
    bars = axes.bar(
        labels, values, color=[COLOURS.get(name, NEUTRAL) if "slow" in names else NEUTRAL for name in names]
    )
    axes.bar_label(bars, ["none" if block[n]["AP50"] is None else f"{block[n]['AP50']:.1f}" for n in names], padding=2)
    axes.set(ylim=(0, 112), yticks=np.arange(0, 101, 20))
    axes.grid(visible=False, axis="x")
