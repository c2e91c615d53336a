"""Machines and accuracies that are formulas, so that what comes out is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rdn_engine.config import Dials
from rdn_engine.errors import BackendUnavailable
from rdn_engine.tuning.costs import Effort, Measured
from rdn_engine.tuning.space import Options

BETWEEN = {True: 0.5, False: 1.0}
"""Whether results wait -> milliseconds of a frame between"""


class TableMachine:
    """A backbone of so many milliseconds for each backend, a relation stage that is a product of the dials."""

    def __init__(self, backbone: Mapping[str, float], lacks: Sequence[str] = (), slower: float = 1.0) -> None:
        """lacks: precisions of the relation stage; slower: what proofs take of what scans took."""
        self._backbone, self._lacks, self._slower = backbone, lacks, slower
        self.asked: list[tuple[Options, Dials]] = []

    def measure(self, options: Options, dials: Dials, effort: Effort) -> Measured:
        if options.relation_precision in self._lacks:
            raise BackendUnavailable(f"no {options.relation_precision}")
        self.asked.append((options, dials))
        encoded, between = self.stages(options, dials), BETWEEN[dials.waits] * (dials.interval - 1)
        ms = (sum(encoded.values()) + between) / dials.interval
        slower = self._slower if effort.most > 30 else 1.0
        stages = {name: ms * effort.least / 1e3 for name, ms in encoded.items()} | {"between": between / 1e3}
        return Measured((slower * ms,) * effort.least, stages)

    def stages(self, options: Options, dials: Dials) -> dict[str, float]:
        """Milliseconds of an encoded frame."""
        pool = (dials.window + dials.frames_ahead + 1) * dials.num_support
        relation = 1e-4 * pool * dials.num_reference * (1 + dials.advanced_ratio)
        return {
            "backbone": self._backbone[options.backend] / options.threads**0.5,
            "relation": relation * (0.6 if options.relation_precision == "bfloat16" else 1.0),
        }


def accuracy(dials: Dials) -> float:
    """Percent: every dial that is turned down costs some, an interval more where frames between are extrapolated."""
    reach = 1 - 2.0 ** -(dials.window / 2) + 1 - 2.0**-dials.frames_ahead
    proposals = dials.num_support / (dials.num_support + 2) + dials.num_reference / (dials.num_reference + 8)
    skipped = (0.5 if dials.waits else 2.0) * (dials.interval - 1)
    return 60 + 6 * reach + 8 * proposals + 2 * dials.advanced_ratio - skipped


def counting(asked: list[Dials]) -> Callable[[Options, Sequence[Dials]], list[float]]:
    """Scores that note what was scored."""

    def score(options: Options, settings: Sequence[Dials]) -> list[float]:
        asked.extend(settings)
        return [accuracy(dials) - (0.1 if options.relation_precision == "bfloat16" else 0.0) for dials in settings]

    return score
