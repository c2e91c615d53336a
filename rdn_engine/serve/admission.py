"""What a stream costs in memory, and the budget that says whether there is room for it."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from rdn_engine.config import WHOLE_VIDEO, Dials
from rdn_engine.errors import AdmissionRefused, ConfigError
from rdn_engine.serve.latency import ladder
from rdn_engine.serve.options import StreamOptions
from rdn_engine.stream.base import Stream
from rdn_engine.stream.identity import LOOKS, MOST_LOST

BOX_BYTES = 4 * 4 + 4 + 8 + 8
"""Of one box of a result: corners, confidence, class and track"""
LINKED_BOX_BYTES = 4 * BOX_BYTES
"""Of one box that waits for its links: the box, its proposal, and what links it to the frame before"""
OBJECT_BYTES = 4 * 8 + 2 * 16 + 2 * 8
"""Of one object whose identity is kept over gaps: number, class, time, size, centre, velocity and its weight"""
THREAD_BYTES = 128 * 1024
"""Of the thread that calls the sink, its queue and the counters"""
MIB = 2**20


@dataclass(frozen=True)
class StreamCost:
    """Bytes that a stream may hold, each part at its most."""

    window: int
    """Arrays of the stream (`Stream.nbytes`): all of them from the start, resident once its window is full"""
    linking: int
    """Boxes that wait for link_delay later frames, and with link_gap the objects that are known; 0 without linking"""
    results: int
    """Results that wait for the sink"""
    pictures: int
    """Frames that wait in the source, as the options say; 0 where they do not"""
    skipping: int = 0
    """What frames that are not encoded are made of (`Stream.skipping_nbytes`)"""
    thread: int = THREAD_BYTES
    """Of the stream's own thread"""

    @property
    def total(self) -> int:
        """Bytes in all."""
        return self.window + self.linking + self.results + self.pictures + self.skipping + self.thread


def check_live(dials: Dials) -> None:
    """Refuse dials that no live stream can have.

    Args:
        dials: of a stream.

    Raises:
        ConfigError: for links that wait for the end of a stream that has none.
    """
    if dials.link != "off" and dials.link_delay >= WHOLE_VIDEO:
        raise ConfigError(f"link_delay is {dials.link_delay}, the whole video; a live stream wants a few frames")


def stream_cost(
    stream: Stream, dials: Dials, max_detections: int, options: StreamOptions, *, features: int
) -> StreamCost:
    """What a stream may hold.

    Args:
        stream: tells what its arrays hold.
        dials: with `link`, link_delay and link_gap.
        max_detections: largest number of boxes of a frame.
        options: with results and picture_bytes, and whether a latency budget may turn the dials.
        features: D, width of a proposal's features; 0 where there are none.

    Raises:
        ConfigError: as `check_live`.
    """
    check_live(dials)
    linked = 0 if dials.link == "off" else (dials.link_delay + 1) * max_detections * LINKED_BOX_BYTES
    if dials.over_gaps:
        linked += ((dials.link_delay + 2) * LOOKS + MOST_LOST) * 4 * features
        linked += (max_detections + MOST_LOST) * OBJECT_BYTES
    # Lower settings hold less, but for a longer interval, whose frames come out together.
    met = [rung.dials for rung in ladder(dials, True)] if options.latency_seconds is not None else [dials]
    released = max((d.window + 1 + (0 if d.link == "off" else d.link_delay)) * d.interval for d in met)
    return StreamCost(
        window=stream.nbytes,
        linking=linked,
        results=(options.results + released) * max_detections * BOX_BYTES,
        pictures=options.picture_bytes,
        skipping=max(map(stream.skipping_nbytes, met)),
    )


class MemoryBudget:
    """Bytes that are left for streams."""

    def __init__(self, limit: int | None) -> None:
        """limit: bytes of all streams; None admits every one."""
        self.limit = limit
        """Bytes of all streams; None for no limit."""
        self._lock = threading.Lock()
        self._taken: dict[str | int, int] = {}

    @property
    def taken(self) -> int:
        """Bytes of the streams that were admitted."""
        with self._lock:
            return sum(self._taken.values())

    def reserve(self, name: str | int, cost: StreamCost) -> None:
        """Take room for a stream, in place of what it has.

        Args:
            name: of the stream.
            cost: what it may hold.

        Raises:
            AdmissionRefused: where less is left than it wants; then nothing has changed.
        """
        with self._lock:
            others = sum(taken for other, taken in self._taken.items() if other != name)
            if self.limit is not None and cost.total > self.limit - others:
                left = max(self.limit - others, 0)
                raise AdmissionRefused(
                    f"stream {name!r} wants {cost.total / MIB:.2f} MiB (window {cost.window / MIB:.2f}, linking "
                    f"{cost.linking / MIB:.2f}, results {cost.results / MIB:.2f}, pictures {cost.pictures / MIB:.2f}, "
                    f"skipping {cost.skipping / MIB:.2f}); "
                    f"{left / MIB:.2f} of {self.limit / MIB:.2f} MiB are left: remove a stream, or lower its capacity, "
                    "link_delay, results or pictures",
                    wanted=cost.total,
                    left=left,
                )
            self._taken[name] = cost.total

    def release(self, name: str | int) -> None:
        """Give back what a stream has.

        Args:
            name: of the stream; one that has nothing changes nothing.
        """
        with self._lock:
            self._taken.pop(name, None)
