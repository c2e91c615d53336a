"""Where every frame of a stream is: in = out + dropped by reason + inside, at any moment."""

from __future__ import annotations

import bisect
import itertools
import threading
import time
from dataclasses import dataclass
from typing import Literal, get_args

DropReason = Literal["source", "rate", "refused", "failed", "sink", "removed", "deadline"]
"""source: by the policy of its queue. rate: left out, because a latency budget lowered the frame rate. refused: no
image that the detector can read. failed: a stage failed. sink: the sink raised. removed: the stream was removed without
draining, or had more to come when it ended. deadline: a shutdown ran out of time."""
DROP_REASONS: tuple[DropReason, ...] = get_args(DropReason)

AGE_BOUNDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Seconds: upper bounds of the buckets of an age histogram, but the last, which has none"""


@dataclass(frozen=True)
class AgeHistogram:
    """Ages of results, from the arrival of the frame to the call of the sink."""

    counts: tuple[int, ...]
    """Results of each bucket, one more than AGE_BOUNDS; not cumulative"""
    seconds: float
    """Sum of all ages"""

    def quantile(self, part: float) -> float:
        """A bound that at least a part of all ages does not exceed.

        Args:
            part: in 0..1.

        Returns:
            Seconds, one of AGE_BOUNDS or infinity; 0 where nothing was counted.
        """
        total = sum(self.counts)
        if not total:
            return 0.0
        place = next(i for i, n in enumerate(itertools.accumulate(self.counts)) if n >= part * total)
        return (*AGE_BOUNDS, float("inf"))[place]


@dataclass(frozen=True)
class Frames:
    """The frames of one stream by what became of them, at one moment."""

    taken: int
    """From the source"""
    out: int
    """Whose results the sink has taken"""
    dropped: dict[DropReason, int]
    """By reason; those of `source` were never taken"""
    inside: int
    """Taken, and neither out nor dropped: in the stream's window, or with a result that waits for the sink"""
    doubtful: int
    """Taken, and marked as perhaps damaged by the source"""


@dataclass(frozen=True)
class LastResult:
    """The last result that the sink took."""

    age: float | None
    """Seconds since its frame arrived; None where nobody noted when"""
    time: float
    """When the sink took it, seconds since 1970"""


class Account:
    """Counts of one stream, kept by its worker, its delivery and whoever ends it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed = False
        self._taken = self._out = self._doubtful = 0
        self._pushing = self._held = self._undelivered = 0
        self._dropped: dict[DropReason, int] = dict.fromkeys(DROP_REASONS, 0)
        self._ages = [0] * (len(AGE_BOUNDS) + 1)
        self._age_seconds = 0.0
        self._last: LastResult | None = None

    def take(self, doubtful: bool) -> None:
        """A frame came from the source, and goes into the stream.

        Args:
            doubtful: as its capture says.
        """
        with self._lock:
            if not self._closed:
                self._taken += 1
                self._pushing += 1
                self._doubtful += doubtful

    def leave_out(self) -> None:
        """A frame came from the source, and the frame rate leaves it out."""
        with self._lock:
            if not self._closed:
                self._taken += 1
                self._dropped["rate"] += 1

    def pushed(self, accepted: bool, results: int, otherwise: DropReason = "failed") -> None:
        """A push has ended.

        Args:
            accepted: whether the stream took the frame.
            results: that it gave.
            otherwise: why the frame is dropped where it was not accepted.
        """
        with self._lock:
            if not self._closed:
                self._pushing -= 1
                self._held += accepted
                self._dropped[otherwise] += not accepted
                self._compute(results)

    def flushed(self, results: int) -> None:
        """The stream gave results without a new frame.

        Args:
            results: how many.
        """
        with self._lock:
            if not self._closed:
                self._compute(results)

    def _compute(self, results: int) -> None:
        self._held -= results
        self._undelivered += results

    def delivered(self, age: float | None, taken: bool) -> None:
        """The sink was called with a result.

        Args:
            age: seconds since the frame arrived; None where nobody noted when.
            taken: False where the sink raised.
        """
        with self._lock:
            if self._closed:
                return
            self._undelivered -= 1
            self._out += taken
            self._dropped["sink"] += not taken
            if taken:
                self._last = LastResult(age, time.time())
            if age is not None:
                self._ages[bisect.bisect_left(AGE_BOUNDS, age)] += 1
                self._age_seconds += age

    def give_up_held(self, reason: DropReason) -> None:
        """The stream is gone, with what was in its window.

        Args:
            reason: why.
        """
        with self._lock:
            if not self._closed:
                self._dropped[reason] += self._held
                self._held = 0

    def give_up_results(self, count: int, reason: DropReason) -> None:
        """Results that waited for the sink are gone.

        Args:
            count: how many.
            reason: why.
        """
        with self._lock:
            if not self._closed:
                self._dropped[reason] += count
                self._undelivered -= count

    def close(self, captured: int, dropped: int, reason: DropReason) -> None:
        """The last entry: what is still inside, or still with the source, is dropped. Nothing changes it any more.

        Args:
            captured: frames that the source got; less than came from it where it is broken, and then what came counts.
            dropped: of them, by the policy of its queue.
            reason: why the rest is dropped.
        """
        with self._lock:
            if self._closed:
                return
            inside = self._pushing + self._held + self._undelivered
            self._dropped["source"] += dropped
            self._dropped[reason] += inside + max(captured - dropped - self._taken, 0)
            self._pushing = self._held = self._undelivered = 0
            self._closed = True

    def frames(self) -> Frames:
        """What became of the frames until now."""
        with self._lock:
            inside = self._pushing + self._held + self._undelivered
            return Frames(self._taken, self._out, dict(self._dropped), inside, self._doubtful)

    def ages(self) -> AgeHistogram:
        """Ages of the results that the sink was called with."""
        with self._lock:
            return AgeHistogram(tuple(self._ages), self._age_seconds)

    @property
    def last(self) -> LastResult | None:
        """The last result that the sink took; None before the first."""
        return self._last
