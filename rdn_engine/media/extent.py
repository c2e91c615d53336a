"""How far a container was read, against what it promised."""

from __future__ import annotations

from collections.abc import Sequence

_FEW = 2
"""Packets from which no spacing, and so no rounding, can be told."""


class Extent:
    """The time that the packets of a container's streams cover. All times in seconds, but those of packets in ticks."""

    def __init__(
        self, ticks: Sequence[float], start: float, promised: float | None, *, allowed: float, gapless: bool
    ) -> None:
        """Start before the first packet.

        Args:
            ticks: seconds of a tick of each stream.
            start: of the container.
            promised: its duration; None where it says none.
            allowed: what may be missing: containers round, and the last pictures may have decoding times alone.
            gapless: whether a gap in time is a part that is missing, as in a playlist of segments.
        """
        self._ticks = ticks
        self._start = start
        self._promised = promised
        self._allowed = allowed
        self._gapless = gapless
        self._packets = 0
        self._ends: dict[int, int] = {}
        self._covered: dict[int, int] = {}
        """Ticks of each stream's packets together"""
        self._gaps: dict[int, int] = {}

    def read(self, stream: int, time: int | None, duration: int | None) -> None:
        """A packet was read.

        Args:
            stream: its index in the container. One that the container did not have when it was opened is passed over.
            time, duration: of the packet; None where unknown.
        """
        if time is None or stream >= len(self._ticks):
            return
        self._packets += 1
        duration = duration or 0
        end, last = time + duration, self._ends.get(stream)
        if last is None or end > last:
            self._ends[stream] = end
        if self._gapless:
            self._covered[stream] = self._covered.get(stream, 0) + duration
            if last is not None and (time - last) * self._ticks[stream] > self._allowed:
                self._gaps[stream] = self._gaps.get(stream, 0) + time - last

    def shortfall(self) -> str | None:
        """What is missing, in words; None where nothing is.

        Returns:
            A clause without a subject.
        """
        if self._packets <= _FEW or self._promised is None:
            return None
        # Some containers count their duration from 0, wherever they start.
        came = self._longest(self._ends) - min(self._start, 0.0)
        if self._promised - came > self._allowed:
            return f"ends after {came:.2f} of {self._promised:.2f} s"
        # A gap for which the duration has no room is a jump of the clock, as before an advertisement.
        gap = self._longest(self._gaps)
        if 0.0 < gap < self._promised and self._promised - self._longest(self._covered) > gap / 2:
            return f"lacks {gap:.2f} of {self._promised:.2f} s"
        return None

    def _longest(self, by_stream: dict[int, int]) -> float:
        return max((ticks * self._ticks[stream] for stream, ticks in by_stream.items()), default=0.0)
