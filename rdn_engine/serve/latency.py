"""A latency budget: which settings are lowered when results come too late, and when they come back."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

from rdn_engine.config import LONGEST_INTERVAL, Dials

SEEN = 16
"""Results that a decision to lower looks at: half of them too late are too many"""
SETTLE = 8
"""Results after a change that say nothing yet: their frames came before it"""
ROOM = 0.7
"""Of the budget: ages below this part of it leave room"""
CALM = 64
"""Results in a row that must leave room before one step is taken back"""
MOST_CALM = 4096
"""The same at most: it doubles whenever what was taken back had to be lowered again"""
STRIDES = (2, 3, 4)
"""Every how many frames one is encoded, and then taken, step by step"""
LEAST_SUPPORT = 16
"""K is not halved below it"""


@dataclass(frozen=True)
class Rung:
    """Settings of one step."""

    dials: Dials
    """In effect"""
    stride: int
    """Every how many frames one is taken"""
    change: str
    """What is lower than in the rung before, in words; empty for the first"""


def ladder(dials: Dials, fills_between: bool) -> tuple[Rung, ...]:
    """The steps down, the first of which is what was asked for.

    In this order, each to its least before the next: look-ahead L (a result waits for fewer frames), window T, supports
    K, advanced ratio r (a frame costs less), interval n (fewer frames are encoded, all have results), then the frame
    rate (fewer frames are taken). L, T, K and r are halved: L down to 0, T to 1, K not below LEAST_SUPPORT, r as long
    as one support proposal is left. The interval goes to two, three and four times what it was, the rate to a half, a
    third, a quarter.

    Args:
        dials: that the stream is to run with.
        fills_between: whether its interval may be turned up (`Stream.fills_between`).
    """
    rungs = [Rung(dials, 1, "")]

    def lower(change: str, dials: Dials, stride: int = 1) -> Dials:
        rungs.append(Rung(dials, stride, change))
        return dials

    while dials.frames_ahead:
        less = dials.frames_ahead // 2
        dials = lower(f"look_ahead (L) {dials.frames_ahead} to {less}", replace(dials, look_ahead=less))
    while dials.window > 1:
        less = dials.window // 2
        dials = lower(f"window (T) {dials.window} to {less}", replace(dials, window=less))
    while dials.num_support // 2 >= LEAST_SUPPORT and int(dials.num_support // 2 * dials.advanced_ratio):
        less = dials.num_support // 2
        dials = lower(f"num_support (K) {dials.num_support} to {less}", replace(dials, num_support=less))
    while int(dials.num_support * (dials.advanced_ratio / 2)):
        ratio = dials.advanced_ratio / 2
        dials = lower(f"advanced_ratio (r) {dials.advanced_ratio:g} to {ratio:g}", replace(dials, advanced_ratio=ratio))
    own = dials.interval
    for times in STRIDES if fills_between and own * STRIDES[-1] <= LONGEST_INTERVAL else ():
        more = own * times
        dials = lower(f"interval (n) {dials.interval} to {more}", replace(dials, interval=more))
    for before, stride in zip((1, *STRIDES), STRIDES, strict=False):
        lower(f"every {before}. frame to every {stride}." if before > 1 else "every frame to every 2.", dials, stride)
    return tuple(rungs)


class LatencyBudget:
    """Ages in, a level out. It has no clock and touches no stream."""

    def __init__(self, seconds: float, dials: Dials, fills_between: bool) -> None:
        """Begin at the top.

        Args:
            seconds: that a result may be old when the sink gets it.
            dials, fills_between: as `ladder`.
        """
        self._seconds = seconds
        self.rungs = ladder(dials, fills_between)
        """All steps, the first of which is what was asked for"""
        self._ages: deque[float] = deque(maxlen=SEEN)
        self._unsettled = 0
        self._with_room = 0
        self._calm = CALM
        self._restored = False  # the last change was one back up
        self.level = 0
        """Steps down from what was asked for"""

    def see(self, age: float, inside: int = 0) -> None:
        """A result came to the sink; `level` may be another one now.

        Args:
            age: seconds since its frame arrived.
            inside: how many frames were taken whose results are still to come.
        """
        if self._unsettled:
            self._unsettled -= 1
            return
        self._ages.append(age)
        self._with_room = self._with_room + 1 if age <= ROOM * self._seconds else 0
        late = sum(a > self._seconds for a in self._ages)
        if late >= SEEN // 2 and self.level < len(self.rungs) - 1:
            self._calm = min(2 * self._calm, MOST_CALM) if self._restored else self._calm
            self._move(1, inside)
        elif self._with_room >= self._calm and self.level:
            self._move(-1, inside)

    def settle(self, results: int = 0) -> None:
        """Leave the next SETTLE results out, or more: their frames came before the settings did.

        Args:
            results: how many of such frames are known to come.
        """
        self._unsettled, self._with_room = max(SETTLE, results), 0
        self._ages.clear()

    def _move(self, steps: int, inside: int) -> None:
        self.level += steps
        self._restored = steps < 0
        self.settle(inside)
