"""Tables and plots of docs/accuracy.md from benchmarks/results/accuracy/*.json, for `report.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from statistics import mean
from typing import Any

from benchmarks.report import store
from benchmarks.report.store import Results, table

STAGES = ("single", "within", "basic", "full")
SPEEDS = ("slow", "medium", "fast")
COLUMNS = ("all", *SPEEDS, "COCO AP50", "COCO AP", "delay")

Figures = dict[str, float]
"""By COLUMNS: AP in percent, delay in frames"""


def load(row: str, seed: int) -> Results:
    return store.load(f"accuracy/{row}-{seed}.json")


def seeds(row: str) -> list[int]:
    return store.seeds(f"accuracy/{row}")


def figures(result: dict[str, Any]) -> Figures:
    speed = {name: result["speed"][name]["AP50"] for name in SPEEDS}
    coco = {"COCO AP50": result["coco"]["AP50"], "COCO AP": result["coco"]["AP"]}
    return {"all": result["vid"]["AP50"], **speed, **coco, "delay": result["delay"]["frames"]}


def setting(row: str, label: str, seed: int = 0) -> Figures:
    return figures(load(row, seed)["settings"][label])


def spread(values: Sequence[float], sign: str = "") -> str:
    """The mean, and how far the values reach from it where there are several."""
    middle = mean(values)
    reach = f" ± {max(abs(v - middle) for v in values):.1f}" if len(values) > 1 else ""
    return f"{middle:{sign}.1f}{reach}"


def stages() -> str:
    """The paper's Table 3, VID protocol, mean and largest distance from it over the seeds."""
    head = ["", "seeds", *COLUMNS]
    rows = []
    for row in STAGES:
        found = [setting(row, "own", seed) for seed in seeds(row)]
        cells = [spread([f[column] for f in found]) for column in COLUMNS]
        rows.append([load(row, 0)["title"], str(len(found)), *cells])
    return "\n".join([table(head, rows), "", source(STAGES)])


def gains() -> str:
    """RDN less the single-frame detector, seed by seed."""
    columns = ("all", *SPEEDS)
    both = [s for s in seeds("full") if s in seeds("single")]
    gain = {s: {c: setting("full", "own", s)[c] - setting("single", "own", s)[c] for c in columns} for s in both}
    rows = [[f"seed {s}", *(f"{gain[s][c]:+.1f}" for c in columns)] for s in both]
    rows.append(["mean", *(f"{mean(gain[s][c] for s in both):+.1f}" for c in columns)])
    return table(["RDN less single frame", *columns], rows)


def steps() -> str:
    """Each stage less the one before it, AP50 seed by seed, over the seeds that all have."""
    common = sorted(set.intersection(*(set(seeds(row)) for row in STAGES)))
    found = {row: {s: setting(row, "own", s)["all"] for s in common} for row in STAGES}
    rows = []
    for before, row in pairwise(STAGES):
        gain = [found[row][s] - found[before][s] for s in common]
        names = load(row, 0)["title"], load(before, 0)["title"]
        rows.append([f"{names[0]} less {names[1]}", *(f"{g:+.1f}" for g in gain), f"{mean(gain):+.1f}"])
    return table(["AP50, all", *(f"seed {s}" for s in common), "mean"], rows)


def modules() -> str:
    """The paper's Table 5: basic modules N_b, without the advanced stage."""
    columns = ("all", *SPEEDS)
    names = {0: "single", 1: "basic1", 2: "basic", 3: "basic3", 4: "basic4"}
    done = {n: row for n, row in names.items() if seeds(row)}
    rows = [[str(n), *(f"{setting(row, 'own')[c]:.1f}" for c in columns)] for n, row in done.items()]
    missing = [str(n) for n in names if n not in done]
    note = f"\n\nNot run yet: N_b = {', '.join(missing)}." if missing else ""
    return table(["N_b", *columns], rows) + note


def sweep(key: str, rows: Sequence[str] = ("full",)) -> str:
    """One dial, all others as trained: a line for each value in the results, the model's own among them."""
    columns = ("all", *SPEEDS) if len(rows) == 1 else ("all", "fast")
    titles = {"full": "RDN", "basic": "basic stage"}
    unit = "%" if key == "r" else ""
    head = [key, *(c if len(rows) == 1 else f"{titles[row]}, {c}" for row in rows for c in columns)]
    lines = [
        [f"{value:g}{unit}", *(f"{setting(row, label)[c]:.1f}" for row in rows for c in columns)]
        for value, label in values(key, rows[0])
    ]
    return table(head, lines)


DIALS = {"T": "window", "K": "num_support", "N": "num_reference", "L": "look_ahead", "r": "advanced_ratio"}


def values(key: str, row: str) -> list[tuple[float, str]]:
    """(value of the dial, its label in the results) in order; the model's own value has the label "own"."""
    document = load(row, 0)
    dial = document["settings"]["own"]["dials"]
    own = dial["window"] if key == "L" else dial[DIALS[key]]
    found = {float(own) * (100 if key == "r" else 1): "own"}
    for label in document["settings"]:
        if label.startswith(f"{key}="):
            found[float(label.removeprefix(f"{key}=").rstrip("%"))] = label
    return sorted(found.items())


def choices() -> str:
    """Sampling of the advanced proposals, edges of the window, precision of the engine."""
    labels = {
        "own": "as trained: per frame, replicate, float32",
        "sampling=global": "sampling over the whole window (the paper's words)",
        "edges=clip": "edges clipped (the paper's Algorithm 1)",
        "precision=fp16": "fp16 graphs",
        "precision=int8": "int8 graphs",
    }
    columns = ("all", *SPEEDS, "COCO AP")
    known = load("full", 0)["settings"]
    rows = [[text, *(f"{setting('full', label)[c]:.1f}" for c in columns)] for label, text in labels.items()
            if label in known]  # fmt: skip
    return table(["", *columns], rows)


def source(rows: Sequence[str]) -> str:
    """Where the figures come from: protocol, data, commits."""
    documents = [load(row, seed) for row in rows for seed in seeds(row)]
    result = documents[0]["settings"]["own"]
    commits = sorted({store.commit(d) for d in documents})
    data = result["data"]
    return (
        f"{data['videos']} held-out videos, {data['frames']} frames, {data['objects']} objects. "
        f"AP50 of the VID protocol: {result['vid']['protocol']}. Commit {', '.join(commits)}; `make accuracy`."
    )


BLOCKS: dict[str, Callable[[], str]] = {
    "accuracy-stages": stages,
    "accuracy-gains": gains,
    "accuracy-steps": steps,
    "accuracy-modules": modules,
    "accuracy-window": partial(sweep, "T", ("full", "basic")),
    "accuracy-support": partial(sweep, "K", ("full", "basic")),
    "accuracy-ratio": partial(sweep, "r"),
    "accuracy-look-ahead": partial(sweep, "L"),
    "accuracy-reference": partial(sweep, "N"),
    "accuracy-choices": choices,
}
"""Of docs/accuracy.md, by marker"""
