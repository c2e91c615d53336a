"""From a budget to a proposal, on a machine that is a formula."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from rdn_engine.config import Dials
from rdn_engine.errors import BackendUnavailable, ConfigError
from rdn_engine.tuning.costs import PROOF, measure_costs
from rdn_engine.tuning.search import Kind, Scores, Setting, front, measure_losses, search
from rdn_engine.tuning.space import Options, Space, wait
from rdn_engine.tuning.tune import tune
from tests.fakes import tiny_config
from tests.tuning.machines import BETWEEN, TableMachine, accuracy, counting

DIALS = Dials(window=8, num_support=24, num_reference=64, advanced_ratio=0.25)
SPACE = Space.of(tiny_config(dials=DIALS), math.inf)
WAYS = [Options(0, backend, threads) for backend in ("onnxruntime", "openvino") for threads in (1, 2)]  # type: ignore[arg-type]
BACKBONE = {"onnxruntime": 10.0, "openvino": 8.0}


def cost(machine: TableMachine, dials: Dials) -> float:
    """In the fastest of WAYS."""
    return min(machine.measure(options, dials, PROOF).ms[0] for options in WAYS)


def test_costs_are_told_from_one_dial_at_a_time() -> None:
    machine = TableMachine(BACKBONE)
    costs = measure_costs(machine, WAYS, SPACE)
    assert len(machine.asked) < 30
    frame = min(machine.measure(options, SPACE.own, PROOF).ms[0] for options in WAYS)
    assert costs.between == pytest.approx({waits: ms / frame for waits, ms in BETWEEN.items()})
    for dials in SPACE.every():
        for options in WAYS:
            wanted = machine.measure(options, dials, PROOF).ms[0]
            # The relation stage is a product of what is turned; what a frame between costs is told by halves.
            assert costs.ms(options, dials) == pytest.approx(wanted, rel=1e-6 if dials.interval == 1 else 0.2)


@pytest.mark.parametrize("budget", [12.0, 6.0, 4.5, 2.5])
def test_the_proposal_is_nearly_the_best_of_all_within_the_budget(budget: float) -> None:
    machine, asked = TableMachine(BACKBONE), list[Dials]()
    found = tune(machine, WAYS, SPACE, budget, counting(asked))
    within = [dials for dials in SPACE.every() if cost(machine, dials) <= budget]
    best = max(map(accuracy, within))
    assert found.chosen.dials in within
    assert found.chosen.measured is not None
    assert found.chosen.p99 <= budget
    assert found.chosen.accuracy == pytest.approx(accuracy(found.chosen.dials))
    assert accuracy(found.chosen.dials) >= best - 0.5
    assert len(set(asked)) == len(asked) < len(SPACE.every()) / 8
    assert found.chosen.options == Options(0, "openvino", 2)


def test_the_table_has_only_rows_that_no_other_is_better_than() -> None:
    found = tune(TableMachine(BACKBONE), WAYS, SPACE, 6.0, counting([]))
    assert found.chosen in found.rows
    times = [row.p99 for row in found.rows]
    worth = [row.accuracy for row in found.rows if row.accuracy is not None]
    assert times == sorted(times, reverse=True)
    assert worth == sorted(worth, reverse=True)
    assert len(found.rows) > 2


def test_without_annotations_the_dials_are_turned_down_least() -> None:
    machine = TableMachine(BACKBONE)
    roomy = tune(machine, WAYS, SPACE, 1000.0)
    assert (roomy.chosen.dials, roomy.chosen.accuracy) == (SPACE.own, None)
    found = tune(machine, WAYS, SPACE, 5.0)
    within = [SPACE.turned_down(dials) for dials in SPACE.every() if cost(machine, dials) <= 5.0]
    assert SPACE.turned_down(found.chosen.dials) == min(within)


def test_what_is_slower_than_it_was_told_is_not_proposed() -> None:
    told = tune(TableMachine(BACKBONE), WAYS, SPACE, 6.0, counting([])).chosen
    found = tune(TableMachine(BACKBONE, slower=1.1), WAYS, SPACE, 6.0, counting([])).chosen
    assert found.p99 <= 6.0
    assert accuracy(found.dials) <= accuracy(told.dials)


def test_a_wait_bounds_what_is_proposed() -> None:
    space = Space.of(tiny_config(dials=DIALS), 0)
    found = tune(TableMachine(BACKBONE), WAYS, space, 4.0, counting([]))
    assert all(wait(row.dials) == 0 for row in found.rows)
    within = [dials for dials in space.every() if cost(TableMachine(BACKBONE), dials) <= 4.0]
    assert accuracy(found.chosen.dials) >= max(map(accuracy, within)) - 0.5


def test_a_budget_that_nothing_meets_says_what_would_do() -> None:
    with pytest.raises(
        ConfigError, match=r"the budget is 0.5 ms; wanted .* ms or more, which the fastest setting took"
    ):
        tune(TableMachine(BACKBONE), WAYS, SPACE, 0.5, counting([]))


def test_precisions_that_the_machine_lacks_are_left_out() -> None:
    both = [*WAYS, *(Options(0, w.backend, w.threads, "bfloat16") for w in WAYS)]
    light = {"onnxruntime": 1.0, "openvino": 0.8}  # beside relations of 3.3 ms, and of 2.0 in bfloat16
    found = tune(TableMachine(light), both, SPACE, 2.6, counting([]))
    assert (found.chosen.options.relation_precision, found.chosen.dials) == ("bfloat16", SPACE.own)
    lacking = tune(TableMachine(light, lacks=["bfloat16"]), both, SPACE, 2.6, counting([]))
    assert lacking.chosen.options.relation_precision == "float32"
    with pytest.raises(BackendUnavailable):
        tune(TableMachine(light, lacks=["bfloat16", "float32"]), both, SPACE, 2.6, counting([]))


def test_the_best_is_found_where_nothing_beside_the_second_best_is_better() -> None:
    """One that differs from the model's own dials in two, which by themselves cost more than together."""

    def told(dials: Dials) -> float:
        return 80 - 0.05 * SPACE.turned_down(dials)

    def turned(dials: Dials) -> int:
        return sum(SPACE.value(axis, dials) != SPACE.value(axis, SPACE.own) for axis in SPACE.axes)

    hidden = sorted((dials for dials in SPACE.every() if turned(dials) == 2), key=told, reverse=True)[12]
    scores = Scores(lambda kind, settings: [told(dials) + (1 if dials == hidden else 0) for dials in settings])
    kind = Kind.of(WAYS[0])
    losses = measure_losses([kind], SPACE, scores)
    assert hidden not in {one.dials for one in scores.known}
    search([Setting(kind, dials) for dials in SPACE.every()], lambda one: 1.0, 1.0, losses, scores)
    assert hidden in {one.dials for one in scores.known}
    assert len(scores.known) < len(SPACE.every()) / 4


@pytest.mark.parametrize(
    ("points", "kept"),
    [
        ([], []),
        ([(1, 1), (2, 2), (3, 1)], [1, 0]),
        ([(2, 2), (1, 2), (1, 1)], [1]),
        ([(1, 3), (2, 2), (3, 4)], [2, 0]),
    ],
)
def test_front(points: Sequence[tuple[float, float]], kept: list[int]) -> None:
    assert front(points) == kept
