"""What a stream costs is known before it runs, and a budget refuses what does not fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rdn_engine.config import WHOLE_VIDEO, Dials
from rdn_engine.detector import Detector
from rdn_engine.errors import AdmissionRefused, ConfigError
from rdn_engine.host.cosine_stage import CosineStage
from rdn_engine.host.model import HostModel
from rdn_engine.host.runtime import HostRuntime
from rdn_engine.host.stream import HostStream
from rdn_engine.serve.admission import OBJECT_BYTES, MemoryBudget, StreamCost, stream_cost
from rdn_engine.serve.options import StreamOptions
from rdn_engine.serve.scheduler import Scheduler
from rdn_engine.stream.identity import LOOKS, MOST_LOST
from tests.fakes import DIALS, FakeEncoder, image
from tests.host.test_cosine_stage import config_of, weights_of
from tests.serve.doubles import FakeSource, Log, Sink, serving, watched_detector


def cost_of(dials: Dials, options: StreamOptions | None = None) -> StreamCost:
    """Of a stream on the host with these dials, 300 boxes a frame and 16 features a proposal."""
    detector, _ = watched_detector()
    with detector.open_stream(dials) as stream:
        found = stream_cost(stream, dials, 300, options or StreamOptions(), features=16)
        assert found.window == stream.nbytes
    return found


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
    plain = cost_of(DIALS)
    linked = cost_of(replace(DIALS, link="boxes", link_delay=9))
    assert plain.linking == 0
    assert linked.linking == 10 * 300 * 4 * 36
    assert plain.results == (64 + DIALS.window + 1) * 300 * 36
    assert linked.results == plain.results + 9 * 300 * 36
    over_gaps = replace(DIALS, link="boxes", link_delay=9, link_gap=5)
    looks = cost_of(over_gaps).linking - linked.linking
    assert looks == (11 * LOOKS + MOST_LOST) * 64 + (300 + MOST_LOST) * OBJECT_BYTES
    pictures = cost_of(DIALS, StreamOptions(picture_bytes=5000))
    assert pictures.total == plain.total + 5000


def test_objects_are_known_without_features_where_the_relation_stage_gives_none() -> None:
    config = config_of()
    stage = CosineStage(config, weights_of(config), 1)
    detector = Detector(HostRuntime(HostModel(config, FakeEncoder(config.relation), stage, 1)))
    most, dials = config.detection.max_detections, replace(config.dials, link="boxes", link_delay=9)
    scheduler = Scheduler(detector, workers=1)
    try:
        looks = scheduler.cost(replace(dials, link_gap=5)).linking - scheduler.cost(dials).linking
    finally:
        scheduler.close(drain=False, deadline_s=5)
    assert looks == (most + MOST_LOST) * OBJECT_BYTES


def test_frames_between_come_out_with_their_steps_and_cost_as_results() -> None:
    plain = cost_of(DIALS)
    longer = cost_of(replace(DIALS, interval=4))
    assert longer.results == plain.results + 3 * (DIALS.window + 1) * 300 * 36
    # A latency budget goes to four times the interval, with a window of 1 by then.
    linked = replace(DIALS, link="boxes", link_delay=9)
    budget = cost_of(linked, StreamOptions(latency_seconds=1.0))
    assert budget.results == (64 + 4 * (1 + 1 + 9)) * 300 * 36


@pytest.mark.parametrize("size", [(16, 16), (40, 23), (17, 31), (16, 90), (300, 200), (1080, 1920)])
@pytest.mark.parametrize(
    "dials",
    [
        replace(DIALS, still=4.0),
        replace(DIALS, look_ahead=0, interval=3),
        replace(DIALS, look_ahead=2, interval=2, link="boxes", link_delay=3),
    ],
)
def test_what_frames_that_are_not_encoded_are_made_of_is_counted(size: tuple[int, int], dials: Dials) -> None:
    """Whatever size frames have: blocks are whole pixels of the frame, and more of them where those are few."""
    detector, _ = watched_detector()
    with detector.open_stream(dials) as stream:
        assert isinstance(stream, HostStream)
        for t in range(4):
            stream.push(image(t, *size))
        held = pictures_of(stream)
        counted = stream_cost(stream, dials, 300, StreamOptions(), features=16).skipping
        assert 0 < held <= counted <= max(20 * held, 2**16)


def pictures_of(stream: HostStream) -> int:
    """Bytes of the arrays that the gate and the filler of a stream hold."""
    gate, filler = vars(stream._still), stream._between
    held = [a for a in gate.values() if isinstance(a, np.ndarray)]
    frames = [*filler._frames, *([filler._last.frame] if filler._last else [])]
    trail = stream._trail
    frames += [*trail._frames, *([trail._last.frame] if trail._last else [])]
    held += [frame.picture.colours for frame in frames if frame.picture is not None]
    return sum(a.nbytes for a in held)


def test_nothing_is_counted_for_a_stream_that_encodes_every_frame_or_follows_none() -> None:
    assert cost_of(DIALS).skipping == cost_of(replace(DIALS, interval=4)).skipping == 0
    causal = replace(DIALS, look_ahead=0)
    assert cost_of(causal).skipping == 0
    assert cost_of(causal, StreamOptions(latency_seconds=1.0)).skipping == cost_of(replace(causal, interval=2)).skipping
    both = cost_of(replace(causal, interval=2, still=4.0))
    assert both.skipping == cost_of(replace(causal, interval=2)).skipping + cost_of(replace(causal, still=4.0)).skipping
    assert both.total == cost_of(causal).total + both.skipping + (both.results - cost_of(causal).results)


def test_links_over_a_whole_video_are_not_for_live_streams() -> None:
    with pytest.raises(ConfigError, match="the whole video"):
        cost_of(replace(DIALS, link="boxes", link_delay=WHOLE_VIDEO))


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
