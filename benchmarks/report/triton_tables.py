"""Tables of streams behind Triton, and of what fleets and archives want."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from benchmarks.report import store
from benchmarks.report.scale_tables import checks
from benchmarks.report.store import Unmeasured, load, table

YEAR = 365.25 * 86400
PETABYTE = 1e15
MBIT, FPS = 4.0, 25
"""Of the archive: megabits a second of a video, and its frames"""
EVERY = (1, 5)
"""The dial `interval`: every how many frames one is encoded"""
CORES = 10_000
BUSY = 0.75
UNMEASURED = "Not measured yet."


def triton() -> str:
    """What streams behind a real server did and cost."""
    result = load("scale_triton.json")
    costs = []
    for found in (result["overhead"], result["overhead_one"]):
        ms, ratio = found["ms_a_frame"], found["triton_over_local"]
        costs.append([
            store.count(found["streams"], "stream"), f"{ms['local']['p50']:.2f}", f"{ms['triton']['p50']:.2f}",
            f"{ratio['p50']:.3f}", f"{ratio['min']:.3f} to {ratio['max']:.3f}", str(len(found["rounds"])),
        ])  # fmt: skip
    header = ["a frame, ms", "in a local loop", "through the server", "ratio", "rounds from, to", "rounds"]
    words = "The loop and the server have the same core, in turns; clients have another."
    return "\n".join([
        checks({"triton": result}), "", table(header, costs), "",
        f"{words} {store.provenance(result, on=result)}",
    ])  # fmt: skip


def small() -> str:
    """The simulation beside what it simulates."""
    result = load("simulation.json")
    rows = []
    for row in result["small"]:
        for name, title, scale in (("answered", "frames answered", 1), ("age_p50", "age p50, ms", 1e3),
                                   ("age_p99", "age p99, ms", 1e3)):  # fmt: skip
            found = row[name]
            digits = 0 if scale == 1 else 1
            rows.append([
                f"{row['cameras']} cameras, {row['rate']:.1f} frames/s each, load {row['load']:g}", title,
                f"{found['measured'] * scale:.{digits}f}", f"{found['simulated'] * scale:.{digits}f}",
                f"{found['ratio']:.3f}",
            ])  # fmt: skip
    header = ["case", "", "measured", "simulated", "ratio"]
    return "\n".join([table(header, rows, "llrrr"), "", store.provenance(result)])


def cameras() -> str:
    """What many cameras want, simulated from measured calls."""
    result = load("simulation.json")
    rows = [
        [
            f"{row['cameras']:,} x {row['rate']:g}/s", str(row["instances"]), f"{row['busy']:.2f}",
            f"{row['batch']:.1f}", f"{row['dropped'] / row['frames']:.2%}", f"{1e3 * row['age_p50']:.0f}",
            f"{1e3 * row['age_p99']:.0f}", str(row["epochs"]), f"{row['partial'] / row['answered']:.3%}",
        ]
        for row in result["fleet"]
    ]  # fmt: skip
    header = ["cameras", "cores", "busy", "frames a call", "dropped", "age p50, ms", "age p99, ms", "epochs lost",
              "of windows not whole"]  # fmt: skip
    return "\n".join([table(header, rows), "", store.provenance(result)])


def larger() -> str:
    """Cores for the same cameras with the paper's model, from its measured frame times."""
    rows = []
    for name, seconds in _models().items():
        rows += [
            [name, f"{1e3 * seconds:,.0f}", f"1,000 x {rate:g}/s", f"{math.ceil(1000 * rate * seconds / BUSY):,}"]
            for rate in (1, 5, 10)
        ]
    header = ["model", "ms a frame on one core, measured", "cameras", f"cores at {BUSY:.0%}, computed"]
    return table(header, rows, "lrlr")


def archive() -> str:
    """What a petabyte of video wants."""
    decode = load("decode.json")
    seconds = PETABYTE * 8 / (MBIT * 1e6)
    frames = seconds * FPS
    decoding = frames * decode["ms"]["p50"] / 1e3
    rows = []
    for name, each in _models().items():
        for every in EVERY:
            detecting = frames / every * each
            total = (decoding + detecting) / YEAR
            rows.append([
                name, str(every), f"{frames / every:.2g}", f"{decoding / YEAR:,.1f}", f"{detecting / YEAR:,.0f}",
                f"{total * 365.25 / CORES:,.1f}",
            ])  # fmt: skip
    header = ["model", "every n-th frame", "frames encoded", "core-years of decoding", "of detecting",
              f"days on {CORES:,} cores"]  # fmt: skip
    height, width = decode["size"]
    words = (
        f"Computed: {seconds / YEAR:.0f} years of video of {MBIT:g} Mbit/s and {FPS} frames/s, {frames:.2g} frames. "
        f"Measured: the frame times above, and decoding, {decode['ms']['p50']:.1f} ms for a frame of {width} x "
        f"{height} on one core, of a video of {decode['mbit_a_second']:.0f} Mbit/s ({store.provenance(decode)})."
    )
    return "\n".join([table(header, rows), "", words])


def _models() -> dict[str, float]:
    """Seconds of a frame on one core, of the models that were measured at their own dials."""
    local: dict[str, Any] = load("scale_triton.json")["overhead_one"]["ms_a_frame"]["local"]
    found = {"rdn_tiny, 224 x 128": local["p50"] / 1e3}
    for precision in ("int8", "float32"):
        point = load(f"latency_r101_{precision}.json")["sweeps"]["T"]["points"]["18"]
        found[f"ResNet-101 {precision}, 1000 x 600"] = point["ms"]["p50"] / 1e3
    return found


def _or_unmeasured(block: Callable[[], str]) -> Callable[[], str]:
    def make() -> str:
        try:
            return block()
        except Unmeasured as missing:
            return f"{UNMEASURED} Wants `benchmarks/results/{missing}`."

    return make


BLOCKS: dict[str, Callable[[], str]] = {
    name: _or_unmeasured(block)
    for name, block in {
        "triton": triton,
        "capacity-small": small,
        "capacity-cameras": cameras,
        "capacity-larger": larger,
        "capacity-archive": archive,
    }.items()
}
