"""The values that dials may have, and how far they are turned down."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rdn_engine.config import Dials, RelationConfig
from rdn_engine.errors import ConfigError
from rdn_engine.tuning.space import Space, thread_counts, wait
from tests.fakes import tiny_config

DIALS = Dials(window=8, num_support=24, num_reference=64, advanced_ratio=0.25)


def test_a_space_has_the_models_own_dials_first_and_all_its_parts() -> None:
    space = Space.of(tiny_config(dials=DIALS), math.inf)
    assert space.axes["window"][0] == (8, 8)
    assert {(8, 4), (8, 1), (8, 0), (4, 4), (2, 1), (0, 0)} <= set(space.axes["window"])
    assert all(0 <= ahead <= window for window, ahead in space.axes["window"])
    assert space.axes["num_support"] == (24, 12, 6)
    assert space.axes["num_reference"] == (64, 32, 24)
    assert space.axes["advanced_ratio"] == (0.25, 0.125)
    every = space.every()
    assert every[0] == space.own == replace(DIALS, look_ahead=8)
    assert len(set(every)) == len(every)
    # Of 6 support proposals an eighth is none.
    sizes = [len(values) for values in space.axes.values()]
    assert len(every) == math.prod(sizes) - math.prod(sizes) // 6
    assert {(axis, value) for axis, value, _ in space.single()} == {
        (axis, value) for axis, values in space.axes.items() for value in values[1:]
    }


@pytest.mark.parametrize("longest", [0, 1, 3, 7])
def test_no_setting_waits_longer_than_it_may(longest: int) -> None:
    every = Space.of(tiny_config(dials=DIALS), longest).every()
    assert max(map(wait, every)) == longest
    assert {dials.interval for dials in every} == {1, 2, 3, 4}


def test_a_wait_counts_the_frames_of_an_interval_and_those_of_links() -> None:
    dials = Dials(window=4, look_ahead=2)
    assert wait(dials) == 2
    assert wait(replace(dials, interval=3)) == 8
    assert wait(replace(dials, look_ahead=0, interval=3)) == 0
    assert wait(replace(dials, look_ahead=0, link="boxes", link_delay=1, interval=3)) == 5


def test_a_model_without_relations_has_no_dials_of_them() -> None:
    relation = RelationConfig(dim=32, heads=2, num_basic=0, advanced=False)
    space = Space.of(tiny_config(relation, DIALS), math.inf)
    assert set(space.axes) == {"num_reference", "interval"}
    basic = Space.of(tiny_config(RelationConfig(dim=32, heads=2, advanced=False), DIALS), math.inf)
    assert set(basic.axes) == {"window", "num_support", "num_reference", "interval"}


@settings(deadline=None)
@example(196, 1.2, False)  # 49 times 1 / 49 is below 1
@given(st.integers(1, 300), st.floats(1.001, 300), st.booleans())
def test_every_value_of_every_dial_can_be_turned_by_itself(support: int, left: float, advanced: bool) -> None:
    """A quarter of few support proposals, of which r would leave none: r goes up, as rdn_mini wants it."""
    ratio = min(1.0, left / support)
    dials = Dials(window=4, num_support=support, num_reference=300, advanced_ratio=ratio)
    space = Space.of(tiny_config(RelationConfig(dim=32, heads=2, advanced=advanced), dials), math.inf)
    for axis, value, found in space.single():
        assert space.value(axis, found) == value
        assert int(found.num_support * found.advanced_ratio) >= 1
        if axis == "num_support":
            fits = int(value * ratio) >= 1
            assert fits or not advanced
            least = math.nextafter(found.advanced_ratio, 0.0)
            assert found.advanced_ratio == ratio if fits else int(value * least) < 1
            assert space.turned_down(found) == pytest.approx(math.log2(support / value))
    assert {dials.num_support for dials in space.every()} == set(space.axes["num_support"])


def test_turned_down_counts_halvings() -> None:
    space = Space.of(tiny_config(dials=DIALS), math.inf)
    assert space.turned_down(space.own) == 0
    assert space.turned_down(replace(space.own, interval=4)) == 2
    assert space.turned_down(replace(space.own, num_support=6)) == 2
    assert space.turned_down(replace(space.own, look_ahead=2)) == pytest.approx(math.log2(3))


def test_threads_are_powers_of_two_and_all_cpus() -> None:
    assert thread_counts(1) == (1,)
    assert thread_counts(2) == (1, 2)
    assert thread_counts(6) == (1, 2, 4, 6)
    assert thread_counts(8) == (1, 2, 4, 8)


def test_links_of_the_model_wait_too() -> None:
    linked = replace(DIALS, link="boxes", link_delay=3)
    space = Space.of(tiny_config(dials=linked), 5)
    assert space.own.frames_ahead == 2
    assert space.own in space.every()
    with pytest.raises(ConfigError, match="wait is 2; wanted 3 frames or more"):
        Space.of(tiny_config(dials=linked), 2)
