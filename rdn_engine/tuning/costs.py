"""What a frame costs: a few steady frames of every way to run a model and of every value of a dial; the rest is told
from those.

Stage by stage, a dial's value costs so many times what the model's own value costs, whatever else is turned: that holds
where a stage's work is a product of T, K, N and r, as that of the relation stage is, and where a stage does not know
the dial. It is a prediction; what is proposed is measured itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from rdn_engine.config import Dials
from rdn_engine.errors import BackendUnavailable
from rdn_engine.tuning.space import Options, Space

REST = "rest"
"""The part of a round that no stage is charged with"""


@dataclass(frozen=True)
class Effort:
    """How long something is measured."""

    least: int
    """Rounds, however long they take"""
    most: int
    """Rounds"""
    seconds: float
    """After which no round beyond `least` begins"""


SCAN = Effort(5, 30, 1.0)
"""Of what is told from"""
PROOF = Effort(10, 200, 20.0)
"""Of what is proposed: its 99th percentile counts"""


@dataclass(frozen=True)
class Measured:
    """Rounds of one setting: every stream pushes `interval` frames, one of them encoded."""

    ms: tuple[float, ...]
    """Milliseconds of each round over its `interval`: of one frame of every stream"""
    stages: Mapping[str, float] = field(hash=False)
    """Seconds of each stage of `Stream.timings`, of all rounds and streams"""

    @cached_property
    def p50(self) -> float:
        return float(np.percentile(self.ms, 50))

    @cached_property
    def p99(self) -> float:
        return float(np.percentile(self.ms, 99))


class Machine(Protocol):
    """What measures; `rdn_engine.tuning.machine.LiveMachine` is the real one."""

    def measure(self, options: Options, dials: Dials, effort: Effort) -> Measured:
        """Rounds of steady frames of all streams; BackendUnavailable where this machine lacks what is wanted."""
        ...


@dataclass(frozen=True)
class Costs:
    """Tells what a frame of every stream takes, in milliseconds, in 99 of 100 rounds."""

    own: Mapping[Options, Measured]
    """With the model's own dials, every frame encoded"""
    ratios: Mapping[tuple[str, Any], Mapping[str, float]]
    """(axis, value) -> stage -> how many times as long as with the model's own value"""
    between: Mapping[bool, float]
    """Whether results wait -> what a frame between takes, as a part of an encoded one with the model's own dials: where
    they do not, boxes are followed to it by what it shows"""
    space: Space

    def ms(self, options: Options, dials: Dials) -> float:
        """What is told of one setting.

        Args:
            options: one of `own`.
            dials: some of the space.
        """
        measured = self.own[options]
        encoded = 0.0
        for stage, part in shares(measured.stages).items():
            for axis in self.space.axes:
                if axis != "interval":
                    part *= self.ratios.get((axis, self.space.value(axis, dials)), {}).get(stage, 1.0)
            encoded += part
        skipped = (dials.interval - 1) * self.between[dials.waits]
        return measured.p99 * (encoded + skipped) / dials.interval


def shares(stages: Mapping[str, float]) -> dict[str, float]:
    """Stage -> part of all that is charged; all of it is REST where nothing is."""
    total = sum(stages.values())
    return {name: seconds / total for name, seconds in stages.items()} if total > 0 else {REST: 1.0}


def measure_costs(
    machine: Machine, every: Sequence[Options], space: Space, report: Callable[[str], None] = lambda step: None
) -> Costs:
    """Measure the model's own dials in every way of running it, and each other value of a dial in the fastest.

    Args:
        machine: measures.
        every: ways of running it, one or more; those that this machine lacks are left out.
        space: of the dials.
        report: is called with what is done now.

    Raises:
        BackendUnavailable: where this machine has none of them.
    """
    own: dict[Options, Measured] = {}
    for options in every:
        threads = f"{options.threads} thread{'s' * (options.threads > 1)}"
        report(f"costs: {options.backend}, {threads}, relations in {options.relation_precision}")
        try:
            own[options] = machine.measure(options, space.own, SCAN)
        except BackendUnavailable:
            if options == every[-1] and not own:
                raise
    fastest = min(own, key=lambda options: own[options].p50)
    # Once more, beside those it is compared with: a machine gets slower as it gets warm.
    base = machine.measure(fastest, space.own, SCAN)
    ratios: dict[tuple[str, Any], dict[str, float]] = {}
    for axis, value, dials in space.single():
        if axis != "interval":
            report(f"costs: {'window, look_ahead' if axis == 'window' else axis} {value}")
            ratios[axis, value] = _over(machine.measure(fastest, dials, SCAN), base)
    between = {}
    for waits, dials in space.bases().items():
        report(f"costs: frames between, {'interpolated' if waits else 'extrapolated'}")
        one, two = (machine.measure(fastest, replace(dials, interval=n), SCAN) for n in (1, 2))
        between[waits] = max(0.0, (2 * two.p50 - one.p50) / base.p50)
    return Costs(own, ratios, between, space)


def _over(found: Measured, base: Measured) -> dict[str, float]:
    """Of each stage, a round of one measurement over a round of the other."""
    return {
        stage: (seconds / len(found.ms)) / (base.stages[stage] / len(base.ms))
        for stage, seconds in found.stages.items()
        if base.stages.get(stage, 0.0) > 0
    }
