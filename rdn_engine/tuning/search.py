"""Which settings are worth a look: a dial's loss is measured by itself, and added up to tell which settings are good.

Of the settings that meet the budget the most promising are scored, and then those beside the best one, until none is
better. What differs from it in more is tried then, the most promising first, until that finds nothing better either. A
few dozen are scored where all would be a thousand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rdn_engine.config import Dials
from rdn_engine.kernels.cpu import Precision
from rdn_engine.tuning.space import Options, Space

PROMISING = ((1.0, 8), (0.5, 4), (0.25, 4))
"""Part of the budget, and how many of the settings within it are scored for a start: those of less of it are for the
table, and for who has less than was asked for"""
AT_ONCE = 8
"""Settings, beside the best one or farther off, that are scored at once"""
FARTHER = 2
"""How often those farther off are scored in a row without finding a better one"""
MARGIN = 1.5
"""Percent: a setting of which so much less is told than of the best one is not scored; sums are off by as much"""
MOST = 64
"""Settings scored beyond those that losses are told from, and PROMISING"""


@dataclass(frozen=True)
class Kind:
    """What decides, beside the dials, what is found: backends and threads do not."""

    bundle: int
    relation_precision: Precision

    @classmethod
    def of(cls, options: Options) -> Kind:
        return cls(options.bundle, options.relation_precision)


@dataclass(frozen=True)
class Setting:
    """What has an accuracy."""

    kind: Kind
    dials: Dials


Score = Callable[[Kind, Sequence[Dials]], list[float]]
"""AP50 of dials, percent"""


class Scores:
    """AP50 of settings, each scored once."""

    def __init__(self, score: Score) -> None:
        self._score = score
        self.known: dict[Setting, float] = {}

    def add(self, settings: Iterable[Setting]) -> None:
        """Score those that are not known yet."""
        kinds: dict[Kind, list[Dials]] = {}
        for setting in dict.fromkeys(settings):
            if setting not in self.known:
                kinds.setdefault(setting.kind, []).append(setting.dials)
        for kind, dials in kinds.items():
            for one, ap in zip(dials, self._score(kind, dials), strict=True):
                self.known[Setting(kind, one)] = ap


@dataclass(frozen=True)
class Losses:
    """Tells the AP50 of a setting: that of the model's own dials, less what each dial that is turned loses by itself.

    What an interval loses is another thing where results wait, and frames between are interpolated, than where they do
    not: it is measured in both.
    """

    own: Mapping[Kind, float]
    lost: Mapping[tuple[str, Any, bool], float]
    """(axis, value, whether results wait) -> percent"""
    space: Space

    def told(self, setting: Setting) -> float:
        """AP50, percent."""
        dials = setting.dials
        lost = (self.lost.get((axis, self.space.value(axis, dials), dials.waits), 0.0) for axis in self.space.axes)
        return self.own[setting.kind] - sum(lost)


def measure_losses(kinds: Sequence[Kind], space: Space, scores: Scores) -> Losses:
    """Score every value of every dial, the others as the model has them, and the model's own dials in every kind.

    Args:
        kinds: the first is that in which dials are turned.
        space: of the dials.
        scores: that what is scored is added to.
    """
    first = kinds[0]
    turned, bases = list(space.single()), space.bases()
    intervals = [(value, waits, space.with_value("interval", value, base))
                 for waits, base in bases.items() for value in space.axes["interval"]]  # fmt: skip
    wanted = [space.own, *bases.values(), *(dials for *_, dials in turned), *(dials for *_, dials in intervals)]
    scores.add([Setting(first, dials) for dials in wanted] + [Setting(kind, space.own) for kind in kinds])

    def known(dials: Dials) -> float:
        return scores.known[Setting(first, dials)]

    lost = {("interval", value, waits): known(bases[waits]) - known(dials) for value, waits, dials in intervals}
    for axis, value, dials in turned:
        if axis != "interval":
            lost |= dict.fromkeys([(axis, value, True), (axis, value, False)], known(space.own) - known(dials))
    return Losses({kind: scores.known[Setting(kind, space.own)] for kind in kinds}, lost, space)


def search(
    candidates: Sequence[Setting], cost: Callable[[Setting], float], budget: float, losses: Losses, scores: Scores
) -> None:
    """Score the settings that are likely to be the best within a budget, and within parts of it.

    Args:
        candidates: those there are.
        cost: of one.
        budget: that its cost may be.
        losses: tell what a setting is likely to have.
        scores: that what is scored is added to.
    """
    costs = {one: cost(one) for one in candidates}
    told = {one: losses.told(one) for one in candidates}
    for part, count in PROMISING:
        within = [one for one in candidates if costs[one] <= part * budget]
        scores.add(sorted(within, key=lambda one: (-told[one], costs[one]))[:count])
    within = [one for one in candidates if costs[one] <= budget]
    left, best, in_vain = MOST, None, 0
    while left > 0 and in_vain <= FARTHER:
        at = max((one for one in within if one in scores.known), key=scores.known.__getitem__, default=None)
        if at is None:
            return
        in_vain = in_vain + 1 if at == best else 0
        best = at
        # What the sums were off by there, they are likely to be off by beside it.
        least = told[at] - MARGIN
        new = [one for one in within if one not in scores.known and told[one] >= least]
        if not in_vain:
            new = [one for one in new if _beside(one, at, losses.space)]
        chosen = sorted(new, key=lambda one: -told[one])[: min(AT_ONCE, left)]
        left -= len(chosen)
        scores.add(chosen)


def _beside(one: Setting, other: Setting, space: Space) -> bool:
    """Whether two settings differ in one thing alone."""
    turned = [axis for axis in space.axes if space.value(axis, one.dials) != space.value(axis, other.dials)]
    return len(turned) + (one.kind != other.kind) == 1


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The points that no other is better than in both.

    Args:
        points: (cost, worth) of each.

    Returns:
        Their places, the dearest first.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    best, kept = float("-inf"), []
    for i in order:
        if points[i][1] > best:
            best = points[i][1]
            kept.append(i)
    return kept[::-1]
