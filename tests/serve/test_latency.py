"""A latency budget lowers one thing after another, and gives it back when there is room."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdn_engine.config import Dials
from rdn_engine.serve.latency import CALM, MOST_CALM, ROOM, SEEN, SETTLE, LatencyBudget, Rung, ladder
from rdn_engine.serve.options import StreamOptions
from rdn_engine.serve.settings import Settings
from rdn_engine.serve.source import OpenSource
from tests.fakes import DIALS
from tests.serve.doubles import WAIT, FakeSource, Log, Sink, balanced, frame, serving, watched_detector

PAPER = Dials()


def test_the_steps_down_of_the_papers_dials() -> None:
    rungs = ladder(PAPER, True)
    assert rungs[0].dials is PAPER
    assert [rung.change for rung in rungs[1:]] == [
        "look_ahead (L) 18 to 9",
        "look_ahead (L) 9 to 4",
        "look_ahead (L) 4 to 2",
        "look_ahead (L) 2 to 1",
        "look_ahead (L) 1 to 0",
        "window (T) 18 to 9",
        "window (T) 9 to 4",
        "window (T) 4 to 2",
        "window (T) 2 to 1",
        "num_support (K) 75 to 37",
        "num_support (K) 37 to 18",
        "advanced_ratio (r) 0.2 to 0.1",
        "interval (n) 1 to 2",
        "interval (n) 2 to 3",
        "interval (n) 3 to 4",
        "every frame to every 2.",
        "every 2. frame to every 3.",
        "every 3. frame to every 4.",
    ]
    assert [rung.stride for rung in rungs[-4:]] == [1, 2, 3, 4]
    assert [rung.dials.interval for rung in rungs[-7:]] == [1, 2, 3, 4, 4, 4, 4]


def test_a_stream_without_an_interval_has_no_such_step() -> None:
    changes = [rung.change for rung in ladder(PAPER, False)]
    assert changes == [rung.change for rung in ladder(PAPER, True) if not rung.change.startswith("interval")]


def test_a_longer_interval_goes_on_from_itself() -> None:
    assert [rung.dials.interval for rung in ladder(replace(PAPER, interval=5), True)[-6:]] == [10, 15, 20, 20, 20, 20]
    assert ladder(replace(PAPER, interval=4000), True)[-1].dials.interval == 4000


DIALS_OF = st.builds(
    lambda window, ahead, support, more, ratio: Dials(
        window=window,
        look_ahead=None if ahead is None else min(ahead, window),
        num_support=support,
        num_reference=support + more,
        advanced_ratio=max(ratio, 1 / support + 1e-9),
    ),
    st.integers(0, 30), st.none() | st.integers(0, 30), st.integers(2, 100), st.integers(0, 50), st.floats(0.01, 1.0),
)  # fmt: skip


def heights(rung: Rung) -> dict[str, float]:
    """What each step takes from."""
    dials = {name: getattr(rung.dials, name) for name in ("frames_ahead", "window", "num_support", "advanced_ratio")}
    return {**dials, "interval": -rung.dials.interval, "stride": -rung.stride}


@settings(deadline=None)  # a loaded machine takes its time
@given(DIALS_OF, st.booleans())
def test_every_step_lowers_one_thing_and_only_in_order(dials: Dials, fills_between: bool) -> None:
    order = ("frames_ahead", "window", "num_support", "advanced_ratio", "interval", "stride")
    last = 0
    rungs = ladder(dials, fills_between)
    for before, after in pairwise(rungs):
        was, now = heights(before), heights(after)
        [changed] = [name for name in order if was[name] != now[name]]
        assert now[changed] < was[changed]
        assert order.index(changed) >= last
        last = order.index(changed)
        assert replace(after.dials, window=dials.window, look_ahead=dials.look_ahead, num_support=dials.num_support,
                       advanced_ratio=dials.advanced_ratio, interval=dials.interval) == dials  # fmt: skip


def feed(budget: LatencyBudget, ages: list[float]) -> list[int]:
    """The level after each."""
    levels = []
    for age in ages:
        budget.see(age)
        levels.append(budget.level)
    return levels


def test_half_of_the_latest_too_late_is_a_step_down() -> None:
    budget = LatencyBudget(1.0, PAPER, True)
    assert feed(budget, [0.9, 1.0] * 50)[-1] == 0
    assert feed(budget, [1.1, 0.9] * (SEEN // 2))[-2:] == [1, 1]
    assert feed(budget, [9.0] * (SETTLE + SEEN // 2 - 2))[-1] == 1
    assert feed(budget, [9.0])[-1] == 2


def test_results_of_frames_before_other_settings_do_not_count() -> None:
    budget = LatencyBudget(1.0, PAPER, True)
    feed(budget, [9.0] * (SEEN // 2 - 1))
    budget.settle()
    assert feed(budget, [9.0] * (SETTLE + SEEN // 2 - 1))[-1] == 0
    assert feed(budget, [9.0])[-1] == 1


def test_results_of_frames_before_a_step_do_not_count() -> None:
    """A lower look-ahead lets many of them out together where frames lie between steps."""
    budget, waiting = LatencyBudget(1.0, PAPER, True), SETTLE + SEEN
    for inside in range(SEEN // 2):
        budget.see(9.0, waiting + inside)
    assert budget.level == 1
    assert feed(budget, [9.0] * (waiting + SEEN - 2))[-1] == 1
    assert feed(budget, [9.0])[-1] == 2


def test_what_is_inside_the_stream_at_a_step_does_not_count() -> None:
    inside = SETTLE + SEEN
    facts = SimpleNamespace(dials=PAPER)
    runner = SimpleNamespace(facts=facts, fills_between=True, inside=inside, turn=lambda dials, admit: None)
    events: Any = SimpleNamespace(say=lambda *event: None)
    stream = Settings("door", cast("Any", runner), events, lambda stream, dials: None, 1.0)

    def late(results: int) -> int:
        for _ in range(results):
            stream.aged(9.0)
        stream.apply()
        return stream.lowered

    assert late(SEEN // 2) == 1
    assert late(inside + SEEN // 2 - 1) == 1
    assert late(1) == 2


def test_the_last_step_is_the_last() -> None:
    budget = LatencyBudget(1.0, PAPER, True)
    feed(budget, [9.0] * 1000)
    assert budget.level == len(budget.rungs) - 1


def test_room_for_long_enough_is_a_step_up() -> None:
    budget = LatencyBudget(1.0, PAPER, True)
    feed(budget, [9.0] * (SEEN // 2))
    assert budget.level == 1
    assert feed(budget, [0.1] * (SETTLE + CALM - 1))[-1] == 1
    assert feed(budget, [ROOM + 0.01])[-1] == 1
    assert feed(budget, [ROOM] * (CALM - 1))[-1] == 1
    assert feed(budget, [ROOM])[-1] == 0
    assert feed(budget, [0.0] * 1000)[-1] == 0


def test_a_step_that_had_to_be_taken_again_is_tried_less_and_less_often() -> None:
    budget = LatencyBudget(1.0, PAPER, True)
    feed(budget, [9.0] * (SEEN // 2))
    waits = []
    for _ in range(9):
        levels = feed(budget, [0.1] * (2 * MOST_CALM))
        waits.append(levels.index(0) + 1 - SETTLE)
        feed(budget, [9.0] * (SEEN // 2))
        assert budget.level == 1
    assert waits[:3] == [CALM, 2 * CALM, 4 * CALM]
    assert waits[-1] == MOST_CALM


def opening(sources: list[FakeSource]) -> OpenSource:
    """Opens a source, and keeps it for the test."""

    def open_source(on_frame: Callable[[], None]) -> FakeSource:
        sources.append(FakeSource(on_frame))
        return sources[-1]

    return open_source


def test_a_late_stream_is_lowered_and_restored_and_says_so() -> None:
    detector, _ = watched_detector()
    now, log, sink = [0.0], Log(), Sink()
    sources: list[FakeSource] = []

    def put(count: int, age: float) -> None:
        start = sources[0].captured
        sources[0].put([frame(i, i % 200, clock=now[0] - age) for i in range(start, start + count)])

    steps = len(ladder(DIALS, True)) - 1
    with serving(detector, on_event=log, clock=lambda: now[0]) as scheduler:
        served = scheduler.add("door", opening(sources), sink, options=StreamOptions(latency_seconds=1.0))
        other = scheduler.add("other", FakeSource, Sink())
        while served.snapshot().lowered < steps:
            put(4, 5.0)
            sink.wait(1)
        assert served.snapshot().dials.look_ahead == 0
        assert other.snapshot().dials == DIALS
        while served.snapshot().lowered:
            put(4, 0.0)
            sink.wait(1)
        assert served.snapshot().dials == DIALS
        sources[0].end()
        assert served.wait(WAIT)
    final = served.snapshot()
    assert balanced(final)
    assert final.dropped["rate"] > 0
    assert final.frames_in == final.frames_out + final.dropped["rate"]
    # A slow machine may fill the sink, which is an event too.
    kinds = [e.kind for e in log.of("door", "added", "lowered", "restored", "ended")]
    assert kinds == ["added", *["lowered"] * steps, *["restored"] * steps, "ended"]
    lowered = [e.message.partition(": ")[2] for e in log.of("door", "lowered")]
    restored = [e.message.partition(": ")[2] for e in log.of("door", "restored")]
    assert lowered == [rung.change for rung in ladder(DIALS, True)[1:]]
    assert restored == lowered[::-1]


def test_no_result_of_a_frame_before_dials_were_set_counts() -> None:
    """An interval has more of them than SETTLE, which a lower look-ahead lets out together."""
    detector, _ = watched_detector()
    sink = Sink()
    sources: list[FakeSource] = []

    waiting = SETTLE + SEEN
    dials = replace(DIALS, interval=waiting // 2 + 1)
    with serving(detector, clock=lambda: 100.0) as scheduler:
        options = StreamOptions(latency_seconds=1.0)
        served = scheduler.add("door", opening(sources), sink, dials=dials, options=options)
        sources[0].put([frame(t, t, clock=0.0) for t in range(waiting)])
        while served.snapshot().inside < waiting:
            time.sleep(0.01)
        asked = replace(dials, look_ahead=0)
        served.set_dials(asked, WAIT)
        sources[0].put([frame(waiting, waiting, clock=0.0)])
        sink.wait(waiting + 1)
        sources[0].put([frame(waiting + 1, waiting + 1, clock=0.0)])
        sink.wait(1)
        assert served.snapshot().dials == asked
        assert served.snapshot().lowered == 0


@pytest.mark.parametrize("look_ahead", [0, 2])
def test_dials_that_are_set_begin_at_the_top_again(look_ahead: int) -> None:
    detector, _ = watched_detector()
    sink = Sink()
    sources: list[FakeSource] = []

    with serving(detector, clock=lambda: 100.0) as scheduler:
        served = scheduler.add("door", opening(sources), sink, options=StreamOptions(latency_seconds=1.0))

        def put_late() -> None:
            """One at a time, so that no more than the window's own frames wait when dials are set."""
            put = sources[0].captured
            sources[0].put([frame(put, put % 200, clock=0.0)])
            if put >= DIALS.frames_ahead:
                sink.wait(1)

        while not served.snapshot().lowered:
            put_late()
        asked = replace(DIALS, look_ahead=look_ahead)
        served.set_dials(asked, WAIT)
        assert served.snapshot().dials == asked
        # So many late results, some of them of frames that came before, would have lowered the old dials.
        for _ in range(SEEN // 2 + DIALS.frames_ahead):
            put_late()
        assert served.snapshot().dials == asked
        assert served.snapshot().lowered == 0
