"""Seconds of a decoded picture, from what its container says of time.

Most containers say when a picture is shown (presentation time, PTS). AVI, ASF and Matroska's tracks made from AVI say
only when it is decoded (DTS), in which order B-pictures stand elsewhere than on the screen. Raw streams say nothing,
and FFmpeg makes times up from a frame rate that it assumes. All timestamps are in ticks of the stream's time base.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from fractions import Fraction

_HELD = 64
"""More packets than any decoder holds."""
_STEP_SECONDS = 2.0
"""A sender that corrects its clock moves it by less than this; a restart moves it by any amount."""
_JITTER_SECONDS = 1.0
"""Some containers say wrong presentation times of B-pictures, within what a decoder reorders."""
_SETTLING_SECONDS = 15.0
"""RTP's senders report their clock within a few seconds of the start (RFC 3550, section 6.2, recommends 5)."""


class Clock(ABC):
    """The times of one stream's pictures, in the order in which they come out of the decoder."""

    def send(self, ticket: int, pts: int | None, dts: int | None) -> None:  # noqa: B027 - not every clock listens
        """A packet goes into the decoder.

        Args:
            ticket: of the packet, higher than that of the packet before.
            pts, dts: its timestamps.
        """

    def drop(self, ticket: int) -> None:  # noqa: B027
        """No picture will come from a packet that went in.

        Args:
            ticket: of the packet.
        """

    @abstractmethod
    def time(self, ticket: int | None, dts: int | None, lost: int, *, restarted: bool = False) -> float | None:
        """A picture came out.

        Args:
            ticket: of the packet that it was coded in; None where the decoder does not say.
            dts: of the packet that brought it out; None where nothing did, after the last packet.
            lost: pictures before it, since the last one, that never came.
            restarted: whether decoding times have stepped back since the last one: the clock was set anew.

        Returns:
            Seconds on the source's clock; None where it has not said any yet.
        """


class PresentationClock(Clock):
    """The container says when a picture is shown. One without a time follows the last at the frame rate."""

    def __init__(self, time_base: Fraction, spacing: float | None, *, settles: bool = False) -> None:
        """Start before the first packet.

        Args:
            time_base: seconds of one tick.
            spacing: seconds between two pictures; None where unknown.
            settles: the sender corrects the clock soon after the start, as in RTSP: a small step back is no restart
                then, and times go on from where they were.
        """
        self._base = time_base
        self._spacing = spacing
        self._settles = settles
        self._pts: dict[int, int] = {}
        self._first: float | None = None
        self._last: float | None = None
        self._shift = 0.0

    def send(self, ticket: int, pts: int | None, dts: int | None) -> None:
        if pts is not None:
            self._pts[ticket] = pts
            if len(self._pts) > _HELD:  # a second field has no picture of its own
                del self._pts[next(iter(self._pts))]

    def time(self, ticket: int | None, dts: int | None, lost: int, *, restarted: bool = False) -> float | None:
        pts = self._pts.pop(ticket, None) if ticket is not None else None
        if pts is not None:
            # Whole numbers first, so that the division is the only rounding.
            seconds = pts * self._base.numerator / self._base.denominator + self._shift
        elif self._last is not None and self._spacing is not None:
            seconds = self._last + (lost + 1) * self._spacing
        else:
            return None
        if self._first is None or self._last is None:
            self._first = seconds
        elif not restarted and self._last - _JITTER_SECONDS < seconds <= self._last:
            # Pictures come in display order, so a time before the last one, on a clock that went on, is a wrong one.
            seconds = self._last + (self._spacing or 0.0)
        elif self._settles and self._last - _STEP_SECONDS < seconds <= self._last < self._first + _SETTLING_SECONDS:
            step = self._last + (self._spacing or 0.0) - seconds
            self._shift += step
            seconds += step
        self._last = seconds
        return seconds


class DecodingClock(Clock):
    """The container says when a picture is decoded: the n-th picture out is shown at the n-th of those times."""

    def __init__(self, time_base: Fraction, held: Callable[[], int]) -> None:
        """Start before the first packet.

        Args:
            time_base: seconds of one tick.
            held: how many pictures the decoder may hold back now, to hand them out in display order.
        """
        self._base = time_base
        self._decoder_holds = held
        self._waiting: deque[tuple[int, int]] = deque()
        """Tickets and times of packets, one for each picture that is still to come"""

    def send(self, ticket: int, pts: int | None, dts: int | None) -> None:
        if dts is not None:
            self._waiting.append((ticket, dts))

    def drop(self, ticket: int) -> None:
        for place, (waiting, _) in enumerate(self._waiting):
            if waiting == ticket:
                del self._waiting[place]
                return

    def time(self, ticket: int | None, dts: int | None, lost: int, *, restarted: bool = False) -> float | None:
        if dts is not None:
            # Some packets have no picture: MPEG-4's placeholders for one that repeats the last.
            arrived = sum(time <= dts for _, time in self._waiting)
            for _ in range(arrived - self._decoder_holds() - 1):
                self._waiting.popleft()
        return float(self._waiting.popleft()[1] * self._base) if self._waiting else None


class CountedClock(Clock):
    """The stream has no times, only a frame rate."""

    def __init__(self, spacing: float) -> None:
        """Start before the first packet.

        Args:
            spacing: seconds between two pictures.
        """
        self._spacing = spacing
        self._number = 0

    def time(self, ticket: int | None, dts: int | None, lost: int, *, restarted: bool = False) -> float | None:
        self._number += lost + 1
        return (self._number - 1) * self._spacing


class ArrivalClock(Clock):
    """A live stream without times: a picture's time is when it comes, counted from the first one."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """Start before the first packet.

        Args:
            now: seconds on a clock that never steps back.
        """
        self._now = now
        self._first: float | None = None

    def time(self, ticket: int | None, dts: int | None, lost: int, *, restarted: bool = False) -> float | None:
        now = self._now()
        if self._first is None:
            self._first = now
        return now - self._first
