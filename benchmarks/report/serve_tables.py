"""Tables of live streams under faults, and of what they hold after a long time."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.report import store
from benchmarks.report.store import Unmeasured, load, table
from benchmarks.serve.settled import Sample, judge, settled

_COUNTS = ("waiting", "inside", "doubtful", "damaged", "lost_packets", "sessions", "failures", "epochs")


def fault_table(fates: Sequence[dict[str, Any]]) -> str:
    """A row for each fault.

    Args:
        fates: each with the fields of `benchmarks.serve.observed.Fate`.
    """
    counts = [name.replace("lost_packets", "packets lost") for name in _COUNTS]
    header = ["fault", "in", "out", "dropped", *counts, "back after, s", "in = out + counted"]
    rows = []
    for fate in fates:
        dropped = ", ".join(f"{reason} {count}" for reason, count in fate["dropped"].items()) or "0"
        back = "" if fate["back_seconds"] is None else f"{fate['back_seconds']:.2f}"
        numbers = [str(fate[name]) for name in ("frames_in", "frames_out")]
        rows.append([fate["fault"], *numbers, dropped, *(str(fate[name]) for name in _COUNTS), back,
                     "exactly" if fate["exact"] else "NO"])  # fmt: skip
    return table(header, rows)


def faults() -> str:
    """What became of every frame under each fault."""
    try:
        result = load("faults.json")
    except Unmeasured:
        return ""
    source = (
        f"Cameras of {result['rate']} frames a second, {result['flapping_rate']} where some flap, whose time until "
        f"they are back is the longest. Faults that last took {result['seconds']:g} s, flapping "
        f"{result['flap_seconds']:g} s. "
        f"rdn_tiny, {result['machine']['cpu']}, {result['machine']['cores']} cores, commit {store.commit(result)}, "
        f"`{store.command(result)}`."
    )
    return "\n".join([fault_table(result["faults"]), "", source])


def soak() -> str:
    """What a process with flapping streams holds."""
    try:
        result = load("soak.json")
    except Unmeasured:
        return ""
    samples = [Sample(**one) for one in result["samples"]]
    judged, found = settled(samples), judge(samples)
    memory = [one.resident_mib for one in judged]
    middle = statistics.median(memory)
    rows = [["resident memory, MiB", f"{min(memory):.1f}", f"{middle:.1f}", f"{max(memory):.1f}"]]
    for name in ("threads", "descriptors"):
        seen = [getattr(one, name) for one in judged]
        rows.append([name, str(min(seen)), f"{statistics.median(seen):g}", str(max(seen))])
    account = result["account"]
    source = (
        f"{result['streams']} streams that flap, {result['seconds']:g} s, {account['sessions']} sessions, "
        f"{account['frames_in']} frames in, {account['frames_out']} out; {len(judged)} samples after a warm-up of "
        f"{judged[0].seconds / 60:.0f} minutes, before which the least was "
        f"{min(one.resident_mib for one in samples):.1f} MiB. {'. '.join(found) or 'Nothing grows'}. "
        f"Commit {store.commit(result)}, `{store.command(result)}`."
    )
    return "\n".join([table(["after the warm-up", "least", "median", "most"], rows), "", source])


def scheduler() -> str:
    """Many streams on one detector beside as many processes, and what a scheduler adds to one stream."""
    rows, sources = [], []
    for name in ("scheduler_8.json", "scheduler_16.json"):
        try:
            result = load(name)
        except Unmeasured:
            continue
        many, one = result["many"], result["one"]
        frames, memory = many["scheduler_over_processes"]["p50"], many["memory_over_processes"]["pss"]
        rows.append([
            f"{many['streams']} on {many['cores']} cores", f"{many['scheduler']['fps']['p50']:.0f}",
            f"{many['processes']['fps']['p50']:.0f}", f"{frames:.3f}", f"{many['scheduler_over_loops']['p50']:.3f}",
            f"{many['scheduler']['mib']['pss']:.0f}", f"{many['processes']['mib']['pss']:.0f}", f"{memory:.3f}",
            f"{one['scheduler_over_loop']['p50']:.3f}",
        ])  # fmt: skip
        sources.append(f"`{store.command(result)}`")
    if not rows:
        return ""
    header = ["streams", "frames/s", "processes' frames/s", "ratio", "of a bare loop on each core", "MiB",
              "processes' MiB", "ratio", "one stream / loop"]  # fmt: skip
    source = (
        f"MiB are proportional (PSS). rdn_tiny, {result['machine']['cpu']}, commit {store.commit(result)}, "
        f"{' and '.join(sources)}."
    )
    return "\n".join([table(header, rows), "", source])


def load_table() -> str:
    """Ages of results under load and overload."""
    try:
        result = load("load_demo.json")
    except Unmeasured:
        return ""
    header = ["streams", "L", "load", "frame time, ms", "in", "out", "dropped", "age p50, ms", "p99, ms", "p99 / p50",
              "a loop's", "p99, frame times", "a loop's"]  # fmt: skip
    rows = [
        [
            str(row["streams"]), str(row["look_ahead"]), f"{row['load']:.2f}", f"{row['frame_ms']:.1f}", str(row["in"]),
            str(row["out"]), str(row["dropped"]), f"{row['age_ms']['p50']:.1f}", f"{row['age_ms']['p99']:.1f}",
            f"{row['p99_over_p50']:.2f}", f"{row['loop']['p99_over_p50']:.2f}",
            f"{row['p99_frame_times']:.2f}", f"{row['loop']['p99_frame_times']:.2f}",
        ]
        for row in result["rows"]
    ]  # fmt: skip
    source = (
        f"One core; sources have room for {result['room']} and drop the oldest. A loop is the same cameras before one "
        f"thread that sleeps until a frame comes: what this machine does to any program. rdn_tiny, "
        f"{result['machine']['cpu']}, commit {store.commit(result)}, `{store.command(result)}`."
    )
    return "\n".join([table(header, rows), "", source])


BLOCKS: dict[str, Callable[[], str]] = {"faults": faults, "soak": soak, "scheduler": scheduler, "load": load_table}
