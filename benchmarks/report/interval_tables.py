"""What frames that are not encoded cost in accuracy: tables of docs/performance.md, from benchmarks/results."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.report import store
from benchmarks.report.store import Results, load, table

COLUMNS = {"all": "AP50", "slow": "slow", "medium": "medium", "fast": "fast"}
BOUNDS = "true motion", "true motion and no vanished boxes"
"""Causal, too, by the annotations"""
LINKS = {"off": "no links", "boxes": "linked by overlap", "relations": "linked with relations"}


def interval() -> str:
    """AP50 by interval, with and without look-ahead and links."""
    result = load("interval_accuracy.json")
    rows = [
        [*cells, f"{result['times'][name]:.2f}"]
        for kind in ("look-ahead", "causal")
        for name, cells in _losses(result, kind, kind)
    ]
    data = next(iter(result["seeds"].values()))
    videos, frames = result["timed"]
    return "\n".join(
        [
            table([*_header(), "times as many frames"], rows),
            "",
            f"{result['protocol']}. Means of {store.count(len(result['seeds']), 'seed')} of {data['frames']} frames of "
            f"{data['data'].partition(',')[0]}; `{result['model']}`. Times as many: in processor time of streams, "
            f"one thread, median of {videos} videos of {frames} frames. {store.provenance(result, on=result)}",
        ]
    )


def bounds() -> str:
    """AP50 of boxes that move by the annotations, beside that of causal streams."""
    result = load("interval_accuracy.json")
    return table(_header(), [cells for kind in BOUNDS for _, cells in _losses(result, kind, "causal")])


def _header() -> list[str]:
    return ["", "interval", *COLUMNS.values(), "AP50 less that of 1 (smallest to largest)"]


def _losses(result: Results, kind: str, first: str) -> Iterator[tuple[str, list[str]]]:
    """Name and cells of the rows of one kind; their losses are from `first` at interval 1."""
    for link in result["links"]:
        for n in result["intervals"]:
            name, reference = f"{kind}, {link}, {n}", f"{first}, {link}, 1"
            if name not in result["rows"]:
                continue
            losses = [_less(of["rows"], name, reference) for of in result["seeds"].values()]
            less = f"{_mean(losses)} ({min(losses):+.2f} to {max(losses):+.2f})" if n > 1 else ""
            cells = [f"{result['rows'][name][key]:.1f}" for key in COLUMNS]
            yield name, [f"{kind}, {LINKS[link]}", str(n), *cells, less]


def still() -> str:
    """AP50 and frames a second by threshold, on static cameras."""
    result = load("still_accuracy.json")
    rows = []
    for label, row in result["rows"].items():
        cells = [*(f"{row[key]:.1f}" for key in COLUMNS), _loss(result["rows"], label), _times(row)]
        rows.append([_threshold(label), f"{row['still']:.0%}", *cells])
    header = ["threshold", "still", *COLUMNS.values(), "AP50 less that without", "times as many frames"]
    parts = [
        table(header, rows),
        "",
        f"{result['protocol']}. Rendered videos of a static camera, {result['repeated']:.0%} of whose frames show what "
        f"the one before shows, noise of {result['noise']:g} levels, at most {result['still_run']} still in a row; "
        f"means of {store.count(len(result['seeds']), 'seed')} of {result['frames']} frames. Processor time of all "
        f"pushes, one thread; `{result['model']}`. {store.provenance(result)}",
    ]
    if result["clip"] is not None:
        clip = [[_threshold(label), f"{row['still']:.0%}", _times(row)] for label, row in result["clip"].items()]
        frames = next(iter(result["clip"].values()))["frames"]
        parts += [
            "",
            table(["threshold", "still", "times as many frames"], clip),
            "",
            f"`{result['clip_name']}`, {frames} frames of a real static camera, without annotations.",
        ]
    return "\n".join(parts)


def _mean(losses: Sequence[float]) -> str:
    """Mean and, of two seeds or more, its standard error."""
    mean = f"{statistics.mean(losses):+.2f}"
    return mean if len(losses) < 2 else f"{mean} ± {statistics.stdev(losses) / math.sqrt(len(losses)):.2f}"


def _less(rows: Mapping[str, Any], name: str, reference: str) -> float:
    difference: float = rows[name]["all"] - rows[reference]["all"]
    return difference


def _loss(rows: Mapping[str, Any], label: str) -> str:
    return "" if label == "0" else f"{_less(rows, label, '0'):+.2f}"


def _threshold(label: str) -> str:
    return "off" if label == "0" else label


def _times(row: Mapping[str, Any]) -> str:
    return f"{row['times']:.2f}"
