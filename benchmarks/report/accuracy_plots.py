"""The picture of docs/accuracy.md, from the same results as its tables."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from benchmarks.report.accuracy_tables import SPEEDS, setting, values

PANELS = {
    "T": "window T, frames on each side",
    "L": "look-ahead L, frames",
    "K": "support proposals K of a frame",
    "N": "reference proposals N",
}
COLOURS = {"all": "#222222", "slow": "#4477aa", "medium": "#ccaa33", "fast": "#cc3355"}


def draw(path: Path) -> None:
    """AP50 against the four dials, of all objects and by motion."""
    plt.rcParams |= {"svg.hashsalt": "rdn", "font.size": 9}
    figure, axes = plt.subplots(1, len(PANELS), figsize=(11, 2.9), sharey=True, layout="constrained")
    for axis, (key, title) in zip(axes, PANELS.items(), strict=True):
        _panel(axis, key, title)
    axes[0].set_ylabel("AP50, VID protocol")
    axes[-1].legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _panel(axis: Axes, key: str, title: str) -> None:
    points = values(key, "full")
    x = [value for value, _ in points]
    for name in ("all", *SPEEDS):
        y = [setting("full", label)[name] for _, label in points]
        axis.plot(x, y, marker="o", markersize=3, linewidth=1.3, color=COLOURS[name], label=name)
    own = next(value for value, label in points if label == "own")
    axis.axvline(own, color="#bbbbbb", linewidth=0.8, zorder=0)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel(title)
    axis.spines[["top", "right"]].set_visible(False)
