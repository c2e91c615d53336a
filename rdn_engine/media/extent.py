"""How far a container was read, against what it promised."""

from __future__ import annotations

from collections.abc import Sequence

_SPACINGS = 1.5
"""What is missing counts where it is more than this, and more than the container rounds."""


class Extent:
    """The time that the packets of a container's streams cover. All times in seconds, but those of packets in ticks."""

    def __init__(
        self,
        ticks: Sequence[float],
        start: float,
        promised: float | None,
        spacing: float,
        *,
        rounding: float,
        gapless: bool,
    ) -> None:
        """Start before the first packet.

        Args:
            ticks: seconds of a tick of each stream.
            start: of the container.
            promised: its duration; None where it says none.
            spacing: between two pictures.
            rounding: of the duration, at most.
            gapless: whether a gap in time is a part that is missing, as in a playlist of segments.
        """
        self._ticks = ticks
        self._start = start
        self._promised = promised
        self._allowed = max(rounding, _SPACINGS * spacing)
        self._gapless = gapless
        self._ends: dict[int, int] = {}
        self._gaps: dict[int, float] = {}

    def read(self, stream: int, time: int | None, duration: int | None) -> None:
        """A packet was read.

        Args:
            stream: its index in the container. One that the container did not have when it was opened is passed over.
            time, duration: of the packet; None where unknown.
        """
        if time is None or stream >= len(self._ticks):
            return
        end, last = time + (duration or 0), self._ends.get(stream)
        if last is None or end > last:
            self._ends[stream] = end
        if self._gapless and last is not None and (gap := (time - last) * self._ticks[stream]) > self._allowed:
            self._gaps[stream] = self._gaps.get(stream, 0.0) + gap

    def shortfall(self) -> str | None:
        """What is missing, in words; None where nothing is.

        Returns:
            A clause without a subject.
        """
        if not self._ends or self._promised is None:
            return None
        came = max(end * self._ticks[stream] for stream, end in self._ends.items()) - self._start
        if self._promised - came > self._allowed:
            return f"ends after {came:.2f} of {self._promised:.2f} s"
        if self._gaps:
            return f"lacks {max(self._gaps.values()):.2f} of {self._promised:.2f} s"
        return None
