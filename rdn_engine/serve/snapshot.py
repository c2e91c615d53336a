"""Counters of a running scheduler at one moment, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rdn_engine.config import Dials
from rdn_engine.serve.account import AgeHistogram, DropReason

State = Literal["running", "draining", "closing", "ended"]
"""draining: what came until then is computed and delivered. closing: nothing is computed any more, the sink may get the
last results, and the source closes."""

EndReason = Literal["ended", "source", "failed", "removed", "idle", "deadline"]
"""ended: the source came to a good end. source: it failed. failed: too many pushes in a row did. removed: as asked.
idle: no frame for idle_seconds. deadline: a shutdown ran out of time."""


@dataclass(frozen=True)
class StreamSnapshot:
    """One stream: frames_in == frames_out + sum(dropped.values()) + waiting + inside."""

    name: str
    """Of the stream"""
    state: State
    """Where it is in its life"""
    end_reason: EndReason | None
    """Why it ends; None while it runs"""
    error: str | None
    """What was raised, in words, where that is why it ends"""
    dials: Dials
    """Settings in effect"""
    lowered: int
    """Steps by which a latency budget has lowered them"""
    nbytes: int
    """What it may hold at most, bytes, as it was admitted with"""
    frames_in: int
    """That arrived at the source"""
    frames_out: int
    """Whose results the sink has taken"""
    dropped: dict[DropReason, int]
    """Frames without a result that the sink has taken, by reason"""
    waiting: int
    """Frames in the queue of the source"""
    inside: int
    """Frames in the window whose results are still to come, and results that wait for the sink"""
    doubtful: int
    """Frames that the source marked as perhaps damaged; they are detected on"""
    damaged: int
    """Frames that the source lost before they arrived; not part of frames_in"""
    sessions: int
    """How often the source was connected"""
    failures: int
    """How often the source could not be connected, or was cut off"""
    epochs: int
    """How often the window started empty, the first time included"""
    ages: AgeHistogram
    """From the arrival of a frame to the call of the sink with its result"""
    seconds: dict[str, float]
    """Wall-clock seconds of each stage, as `Stream.timings`"""


@dataclass(frozen=True)
class SchedulerSnapshot:
    """All streams that have not ended."""

    streams: tuple[StreamSnapshot, ...]
    """In the order they were added"""
    ended: int
    """Streams that have ended"""
    admitted_bytes: int
    """What the streams may hold at most"""
    byte_budget: int | None
    """Of all streams; None for no limit"""
    workers: int
    """Threads that push"""
    events_lost: int
    """Events that the handler did not get"""
