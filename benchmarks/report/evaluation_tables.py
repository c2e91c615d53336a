"""The tables of docs/evaluation.md, from benchmarks/results."""

from __future__ import annotations

from benchmarks.report import store
from benchmarks.report.store import load, table


def delay_accuracy() -> str:
    """One model at every look-ahead: what is found, and what a viewer sees in time."""
    result = load("delay_accuracy.json")
    header = ["L", "delay, ms", "95%", "AP50", "AP", "streaming AP50", "AP", "slow", "fast", "average delay, ms"]
    rows = []
    for look_ahead, row in result["rows"].items():
        late = row["delay_ms"]
        figures = ("AP50", "AP", "streaming_AP50", "streaming_AP", "streaming_slow", "streaming_fast")
        cells = [f"{late['mean']:.0f}", f"{late['p95']:.0f}", *(f"{row[name]:.1f}" for name in figures)]
        rows.append([look_ahead, *cells, f"{row['average_delay_ms']:.0f}"])
    work = [row["push_ms"] for row in result["rows"].values()]
    return "\n".join(
        [
            table(header, rows, "r" * len(header)),
            "",
            f"`{result['model']}`, T = {result['window']}, on {result['data']}, {result['frames']} frames, as of a "
            f"camera of {result['fps']:g} frames a second; {min(work):.0f} to {max(work):.0f} ms a frame on "
            f"{store.count(result['threads'], 'thread')} of {result['machine']['cpu']}. Columns behind streaming AP50 "
            f"are of it too. {result['machine']['cores']} cores, shared with other work; commit "
            f"{store.commit(result)}, `{store.command(result)}`.",
        ]
    )


def confidence_accuracy() -> str:
    """A bundle before and after it was calibrated, on other videos."""
    result = load("confidence_accuracy.json")
    columns = {"D_ECE": "D-ECE", "D_ECE_certain": "of 0.3 or more", "AP50": "AP50", "AP": "AP", "oLRP": "oLRP"}
    rows = [
        [name, *(f"{row[key]:.4f}" if key.startswith("D_") else f"{row[key]:.2f}" for key in columns)]
        for name, row in result["rows"].items()
    ]
    test = result["test"]
    return "\n".join(
        [
            table([f"`{result['model']}`", *columns.values()], rows),
            "",
            f"Maps fitted to {test['fitted_frames']} frames of {result['fitted']}, tested on {test['tested_frames']} "
            f"others of it; judged here on {result['data']}, {result['frames']} frames. Commit {store.commit(result)}, "
            f"`{store.command(result)}`.",
        ]
    )


def ap_equality() -> str:
    """How far other evaluators are from ours."""
    result = load("ap_equality.json")
    names = list(next(iter(result["rows"].values()))["largest_difference"])
    rows = [
        [kind, str(row["sets"]), *(_difference(row["largest_difference"][name]) for name in names)]
        for kind, row in result["rows"].items()
    ]
    versions = ", ".join(f"{name} {result['versions'][name]}" for name in ("faster-coco-eval", "pycocotools"))
    return "\n".join(
        [
            table(["boxes", "sets", *names], rows),
            "",
            f"The largest difference from our AP, in points of 100, over random sets of small boxes. {versions}; "
            f"commit {store.commit(result)}, `{store.command(result)}`.",
        ]
    )


def _difference(value: float) -> str:
    return "0" if value < 1e-9 else f"{value:.1f}"


BLOCKS = {
    "delay-accuracy": delay_accuracy,
    "confidence-accuracy": confidence_accuracy,
    "ap-equality": ap_equality,
}
