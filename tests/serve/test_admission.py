"""What a stream costs is known before it runs, and a budget refuses what does not fit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rdn_engine.config import WHOLE_VIDEO
from rdn_engine.errors import AdmissionRefused, ConfigError
from rdn_engine.serve.admission import MemoryBudget, StreamCost, stream_cost
from rdn_engine.serve.options import StreamOptions
from tests.fakes import DIALS
from tests.serve.doubles import FakeSource, Log, Sink, serving, watched_detector


def cost(window: int) -> StreamCost:
    return StreamCost(window=window, linking=0, results=0, pictures=0, thread=0)


def test_budget_refuses_and_says_what_is_left() -> None:
    budget = MemoryBudget(100)
    budget.reserve("a", cost(60))
    with pytest.raises(AdmissionRefused, match="stream 'b' wants") as refused:
        budget.reserve("b", cost(41))
    assert (refused.value.wanted, refused.value.left, budget.taken) == (41, 40, 60)
    budget.reserve("b", cost(40))
    budget.release("a")
    budget.release("nobody")
    assert budget.taken == 40


def test_another_cost_takes_the_place_of_the_old_one() -> None:
    budget = MemoryBudget(100)
    budget.reserve("a", cost(60))
    budget.reserve("a", cost(100))
    with pytest.raises(AdmissionRefused):
        budget.reserve("a", cost(101))
    assert budget.taken == 100


def test_links_results_and_pictures_cost() -> None:
    plain = stream_cost(1000, DIALS, 300, StreamOptions())
    linked = stream_cost(1000, replace(DIALS, link="boxes", link_delay=9), 300, StreamOptions())
    assert plain.linking == 0
    assert linked.linking == 10 * 300 * 4 * 36
    assert plain.results == (64 + DIALS.window + 1) * 300 * 36
    assert linked.results == plain.results + 9 * 300 * 36
    pictures = stream_cost(1000, DIALS, 300, StreamOptions(picture_bytes=5000))
    assert pictures.total == plain.total + 5000


def test_links_over_a_whole_video_are_not_for_live_streams() -> None:
    with pytest.raises(ConfigError, match="the whole video"):
        stream_cost(0, replace(DIALS, link="boxes", link_delay=WHOLE_VIDEO), 300, StreamOptions())


def test_scheduler_tells_the_cost_and_keeps_to_the_budget() -> None:
    detector, _ = watched_detector()
    with serving(detector) as scheduler:
        one = scheduler.cost().total
    opened: list[str] = []

    def refused_source(on_frame: object) -> FakeSource:
        opened.append("source")
        raise AssertionError

    log = Log()
    with serving(detector, byte_budget=2 * one + 1, on_event=log) as scheduler:
        first = scheduler.add("a", FakeSource, Sink())
        scheduler.add("b", FakeSource, Sink())
        assert first.nbytes == first.snapshot().nbytes == one
        with pytest.raises(AdmissionRefused) as refused:
            scheduler.add("c", refused_source, Sink())
        assert (refused.value.wanted, refused.value.left) == (one, 1)
        assert opened == []
        with pytest.raises(AdmissionRefused):
            first.set_dials(replace(DIALS, link="boxes", link_delay=1000))
        assert first.snapshot().dials == DIALS
        log.wait("dials_refused", "a")
        assert scheduler.snapshot().admitted_bytes == 2 * one
        first.remove(drain=False)
        assert first.wait(60)
        assert scheduler.snapshot().admitted_bytes == one
        scheduler.add("c", FakeSource, Sink())


def test_a_source_that_cannot_be_made_leaves_nothing() -> None:
    detector, _ = watched_detector()

    def broken(on_frame: object) -> FakeSource:
        raise OSError("no such camera")

    with serving(detector, byte_budget=2**30) as scheduler:
        with pytest.raises(OSError, match="no such camera"):
            scheduler.add("a", broken, Sink())
        assert scheduler.snapshot().admitted_bytes == 0
        assert scheduler.streams() == {}
        scheduler.add("a", FakeSource, Sink())
