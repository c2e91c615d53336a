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

Trouble = Literal["source_down", "source_stuck", "refused", "failing", "sink_failing", "sink_full"]
"""What may go on from frame to frame"""


@dataclass(frozen=True)
class StreamSnapshot:
    """One stream: frames_in == frames_out + sum(dropped.values()) + waiting + inside, in every snapshot. No count but
    `waiting` and `inside` is ever lower than in a snapshot before.
    """

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
    """Frames in the queue of the source, and on their way from there to the window"""
    inside: int
    """Frames in the window whose results are still to come, and results that wait for the sink"""
    doubtful: int
    """Frames that the source marked as perhaps damaged; they are detected on"""
    damaged: int
    """Frames that the source lost before they arrived; not part of frames_in"""
    lost_packets: int
    """Packets of the network that never arrived, where the transport says so: RTP over UDP"""
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
    last_age: float | None
    """Of the last result that the sink took, seconds; None before the first, and where nobody noted when it arrived"""
    last_result_time: float | None
    """When the sink took it, seconds since 1970; None before the first"""
    turn_seconds: float
    """That a worker has been busy with the stream's turn of now; 0 where it has none"""
    sink_seconds: float
    """That the sink has had the result that it is called with now; 0 where it is not called"""
    troubles: tuple[Trouble, ...]
    """Those that it is in now, in the order they began"""


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
    longest_turn: float
    """Seconds that the oldest turn of now has taken, of a stream that was given up too; 0 where all workers are free"""
    events_lost: int
    """Events that the handler did not get"""
    pushes_lost: int
    """Pushes that `on_push` did not get"""
