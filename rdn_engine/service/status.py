"""What is so now, as plain values that JSON can hold: GET /streams."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from typing import Any
from urllib.parse import quote

from rdn_engine.serve.account import AgeHistogram
from rdn_engine.serve.snapshot import SchedulerSnapshot, StreamSnapshot
from rdn_engine.service.config import shown_source
from rdn_engine.service.running import RunningStream

_PLAIN = (
    "name", "state", "end_reason", "error", "frames_in", "frames_out", "dropped", "waiting", "inside", "doubtful",
    "damaged", "lost_packets", "sessions", "failures", "epochs", "lowered", "nbytes", "last_result_time",
)  # fmt: skip


def stream_status(running: RunningStream, snapshot: StreamSnapshot) -> dict[str, Any]:
    """One stream.

    Args:
        running: what the service knows of it.
        snapshot: its counters.
    """
    return {
        **{name: getattr(snapshot, name) for name in _PLAIN},
        "source": shown_source(running.settings.source),
        "source_error": running.source_error,
        "trouble": list(snapshot.troubles),
        "restarts": running.failures,
        "age_seconds": {
            "last": snapshot.last_age,
            "p50": _quantile(snapshot.ages, 0.5),
            "p99": _quantile(snapshot.ages, 0.99),
        },
        "picture": f"/streams/{quote(running.name, safe='')}/picture.jpg",
        "flags": list(running.flags),
        "dials": dataclasses.asdict(snapshot.dials),
        "seconds": snapshot.seconds,
        "outputs": {
            name: {**dataclasses.asdict(one), "trouble": running.outputs[name].trouble}
            for name, one in running.counts().items()
        },
    }


def whole_status(
    snapshot: SchedulerSnapshot, streams: list[dict[str, Any]], ended: list[dict[str, Any]], *, healthy: bool
) -> dict[str, Any]:
    """All of it.

    Args:
        snapshot: counters of the scheduler.
        streams: those that run, as `stream_status` has them.
        ended: the latest that have ended, the last one first.
        healthy: as /healthz says.
    """
    return {
        "healthy": healthy,
        "time": time.time(),
        "process": {
            "streams": len(streams),
            "ended": snapshot.ended,
            "workers": snapshot.workers,
            "admitted_bytes": snapshot.admitted_bytes,
            "byte_budget": snapshot.byte_budget,
            "resident_bytes": resident_bytes(),
            "longest_turn_seconds": snapshot.longest_turn,
            "events_lost": snapshot.events_lost,
        },
        "streams": streams,
        "ended": ended,
    }


def resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _quantile(ages: AgeHistogram, part: float) -> float | None:
    """Seconds; None for no results, and for ages beyond the last bound, which JSON has no number for."""
    bound = ages.quantile(part)
    return bound if sum(ages.counts) and math.isfinite(bound) else None
