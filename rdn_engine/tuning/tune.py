"""From a budget to a setting that meets it: costs are told, accuracy is told, and what is proposed is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rdn_engine.config import Dials
from rdn_engine.errors import ConfigError
from rdn_engine.tuning.costs import PROOF, Costs, Machine, Measured, measure_costs
from rdn_engine.tuning.search import Kind, Scores, Setting, front, measure_losses, search
from rdn_engine.tuning.space import Options, Space

PROVEN = 12
"""Settings that are measured themselves for the proposal, at most"""
FASTER = 6
"""Settings faster than that one that are measured for the table, about"""
NEAR = 1.15
"""Costs are told this well: a setting of which so many times the budget is told may still meet it"""


@dataclass(frozen=True)
class Row:
    """One setting of the table."""

    options: Options
    dials: Dials
    told_ms: float
    """Milliseconds, 99th percentile, as the costs tell"""
    accuracy: float | None
    """AP50, percent; None without annotations"""
    measured: Measured | None = None
    """None until it was"""

    @property
    def p99(self) -> float:
        """Milliseconds, as measured, else as told."""
        return self.told_ms if self.measured is None else self.measured.p99


@dataclass(frozen=True)
class Proposal:
    """What came of it."""

    rows: list[Row]
    """Settings that no other is better than in both time and accuracy, the dearest first"""
    chosen: Row
    """That meets the budget, measured: one of `rows`"""


def tune(
    machine: Machine,
    ways: Sequence[Options],
    space: Space,
    budget_ms: float,
    score: Callable[[Options, Sequence[Dials]], list[float]] | None = None,
    report: Callable[[str], None] = lambda step: None,
) -> Proposal:
    """Find the most accurate setting whose 99th percentile is within a budget.

    Args:
        machine: measures times.
        ways: of running the model, one or more; without `score`, precisions that come first are preferred.
        space: of the dials.
        budget_ms: milliseconds that a frame of every stream may take.
        score: AP50 of dials, percent, in one way of running the model; None where nothing is annotated: that setting
            is proposed then which is turned down least.
        report: is called with what is done now.

    Raises:
        ConfigError: where no setting meets the budget; says what the fastest took.
        BackendUnavailable: where this machine has none of the ways.
    """
    costs = measure_costs(machine, ways, space, report)
    kinds = list(dict.fromkeys(map(Kind.of, costs.own)))
    every = [Setting(kind, dials) for kind in kinds for dials in space.every()]
    if score is None:
        scored = {one: -(space.turned_down(one.dials) + kinds.index(one.kind)) for one in every}
    else:
        ways_of = {kind: _fastest(costs, Setting(kind, space.own))[0] for kind in kinds}
        scores = Scores(lambda kind, dials: score(ways_of[kind], dials))
        losses = measure_losses(kinds, space, scores)
        # Beyond the budget too, because costs may be told too high; first within it, because they may not be.
        for limit in (budget_ms, NEAR * budget_ms):
            search(every, lambda one: _fastest(costs, one)[1], limit, losses, scores)
        allowed = set(every)
        scored = {one: worth for one, worth in scores.known.items() if one in allowed}
    rows = []
    for one in scored:
        options, told = _fastest(costs, one)
        rows.append(Row(options, one.dials, told, None if score is None else scored[one]))
    worth = dict(zip(rows, scored.values(), strict=True))
    return _proven(machine, rows, worth.__getitem__, budget_ms, report)


def _fastest(costs: Costs, setting: Setting) -> tuple[Options, float]:
    """The way of running a setting of which the least is told, and that."""
    told = {options: costs.ms(options, setting.dials) for options in costs.own if Kind.of(options) == setting.kind}
    options = min(told, key=told.__getitem__)
    return options, told[options]


def _proven(
    machine: Machine,
    rows: Sequence[Row],
    worth: Callable[[Row], float],
    budget_ms: float,
    report: Callable[[str], None],
) -> Proposal:
    """Measure the best rows until one meets the budget, then some of those that are faster, for the table."""
    proven: dict[Row, Row] = {}

    def prove(row: Row) -> Row:
        if row not in proven:
            report(f"proof: {_words(row.dials)}")
            proven[row] = replace(row, measured=machine.measure(row.options, row.dials, PROOF))
        return proven[row]

    best = sorted(rows, key=lambda row: (-worth(row), row.told_ms))
    near = [row for row in best if row.told_ms <= NEAR * budget_ms][:PROVEN]
    fastest = min(rows, key=lambda row: row.told_ms)
    chosen = next((row for row in (*near, fastest) if prove(row).p99 <= budget_ms), None)
    if chosen is None:
        raise ConfigError(
            f"the budget is {budget_ms:g} ms; wanted {proven[fastest].p99:.3g} ms or more, which the fastest setting "
            f"took in 99 of 100 rounds ({_words(fastest.dials)}; {fastest.options.backend}, "
            f"{fastest.options.threads} threads)"
        )
    faster = [rows[i] for i in front([(row.told_ms, worth(row)) for row in rows]) if rows[i].told_ms < chosen.told_ms]
    for row in faster[:: max(1, len(faster) // FASTER)]:
        prove(row)
    shown = list(proven)
    kept = {shown[i] for i in front([(proven[row].p99, worth(row)) for row in shown])} | {chosen}
    return Proposal(sorted((proven[row] for row in kept), key=lambda row: -row.p99), proven[chosen])


def _words(dials: Dials) -> str:
    return (
        f"T {dials.window}, L {dials.frames_ahead}, K {dials.num_support}, N {dials.num_reference}, "
        f"r {dials.advanced_ratio:g}, interval {dials.interval}"
    )
