"""Tables of live streams under faults, and of what they hold after a long time."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.report import store
from benchmarks.report.store import Unmeasured, load, table

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
        f"`{result['command']}`."
    )
    return "\n".join([fault_table(result["faults"]), "", source])


def soak() -> str:
    """What a process with flapping streams holds."""
    try:
        result = load("soak.json")
    except Unmeasured:
        return ""
    settled = result["samples"][result["warm_up_samples"] :]
    memory = [one["resident_mib"] for one in settled]
    middle = statistics.median(memory)
    rows = [["resident memory, MiB", f"{min(memory):.1f}", f"{middle:.1f}", f"{max(memory):.1f}"]]
    for name in ("threads", "descriptors"):
        seen = [one[name] for one in settled]
        rows.append([name, str(min(seen)), f"{statistics.median(seen):g}", str(max(seen))])
    account = result["account"]
    source = (
        f"{result['streams']} streams that flap, {result['seconds']:g} s, {account['sessions']} sessions, "
        f"{account['frames_in']} frames in, {account['frames_out']} out; {len(settled)} samples after the warm-up. "
        f"Commit {store.commit(result)}, `{result['command']}`."
    )
    return "\n".join([table(["after the warm-up", "least", "median", "most"], rows), "", source])


BLOCKS: dict[str, Callable[[], str]] = {"faults": faults, "soak": soak}
