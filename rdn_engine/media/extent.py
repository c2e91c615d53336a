"""How far a container was read, against what it promised."""

from __future__ import annotations

from fractions import Fraction

_SECONDS = 0.25
_SPACINGS = 1.5
"""What is missing counts where it is more than this by both measures: containers round their durations."""


class Extent:
    """The time that the packets of a container's streams cover. All times in seconds."""

    def __init__(self, start: float, promised: float | None, spacing: float, *, gapless: bool) -> None:
        """Start before the first packet.

        Args:
            start: of the container.
            promised: its duration; None where it says none.
            spacing: between two pictures.
            gapless: whether a gap in time is a part that is missing, as in a playlist of segments.
        """
        self._start = start
        self._promised = promised
        self._allowed = max(_SECONDS, _SPACINGS * spacing)
        self._gapless = gapless
        self._ends: dict[int, float] = {}
        self._gaps: dict[int, float] = {}

    def read(self, stream: int, time: int | None, duration: int | None, time_base: Fraction) -> None:
        """A packet was read.

        Args:
            stream: its index in the container.
            time, duration: of the packet, ticks; None where unknown.
            time_base: seconds of one tick.
        """
        if time is None:
            return
        begin, end = float(time * time_base), float((time + (duration or 0)) * time_base)
        last = self._ends.get(stream)
        if self._gapless and last is not None and begin - last > self._allowed:
            self._gaps[stream] = self._gaps.get(stream, 0.0) + begin - last
        self._ends[stream] = end if last is None else max(last, end)

    def shortfall(self) -> str | None:
        """What is missing, in words; None where nothing is.

        Returns:
            A clause without a subject.
        """
        if not self._ends or self._promised is None:
            return None
        came = max(self._ends.values()) - self._start
        if self._promised - came > self._allowed:
            return f"ends after {came:.2f} of {self._promised:.2f} s"
        if self._gaps:
            return f"lacks {max(self._gaps.values()):.2f} of {self._promised:.2f} s"
        return None
