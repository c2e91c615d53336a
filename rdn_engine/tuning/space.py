"""What can be turned: the values of each dial of a model, and every way of running it on this machine."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rdn_engine.backends.graph import BackendName
from rdn_engine.config import Dials, RDNConfig
from rdn_engine.errors import ConfigError
from rdn_engine.kernels.cpu import Precision
from rdn_engine.plain import check

INTERVALS = (1, 2, 3, 4)
SHORT_LOOK_AHEAD = 1
"""L that already has frames between interpolated (docs/interval.md)"""

Values = tuple[Any, ...]
"""Of one axis, the model's own first: numbers, of `window` pairs (T, L)"""


@dataclass(frozen=True)
class Options:
    """A way of running a model."""

    bundle: int
    """Which of the engine directories that were given, from 0"""
    backend: BackendName
    threads: int
    """CPU threads of one call"""
    relation_precision: Precision = "float32"


@dataclass(frozen=True)
class Space:
    """The dials of a model that change what a frame costs, and the values that they may have."""

    own: Dials
    """The model's, with as much look-ahead as is allowed"""
    axes: Mapping[str, Values]
    """`window` (T, L), `num_support`, `num_reference`, `advanced_ratio`, `interval` -> values; without those that the
    model has no use for"""
    longest_wait: float
    """Frames that a result may wait for"""

    @classmethod
    def of(cls, config: RDNConfig, longest_wait: float) -> Space:
        """The space around a model's own dials: halves and quarters of T, K and N, half of r, INTERVALS.

        Args:
            config: of the model.
            longest_wait: frames that a result may wait for; inf for any.

        Raises:
            ConfigError: where the model links boxes, and so waits longer.
        """
        delay = config.dials.link_delay if config.dials.link != "off" else 0
        check(delay <= longest_wait, "wait", longest_wait, f"{delay} frames or more, for which the model's links wait")
        ahead = int(min(config.dials.frames_ahead, longest_wait - delay))
        own = replace(config.dials, look_ahead=ahead, interval=1, still=0.0)
        support, reference, ratio = own.num_support, own.num_reference, own.advanced_ratio
        axes: dict[str, Values] = {}
        relation = config.relation
        if relation.num_modules or config.cosine_score:
            windows = _distinct(own.window, own.window // 2, own.window // 4, 0)
            axes["window"] = _distinct((own.window, own.frames_ahead), *_windows(windows, own.frames_ahead))
            fewer = [max(1, support // part) for part in (2, 4)]
            # Of an advanced stage r is to leave one of them; elsewhere it says nothing.
            axes["num_support"] = _distinct(
                support, *(k for k in fewer if not relation.advanced or int(k * ratio) >= 1)
            )
        if relation.advanced:
            axes["advanced_ratio"] = _distinct(ratio, *(half for half in [ratio / 2] if int(support * half) >= 1))
        axes["num_reference"] = _distinct(reference, *(max(support, reference // part) for part in (2, 4)))
        axes["interval"] = INTERVALS
        return cls(own, axes, longest_wait)

    def with_value(self, axis: str, value: Any, dials: Dials | None = None) -> Dials:
        """Dials with one axis turned. Where the model has no use for r, that goes up with fewer support proposals of
        which it would leave none.

        Args:
            axis, value: as in `axes`.
            dials: that are turned; the model's own by default.

        Raises:
            ConfigError: for a value that does not go with the others.
        """
        dials = self.own if dials is None else dials
        if axis == "window":
            return replace(dials, window=value[0], look_ahead=value[1])
        if axis == "num_support" and int(value * dials.advanced_ratio) < 1:
            dials = replace(dials, advanced_ratio=_leaves_one(value))
        return replace(dials, **{axis: value})

    def value(self, axis: str, dials: Dials) -> Any:
        """Where dials stand on an axis."""
        return (dials.window, dials.frames_ahead) if axis == "window" else getattr(dials, axis)

    def every(self) -> list[Dials]:
        """All dials whose results wait no longer than they may."""
        found = []
        for values in itertools.product(*self.axes.values()):
            try:
                dials = self.own
                for axis, value in zip(self.axes, values, strict=True):
                    dials = self.with_value(axis, value, dials)
            except ConfigError:
                continue
            if wait(dials) <= self.longest_wait:
                found.append(dials)
        return found

    def single(self) -> Iterator[tuple[str, Any, Dials]]:
        """Axis, value and dials of every other value of an axis, the others as the model has them."""
        for axis, values in self.axes.items():
            for value in values[1:]:
                yield axis, value, self.with_value(axis, value)

    def bases(self) -> dict[bool, Dials]:
        """Whether results wait -> the dials whose interval alone is turned, to tell what that costs and loses there.

        The model's own are among them; where those wait and not all must, so is the largest window without look-ahead.
        """
        found = {self.own.waits: self.own}
        for axis, _, dials in self.single():
            if axis == "window" and not dials.waits:
                found.setdefault(False, dials)
        return found

    def turned_down(self, dials: Dials) -> float:
        """How far dials are below the model's own: the halvings of T, L, K, N and r, and those of frames encoded."""
        pairs: list[tuple[float, float]] = [
            (self.own.window + 1, dials.window + 1),
            (self.own.frames_ahead + 1, dials.frames_ahead + 1),
            (self.own.num_support, dials.num_support),
            (self.own.num_reference, dials.num_reference),
            (dials.interval, self.own.interval),
        ]
        if "advanced_ratio" in self.axes:
            pairs.append((self.own.advanced_ratio, dials.advanced_ratio))
        return sum(math.log2(before / after) for before, after in pairs)


def wait(dials: Dials) -> int:
    """Frames that a result waits for at most (docs/interval.md)."""
    delay = dials.link_delay if dials.link != "off" else 0
    return dials.interval * (dials.frames_ahead + delay + 1) - 1 if dials.waits else 0


def thread_counts(cpus: int) -> tuple[int, ...]:
    """CPU threads of one call that are tried: powers of two, and all CPUs."""
    return _distinct(*(2**power for power in range(cpus.bit_length()) if 2**power <= cpus), cpus)


def _leaves_one(support: int) -> float:
    """The least r that leaves one of so many support proposals."""
    ratio = 1 / support
    return ratio if int(support * ratio) >= 1 else math.nextafter(ratio, 1.0)


def _windows(windows: Sequence[int], most_ahead: int) -> Iterator[tuple[int, int]]:
    """(T, L) of each T: all ahead, half of it, SHORT_LOOK_AHEAD and none."""
    for window in windows:
        most = min(window, most_ahead)
        for ahead in _distinct(most, most // 2, min(most, SHORT_LOOK_AHEAD), 0):
            yield window, ahead


def _distinct(*values: Any) -> Values:
    return tuple(dict.fromkeys(values))
